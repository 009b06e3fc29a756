"""How far two series of numbers agree: Pearson's correlation, and Spearman's, which only looks at their order.

Equal values share the mean of their ranks, as scipy's `spearmanr` has it. A series without any variation agrees with
nothing: 0, where scipy gives not-a-number.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from inkstone.ground.errors import DataError

Values = Sequence[float] | NDArray[np.generic]


def pearson(one_N: Values, other_N: Values) -> float:
    """Pearson's r of two series, -1 to 1."""
    one, other = np.asarray(one_N, np.float64), np.asarray(other_N, np.float64)
    if one.shape != other.shape or one.ndim != 1 or len(one) < 2:
        raise DataError(
            f"a correlation needs two series of the same length, two or more; these have {one.size} and {other.size}."
        )
    one, other = one - one.mean(), other - other.mean()
    below = float(np.sqrt((one @ one) * (other @ other)))
    return float(np.clip((one @ other) / below, -1, 1)) if below > 0 else 0.0


def spearman(one_N: Values, other_N: Values) -> float:
    """Spearman's rank correlation of two series, -1 to 1.

    >>> spearman([1, 2, 3], [10, 100, 1000])
    1.0
    """
    return pearson(ranks(one_N), ranks(other_N))


def ranks(values_N: Values) -> NDArray[np.float64]:
    """The rank of each value, from 1; equal values share the mean of theirs.

    >>> ranks([30, 10, 10]).tolist()
    [3.0, 1.5, 1.5]
    """
    values = np.asarray(values_N)
    _, group_N, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((last - counts + 1 + last) / 2)[group_N]
