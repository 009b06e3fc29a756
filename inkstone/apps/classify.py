"""Classification: texts in, labels and probabilities out.

    Classifier().fit(texts, labels)      trains (needs PyTorch), then works like one that was opened
    Classifier("intents-en")             opens a bundle; needs neither PyTorch nor, for a bag, CTranslate2

A text has exactly one label (probabilities add up to 1) or, with a multi-label model, any number (each has its own
probability, and those above one half are given). A blank text is answered like any other: with what the model expects
when it knows nothing.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from inkstone.apps.back_translation import back_translation
from inkstone.generate.classify_engine import ClassifyEngine, sigmoid, softmax
from inkstone.generate.classify_open import open_classify_engine
from inkstone.ground.errors import BundleError, ConfigError, DataError, require
from inkstone.ground.progress import say
from inkstone.metrics.classification import (
    accuracy,
    in_scope_accuracy,
    macro_f1,
    micro_f1,
    out_of_scope_recall,
)
from inkstone.metrics.statistics import Measured, bootstrap
from inkstone.model.bundle import Bundle, new_bundle, open_bundle

if TYPE_CHECKING:
    from inkstone.learn.classifier import Choice, ClassifierOptions

OUT_OF_SCOPE = ("oos", "out_of_scope", "out-of-scope")  # label names taken for "none of the others"
LabelsOf = str | Sequence[str]  # one label, or for multi-label data any number of them


@dataclass(frozen=True, slots=True)
class Classification:
    """The labels of a text (one, unless the model is multi-label), and the probability of every label, best first."""

    text: str
    labels: tuple[str, ...]
    scores: dict[str, float]

    @property
    def label(self) -> str | None:
        """The one label; of several the most probable; None where there is none."""
        return self.labels[0] if self.labels else None


class Classifier:
    """Sorts texts into classes.

    >>> Classifier("intents-en").predict(["what is my account balance"])[0].label
    'balance'
    """

    def __init__(
        self, bundle: str | Path | None = None, *, threads: int = 0, beside: Sequence[str | Path] = ()
    ) -> None:
        """bundle: a folder or the name of a bundled model; None makes an empty one, to be fitted.

        beside: other classifiers with the same labels; their probabilities are averaged with this one's.
        """
        self.bundle: Bundle | None = None
        self.description: dict[str, Any] = {}
        self.choice: Choice | None = None
        self.parity: dict[str, Any] = {}
        self._engine: ClassifyEngine | None = None
        self._scratch: weakref.finalize[[Path], Self] | None = None  # removes what fit wrote
        if bundle is not None:
            self.bundle = open_bundle(bundle, task="classify")
            self._open(self.bundle.path, self.bundle.description, threads)
        self._beside = [Classifier(one, threads=threads) for one in beside]
        for other in self._beside:
            self._refuse_unlike(other)

    @property
    def name(self) -> str:
        """The model's name; of several beside each other, all names."""
        return " + ".join(str(one._described("name")) for one in (self, *self._beside))

    @property
    def labels(self) -> tuple[str, ...]:
        """Every label the model can give."""
        return tuple(self._described("labels"))

    @property
    def multi_label(self) -> bool:
        """Whether a text may have any number of labels."""
        return bool(self._described("multi_label"))

    @property
    def engine(self) -> ClassifyEngine:
        """What runs the model."""
        if self._engine is None:
            raise ConfigError(
                "this classifier is empty. Call fit first, or open a bundle: Classifier(folder)."
            )
        return self._engine

    @engine.setter
    def engine(self, engine: ClassifyEngine) -> None:
        self._engine = engine

    def fit(
        self,
        texts: Sequence[str],
        labels: Sequence[LabelsOf],
        *,
        valid: tuple[Sequence[str], Sequence[LabelsOf]] | None = None,
        options: ClassifierOptions | None = None,
        languages: Sequence[str] | None = None,
        run: str | Path | None = None,
        vectors: str | Path | None = None,
    ) -> Self:
        """Train on texts and their labels: a string each, or for multi-label data a list of strings each.

        valid: texts to choose the model by; by default a tenth is held out. run: a folder that keeps the state of the
        training, so that it can go on after it was stopped. vectors: a file of word vectors, of any format known here, to
        begin the embedding of a model that reads tokens with. Raises DataError for data that cannot be learnt from.
        """
        require("torch", "training a classifier", "train")
        from inkstone.learn.classifier import ClassifierOptions, choose
        from inkstone.learn.first_embeddings import FirstEmbeddings
        from inkstone.learn.labelled import Texts

        data, multi_label = _checked(texts, labels)
        held = None if valid is None else _checked(*valid, multi_label=multi_label)[0]
        options = options or ClassifierOptions()
        if not any(text.strip() for text in data[0]):
            raise DataError("every text is blank: there is nothing to learn from.")
        known = {label for row in data[1] for label in row}
        if held is not None:
            _refuse_unknown(held[1], known, "the validation texts")
        if options.out_of_scope is None:
            options = replace(
                options, out_of_scope=next((name for name in OUT_OF_SCOPE if name in known), None)
            )
        elif options.out_of_scope not in known:
            raise DataError(f"no training text has the out-of-scope label {options.out_of_scope!r}.")
        scratch = Path(tempfile.mkdtemp(prefix="inkstone-classifier-"))
        if self._scratch is not None:
            self._scratch()
        self._scratch = weakref.finalize(self, _remove, scratch)
        state = Path(run) if run is not None else scratch / "run"
        self.choice = choose(
            Texts(*data),
            None if held is None else Texts(*held),
            options,
            multi_label=multi_label,
            run=state,
            vectors=None if vectors is None else FirstEmbeddings.read(vectors),
            rewrite=back_translation(options.augment),
        )
        folder = scratch / "model"
        folder.mkdir()
        self.parity = self._ship(folder)
        space = self.choice.space
        description = {
            "task": "classify",
            "name": "unnamed",
            "languages": list(languages or _languages(data[0])),
            "labels": list(space.names),
            "multi_label": multi_label,
            "architecture": self.choice.best.architecture,
            "out_of_scope": None if multi_label else options.out_of_scope,
        }
        self.bundle, self._beside = None, []
        self._open(folder, description, 0)
        self.description["reserved"] = self._reserve(options.out_of_scope)
        return self

    def _ship(self, folder: Path) -> dict[str, Any]:
        from inkstone.ship.classify import ship_bag, ship_reader

        assert self.choice is not None
        best, valid, space = self.choice.best, self.choice.valid, self.choice.space
        reader: Any = best.reader
        model: Any = best.model
        if best.architecture == "bag":
            return ship_bag(model, reader, folder, valid.texts)
        return ship_reader(
            model, reader, folder, valid.texts, lambda logits: space.measure(valid.labels, logits)
        )

    def _reserve(self, out_of_scope: str | None) -> float:
        """The share of probability reserved for what is out of scope. Only texts the weights have not seen can tell."""
        from inkstone.learn.classifier import reserved_share

        choice = self.choice
        assert choice is not None
        if out_of_scope is None or choice.space.multi_label or choice.held_out:
            return 0.0
        shares = softmax(self.engine.logits(choice.valid.texts))
        return reserved_share(shares, choice.valid.labels, choice.space, out_of_scope)

    def predict(self, texts: Sequence[str]) -> list[Classification]:
        """The labels and probabilities of each text, in order."""
        if isinstance(texts, str):
            raise ConfigError("predict takes a list of texts. Write predict([text]) for one.")
        if not texts:
            return []
        shares_NC = self._probabilities(texts)
        order_NC = np.argsort(-shares_NC, axis=1, kind="stable")
        names, found = self.labels, []
        for text, shares, order in zip(texts, shares_NC.tolist(), order_NC.tolist(), strict=True):
            scores = {names[c]: shares[c] for c in order}
            given = (
                [name for name, share in scores.items() if share > 0.5]
                if self.multi_label
                else [names[order[0]]]
            )
            found.append(Classification(text, tuple(given), scores))
        return found

    def _refuse_unlike(self, other: Classifier) -> None:
        """Raise ConfigError where the probabilities of the other classifier are not those of the same labels."""
        unlike = sorted(set(self.labels) ^ set(other.labels))
        if unlike or self.multi_label != other.multi_label:
            what = f"other labels: {', '.join(unlike[:5])}" if unlike else "another multi_label"
            raise ConfigError(
                f"{other.name} has {what}, so its probabilities cannot be averaged with those of "
                f"{self.description['name']}. Give classifiers of the same labels."
            )

    def _probabilities(self, texts: Sequence[str]) -> Any:
        """The share of each label, (N, C): the mean where there are several models."""
        shares_NC = self._own_probabilities(texts)
        for other in self._beside:
            places = [other.labels.index(label) for label in self.labels]
            shares_NC = shares_NC + other._own_probabilities(texts)[:, places]
        return shares_NC / (1 + len(self._beside))

    def _own_probabilities(self, texts: Sequence[str]) -> Any:
        logits_NC = self.engine.logits(texts)
        if self.multi_label:
            return sigmoid(logits_NC)
        shares_NC = softmax(logits_NC)
        reserved = float(self.description.get("reserved", 0.0))
        if reserved:
            shares_NC[:, self.labels.index(self._described("out_of_scope"))] += reserved
            shares_NC /= 1 + reserved
        return shares_NC

    def evaluate(
        self, texts: Sequence[str], labels: Sequence[LabelsOf], *, seed: int = 0
    ) -> dict[str, Measured]:
        """Accuracy, F1 and what else fits the data, each with its 95 % interval.

        Labels the model does not know count as errors, with a note on stderr; if it knows none, DataError.
        """
        (checked, gold), _ = _checked(texts, labels, multi_label=self.multi_label)
        unknown = sorted({label for row in gold for label in row} - set(self.labels))
        if unknown and not any(label in self.labels for row in gold for label in row):
            raise DataError(
                f"the model knows none of these labels: {', '.join(unknown[:5])}. Its own are {self._few()}."
            )
        if unknown:
            say(f"labels that the model does not know count as errors: {', '.join(unknown[:5])}")
        predicted = [one.labels for one in self.predict(checked)]
        tallies = {"accuracy": accuracy(gold, predicted), "macro_f1": macro_f1(gold, predicted)}
        outside = self.description.get("out_of_scope")
        if self.multi_label:
            tallies["micro_f1"] = micro_f1(gold, predicted)
        elif outside is not None and len({outside in row for row in gold}) == 2:
            tallies["in_scope_accuracy"] = in_scope_accuracy(gold, predicted, outside)
            tallies["out_of_scope_recall"] = out_of_scope_recall(gold, predicted, outside)
        rng = np.random.default_rng(seed)
        return {metric: bootstrap(tally, rng) for metric, tally in tallies.items()}

    def save(self, path: str | Path, *, name: str | None = None) -> None:
        """Write the model as a bundle. Raises OutputError when the place is taken."""
        path = Path(path)
        self.engine  # noqa: B018 - refuses an empty classifier
        if self._beside:
            raise ConfigError(f"{self.name} are several models, and a bundle holds one. Save each by itself.")
        self.description["name"] = name or (self.name if self.bundle else path.name)
        made = self.bundle.manifest["made"] if self.bundle else {"by": "Classifier.save"}
        with new_bundle(path, self.description, made) as folder:
            self.write(folder)

    def write(self, folder: Path) -> None:
        """Copy the model's files into an existing folder, without description and manifest."""
        for file in sorted(self._folder.iterdir()):
            if file.name in ("inkstone.json", "manifest.json"):
                continue
            if file.is_dir():
                shutil.copytree(file, folder / file.name)
            else:
                shutil.copyfile(file, folder / file.name)

    def _open(self, folder: Path, description: Mapping[str, Any], threads: int) -> None:
        labels = description.get("labels")
        if not isinstance(labels, list) or not labels or not isinstance(description.get("architecture"), str):
            raise BundleError(
                f"{folder}: inkstone.json must name the labels and the architecture of a classifier."
            )
        self._folder, self.description = folder, dict(description)
        self._engine = open_classify_engine(folder, description["architecture"], threads=threads)
        width = self._engine.logits([""]).shape[1]
        if width != len(labels):
            raise BundleError(
                f"{folder}: inkstone.json names {len(labels)} labels, the model scores {width}."
            )
        if description.get("out_of_scope") not in (None, *labels):
            raise BundleError(
                f"{folder}: the out-of-scope label {description['out_of_scope']!r} is not among the labels."
            )

    def _described(self, field: str) -> Any:
        self.engine  # noqa: B018 - refuses an empty classifier
        return self.description[field]

    def _few(self) -> str:
        return ", ".join(self.labels[:5]) + (", …" if len(self.labels) > 5 else "")


