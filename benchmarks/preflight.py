"""What the preflight predicts against what then happens: memory and time of small runs of several kinds.

    python benchmarks/preflight.py                       all of them
    python benchmarks/preflight.py pretrain              one kind
    python benchmarks/preflight.py --processor-time      on a busy machine: the processor's seconds, not the clock's

Each run is asked for twice, in processes of their own, so that nothing of the one reaches the other: `--dry-run --json`
for the prediction, then without a preflight, for what happens. Needs INKSTONE_DATA. Time is predicted for the machine as
it was during the preflight: without --processor-time alone on the machine, please.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

GOAL = 0.15
COMMON = {"epochs": 2, "patience": 0, "threads": 1}


def cut(source: Path, folder: Path, name: str, count: int) -> str:
    """The first records of a gzipped file, as a file of their own: a run of minutes needs no more."""
    with gzip.open(source, "rt", encoding="utf-8") as lines:
        kept = [line for _, line in zip(range(count), lines, strict=False)]
    (folder / name).write_text("".join(kept), "utf-8")
    return str(folder / name)


def runs(data: Path, folder: Path) -> dict[str, tuple[list[str], str]]:
    """Name: (arguments of `inkstone`, where its training options stand)."""
    tatoeba, trec = data / "tatoeba_en_zh", data / "kimcnn_sentences"
    pairs = ["--data", cut(tatoeba / "train.jsonl.gz", folder, "train.jsonl", 8000)]
    pairs += ["--valid", cut(tatoeba / "dev.jsonl.gz", folder, "dev.jsonl", 200)]
    pairs += ["--test", cut(tatoeba / "test.jsonl.gz", folder, "test.jsonl", 50)]
    labelled = ["--data", str(trec / "trec.train.jsonl.gz"), "--test", str(trec / "trec.test.jsonl")]
    poems = ["--data", cut(data / "chinese_poetry/tang.train.jsonl.gz", folder, "poems.jsonl", 4000)]
    poems += ["--fields", "text=lines"]
    translate = ["train", "translate", *pairs, "--size", "tiny"]
    classify = ["train", "classify", *labelled]
    pretrain = ["pretrain", *poems, "--size", "tiny", "--block", "128"]
    return {
        "translate": (translate, "training"),
        "translate-muon": ([*translate, "--set", "training.optimizer=muon"], "training"),
        "translate-rnn": ([*translate, "--architecture", "rnn"], "training"),
        "classify-transformer": (
            [*classify, "--architecture", "transformer"],
            "options.transformer.training",
        ),
        "classify-cnn": ([*classify, "--architecture", "cnn"], "options.cnn.training"),
        "pretrain-causal": (pretrain, "training"),
        "pretrain-masked": ([*pretrain, "--objective", "masked"], "training"),
    }


def inkstone(*arguments: str, by_processor: bool) -> dict[str, Any]:
    """The JSON document that a command prints."""
    clock = "import time; time.perf_counter = time.monotonic = time.process_time; " if by_processor else ""
    code = f"{clock}import sys; from inkstone.cli import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code, *arguments, "--json"], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    """Print one table."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("kind", nargs="?", default="", help="only runs whose names begin so")
    asked.add_argument("--processor-time", action="store_true")
    given = asked.parse_args()
    data = os.environ.get("INKSTONE_DATA")
    if not data:
        print("left out: set INKSTONE_DATA to the folder of data sets")
        return
    print(
        f"{'run':<22}{'steps':>7}{'memory':>12}{'actual':>10}{'off':>8}{'time':>11}{'actual':>10}{'off':>8}"
    )
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name, (arguments, place) in runs(Path(data), Path(folder)).items():
            if name.startswith(given.kind):
                command = [*arguments, "--out", f"{folder}/{name}"]
                command += [
                    part for key, value in COMMON.items() for part in ("--set", f"{place}.{key}={value}")
                ]
                worst = max(worst, compared(name, command, place, given.processor_time))
    print(f"\nThe worst is {worst:.1%} off; the goal is {GOAL:.0%}.")


def compared(name: str, command: list[str], place: str, by_processor: bool) -> float:
    """Print a line of the table; how far off the worse of the two predictions is."""
    foreseen = inkstone(*command, "--dry-run", by_processor=by_processor)
    happened = inkstone(*command, "--set", f"{place}.preflight=skip", by_processor=by_processor)
    memory = (foreseen["memory_bytes"], happened["peak_memory_bytes"])
    seconds = (foreseen["seconds"], happened["seconds"])
    off = [said / was - 1 for said, was in (memory, seconds)]
    print(
        f"{name:<22}{foreseen['steps']:>7}{memory[0] / 1e6:>9,.0f} MB{memory[1] / 1e6:>7,.0f} MB{off[0]:>+8.1%}"
        f"{seconds[0]:>9.1f} s{seconds[1]:>8.1f} s{off[1]:>+8.1%}",
        flush=True,
    )
    return max(map(abs, off))


if __name__ == "__main__":
    main()
