"""Trains the toy task in children that are killed at random moments, until one reaches the end.

    python killing.py PLACE SEED LONGEST_S   ->   one line of JSON: kills, leftovers, sha256

Children are forked, so that torch is imported once. Every step saves, so most kills fall into saving.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import reversing
import torch.utils.tensorboard  # noqa: F401  (imported before forking: it takes long)

MOST = 12  # kills; the next child may reach the end


def child(place: Path) -> None:
    """One life of a run; ends the process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    _, digest = reversing.run(place, save_every_s=0)
    (place / "sha256").write_text(digest)
    os._exit(0)


def main(place: Path, seed: int, longest_s: float) -> None:
    """Fork, wait, kill; until a child ends by itself."""
    random_ = random.Random(seed)
    kills = 0
    while True:
        pid = os.fork()
        if pid == 0:
            try:
                child(place)
            finally:
                os._exit(1)
        until = time.monotonic() + (60.0 if kills == MOST else random_.uniform(0.02, longest_s))
        ended, status = 0, 0
        while not ended and time.monotonic() < until:
            time.sleep(0.002)
            ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            assert status == 0, f"a child failed: {status}"
            break
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        kills += 1
    leftovers = [p.name for p in (place / "checkpoints").iterdir() if p.name.startswith(".")]
    found = {"kills": kills, "leftovers": leftovers, "sha256": (place / "sha256").read_text()}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
