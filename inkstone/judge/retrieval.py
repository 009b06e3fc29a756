"""Finding what belongs to a text: queries, candidates, which are right; and how well a system ranks them.

    pairs   a-A  b-B  a-C         queries  a b      candidates  A B C      right   a: A, C   b: B

A text stands once among the queries and once among the candidates, however often the pairs repeat it; negatives that come
with the pairs are candidates too. The baseline is BM25.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inkstone.ground.errors import DataError
from inkstone.ground.records import Related
from inkstone.judge.bm25 import BM25
from inkstone.metrics.ranking import Scores, first_ranks, ranking_tallies
from inkstone.metrics.statistics import Tally


@dataclass(frozen=True, slots=True)
class Retrieval:
    """What is to be found among what. right[q]: the numbers of the candidates that belong to query q."""

    queries: list[str]
    candidates: list[str]
    right: list[list[int]]

    @classmethod
    def of(cls, pairs: Sequence[Related], others: Sequence[str] = ()) -> Retrieval:
        """From pairs; the sources are the queries. others: further candidates. Raises DataError for no pairs."""
        if not pairs:
            raise DataError("there are no pairs to measure on.")
        right: dict[str, list[int]] = {}
        numbers: dict[str, int] = {}
        for pair in pairs:
            number = numbers.setdefault(pair.target, len(numbers))
            found = right.setdefault(pair.source, [])
            if number not in found:
                found.append(number)
        for text in (*(one for pair in pairs for one in pair.negatives), *others):
            numbers.setdefault(text, len(numbers))
        return cls(list(right), list(numbers), list(right.values()))

    def ranks(self, scores_QN: Scores) -> NDArray[np.int64]:
        """The rank of the first right candidate of each query."""
        return first_ranks(scores_QN, self.right)

    def tallies(self, scores_QN: Scores) -> dict[str, Tally]:
        """Recall at 1 and 10, and the mean reciprocal rank."""
        return ranking_tallies(self.ranks(scores_QN))

    def lexical(self) -> Scores:
        """The scores of BM25: (Q, N)."""
        return BM25(self.candidates).scores(self.queries)

    def best(self, scores_QN: Scores) -> list[str]:
        """The candidate that each query finds first."""
        return [self.candidates[number] for number in scores_QN.argmax(1)]
