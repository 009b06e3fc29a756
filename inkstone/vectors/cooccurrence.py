"""How often words stand near each other: what GloVe is fitted to (Pennington et al., 2014).

X_ij sums 1/d over all places where i and j stand d words apart, d at most the window, in one unit, in either order. The
matrix is symmetric, so only its upper triangle is counted; a word met by itself counts for both directions at once,
so that X_ii is twice what the triangle would hold.

Counted is by sorting: each pair is one number, i x V + j, and equal numbers lie side by side after a sort, which numpy
does faster than any dictionary grows. The text goes in blocks, so that the numbers of a block fit in memory; what a
block found is merged with what was found before.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inkstone.ground.errors import ConfigError
from inkstone.vectors.rows import Float
from inkstone.vectors.vocabulary import EncodedCorpus, Ids

_BLOCK = 1 << 20  # words
_Sums = tuple[NDArray[np.int64], NDArray[np.float64]]  # pairs in order, and the sum of each


@dataclass(frozen=True, slots=True)
class Cooccurrences:
    """The upper triangle of X: rows_E <= columns_E, in order, and values_E; E entries."""

    size: int
    rows_E: Ids
    columns_E: Ids
    values_E: Float

    def __len__(self) -> int:
        return len(self.values_E)


def count_cooccurrences(corpus: EncodedCorpus, size: int, window: int = 10) -> Cooccurrences:
    """Count over a corpus with a vocabulary of this size."""
    if not 1 <= window <= 100:
        raise ConfigError(f"window={window} is not between 1 and 100 words to each side.")
    total: _Sums = (np.zeros(0, np.int64), np.zeros(0, np.float64))
    waiting: list[_Sums] = []
    for start in range(0, len(corpus), _BLOCK):
        seen = slice(max(0, start - window), start + _BLOCK)
        waiting.append(
            _count_block(corpus.ids_N[seen], corpus.units_N[seen], start - seen.start, size, window)
        )
        if sum(len(pairs) for pairs, _ in waiting) > len(total[0]):  # merging costs as much as what is there
            total, waiting = _merged([total, *waiting]), []
    pairs_E, sums_E = _merged([total, *waiting])
    rows_E, columns_E = pairs_E // size, pairs_E % size
    sums_E[rows_E == columns_E] *= 2
    return Cooccurrences(size, rows_E.astype(np.int32), columns_E.astype(np.int32), sums_E.astype(np.float32))


def _count_block(ids_N: Ids, units_N: Ids, fresh: int, size: int, window: int) -> _Sums:
    """The pairs whose later word is not among the first `fresh` words of the block (those were counted before)."""
    found: list[_Sums] = []
    for distance in range(1, min(window, len(ids_N) - 1) + 1):
        from_ = max(0, fresh - distance)
        left_N, right_N = ids_N[from_:-distance], ids_N[from_ + distance :]
        together_N = units_N[from_:-distance] == units_N[from_ + distance :]
        left_N, right_N = left_N[together_N], right_N[together_N]
        pairs_N = np.minimum(left_N, right_N) * np.int64(size) + np.maximum(left_N, right_N)
        pairs_E, counts_E = np.unique(pairs_N, return_counts=True)
        found.append((pairs_E, counts_E / distance))
    return _merged(found)


def _merged(parts: list[_Sums]) -> _Sums:
    parts = [part for part in parts if len(part[0])]
    if len(parts) < 2:
        return parts[0] if parts else (np.zeros(0, np.int64), np.zeros(0, np.float64))
    pairs_E, group_E = np.unique(np.concatenate([pairs for pairs, _ in parts]), return_inverse=True)
    sums = np.concatenate([sums for _, sums in parts])
    sums_E: NDArray[np.float64] = np.bincount(group_E, weights=sums, minlength=len(pairs_E)).astype(
        np.float64
    )
    return pairs_E, sums_E
