"""From outputs to measured results, and from two systems to a verdict."""

from __future__ import annotations

import numpy as np
import pytest
import sacrebleu

from inkstone.ground.errors import DataError
from inkstone.judge.compare import PRIMARY, compare, decide
from inkstone.judge.evaluate import (
    judge_labels,
    judge_translations,
    label_tallies,
    measure,
    signatures,
    translation_tallies,
)
from inkstone.metrics.statistics import Difference, mcnemar

REFERENCES = [
    f"the {colour} {animal} runs home ."
    for colour in ("red", "old", "big")
    for animal in ("cat", "dog", "ox")
]
HYPOTHESES = [line.replace("ox", "cow") if n % 2 else line for n, line in enumerate(REFERENCES)]


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_translations_are_judged_by_the_tokenisation_of_the_target_language() -> None:
    found = judge_translations(HYPOTHESES, REFERENCES, target_language="en", rng=rng())
    assert list(found) == ["bleu", "chrf"]
    assert found["bleu"].value == pytest.approx(sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES]).score)
    assert found["bleu"].low <= found["bleu"].value <= found["bleu"].high
    chinese = translation_tallies(["我爱你们"], ["我爱你们"], target_language="zh")
    assert "tok:zh" in signatures(chinese)["bleu"]
    assert chinese["bleu"].value == pytest.approx(100)
    tokens = translation_tallies(["a ."], ["a ."], target_language="en", tokenize="none")
    assert "tok:none" in signatures(tokens)["bleu"]


def test_which_metrics_labels_get_depends_on_the_labels() -> None:
    gold, guess = [("a",), ("b",), ("oos",)], [("a",), ("a",), ("oos",)]
    assert set(label_tallies(gold, guess)) == {"accuracy", "macro_f1"}
    scope = {"in_scope_accuracy", "out_of_scope_recall"}
    found = judge_labels(gold, guess, rng=rng(), out_of_scope="oos")
    assert set(found) == {"accuracy", "macro_f1"} | scope
    assert found["in_scope_accuracy"].value == 0.5
    assert found["out_of_scope_recall"].value == 1
    assert not scope & set(label_tallies(gold[:2], guess[:2], out_of_scope="oos"))
    assert "micro_f1" in label_tallies([("a", "b")], [("a",)])
    assert "micro_f1" in label_tallies(gold, guess, multi_label=True)


def test_slices_are_measured_beside_the_whole() -> None:
    gold, guess = [("a",)] * 4, [("a",), ("a",), ("b",), ("b",)]
    found = judge_labels(gold, guess, rng=rng(), slices={"early": [True, True, False, False]})
    assert found["accuracy"].value == 0.5
    assert found["accuracy/early"].value == 1
    assert set(measure({}, rng=rng())) == set()


def labels_right(share: float, seed: int, size: int = 400) -> list[tuple[str, ...]]:
    """Predictions for gold labels that are all "a"/"b" in turn, right in about this share of cases."""
    right = np.random.default_rng(seed).random(size) < share
    return [("ab"[n % 2] if ok else "ab"[1 - n % 2],) for n, ok in enumerate(right)]


GOLD = labels_right(1, 0)


def test_a_better_model_is_promoted_a_worse_one_rejected_an_equal_one_neither() -> None:
    old, better = label_tallies(GOLD, labels_right(0.8, 1)), label_tallies(GOLD, labels_right(0.95, 2))
    assert compare(better, old, primary="accuracy", rng=rng()).verdict == "promote"
    assert compare(old, better, primary="accuracy", rng=rng()).verdict == "reject"
    same = compare(old, old, primary="accuracy", rng=rng())
    assert same.verdict == "undecided"
    assert "do not differ" in same.reason
    assert all((d.value, d.p) == (0, 1) for d in same.differences.values())


def test_chance_alone_is_seldom_promoted() -> None:
    """Thirty pairs of equally good models: a 5 % test may be wrong now and then, no more."""
    verdicts = [
        compare(
            label_tallies(GOLD, labels_right(0.8, 100 + n)),
            label_tallies(GOLD, labels_right(0.8, 200 + n)),
            primary="accuracy",
            rng=rng(),
            resamples=200,
        ).verdict
        for n in range(30)
    ]
    assert verdicts.count("undecided") >= 25


def test_accuracy_is_tested_by_mcnemar() -> None:
    one, other = labels_right(0.8, 3), labels_right(0.86, 4)
    found = compare(label_tallies(GOLD, one), label_tallies(GOLD, other), primary="accuracy", rng=rng())
    right, was_right = ([g == p for g, p in zip(GOLD, side, strict=True)] for side in (one, other))
    assert found.differences["accuracy"].p == pytest.approx(mcnemar(right, was_right))
    assert found.differences["accuracy"].value == pytest.approx(np.mean(right) - np.mean(was_right))


def test_a_better_translator_is_promoted() -> None:
    references, hypotheses = REFERENCES * 6, HYPOTHESES * 6
    worse = [line.replace("runs", "goes") for line in hypotheses]
    tallies = [translation_tallies(side, references, target_language="en") for side in (hypotheses, worse)]
    found = compare(*tallies, primary=PRIMARY["translate"], rng=rng())
    assert found.verdict == "promote"
    value = found.as_json()
    assert set(value) == {"difference", "verdict", "reason"}
    assert set(value["difference"]["bleu"]) == {"value", "low", "high", "p"}


def test_one_loss_is_a_veto() -> None:
    gain, loss = Difference(0.05, 0.02, 0.08, 0.001), Difference(-0.1, -0.15, -0.05, 0.002)
    assert decide({"accuracy": gain, "macro_f1": loss}, "accuracy")[0] == "reject"
    assert decide({"accuracy": gain}, "accuracy")[0] == "promote"
    verdict, reason = decide({"accuracy": Difference(0.01, -0.01, 0.03, 0.3)}, "accuracy")
    assert verdict == "undecided"
    assert "cannot tell the two apart" in reason


def test_what_cannot_be_compared_is_refused() -> None:
    single, multi = label_tallies(GOLD, GOLD), label_tallies(GOLD, GOLD, multi_label=True)
    with pytest.raises(DataError, match="same metrics"):
        compare(single, multi, primary="accuracy", rng=rng())
    with pytest.raises(DataError, match='Did you mean "accuracy"'):
        compare(single, single, primary="acuracy", rng=rng())
