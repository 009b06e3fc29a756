"""How high the right answer stands in a ranking: recall at k, mean reciprocal rank; and rankings made of rankings.

Of each query only one number counts, the rank of the first right candidate, from 1. Candidates that score the same
as the right one stand before it: a system that gives every candidate the same score finds nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from inkstone.ground.errors import DataError
from inkstone.metrics.statistics import Tally, mean

Scores = NDArray[np.float32]
CUTS = (1, 10)
FUSION = 60  # of reciprocal rank fusion, as Cormack et al. set it


def first_ranks(scores_QN: Scores, right: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """The rank of the first right candidate of each query: (Q). right: the numbers of the right ones, one at least."""
    if len(scores_QN) != len(right):
        raise DataError(f"{len(scores_QN):,} queries were scored, but answers were given for {len(right):,}.")
    found = np.zeros(len(right), np.int64)
    for number, (scores_N, own) in enumerate(zip(scores_QN, right, strict=True)):
        numbers = list(own)
        if not numbers:
            raise DataError(f"query {number} has no right answer among the candidates.")
        best = scores_N[numbers].max()
        found[number] = 1 + int((scores_N >= best).sum()) - int((scores_N[numbers] >= best).sum())
    return found


def ranking_tallies(ranks_Q: NDArray[np.int64]) -> dict[str, Tally]:
    """Recall at 1 and 10 (a right candidate stands among the first so many), and the mean of 1 / rank."""
    tallies = {
        f"recall_at_{cut}": mean(ranks_Q <= cut, f"share of queries with a right candidate among {cut}")
        for cut in CUTS
    }
    return tallies | {"mrr": mean(1 / ranks_Q, "mean of 1 / rank of the first right candidate")}


def fused(systems: Sequence[Scores], constant: int = FUSION) -> Scores:
    """Scores of several systems' rankings together: the sum of 1 / (constant + rank) (Cormack et al., 2009). (Q, N)

    Candidates of the same score have the same rank, the last of theirs: what it knows nothing of, it does not order.
    """
    total = np.zeros(systems[0].shape, np.float32)
    for scores_QN in systems:
        for row, scores_N in zip(total, scores_QN, strict=True):
            ranks_N = len(scores_N) - np.searchsorted(np.sort(scores_N), scores_N, side="left")
            row += 1 / (constant + ranks_N)
    return total


def blended(cosines_QN: Scores, lexical_QN: Scores, share: float) -> Scores:
    """A weighted sum of vectors' cosines and of word scores such as BM25's, which are at least 0. (Q, N)

    share: of the cosines, 0 to 1. Word scores are divided by the best of their query, so that they too end at 1. Scores
    tell more than ranks do: such a sum, its share chosen on a few queries, mostly beats `fused` (Bruch et al., 2023).
    """
    best_Q1 = lexical_QN.max(axis=1, keepdims=True)
    words_QN = np.divide(lexical_QN, best_Q1, out=np.zeros_like(lexical_QN), where=best_Q1 > 0)
    total: Scores = share * cosines_QN + (1 - share) * words_QN
    return total
