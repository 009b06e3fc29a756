"""Classification scores against scikit-learn, on the whole test set and on resamples."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics
from sklearn.preprocessing import MultiLabelBinarizer

from inkstone.ground.errors import ConfigError, DataError
from inkstone.metrics.classification import (
    Confusion,
    accuracy,
    class_scores,
    confusion_matrix,
    in_scope_accuracy,
    label_names,
    macro_f1,
    micro_f1,
    out_of_scope_recall,
    top_confusions,
)

NAMES = ["bill", "card", "loan", "oos", "rate"]
Rows = list[tuple[str, ...]]


def multi_class(seed: int, size: int = 120) -> tuple[list[str], list[str]]:
    """Random gold labels and predictions that are right about two times in three; never "rate"."""
    rng = np.random.default_rng(seed)
    gold = rng.choice(NAMES, size, p=[0.4, 0.3, 0.15, 0.1, 0.05])
    guess = np.where(rng.random(size) < 0.6, gold, rng.choice(NAMES[:4], size))
    return gold.tolist(), np.where(guess == "rate", "bill", guess).tolist()


def rows(labels: list[str]) -> Rows:
    return [(label,) for label in labels]


def multi_label(seed: int, size: int = 100) -> tuple[Rows, Rows]:
    rng = np.random.default_rng(seed)

    def draw() -> Rows:
        return [
            tuple(n for n, on in zip(NAMES, row, strict=True) if on) for row in rng.random((size, 5)) < 0.35
        ]

    return draw(), draw()


@pytest.mark.parametrize("seed", range(3))
def test_multi_class_scores_are_those_of_scikit_learn(seed: int) -> None:
    gold, guess = multi_class(seed)
    assert accuracy(rows(gold), rows(guess)).value == pytest.approx(metrics.accuracy_score(gold, guess))
    expected = metrics.f1_score(gold, guess, average="macro", zero_division=0)
    assert macro_f1(rows(gold), rows(guess)).value == pytest.approx(expected)
    assert micro_f1(rows(gold), rows(guess)).value == pytest.approx(metrics.accuracy_score(gold, guess))


@pytest.mark.parametrize("seed", range(3))
def test_multi_label_scores_are_those_of_scikit_learn(seed: int) -> None:
    gold, guess = multi_label(seed)
    binarizer = MultiLabelBinarizer(classes=NAMES).fit(gold)
    gold_NC, guess_NC = binarizer.transform(gold), binarizer.transform(guess)
    assert accuracy(gold, guess).value == pytest.approx(metrics.accuracy_score(gold_NC, guess_NC))
    assert macro_f1(gold, guess).value == pytest.approx(metrics.f1_score(gold_NC, guess_NC, average="macro"))
    assert micro_f1(gold, guess).value == pytest.approx(metrics.f1_score(gold_NC, guess_NC, average="micro"))


def test_class_scores_and_confusion_matrix_are_those_of_scikit_learn() -> None:
    gold, guess = multi_class(7)
    expected = metrics.precision_recall_fscore_support(gold, guess, labels=NAMES, zero_division=0)
    found = class_scores(rows(gold), rows(guess), NAMES)
    for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert [getattr(scores, name) for scores in found] == pytest.approx(list(values))
    expected_CC = metrics.confusion_matrix(gold, guess, labels=NAMES)
    assert np.array_equal(confusion_matrix(rows(gold), rows(guess), NAMES), expected_CC)


def test_resampled_macro_f1_is_that_of_scikit_learn() -> None:
    """A resample may lose a class altogether; the mean is then over the classes left."""
    gold, guess = multi_class(3, size=25)
    tally = macro_f1(rows(gold), rows(guess))
    rng = np.random.default_rng(0)
    lost = 0
    for _ in range(50):
        drawn = rng.integers(0, 25, 25)
        some_gold, some_guess = [gold[i] for i in drawn], [guess[i] for i in drawn]
        lost += len({*some_gold, *some_guess}) < len({*gold, *guess})
        expected = metrics.f1_score(some_gold, some_guess, average="macro", zero_division=0)
        times = np.bincount(drawn, minlength=25).astype(float)[None, :]
        assert tally.score(times @ tally.rows)[0] == pytest.approx(expected)
    assert lost > 0


def test_out_of_scope_is_measured_apart() -> None:
    gold, guess = multi_class(5)
    inside = [(g, p) for g, p in zip(gold, guess, strict=True) if g != "oos"]
    expected = np.mean([g == p for g, p in inside])
    assert in_scope_accuracy(rows(gold), rows(guess), "oos").value == pytest.approx(expected)
    expected = metrics.recall_score(gold, guess, labels=["oos"], average="macro")
    assert out_of_scope_recall(rows(gold), rows(guess), "oos").value == pytest.approx(expected)
    with pytest.raises(DataError, match="no example is labelled 'none'"):
        out_of_scope_recall(rows(gold), rows(guess), "none")
    with pytest.raises(DataError, match="every example is labelled"):
        in_scope_accuracy([("oos",)], [("oos",)], "oos")


def test_top_confusions_are_the_largest_cells_off_the_diagonal() -> None:
    gold, guess = multi_class(9)
    counts_CC = confusion_matrix(rows(gold), rows(guess), NAMES)
    np.fill_diagonal(counts_CC, 0)
    found = top_confusions(rows(gold), rows(guess), most=3)
    assert [c.count for c in found] == sorted(counts_CC.ravel().tolist(), reverse=True)[:3]
    assert all(counts_CC[NAMES.index(c.gold), NAMES.index(c.predicted)] == c.count for c in found)
    assert top_confusions([("a",)], [("b",)]) == (Confusion("a", "b", 1),)


def test_labels_are_sets_without_order() -> None:
    assert accuracy([("a", "b")], [("b", "a")]).value == 1
    assert label_names([("b", "a")], [("c",)]) == ("a", "b", "c")


def test_wrong_input_is_refused() -> None:
    with pytest.raises(DataError, match="1 predictions were given for 2 examples"):
        accuracy([("a",), ("b",)], [("a",)])
    with pytest.raises(DataError, match="no examples"):
        macro_f1([], [])
    with pytest.raises(ConfigError, match="exactly one label per example"):
        top_confusions([("a", "b")], [("a",)])
    with pytest.raises(DataError, match='label="b" is not known'):
        confusion_matrix([("a",)], [("b",)], ["a"])
