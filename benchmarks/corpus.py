"""How fast a corpus is read, normalised and judged, in megabytes of UTF-8 text a second on one core.

    INKSTONE_DATA=… python benchmarks/corpus.py

Prints a line for each stage over tatoeba (pairs of some 60 bytes), pydocs (300 bytes) and Chinese laws (long
documents), then the whole recipe. CPU time, best of three.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from inkstone.corpus.read import read_documents, read_pairs
from inkstone.corpus.rules import make_rules, sides
from inkstone.recipes.clean import clean
from inkstone.text.normalize import normalize
from inkstone.text.segment import words
from inkstone.text.sentences import split_sentences

SETS: dict[str, tuple[Callable[..., Any], str]] = {
    "tatoeba": (read_pairs, "tatoeba_en_zh/train.jsonl.gz"),
    "pydocs": (read_pairs, "pydocs_en_zh/train.jsonl.gz"),
    "laws": (read_documents, "zh_laws/laws.jsonl.gz"),
}


def best(run: Callable[[], Any], times: int = 3) -> float:
    """The shortest of some runs, in seconds (CPU time: the cores are shared)."""
    taken = []
    for _ in range(times):
        began = time.process_time()
        run()
        taken.append(time.process_time() - began)
    return min(taken)


def judged(name: str, records: list[Any]) -> Callable[[], None]:
    """One rule over all records, with a fresh memory each time."""

    def run() -> None:
        rule = make_rules(names=[name])[name]
        for record in records:
            rule(record)

    return run


def stages_of(reader: Callable[..., Any], path: Path, records: list[Any]) -> dict[str, Callable[[], Any]]:
    """What is timed, by name."""
    texts = [side for record in records for side in sides(record)]
    runs: dict[str, Callable[[], Any]] = {
        "read": lambda: list(reader([path])),
        "normalize": lambda: [normalize(text) for text in texts],
        "sentences": lambda: [split_sentences(text) for text in texts],
        "words": lambda: [words(text) for text in texts],
    }
    return runs | {f"rule {rule}": judged(rule, records) for rule in make_rules() if rule != "overlap"}


def main() -> int:
    data = os.environ.get("INKSTONE_DATA")
    if not data:
        print(
            "Set INKSTONE_DATA to the folder that holds tatoeba_en_zh, pydocs_en_zh and zh_laws.",
            file=sys.stderr,
        )
        return 2
    stages: dict[str, dict[str, float]] = {}
    for name, (reader, file) in SETS.items():
        path = Path(data) / file
        records: list[Any] = list(reader([path]))
        laps = stages_of(reader, path, records)
        size = sum(len(side.encode()) for record in records for side in sides(record))
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "out.jsonl"
            laps["clean, whole recipe"] = partial(clean, [path], out)
            for stage, run in laps.items():
                stages.setdefault(stage, {})[name] = size / 1e6 / best(run)
        print(f"{name}: {len(records):,} records, {size / 1e6:.1f} MB", file=sys.stderr)
    print("| MB/s, one core | " + " | ".join(SETS) + " |\n|---|" + "---|" * len(SETS))
    for stage, speeds in stages.items():
        print(f"| {stage} | " + " | ".join(f"{speeds[name]:.1f}" for name in SETS) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
