"""What training promises, kept or not, on real captions (Multi30k, some hundred batches), as one table.

    INKSTONE_DATA=... python benchmarks/exactness.py                      # ten minutes on two cores
    INKSTONE_DATA=... python benchmarks/exactness.py --kills 10 --set training.epochs=1

again         the same command once more                          weights equal, byte for byte
killed        SIGKILL at random moments, resumed each time        equal
workers       batches made ahead by two other processes           equal
rerun         `inkstone rerun`, from the receipt                  losses equal, bit for bit
two processes torchrun, gloo, two batches a step (DDP and FSDP2)  as one process with two batches a step, up to rounding
Ray           two workers of a local cluster                      the same

The largest difference of two weights stands beside each; the exit code is 1 where something that must be equal is not.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

BIN = Path(sys.executable).parent
BASE = ("training.epochs=0.15", "training.save_every_s=1", "training.threads=1", "training.preflight=skip")
ROUNDING = 1e-2  # Muon rounds its steps to bfloat16: a last bit there is 1e-3


def train(out: Path, settings: list[str], *more: str, launcher: tuple[str, ...] = ()) -> list[str]:
    """The command of a run."""
    words = [word for one in settings for word in ("--set", one)]
    start = launcher or (str(BIN / "inkstone"),)
    return [*start, "train", "translate", "--recipe", "multi30k-en-de", "--out", str(out), *words, *more]


def run(command: list[str], wanted: int = 0) -> None:
    """Run it, and end with what it said where it failed."""
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode != wanted:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")


def kill_and_resume(out: Path, settings: list[str], kills: int, seconds: float, seed: int) -> None:
    """The same run, killed so often at random moments of what an uninterrupted one takes."""
    generator = random.Random(seed)
    command = train(out, settings)
    for _ in range(kills):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(generator.uniform(0.3, 0.8) * seconds / min(kills, 2))
        process.send_signal(signal.SIGKILL)
        process.wait()
        if out.exists():  # it ended before it was killed
            return
        if any(out.with_name(out.name + ".run").rglob("checkpoints")):
            command = [str(BIN / "inkstone"), "train", "resume", str(out.with_name(out.name + ".run"))]
    run(command)


def apart(one: Path, other: Path) -> float:
    """The largest difference of two weights; 0 where the files are the same, byte for byte."""
    from safetensors.numpy import load_file

    if (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes():
        return 0.0
    ours, theirs = (load_file(place / "model.safetensors") for place in (one, other))
    return max(float(abs(ours[name] - theirs[name]).max()) for name in ours)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1, help="of the moments of killing")
    parser.add_argument("--set", action="append", default=[], help="anything of the recipe")
    asked = parser.parse_args()
    if "INKSTONE_DATA" not in os.environ:
        print("left out: set INKSTONE_DATA to the folder of data sets")
        return 0
    settings, broken = [*BASE, *asked.set], []
    print(
        "| promise | compared with | largest difference of two weights | kept |\n|---|---|---|---|",
        flush=True,
    )

    def line(promise: str, against: str, difference: float, allowed: float = 0.0) -> None:
        kept = difference <= allowed
        broken.extend([] if kept else [promise])
        shown = "0, byte for byte" if not difference else f"{difference:.1e}"
        print(f"| {promise} | {against} | {shown} | {'yes' if kept else 'NO'} |", flush=True)

    with tempfile.TemporaryDirectory(prefix="inkstone-bench-") as scratch:
        folder = Path(scratch)
        start = time.perf_counter()
        run(train(folder / "whole", settings))
        seconds = time.perf_counter() - start
        run(train(folder / "again", settings))
        line("the same seed", "the same command", apart(folder / "whole", folder / "again"))
        kill_and_resume(folder / "killed", settings, asked.kills, seconds, asked.seed)
        line(f"killed {asked.kills} times", "uninterrupted", apart(folder / "whole", folder / "killed"))
        run(train(folder / "ahead", [*settings, "training.workers=2"]))
        line("two loader workers", "none", apart(folder / "whole", folder / "ahead"))
        again = [str(BIN / "inkstone"), "rerun", str(folder / "whole"), "--steps", "50", "--json"]
        again += ["--data", os.environ["INKSTONE_DATA"]]
        found = json.loads(subprocess.run(again, capture_output=True, check=False).stdout or "{}")
        line("rerun, 50 steps", "the receipt (losses)", 0.0 if found.get("equal") else float("inf"))
        two = [*settings, "training.accumulate=2"]
        run(train(folder / "one", two))
        torchrun = (str(BIN / "torchrun"), "--nproc-per-node", "2", "-m", "inkstone")
        for parallel in ("ddp", "fsdp"):
            place = folder / parallel
            run(train(place, [*two, f"training.parallel={parallel}"], launcher=torchrun))
            line(f"two processes, {parallel}", "one", apart(folder / "one", place), ROUNDING)
        if find_spec("ray") is None:
            print("| two workers on Ray | left out: pip install inkstone[cluster] | | |")
        else:
            run(train(folder / "ray", two, "--on", "ray"))
            line("two workers on Ray", "one process", apart(folder / "one", folder / "ray"), ROUNDING)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
