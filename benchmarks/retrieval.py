"""How well the bilingual sentence encoder finds things, alone and together with BM25, beside BM25 alone.

    INKSTONE_DATA=... python benchmarks/retrieval.py models/sentence-encoder
    INKSTONE_DATA=... python benchmarks/retrieval.py              # trains the recipe first: hours

    tatoeba        1,000 translations of the test set, English to Chinese and back
    tldr, pydocs   the same of their test sets
    medquad        the questions of fold 9 (no disease of it was learnt from), among all answers
    zh_medical_qa  the consultations of fold 9 (title and text), among all answers

One table: recall at 1 and 10 and the mean reciprocal rank with 95 % intervals over queries. "fused" is reciprocal rank
fusion of both (Cormack et al., 2009), with its constant 60. A translation shares next to no words with its original, so
there BM25 finds nothing, as it must. Answers that stand in the data twice are one candidate.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from inkstone.apps.embed import SentenceEncoder
from inkstone.cli import main as inkstone
from inkstone.corpus.related import RelatedData, read_related
from inkstone.ground.records import Related
from inkstone.judge.evaluate import measure
from inkstone.judge.facts import shown_measured
from inkstone.judge.retrieval import Retrieval
from inkstone.metrics.ranking import fused
from inkstone.metrics.statistics import Measured
from inkstone.recipes.related import normalised

ROOT = Path(__file__).parent.parent
TRANSLATIONS = 1000
CONSULTATION = {"source": "title+question", "target": "answer"}
MEASURES = ("recall_at_1", "recall_at_10", "mrr")


def pairs_of(data: str | RelatedData) -> list[Related]:
    """The pairs of a file, as the encoder reads them."""
    return [normalised(pair, "simplified") for pair in read_related([data])]


def back(pairs: Sequence[Related]) -> list[Related]:
    """The pairs the other way round."""
    return [Related(pair.target, pair.source) for pair in pairs]


def sets(data: Path) -> Iterator[tuple[str, Retrieval]]:
    """What is to be found, by name."""
    for name, file in (("tatoeba", "test.jsonl.gz"), ("tldr", "test.jsonl"), ("pydocs", "test.jsonl.gz")):
        pairs = pairs_of(str(data / f"{name}_en_zh" / file))[:TRANSLATIONS]
        yield f"{name} en-zh", Retrieval.of(pairs)
        yield f"{name} zh-en", Retrieval.of(back(pairs))
    for name, file, fields in (
        ("medquad", "qa.jsonl.gz", None),
        ("zh_medical_qa", "internal_medicine.jsonl.gz", CONSULTATION),
    ):
        path = str(data / name / file)
        tested = pairs_of(RelatedData(path, fields, {"fold": [9]}))
        others = [pair.target for pair in pairs_of(RelatedData(path, fields))]
        yield name, Retrieval.of(tested, others)


def row(sought: str, system: str, found: dict[str, Measured], note: str = "") -> str:
    """A line of the table."""
    values = " | ".join(shown_measured(name, found[name]) for name in MEASURES)
    return f"| {sought} | {system} | {values} | {note} |"


def main() -> None:
    """Encode, rank, print."""
    if "INKSTONE_DATA" not in os.environ:
        print("left out: set INKSTONE_DATA to the folder of data sets")
        return
    with tempfile.TemporaryDirectory(prefix="inkstone-bench-") as scratch:
        model = sys.argv[1] if len(sys.argv) > 1 else str(Path(scratch) / "sentence-encoder")
        if len(sys.argv) == 1:
            recipe = str(ROOT / "inkstone" / "recipes" / "sentence-encoder.yaml")
            if inkstone(["train", "embed", "--recipe", recipe, "--out", model]):
                raise SystemExit("the training failed")
        encoder = SentenceEncoder(model)
        print("| sought | system | recall at 1 | recall at 10 | mean reciprocal rank | texts |")
        print("|---|---|---|---|---|---|")
        for name, sought in sets(Path(os.environ["INKSTONE_DATA"])):
            started = time.perf_counter()
            own = encoder.encode(sought.queries) @ encoder.encode(sought.candidates).T
            speed = (len(sought.queries) + len(sought.candidates)) / (time.perf_counter() - started)
            lexical = sought.lexical()
            note = f"{len(sought.queries):,} among {len(sought.candidates):,}; {speed:,.0f} texts/s"
            for system, scores, said in (
                ("BM25", lexical, ""),
                ("encoder", own, note),
                ("fused", fused([own, lexical]), ""),
            ):
                found = measure(sought.tallies(scores), rng=np.random.default_rng(0))
                print(row(name, system, found, said), flush=True)


if __name__ == "__main__":
    main()
