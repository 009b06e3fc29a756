"""Classification trained here from nothing, and with the optional encoder: every kind of model on the same texts.

    INKSTONE_DATA=... python benchmarks/classification.py                        # all sets, a bag of features: minutes
    INKSTONE_DATA=... python benchmarks/classification.py kim --models all       # the table of Kim's sets: hours, once
    INKSTONE_DATA=... python benchmarks/classification.py trec --seed 1 2 3

TREC and CLINC150 have official tests. MR, Subj, CR and MPQA are ten-fold (the `fold` field) and give the mean accuracy;
waimai trains on folds 0 to 8 and tests on 9. What is chosen - when to stop, the share kept for what is out of scope - is
chosen on validation texts: CLINC150's own, elsewhere a tenth of the training texts. Models: bag, cnn (TextCNN), rnn (a
bidirectional LSTM with attention), transformer; minilm (a linear layer on the optional encoder) and minilm-tuned (the
encoder trained too). An ensemble is the mean of probabilities: "ensemble" of what is trained from nothing,
"bag+encoder" of the bag and what has the encoder, "all" of all. Beside them TF-IDF and a linear SVM trained in the same
run, and what Kim (2014) published: CNN-rand from nothing, CNN-non-static with vectors of 100 billion words of news. A
line says by how much the best column from nothing is above CNN-rand and the SVM, and the best with the encoder above
CNN-non-static.

With --keep FOLDER the probabilities of every model and fold are kept there, and a run that was stopped goes on. Those of
the table in docs/journal.md are in benchmarks/kept: `kim --models kept --keep benchmarks/kept` prints it in a minute;
another folder computes it anew.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

Table = dict[str, Any]  # what one model said of one test set: labels, probabilities (N, C), seconds


@dataclass(frozen=True, slots=True)
class Split:
    """One training and one test set; valid is empty where the data has none."""

    name: str
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
    folder = "kimcnn_sentences"
    yield Split(
        "trec", rows(data, f"{folder}/trec.train.jsonl.gz"), rows(data, f"{folder}/trec.test.jsonl"), []
    )


def ten_folds(name: str, data: Path) -> Iterator[Split]:
    texts = rows(data, f"kimcnn_sentences/{name}.all.jsonl.gz")
    for fold in range(10):
        yield fold_of(f"{name}-{fold}", texts, fold)


def fold_of(name: str, texts: list[dict[str, object]], fold: int) -> Split:
    """One fold as test."""
    return Split(
        name, [row for row in texts if row["fold"] != fold], [row for row in texts if row["fold"] == fold], []
    )


def waimai(data: Path) -> Iterator[Split]:
    yield fold_of("waimai", rows(data, "zh_sentiment/waimai.all.jsonl.gz"), 9)


def clinc150(data: Path) -> Iterator[Split]:
    folder = "clinc150"
    yield Split(
        "clinc150",
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
KIM = ("mr", "subj", "trec", "cr", "mpqa")
# Kim (2014), run again by Harvard NLP (github.com/harvardnlp/sent-conv-torch): from nothing, and with word2vec of news.
PUBLISHED = {
    "CNN-rand": {"mr": 75.9, "subj": 89.2, "trec": 88.2, "cr": 78.3, "mpqa": 84.6},
    "CNN-non-static": {"mr": 81.3, "subj": 93.4, "trec": 92.8, "cr": 84.4, "mpqa": 89.7},
}
MODELS = ("bag", "cnn", "rnn", "transformer", "minilm", "minilm-tuned")
WITH_ENCODER = ("minilm", "minilm-tuned")
FROM_NOTHING = ("bag", "cnn", "rnn", "transformer")
ENSEMBLES = {  # column -> the models whose probabilities are averaged, as far as they are there
    "ensemble": FROM_NOTHING,
    "bag+encoder": ("bag", *WITH_ENCODER),
    "all": MODELS,
}


def sides(part: list[dict[str, object]]) -> tuple[list[str], list[str]]:
    """Texts and labels."""
    return [str(row["text"]) for row in part], [str(row["label"]) for row in part]


def options_of(model: str, seed: int) -> Any:
    """How each model is trained: the defaults of `inkstone train classify --architecture ...`."""
    from inkstone.learn.classifier import ClassifierOptions
    from inkstone.learn.pretrained import TUNING, PretrainedOptions

    kind: Any = "pretrained" if model in WITH_ENCODER else model
    pretrained = PretrainedOptions(tuning=TUNING if model == "minilm-tuned" else None)
    return ClassifierOptions(architecture=kind, pretrained=pretrained, seed=seed)


def trained(split: Split, model: str, seed: int) -> Table:
    """Train one model and ask it about the test set, through the engine that would be served."""
    from inkstone.apps.classify import Classifier
    from inkstone.learn import pretrained

    if not hasattr(pretrained.opened, "cache_info"):  # the folds of a set share their texts: read them once
        pretrained.opened = lru_cache(maxsize=1)(pretrained.opened)
    started = time.perf_counter()
    texts, labels = sides(split.train)
    valid = sides(split.valid) if split.valid else None
    classifier = Classifier().fit(texts, labels, valid=valid, options=options_of(model, seed))
    found = classifier.predict(sides(split.test)[0])
    names = list(classifier.labels)
    return {
        "labels": names,
        "out_of_scope": classifier.description["out_of_scope"],
        "probabilities": [[one.scores[name] for name in names] for one in found],
        "seconds": time.perf_counter() - started,
    }


def linear(split: Split) -> list[tuple[str, ...]]:
    """The answers of TF-IDF and a linear SVM."""
    from inkstone.judge.baselines import TfidfLinear

    texts, labels = sides(split.train)
    return TfidfLinear().fit(texts, [(label,) for label in labels]).predict(sides(split.test)[0])


def kept(folder: Path | None, split: str, model: str, seed: int, make: Callable[[], Table]) -> Table:
    """What the folder has of this test set and model; else made, and put there. A file holds all folds of a set."""
    if folder is None:
        return make()
    file = folder / f"{split.split('-')[0]}-{model}-{seed}.json.gz"
    tables: dict[str, Table] = json.loads(gzip.decompress(file.read_bytes())) if file.exists() else {}
    if split not in tables:
        made = make()
        made["probabilities"] = [[round(one, 6) for one in row] for row in made["probabilities"]]
        tables[split] = made
        folder.mkdir(parents=True, exist_ok=True)
        beside = file.with_suffix(".part")
        beside.write_bytes(gzip.compress(json.dumps(tables, separators=(",", ":")).encode(), mtime=0))
        beside.rename(file)
    return tables[split]


def whole_in(folder: Path, splits: Sequence[Split], seed: int) -> list[str]:
    """The models of which the folder has every fold of a set."""

    def missing() -> Table:
        raise LookupError

    found = []
    for model in MODELS:
        try:
            for split in splits:
                kept(folder, split.name, model, seed, missing)
        except LookupError:
            continue
        found.append(model)
    if not found:
        sys.exit(f"{folder} has no model of all folds of {splits[0].name.split('-')[0]}.")
    return found


def answers(tables: Sequence[Table]) -> list[tuple[str, ...]]:
    """The likeliest label of each text by the mean of the probabilities."""
    shares_NC: NDArray[Any] = np.mean([table["probabilities"] for table in tables], axis=0)
    return [(tables[0]["labels"][place],) for place in shares_NC.argmax(axis=1)]


def measured(
    split: Split, models: Sequence[str], seed: int, folder: Path | None
) -> dict[str, dict[str, float]]:
    """Column -> measure -> value of one test set."""
    from inkstone.judge.evaluate import label_tallies

    tables = {
        model: kept(folder, split.name, model, seed, partial(trained, split, model, seed)) for model in models
    }
    given = {model: answers([table]) for model, table in tables.items()}
    for column, wanted in ENSEMBLES.items():
        members = [model for model in models if model in wanted]
        if len(members) > 1 and (column != "all" or set(members) > set(FROM_NOTHING)):
            given[column] = answers([tables[model] for model in members])
    given["SVM"] = linear(split)
    gold = [(label,) for label in sides(split.test)[1]]
    outside = next(iter(tables.values()))["out_of_scope"]
    tallied = {name: label_tallies(gold, said, out_of_scope=outside) for name, said in given.items()}
    figures = {
        name: {measure: 100 * one.value for measure, one in of.items()} for name, of in tallied.items()
    }
    for model, table in tables.items():
        figures[model]["seconds"] = table["seconds"]
    return figures


def margins(columns: dict[str, float], bars: dict[str, float]) -> str:
    """How far the best columns are above what they have to beat."""
    encoded = {one for one in columns if one in (*WITH_ENCODER, "bag+encoder", "all")}
    own = {one: value for one, value in columns.items() if one not in {*encoded, "SVM"}}
    best, beaten = max(own, key=own.__getitem__), max(bars["CNN-rand"], columns["SVM"])
    said = f"from nothing: {best} {own[best] - beaten:+.2f}"
    if encoded:
        best = max(columns, key=columns.__getitem__)
        said += f"; with the encoder: {best} {columns[best] - bars['CNN-non-static']:+.2f}"
    return said


def print_set(name: str, splits: list[dict[str, dict[str, float]]]) -> None:
    """One set: a line for each measure, and the seconds a model took for one training."""
    for measure in splits[0]["SVM"]:
        columns = {one: float(np.mean([split[one][measure] for split in splits])) for one in splits[0]}
        bars = {title: values[name] for title, values in PUBLISHED.items() if name in values}
        above = margins(columns, bars) if measure == "accuracy" and bars else ""
        columns |= bars if measure == "accuracy" else {}
        print(
            f"{name:<10}{measure:<22}" + "  ".join(f"{title} {value:.2f}" for title, value in columns.items())
        )
        if above:
            print(f"{'':<10}{'above the bars':<22}{above}")
    seconds = {
        one: float(np.mean([split[one]["seconds"] for split in splits]))
        for one in splits[0]
        if "seconds" in splits[0][one]
    }
    print(
        f"{'':<10}{'seconds a training':<22}"
        + "  ".join(f"{one} {value:.0f}" for one, value in seconds.items()),
        flush=True,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sets", nargs="*", help=f"of: {', '.join(SETS)}, kim (the first five); default: all")
    parser.add_argument(
        "--models",
        nargs="+",
        default=["bag"],
        help=f"of: {', '.join(MODELS)}, all; kept: what is whole in --keep",
    )
    parser.add_argument("--seed", type=int, nargs="+", default=[1])
    parser.add_argument(
        "--keep", type=Path, help="a folder for the probabilities; what is there is not trained again"
    )
    asked = parser.parse_args()
    if "INKSTONE_DATA" not in os.environ:
        sys.exit(
            "INKSTONE_DATA is not set. Set it to the folder with kimcnn_sentences, zh_sentiment and clinc150."
        )
    sets = [one for name in asked.sets or SETS for one in (KIM if name == "kim" else (name,))]
    models = list(MODELS) if "all" in asked.models else asked.models
    if models == ["kept"] and asked.keep is None:
        sys.exit("--models kept needs --keep FOLDER, where the probabilities are.")
    known = ("kept",) if models == ["kept"] else MODELS
    for what, given, valid in (("set", sets, tuple(SETS)), ("model", models, known)):
        unknown = [one for one in given if one not in valid]
        if unknown:
            sys.exit(f"{what} {unknown[0]} is not known. Valid: {', '.join(valid)}.")
    data = Path(os.environ["INKSTONE_DATA"])
    for seed in asked.seed:
        print(f"seed {seed}")
        for name in sets:
            splits = list(SETS[name](data))
            chosen = whole_in(asked.keep, splits, seed) if models == ["kept"] else models
            print_set(name, [measured(split, chosen, seed, asked.keep) for split in splits])


if __name__ == "__main__":
    main()
