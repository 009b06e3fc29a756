"""How long `inkstone translate "你好"` takes as a whole process, and how large the server is with both bundled models.

python benchmarks/cold_start.py
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

RUNS = 11
COMMAND = [str(Path(sys.executable).parent / "inkstone")]


def cold() -> list[float]:
    """Wall seconds of each run, the first (cold caches) left out."""
    seconds = []
    for _ in range(RUNS + 1):
        start = time.perf_counter()
        subprocess.run([*COMMAND, "translate", "你好"], check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def post(port: int, path: str, body: dict[str, object]) -> dict[str, object]:
    """One request to the server under test."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)  # type: ignore[no-any-return]


def server() -> tuple[float, float]:
    """Seconds until the first translation is answered, and the resident MB after both models answered."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start = time.perf_counter()
    process = subprocess.Popen([*COMMAND, "serve", "--port", str(port)], stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                post(port, "/v1/translate", {"text": "你好", "to": "en"})
                break
            except OSError:
                if process.poll() is not None or time.perf_counter() - start > 60:
                    raise
                time.sleep(0.05)
        first = time.perf_counter() - start
        for _ in range(20):
            post(port, "/v1/translate", {"text": ["The weather is nice today."] * 8, "to": "zh"})
            post(port, "/v1/classify", {"text": ["how much is in my account"] * 8})
        status = Path(f"/proc/{process.pid}/status").read_text()
        resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
        return first, resident / 1024
    finally:
        process.terminate()
        process.wait(20)


def main() -> None:
    """Print the table."""
    seconds = cold()
    first, resident = server()
    print(f"cores {os.cpu_count()}, runs {RUNS}")
    print(
        f"inkstone translate 你好, whole process   median {statistics.median(seconds):.2f} s   "
        f"min {min(seconds):.2f}   max {max(seconds):.2f}"
    )
    print(f"server: start to first answer           {first:.2f} s")
    print(f"server: resident, both models used      {resident:.0f} MB")


if __name__ == "__main__":
    main()
