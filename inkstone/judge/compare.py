"""Is the candidate really better than the incumbent? The paired test behind every promotion.

Both systems answer the same examples; each metric's difference gets a paired bootstrap interval and p-value
(Koehn, 2004), for plain accuracies the p-value of McNemar's test. The verdict is a rule, not a feeling:

    promote     the primary metric is significantly better, and no other metric is significantly worse
    reject      some metric is significantly worse
    undecided   anything else: the test set cannot tell them apart, so the incumbent stays

"Significantly" is p < 0.05, two-sided. With several metrics on one test set the rule leans towards
rejection, which is the cheaper error: a rejected candidate can be tried again on a larger test set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from inkstone.ground.errors import DataError, not_known
from inkstone.metrics.statistics import RESAMPLES, Difference, Tally, mcnemar, paired_bootstrap

Verdict = Literal["promote", "reject", "undecided"]
LEVEL = 0.05

# The metric that decides, by task; what else is measured can only veto.
PRIMARY = {
    "translate": "bleu",
    "summarize": "rougeL",
    "classify": "accuracy",
    "language-model": "bits_per_byte",
    "embed": "mrr",
}
# Each example is right or wrong: McNemar.
_SHARES = ("accuracy", "out_of_scope_recall", "in_scope_accuracy", "recall_at_1", "recall_at_10")


@dataclass(frozen=True, slots=True)
class Comparison:
    """What the candidate gains or loses by each metric, the verdict, and the sentence that explains it."""

    differences: Mapping[str, Difference]
    verdict: Verdict
    reason: str

    def as_json(self) -> dict[str, Any]:
        """The fields `difference`, `verdict` and `reason` of the evaluation's JSON document."""
        differences = {name: difference.as_json() for name, difference in self.differences.items()}
        return {"difference": differences, "verdict": self.verdict, "reason": self.reason}


def compare(
    candidate: Mapping[str, Tally],
    incumbent: Mapping[str, Tally],
    *,
    primary: str,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> Comparison:
    """Compare two systems' tallies, made from the same examples in the same order, and decide."""
    if candidate.keys() != incumbent.keys():
        raise DataError(
            "only systems measured by the same metrics can be compared; these have "
            f"{', '.join(candidate)} and {', '.join(incumbent)}."
        )
    if primary not in candidate:
        raise DataError(not_known("primary metric", primary, candidate))
    differences = {}
    for name, tally in candidate.items():
        difference = paired_bootstrap(tally, incumbent[name], rng, resamples=resamples)
        if name in _SHARES:
            # Column 0 holds 1 for an example that is right and counts; an example that does not count is 0
            # for both.
            right, was_right = (side.rows[:, 0] > 0 for side in (tally, incumbent[name]))
            difference = replace(difference, p=mcnemar(right, was_right))
        differences[name] = difference
    falling = frozenset(name for name, tally in candidate.items() if tally.falling)
    return Comparison(differences, *decide(differences, primary, falling))


def decide(
    differences: Mapping[str, Difference], primary: str, falling: frozenset[str] = frozenset()
) -> tuple[Verdict, str]:
    """The verdict and its reason; see the rule above. falling: metrics of which less is better."""
    gains = {name: -d.value if name in falling else d.value for name, d in differences.items()}
    worse = [name for name, d in differences.items() if gains[name] < 0 and d.p < LEVEL]
    if worse:
        lost = ", ".join(
            f"{name} ({differences[name].value:+.3g}, p = {differences[name].p:.2g})" for name in worse
        )
        return "reject", f"significantly worse by {lost}."
    gain = differences[primary]
    if gains[primary] > 0 and gain.p < LEVEL:
        return (
            "promote",
            f"{primary} is significantly better ({gain.value:+.3g}, p = {gain.p:.2g}), nothing is worse.",
        )
    if gain.value == 0 and gain.low == gain.high == 0:
        return "undecided", f"the two do not differ by {primary} on this test set."
    span = f"{gain.value:+.3g}, between {gain.low:+.3g} and {gain.high:+.3g}, p = {gain.p:.2g}"
    return "undecided", f"the test set cannot tell the two apart by {primary} ({span}); a larger one might."
