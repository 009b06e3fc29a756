"""Texts with labels, the labels a model knows, and what every way of training a classifier gives back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from inkstone.ground.errors import DataError
from inkstone.learn.data.batches import LabelExample, Plan, chunks, label_batch, to_device
from inkstone.learn.loop import Outcome
from inkstone.metrics.classification import accuracy, micro_f1
from inkstone.text.ngrams import FeatureVocabulary
from inkstone.text.reader import TextReader

Labels = Sequence[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts and their labels."""

    texts: list[str]
    labels: list[tuple[str, ...]]

    def __len__(self) -> int:
        return len(self.texts)

    def chosen(self, numbers: Sequence[int]) -> Texts:
        """Some of them."""
        return Texts([self.texts[n] for n in numbers], [self.labels[n] for n in numbers])


@dataclass(frozen=True, slots=True)
class LabelSpace:
    """The labels a model knows, numbered by their place."""

    names: tuple[str, ...]
    multi_label: bool

    def numbers(self, row: tuple[str, ...]) -> tuple[int, ...]:
        """The numbers of the labels of one text."""
        return tuple(self.names.index(label) for label in row)

    def decided(self, scores_NC: NDArray[Any]) -> list[tuple[str, ...]]:
        """The label sets these scores before softmax or sigmoid stand for."""
        if self.multi_label:
            return [tuple(self.names[c] for c in np.flatnonzero(row > 0)) for row in scores_NC]
        return [(self.names[c],) for c in scores_NC.argmax(axis=1)]

    def measure(self, labels: Labels, scores_NC: NDArray[Any]) -> float:
        """Accuracy, or micro-F1 of multi-label data, between 0 and 1."""
        metric = micro_f1 if self.multi_label else accuracy
        return metric(labels, self.decided(scores_NC)).value


@dataclass(slots=True)
class Trained:
    """A trained model with what it reads, how it went, and its measure on the validation texts."""

    architecture: str
    model: torch.nn.Module
    reader: FeatureVocabulary | TextReader
    outcome: Outcome
    valid_measure: float
    examples: int
    per_epoch: int
    cut: int = 0  # training texts longer than the model reads
    preflight: dict[str, Any] = field(default_factory=dict)  # what it was predicted to take
    again: Callable[[Texts, Texts], Trained] | None = (
        None  # fits the same to other texts, where that takes seconds
    )


def label_space(labels: Labels, multi_label: bool) -> LabelSpace:
    """The labels of the training texts. Raises DataError where there is nothing to tell apart."""
    names = tuple(sorted({label for row in labels for label in row}))
    if len({tuple(sorted(row)) for row in labels}) < 2:
        shown = ", ".join(names) or "none"
        raise DataError(
            f"a classifier needs at least two different labels to tell apart; the {len(labels):,} training texts "
            f"have one: {shown}. Add texts with other labels, or name the right field with --fields."
        )
    return LabelSpace(names, multi_label)


def examples_of(rows: Sequence[Sequence[int]], data: Texts, space: LabelSpace) -> list[LabelExample]:
    place = {name: number for number, name in enumerate(space.names)}
    return [
        LabelExample(tuple(ids), tuple(place[label] for label in labels))
        for ids, labels in zip(rows, data.labels, strict=True)
    ]


def batch_logits(model: torch.nn.Module, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """The scores of many texts given as ids, in order: (N, C)."""
    examples = [LabelExample(tuple(row), (0,)) for row in rows]
    longest = max(len(example.ids) for example in examples)
    scores: dict[int, NDArray[np.float32]] = {}
    device = next(model.parameters()).device
    pad_id = getattr(getattr(model, "config", None), "pad_id", 0)
    model.eval()
    with torch.no_grad():
        for numbers in Plan(examples, tokens_per_batch=max(16_384, longest), seed=0).in_order():
            batch = label_batch(chunks(examples, numbers), pad_id=pad_id, num_labels=1, multi_label=False)  # type: ignore[arg-type]
            found = model(to_device(batch, device).ids_BS).float().cpu().numpy()  # type: ignore[union-attr]
            scores.update(zip(numbers.tolist(), found, strict=True))
    return np.stack([scores[number] for number in range(len(rows))])
