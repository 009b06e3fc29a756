"""Classification trained here from nothing, beside TF-IDF with a linear classifier: one table, one set of defaults.

    INKSTONE_DATA=... python benchmarks/classification.py                     # all, a bag of features: minutes
    INKSTONE_DATA=... python benchmarks/classification.py trec clinc150 --architecture auto --seed 1 2 3

TREC and CLINC150 have official tests. MR, Subj, CR and MPQA are ten-fold (the `fold` field) and give the mean accuracy;
waimai trains on folds 0 to 8 and tests on 9. What is chosen - with `auto` the kind of model, the share kept for what is
out of scope - is chosen on validation texts: CLINC150's own, elsewhere a tenth of the training texts. The columns beside
ours: TF-IDF with a linear SVM trained in the same run; and, where there is one, a TextCNN from nothing as published by
Kim (2014) and run again by Harvard NLP. Nothing is written.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@dataclass(frozen=True, slots=True)
class Split:
    """One training and one test set; valid is empty where the data has none."""

    train: list[dict[str, object]]
    test: list[dict[str, object]]
    valid: list[dict[str, object]]


def rows(data: Path, *names: str) -> list[dict[str, object]]:
    """The rows of some files."""
    from inkstone.corpus.lines import Report
    from inkstone.corpus.tables import open_table

    def report(number: int, what: str) -> None:
        raise SystemExit(f"line {number} {what}")

    wanted: Report = report
    found = [row for name in names for _, row in open_table(data / name).rows(wanted)]
    return [row for row in found if str(row["text"]).strip()]


def trec(data: Path) -> Iterator[Split]:
    yield Split(
        rows(data, "kimcnn_sentences/trec.train.jsonl.gz"), rows(data, "kimcnn_sentences/trec.test.jsonl"), []
    )


def ten_folds(name: str, data: Path) -> Iterator[Split]:
    texts = rows(data, f"kimcnn_sentences/{name}.all.jsonl.gz")
    for fold in range(10):
        yield Split(
            [row for row in texts if row["fold"] != fold], [row for row in texts if row["fold"] == fold], []
        )


def waimai(data: Path) -> Iterator[Split]:
    texts = rows(data, "zh_sentiment/waimai.all.jsonl.gz")
    yield Split([row for row in texts if row["fold"] != 9], [row for row in texts if row["fold"] == 9], [])


def clinc150(data: Path) -> Iterator[Split]:
    folder = "clinc150"
    yield Split(
        rows(data, f"{folder}/train.jsonl.gz", f"{folder}/oos_train.jsonl"),
        rows(data, f"{folder}/test.jsonl.gz", f"{folder}/oos_test.jsonl.gz"),
        rows(data, f"{folder}/val.jsonl.gz", f"{folder}/oos_val.jsonl"),
    )


SETS: dict[str, Callable[[Path], Iterator[Split]]] = {
    "mr": partial(ten_folds, "mr"),
    "subj": partial(ten_folds, "subj"),
    "trec": trec,
    "cr": partial(ten_folds, "cr"),
    "mpqa": partial(ten_folds, "mpqa"),
    "waimai": waimai,
    "clinc150": clinc150,
}
CNN_RAND = {"mr": 0.759, "subj": 0.892, "trec": 0.882, "cr": 0.783, "mpqa": 0.846}


def sides(part: list[dict[str, object]]) -> tuple[list[str], list[str]]:
    """Texts and labels."""
    return [str(row["text"]) for row in part], [str(row["label"]) for row in part]


def scores(split: Split, architecture: str, seeds: list[int]) -> dict[str, list[float]]:
    """Each measure of the test set: the baseline's, then ours for each seed."""
    from inkstone.apps.classify import Classifier
    from inkstone.judge.baselines import TfidfLinear
    from inkstone.judge.evaluate import label_tallies
    from inkstone.learn.classifier import ClassifierOptions

    texts, labels = sides(split.train)
    tests, right = sides(split.test)
    gold = [(label,) for label in right]
    valid = sides(split.valid) if split.valid else None
    answers = [TfidfLinear().fit(texts, [(label,) for label in labels]).predict(tests)]
    for seed in seeds:
        options = ClassifierOptions(architecture=architecture, seed=seed)  # type: ignore[arg-type]
        ours = Classifier().fit(texts, labels, valid=valid, options=options)
        answers.append([found.labels for found in ours.predict(tests)])
    outside = ours.description["out_of_scope"]
    tallies = [label_tallies(gold, given, out_of_scope=outside) for given in answers]
    return {name: [one[name].value for one in tallies] for name in tallies[0]}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="*", help=f"of: {', '.join(SETS)}; default: all")
    parser.add_argument("--architecture", default="bag")
    parser.add_argument("--seed", type=int, nargs="+", default=[1])
    asked = parser.parse_args()
    if "INKSTONE_DATA" not in os.environ:
        sys.exit(
            "INKSTONE_DATA is not set. Set it to the folder with kimcnn_sentences, zh_sentiment and clinc150."
        )
    unknown = [name for name in asked.sets if name not in SETS]
    if unknown:
        sys.exit(f"{unknown[0]} is not known. Valid: {', '.join(SETS)}.")
    data = Path(os.environ["INKSTONE_DATA"])
    print(
        f"{'set':<10}{'measure':<22}{'inkstone':>10}{'TF-IDF':>10}{'CNN-rand':>10}{'seconds':>9}  each seed"
    )
    for name in asked.sets or SETS:
        started = time.perf_counter()
        found = [scores(split, asked.architecture, asked.seed) for split in SETS[name](data)]
        seconds = time.perf_counter() - started
        for measure in found[0]:
            theirs, *ours = np.mean([one[measure] for one in found], axis=0)
            published = f"{CNN_RAND[name]:.1%}" if name in CNN_RAND and measure == "accuracy" else ""
            each = " ".join(f"{100 * value:.2f}" for value in ours)
            figures = f"{np.mean(ours):>10.2%}{theirs:>10.2%}{published:>10}{seconds:>9.0f}  {each}"
            print(f"{name:<10}{measure:<22}{figures}", flush=True)


if __name__ == "__main__":
    main()