def _checked(
    texts: Sequence[str], labels: Sequence[LabelsOf], *, multi_label: bool | None = None
) -> tuple[tuple[list[str], list[tuple[str, ...]]], bool]:
    """Texts and label sets, and whether the data is multi-label: by default where a label is not a plain string."""
    if isinstance(texts, str) or isinstance(labels, str):
        raise ConfigError("texts and labels are lists, one label (or list of labels) for each text.")
    if len(texts) != len(labels):
        raise DataError(
            f"{len(texts):,} texts were given with {len(labels):,} labels. Each text needs its own."
        )
    if not texts:
        raise DataError("there are no texts. Give at least a few for each label.")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(f"text {number} is not a string but {type(text).__name__}: {text!r:.60}.")
    for number, row in enumerate(labels):
        if not isinstance(row, Sequence):
            raise DataError(
                f"the label of text {number} must be a string or a list of strings, not {row!r:.60}."
            )
    rows = [(row,) if isinstance(row, str) else tuple(row) for row in labels]
    for number, row in enumerate(rows):
        if not all(isinstance(label, str) and label for label in row):
            raise DataError(f"the labels of text {number} must be non-empty strings; they are {row!r:.60}.")
    if multi_label is None:
        multi_label = not all(isinstance(row, str) for row in labels) and any(len(row) != 1 for row in rows)
    if not multi_label and any(len(row) != 1 for row in rows):
        raise DataError(
            "a text has several labels (or none), but this classifier gives one label to each text."
        )
    return (list(texts), rows), multi_label


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _refuse_unknown(labels: Sequence[tuple[str, ...]], known: set[str], where: str) -> None:
    unknown = sorted({label for row in labels for label in row} - known)
    if unknown:
        raise DataError(f"{where} have labels that no training text has: {', '.join(unknown[:5])}.")


def _languages(texts: Sequence[str]) -> list[str]:
    """The language most of the texts are in; with it, a second that more than a tenth are in."""
    from collections import Counter

    from inkstone.text.language import UNDETERMINED, detect_batch

    sample = [texts[n * len(texts) // 200] for n in range(200)] if len(texts) > 200 else list(texts)
    votes: Counter[str] = Counter()
    for found in detect_batch(sample):
        if found.language != UNDETERMINED:
            votes[found.language] += found.confidence  # type: ignore[assignment]
    total = sum(votes.values())
    return [code for code, share in votes.most_common(2) if share > 0.1 * total] or [UNDETERMINED]
