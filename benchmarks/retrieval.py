"""How well the bilingual sentence encoder finds things, alone and together with BM25, beside BM25 alone.

    INKSTONE_DATA=... python benchmarks/retrieval.py              # the bundled one
    INKSTONE_DATA=... python benchmarks/retrieval.py models/mine

    tatoeba        1,000 translations of the test set, English to Chinese and back
    tldr, pydocs   the same of their test sets
    medquad        the questions of fold 9 (no disease of it was learnt from), among all answers
    zh_medical_qa  the consultations of fold 9 (title and text), among all answers

One table: recall at 1 and 10 and the mean reciprocal rank with 95 % intervals over queries. "fused" is reciprocal rank
fusion of both (Cormack et al., 2009), with its constant 60; "blended" a weighted sum of both scores (Bruch et al., 2023),
its share chosen by the mean reciprocal rank of the questions of fold 8, among the same answers. A translation shares next
to no words with its original, so there BM25 finds nothing, as it must, and is not mixed in. Answers that stand in the
data twice are one candidate.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from inkstone.apps.embed import SentenceEncoder
from inkstone.corpus.related import RelatedData, read_related
from inkstone.ground.records import Related
from inkstone.judge.evaluate import measure
from inkstone.judge.facts import shown_measured
from inkstone.judge.retrieval import Retrieval
from inkstone.metrics.ranking import Scores, blended, first_ranks, fused
from inkstone.metrics.statistics import Measured
from inkstone.recipes.related import normalised

TRANSLATIONS = 1000
CONSULTATION = {"source": "title+question", "target": "answer"}
SHARES = tuple(n / 10 for n in range(1, 10))
VALID, TEST = 8, 9  # folds of the questions
MEASURES = ("recall_at_1", "recall_at_10", "mrr")


def pairs_of(data: str | RelatedData) -> list[Related]:
    """The pairs of a file, as the encoder reads them."""
    return [normalised(pair, "simplified") for pair in read_related([data])]


def back(pairs: Sequence[Related]) -> list[Related]:
    """The pairs the other way round."""
    return [Related(pair.target, pair.source) for pair in pairs]


def translations(data: Path) -> Iterator[tuple[str, Retrieval]]:
    """Translations to be found, by name."""
    for name, file in (("tatoeba", "test.jsonl.gz"), ("tldr", "test.jsonl"), ("pydocs", "test.jsonl.gz")):
        pairs = pairs_of(str(data / f"{name}_en_zh" / file))[:TRANSLATIONS]
        yield f"{name} en-zh", Retrieval.of(pairs)
        yield f"{name} zh-en", Retrieval.of(back(pairs))


def answers(data: Path, fold: int) -> Iterator[tuple[str, Retrieval]]:
    """Questions of a fold, whose answers are to be found among all, by name."""
    for name, file, fields in (
        ("medquad", "qa.jsonl.gz", None),
        ("zh_medical_qa", "internal_medicine.jsonl.gz", CONSULTATION),
    ):
        path = str(data / name / file)
        asked = pairs_of(RelatedData(path, fields, {"fold": [fold]}))
        others = [pair.target for pair in pairs_of(RelatedData(path, fields))]
        yield name, Retrieval.of(asked, others)


def best_share(sought: Retrieval, encoder: SentenceEncoder) -> float:
    """The share of the cosines in `blended` that finds most of these."""
    own, lexical = similar(sought, encoder), sought.lexical()
    found = {share: (1 / first_ranks(blended(own, lexical, share), sought.right)).mean() for share in SHARES}
    return max(found, key=found.__getitem__)


def similar(sought: Retrieval, encoder: SentenceEncoder, dimensions: int | None = None) -> Scores:
    """The cosine of every query and candidate."""
    queries, candidates = (
        encoder.encode(texts, dimensions=dimensions) for texts in (sought.queries, sought.candidates)
    )
    found: Scores = queries @ candidates.T
    return found


def row(sought: str, system: str, found: dict[str, Measured], note: str = "") -> str:
    """A line of the table."""
    values = " | ".join(shown_measured(name, found[name]) for name in MEASURES)
    return f"| {sought} | {system} | {values} | {note} |"


def main() -> None:
    """Encode, rank, print."""
    if "INKSTONE_DATA" not in os.environ:
        print("left out: set INKSTONE_DATA to the folder of data sets")
        return
    data = Path(os.environ["INKSTONE_DATA"])
    encoder = SentenceEncoder(sys.argv[1] if len(sys.argv) > 1 else "sentence-encoder")
    cut = encoder.bundle.description["dimensions"][1:]
    shares = {name: best_share(sought, encoder) for name, sought in answers(data, VALID)}
    print("| sought | system | recall at 1 | recall at 10 | mean reciprocal rank | texts |")
    print("|---|---|---|---|---|---|")
    for name, sought in (*translations(data), *answers(data, TEST)):
        started = time.perf_counter()
        own = similar(sought, encoder)
        speed = (len(sought.queries) + len(sought.candidates)) / (time.perf_counter() - started)
        lexical = sought.lexical()
        note = f"{len(sought.queries):,} among {len(sought.candidates):,}; {speed:,.0f} texts/s"
        systems = [("BM25", lexical, ""), ("encoder", own, note)]
        systems += [(f"first {width} numbers", similar(sought, encoder, width), "") for width in cut]
        if name in shares:
            share = shares[name]
            systems += [("fused", fused([own, lexical]), "")]
            systems += [("blended", blended(own, lexical, share), f"{share:.0%} cosine")]
        for system, scores, said in systems:
            found = measure(sought.tallies(scores), rng=np.random.default_rng(0))
            print(row(name, system, found, said), flush=True)


if __name__ == "__main__":
    main()
