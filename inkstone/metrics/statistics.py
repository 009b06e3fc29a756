"""How sure a measurement is: bootstrap intervals, paired bootstrap, McNemar's test.

A score on a test set is one draw from the test sets there might have been. Resampling the examples with
replacement (Efron, 1979) shows how far the score moves from draw to draw; comparing two systems on the
*same* resampled examples (Koehn, 2004) removes the part of that movement which both share, so that small
real differences become visible.

Every metric here is reduced to a `Tally`: one row of sufficient statistics per example (for accuracy 0 or
1, for BLEU n-gram counts, for F1 true and false positives) and a function from the *sum* of the rows to the
score. A resample is then a vector of multiplicities, and a thousand scores are one matrix product - exactly
the scores that a thousand evaluations from scratch would give, in a fraction of a second.

The p-values are two-sided. The bootstrap's is read off the same resamples as its interval, so "p < 0.05"
and "the 95 % interval leaves out 0" say the same thing. Not covered: BCa intervals, corrections for many
comparisons.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inkstone.ground.errors import DataError

Array = NDArray[np.float64]

RESAMPLES = 1000
CONFIDENCE = 0.95
_BLOCK = 4_000_000  # multiplicities held at once: 32 MB


@dataclass(frozen=True, slots=True)
class Measured:
    """A score and its confidence interval."""

    value: float
    low: float
    high: float

    def as_json(self) -> dict[str, float]:
        """The three numbers under their names."""
        return {"value": self.value, "low": self.low, "high": self.high}

    @classmethod
    def from_json(cls, value: Mapping[str, float]) -> Measured:
        """Read back what `as_json` gave."""
        return cls(float(value["value"]), float(value["low"]), float(value["high"]))


@dataclass(frozen=True, slots=True)
class Difference:
    """How much better (above 0) or worse a candidate is than an incumbent, and how likely by chance alone."""

    value: float
    low: float
    high: float
    p: float

    def as_json(self) -> dict[str, float]:
        """The four numbers under their names."""
        return {"value": self.value, "low": self.low, "high": self.high, "p": self.p}


@dataclass(frozen=True, slots=True)
class Tally:
    """One metric before it is summed: rows of statistics, one per example, and the score of their sum.

    rows: shape N x K, K statistics for each of N examples. score: takes sums of shape R x K (R samples at
    once) to R scores; higher is better, unless it is falling. signature: what was computed, exactly, for
    whoever wants to compare with another paper.
    """

    rows: Array
    score: Callable[[Array], Array]
    signature: str = ""
    falling: bool = False  # lower is better

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or len(self.rows) == 0:
            raise DataError("there is nothing to measure: the test set has no examples.")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def value(self) -> float:
        """The score on all examples."""
        return float(self.score(self.rows.sum(axis=0, dtype=np.float64)[None, :])[0])

    def subset(self, chosen_N: Sequence[bool] | NDArray[np.bool_]) -> Tally:
        """The same metric on the examples where `chosen_N` is true."""
        chosen = np.asarray(chosen_N, dtype=bool)
        if chosen.shape != (len(self),):
            raise DataError(f"a slice of {chosen.size:,} flags was given for {len(self):,} examples.")
        return Tally(self.rows[chosen], self.score, self.signature, self.falling)


def mean(values_N: Sequence[float] | NDArray[np.generic], signature: str = "") -> Tally:
    """The tally of a plain average, such as the share of right answers."""
    rows_N = np.asarray(values_N, dtype=np.float64)
    return ratio(rows_N, np.ones_like(rows_N), signature)


def ratio(above_N: NDArray[np.generic], below_N: NDArray[np.generic], signature: str = "") -> Tally:
    """The tally of sum(above) / sum(below); 0 where there is nothing below."""
    rows_NK = np.stack([np.asarray(above_N, np.float64), np.asarray(below_N, np.float64)], axis=1)
    return Tally(rows_NK, _ratio, signature)


def _ratio(sums_RK: Array) -> Array:
    return divide(sums_RK[:, 0], sums_RK[:, 1])


def divide(above: Array, below: Array) -> Array:
    """Elementwise above / below, 0 where below is 0 (the convention of scikit-learn's zero_division=0)."""
    return np.divide(above, below, out=np.zeros_like(above, dtype=np.float64), where=below != 0)


def resampled_scores(tallies: Sequence[Tally], rng: np.random.Generator, resamples: int = RESAMPLES) -> Array:
    """Scores of each tally on the same bootstrap samples: one row per tally, one column per resample."""
    sizes = {len(tally) for tally in tallies}
    if len(sizes) != 1:
        raise DataError(
            f"only results on the same examples can be compared; these have {sorted(sizes)} examples."
        )
    size = sizes.pop()
    at_once = max(1, _BLOCK // size)
    pieces = []
    for start in range(0, resamples, at_once):
        count = min(at_once, resamples - start)
        drawn_RN = rng.integers(0, size, (count, size)) + np.arange(count)[:, None] * size
        times_RN = (
            np.bincount(drawn_RN.ravel(), minlength=count * size).reshape(count, size).astype(np.float64)
        )
        pieces.append(np.stack([tally.score(times_RN @ tally.rows) for tally in tallies]))
    return np.concatenate(pieces, axis=1)


def bootstrap(
    tally: Tally, rng: np.random.Generator, *, resamples: int = RESAMPLES, confidence: float = CONFIDENCE
) -> Measured:
    """The score with its percentile bootstrap interval over examples.

    >>> bootstrap(mean([1, 0, 1, 1]), np.random.default_rng(0)).value
    0.75
    """
    (scores_R,) = resampled_scores([tally], rng, resamples)
    return Measured(tally.value, *_interval(scores_R, confidence))


def paired_bootstrap(
    candidate: Tally,
    incumbent: Tally,
    rng: np.random.Generator,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Difference:
    """Candidate minus incumbent on the same examples, with interval and two-sided p-value (Koehn, 2004).

    p is twice the share of resamples on the less likely side of zero, so identical systems get 1. With R
    resamples it cannot fall below 2 / (R + 1).
    """
    candidate_R, incumbent_R = resampled_scores([candidate, incumbent], rng, resamples)
    differences_R = candidate_R - incumbent_R
    below, above = int((differences_R <= 0).sum()), int((differences_R >= 0).sum())
    p = min(1.0, 2 * (min(below, above) + 1) / (resamples + 1))
    return Difference(candidate.value - incumbent.value, *_interval(differences_R, confidence), p)


def _interval(scores_R: Array, confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    low, high = np.quantile(scores_R, [tail, 1 - tail])
    return float(low), float(high)


def mcnemar(
    candidate_right_N: Sequence[bool] | NDArray[np.bool_],
    incumbent_right_N: Sequence[bool] | NDArray[np.bool_],
    *,
    mid: bool = True,
) -> float:
    """The two-sided p-value of McNemar's test: of the examples only one system gets right, is the split a
    fair coin's?

    mid: the mid-p version, which keeps its level and is less timid than the exact one (Fagerland et al.,
    2013).
    """
    candidate, incumbent = np.asarray(candidate_right_N, bool), np.asarray(incumbent_right_N, bool)
    if candidate.shape != incumbent.shape:
        raise DataError(
            "only results on the same examples can be compared; these have "
            f"{candidate.size:,} and {incumbent.size:,} examples."
        )
    only_candidate, only_incumbent = int((candidate & ~incumbent).sum()), int((~candidate & incumbent).sum())
    trials, fewer = only_candidate + only_incumbent, min(only_candidate, only_incumbent)
    log_half = trials * math.log(2)
    chances = [
        math.exp(math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1) - log_half)
        for k in range(fewer + 1)
    ]
    return min(1.0, 2 * math.fsum(chances) - (chances[-1] if mid else 0.0))
