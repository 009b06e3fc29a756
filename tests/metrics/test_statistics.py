"""Intervals and p-values against scipy, and against what they promise on simulated data."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from inkstone.ground.errors import DataError
from inkstone.metrics.statistics import (
    Measured,
    Tally,
    bootstrap,
    mcnemar,
    mean,
    paired_bootstrap,
    ratio,
    resampled_scores,
)


def test_interval_agrees_with_scipy() -> None:
    values = np.random.default_rng(1).exponential(size=80)
    ours = bootstrap(mean(values), np.random.default_rng(2), resamples=8000)
    found = stats.bootstrap((values,), np.mean, n_resamples=8000, method="percentile", rng=3)
    theirs = found.confidence_interval
    assert ours.value == pytest.approx(values.mean())
    assert abs(ours.low - theirs.low) < 0.04 * (theirs.high - theirs.low)
    assert abs(ours.high - theirs.high) < 0.04 * (theirs.high - theirs.low)


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Of 300 test sets of a system right 80 % of the time, about 95 % of intervals hold 0.8."""
    rng = np.random.default_rng(4)
    covered = 0
    for _ in range(300):
        found = bootstrap(mean(rng.random(200) < 0.8), rng, resamples=400)
        covered += found.low <= 0.8 <= found.high
    assert 0.91 <= covered / 300 <= 0.985


def test_more_examples_make_a_narrower_interval() -> None:
    rng = np.random.default_rng(5)
    few, many = (bootstrap(mean(rng.random(n) < 0.7), rng) for n in (100, 10_000))
    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(10, rel=0.25)


def test_resampled_scores_are_scores_of_resampled_examples() -> None:
    """The matrix product gives what scoring each drawn sample from scratch gives."""
    rng = np.random.default_rng(6)
    tally = ratio(rng.random(37), rng.random(37) + 0.5)
    drawn = np.random.default_rng(7).integers(0, 37, (20, 37))
    expected = [Tally(tally.rows[rows], tally.score).value for rows in drawn]
    (found,) = resampled_scores([tally], np.random.default_rng(7), 20)
    assert found == pytest.approx(expected)


def test_work_in_pieces_is_the_same_work(monkeypatch: pytest.MonkeyPatch) -> None:
    tally = mean(np.random.default_rng(8).random(50))
    whole = resampled_scores([tally], np.random.default_rng(9), 30)
    monkeypatch.setattr("inkstone.metrics.statistics._BLOCK", 7 * 50)
    pieces = resampled_scores([tally], np.random.default_rng(9), 30)
    np.testing.assert_allclose(
        pieces, whole, rtol=1e-13
    )  # a product of another shape may sum in another order


def test_identical_systems_do_not_differ() -> None:
    tally = mean(np.random.default_rng(10).random(100))
    found = paired_bootstrap(tally, tally, np.random.default_rng(11))
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_swapping_the_systems_swaps_the_sign_and_nothing_else() -> None:
    rng = np.random.default_rng(12)
    one, other = mean(rng.random(150)), mean(rng.random(150) + 0.05)
    there = paired_bootstrap(one, other, np.random.default_rng(13))
    back = paired_bootstrap(other, one, np.random.default_rng(13))
    assert there.value == pytest.approx(-back.value)
    assert (there.low, there.high) == (pytest.approx(-back.high), pytest.approx(-back.low))
    assert there.p == back.p


def test_pairing_finds_what_two_separate_intervals_cannot() -> None:
    """Hard and easy examples spread both scores widely, but one system is a little better on every one."""
    rng = np.random.default_rng(14)
    difficulty = rng.random(200)
    worse, better = mean(difficulty), mean(difficulty + 0.02 + 0.01 * rng.standard_normal(200))
    first, second = (bootstrap(tally, np.random.default_rng(15)) for tally in (worse, better))
    assert first.high > second.low
    assert paired_bootstrap(better, worse, np.random.default_rng(16)).p < 0.01


def test_p_values_of_equal_systems_are_rarely_small() -> None:
    rng = np.random.default_rng(17)
    small = 0
    for _ in range(300):
        one, other = rng.standard_normal((2, 100))
        found = paired_bootstrap(mean(one), mean(other), rng, resamples=400)
        small += found.p < 0.05
    assert 0.02 <= small / 300 <= 0.09


@pytest.mark.parametrize(("only_one", "only_other"), [(0, 0), (5, 5), (1, 9), (30, 12), (0, 1), (700, 640)])
def test_mcnemar_is_the_binomial_test_of_the_disagreements(only_one: int, only_other: int) -> None:
    both = 11
    one = [True] * only_one + [False] * only_other + [True] * both
    other = [False] * only_one + [True] * only_other + [True] * both
    trials = only_one + only_other
    exact = stats.binomtest(only_one, trials, 0.5).pvalue if trials else 1.0
    assert mcnemar(one, other, mid=False) == pytest.approx(exact)
    expected = exact - stats.binom.pmf(only_one, trials, 0.5) if only_one != only_other else 1.0
    assert mcnemar(one, other) == pytest.approx(expected)
    assert mcnemar(one, other) == pytest.approx(mcnemar(other, one))


def test_a_slice_is_scored_by_itself() -> None:
    tally = mean([1, 0, 1, 1])
    assert tally.subset([True, True, False, False]).value == 0.5
    with pytest.raises(DataError, match="3 flags was given for 4 examples"):
        tally.subset([True, False, True])
    with pytest.raises(DataError, match="no examples"):
        tally.subset([False] * 4)


def test_results_on_different_examples_are_not_compared() -> None:
    with pytest.raises(DataError, match="same examples"):
        paired_bootstrap(mean([1, 0]), mean([1, 0, 1]), np.random.default_rng(0))
    with pytest.raises(DataError, match="same examples"):
        mcnemar([True], [True, False])


def test_measured_survives_json() -> None:
    found = Measured(0.5, 0.25, 0.75)
    assert found.as_json() == {"value": 0.5, "low": 0.25, "high": 0.75}
    assert Measured.from_json(found.as_json()) == found
