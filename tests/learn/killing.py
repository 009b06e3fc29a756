"""Trains the toy task in children that are killed at random moments, over and over, until so many were killed.

    python killing.py PLACE SEED KILLS WORKERS   ->   one line of JSON: kills, inside, runs, leftovers, sha256

Children are forked, so that torch is imported once. Every step saves, so most kills fall into saving; half of them wait
for it: until a checkpoint is half written, and a moment that is drawn. A run whose child came to its end is finished;
another is begun beside it. A resumed child says where it stood, so that nothing is lost unseen.
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
import torch._dynamo  # an optimiser brings it: imported before forking, since it takes long
import torch.utils.tensorboard  # noqa: F401  (so does this)

LONGEST_S = 0.4  # of a life
MOMENT_S = 0.01  # about what writing a checkpoint of the toy takes


def child(place: Path, workers: int) -> None:
    """One life of a run; ends the process."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    _, digest = reversing.run(place, save_every_s=0, workers=workers)
    (place / "sha256").write_text(digest)
    os._exit(0)


def half_written(place: Path) -> set[str]:
    """Checkpoints that are being written, or were when their writer died."""
    return {one.name for one in (place / "checkpoints").glob(".*.part")}


def stands(place: Path) -> int:
    """The step of the newest checkpoint that has its name."""
    return max((int(one.name[5:]) for one in (place / "checkpoints").glob("last-*")), default=0)


def life(place: Path, random_: random.Random, workers: int) -> tuple[bool, bool]:
    """Fork, wait, kill: whether it was killed, and whether that left a checkpoint half written."""
    before = half_written(place)
    pid = os.fork()
    if pid == 0:
        try:
            child(place, workers)
        finally:
            os._exit(1)
    waits_for_saving = random_.random() < 0.5
    until = time.monotonic() + random_.uniform(0.02, LONGEST_S)
    moment = random_.uniform(0, MOMENT_S)
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            assert status == 0, f"a child failed: {status}"
            return False, False
        if time.monotonic() > until and (not waits_for_saving or half_written(place) - before):
            if waits_for_saving:
                time.sleep(moment)
            os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            return os.WIFSIGNALED(status), bool(half_written(place) - before)
        time.sleep(0.0005)


def main(root: Path, seed: int, wanted: int, workers: int) -> None:
    """Runs in `root`, one after the other, until so many children were killed and the last run ended."""
    random_ = random.Random(seed)
    kills = inside = runs = 0
    digests: set[str] = set()
    leftovers: list[str] = []
    while kills < wanted:
        place = root / f"run-{runs}"
        place.mkdir(parents=True)
        runs += 1
        while not (place / "sha256").exists():
            before = stands(place)
            if kills == wanted:
                child_ended = os.spawnv(
                    os.P_WAIT, sys.executable, [sys.executable, __file__, str(place), str(workers)]
                )
                assert child_ended == 0, "the last life failed"
                break
            killed, was_inside = life(place, random_, workers)
            kills, inside = kills + killed, inside + was_inside
            assert stands(place) >= before, f"seed {seed}: step {before} was saved, {stands(place)} is left"
        digests.add((place / "sha256").read_text())
        leftovers += [one.name for one in (place / "checkpoints").iterdir() if one.name.startswith(".")]
    found = {"seed": seed, "kills": kills, "inside": inside, "runs": runs, "leftovers": leftovers}
    sys.stdout.write(json.dumps(found | {"sha256": sorted(digests)}) + "\n")


if __name__ == "__main__":
    if len(sys.argv) == 3:
        child(Path(sys.argv[1]), int(sys.argv[2]))
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
