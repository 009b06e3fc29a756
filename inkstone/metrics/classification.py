"""How often the label is right: accuracy, precision, recall, F1, the confusion matrix, and out-of-scope
detection.

Gold and predicted labels come as one label set per example - a tuple of one for multi-class data, of any
number for multi-label data - so that both kinds share their arithmetic: per class, an example is a true
positive, a false positive, a false negative, or none of these. Scores are shares between 0 and 1, as in
scikit-learn, against which they are tested. A class without gold examples has recall 0, one never predicted
has precision 0, and classes that occur on neither side are left out of averages.

Accuracy is the share of examples whose label set is exactly right (for multi-label data also called exact
match). Not covered: probabilities and their calibration.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inkstone.ground.errors import ConfigError, DataError, not_known
from inkstone.metrics.statistics import Array, Tally, divide, mean, ratio

Labels = Sequence[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class ClassScores:
    """How well one class is found. support: its gold examples."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class Confusion:
    """So many examples of class `gold` were taken for `predicted`."""

    gold: str
    predicted: str
    count: int


def label_names(*sides: Labels) -> tuple[str, ...]:
    """Every label that occurs, sorted."""
    return tuple(sorted({label for labels in sides for row in labels for label in row}))


def right(gold: Labels, predicted: Labels) -> NDArray[np.bool_]:
    """For each example, whether its predicted label set is exactly the gold one."""
    _check(gold, predicted)
    return np.array([set(g) == set(p) for g, p in zip(gold, predicted, strict=True)], dtype=bool)


def accuracy(gold: Labels, predicted: Labels) -> Tally:
    """The share of examples whose label set is exactly right.

    >>> accuracy([("a",), ("b",)], [("a",), ("a",)]).value
    0.5
    """
    return mean(right(gold, predicted), "accuracy: the label set is exactly right")


def macro_f1(gold: Labels, predicted: Labels) -> Tally:
    """The mean over classes of F1: every class counts the same, however rare."""
    rows_NK = _outcomes(gold, predicted, label_names(gold, predicted)).reshape(len(gold), -1)
    return Tally(rows_NK.astype(np.float64), _macro_f1, "macro F1: mean of F1 over the classes that occur")


def micro_f1(gold: Labels, predicted: Labels) -> Tally:
    """F1 over all decisions together, each counting the same. For multi-class data it equals accuracy."""
    rows_NK = _outcomes(gold, predicted, label_names(gold, predicted)).sum(axis=2, dtype=np.float64)
    return Tally(rows_NK, _macro_f1, "micro F1: F1 of all decisions together")


def in_scope_accuracy(gold: Labels, predicted: Labels, out_of_scope: str) -> Tally:
    """Accuracy over the examples that belong to some class; calling one of them out of scope is an error."""
    _check_scope(gold, out_of_scope)
    inside_N = np.array([out_of_scope not in row for row in gold])
    if not inside_N.any():
        raise DataError(
            f"every example is labelled {out_of_scope!r}: there is no in-scope accuracy to measure."
        )
    return ratio(
        right(gold, predicted) & inside_N, inside_N, f"accuracy where the gold label is not {out_of_scope}"
    )


def out_of_scope_recall(gold: Labels, predicted: Labels, out_of_scope: str) -> Tally:
    """The share of out-of-scope examples that are recognised as such."""
    _check_scope(gold, out_of_scope)
    outside_N = np.array([out_of_scope in row for row in gold])
    return ratio(right(gold, predicted) & outside_N, outside_N, f"recall of {out_of_scope}")


def class_scores(gold: Labels, predicted: Labels, labels: Sequence[str] | None = None) -> list[ClassScores]:
    """Precision, recall, F1 and support of each class (of those that occur, when `labels` is not given)."""
    names = tuple(labels) if labels is not None else label_names(gold, predicted)
    true_C, wrong_C, missed_C = _outcomes(gold, predicted, names).sum(axis=0, dtype=np.float64)
    precision_C, recall_C = divide(true_C, true_C + wrong_C), divide(true_C, true_C + missed_C)
    f1_C = divide(2 * true_C, 2 * true_C + wrong_C + missed_C)
    return [
        ClassScores(
            name, float(precision_C[c]), float(recall_C[c]), float(f1_C[c]), int(true_C[c] + missed_C[c])
        )
        for c, name in enumerate(names)
    ]


def confusion_matrix(gold: Labels, predicted: Labels, labels: Sequence[str]) -> NDArray[np.int64]:
    """counts_CC: row = gold class, column = predicted class, in the order of `labels`. Multi-class only."""
    _check(gold, predicted)
    index = {label: c for c, label in enumerate(labels)}
    counts_CC = np.zeros((len(index), len(index)), dtype=np.int64)
    for (gold_label, predicted_label), count in _pairs(gold, predicted).items():
        for label in (gold_label, predicted_label):
            if label not in index:
                raise DataError(not_known("label", label, labels))
        counts_CC[index[gold_label], index[predicted_label]] += count
    return counts_CC


def top_confusions(gold: Labels, predicted: Labels, most: int = 10) -> tuple[Confusion, ...]:
    """The most frequent mistakes of multi-class predictions, most frequent first."""
    wrong = [Confusion(g, p, count) for (g, p), count in _pairs(gold, predicted).items() if g != p]
    return tuple(sorted(wrong, key=lambda c: (-c.count, c.gold, c.predicted))[:most])


def _pairs(gold: Labels, predicted: Labels) -> Counter[tuple[str, str]]:
    _check(gold, predicted)
    for row in (*gold, *predicted):
        if len(row) != 1:
            raise ConfigError(
                f"a confusion matrix needs exactly one label per example; one has {len(row)}: {row}."
            )
    return Counter((g[0], p[0]) for g, p in zip(gold, predicted, strict=True))


def _outcomes(gold: Labels, predicted: Labels, labels: Sequence[str]) -> NDArray[np.bool_]:
    """outcomes_N3C: whether class c is a true positive, a false positive, a false negative of example n."""
    _check(gold, predicted)
    gold_NC, predicted_NC = _indicators(gold, labels), _indicators(predicted, labels)
    return np.stack([gold_NC & predicted_NC, ~gold_NC & predicted_NC, gold_NC & ~predicted_NC], axis=1)


def _indicators(rows: Labels, labels: Sequence[str]) -> NDArray[np.bool_]:
    index = {label: c for c, label in enumerate(labels)}
    present_NC = np.zeros((len(rows), len(index)), dtype=bool)
    for n, row in enumerate(rows):
        for label in row:
            if label in index:
                present_NC[n, index[label]] = True
    return present_NC


def _macro_f1(sums_RK: Array) -> Array:
    true_RC, wrong_RC, missed_RC = np.split(sums_RK, 3, axis=1)
    weight_RC = 2 * true_RC + wrong_RC + missed_RC
    return divide(divide(2 * true_RC, weight_RC).sum(axis=1), (weight_RC > 0).sum(axis=1).astype(np.float64))


def _check(gold: Labels, predicted: Labels) -> None:
    if len(gold) != len(predicted):
        raise DataError(f"{len(predicted):,} predictions were given for {len(gold):,} examples.")
    if not gold:
        raise DataError("there is nothing to measure: the test set has no examples.")


def _check_scope(gold: Labels, out_of_scope: str) -> None:
    if not any(out_of_scope in row for row in gold):
        raise DataError(
            f"no example is labelled {out_of_scope!r}: there is no out-of-scope recall to measure."
        )
