"""What may not come next, or less likely: rules over the tokens that are there already.

Both rules count the prompt of a decoder among what is there, as `transformers` does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]


def banned_by_ngrams(ids: Sequence[int], size: int) -> NDArray[np.int64]:
    """The tokens that would complete a sequence of `size` tokens that is in ids already (Paulus et al., 2017)."""
    array = np.asarray(ids, np.int64)
    if size < 1 or len(array) < size:
        return np.empty(0, np.int64)
    beginnings = np.lib.stride_tricks.sliding_window_view(array, size)
    same = (beginnings[:, :-1] == array[len(array) - size + 1 :]).all(axis=1)
    banned: NDArray[np.int64] = beginnings[same, -1]
    return banned


def without_repeated_ngrams(scores_V: Scores, ids: Sequence[int], size: int) -> Scores:
    """The scores, with -inf for what `banned_by_ngrams` names."""
    banned = banned_by_ngrams(ids, size)
    if not len(banned):
        return scores_V
    allowed_V = scores_V.copy()
    allowed_V[banned] = -np.inf
    return allowed_V


def penalised(scores_V: Scores, ids: Sequence[int], penalty: float) -> Scores:
    """The scores (of before the softmax), those of tokens in ids moved down by a factor (Keskar et al., 2019, 4.1)."""
    if penalty == 1 or not len(ids):
        return scores_V
    there = np.unique(np.asarray(ids, np.int64))
    lower_V = scores_V.copy()
    lower_V[there] = np.where(scores_V[there] > 0, scores_V[there] / penalty, scores_V[there] * penalty)
    return lower_V
