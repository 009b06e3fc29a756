"""Sums into rows of a matrix, the one thing that numpy has no quick word for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
MOST_DIMENSIONS = 10_000  # of word vectors


def add_rows(matrix_VD: Float, rows_B: NDArray[np.integer[Any]], values_BD: Float) -> None:
    """matrix[rows] += values, where a row named twice gets both.

    `matrix[rows] += values` would keep only one of them, and `np.add.at` on rows takes 1.7 µs a row of 100 numbers. On
    single numbers it takes a path of its own, ten times as fast, and nearly twice that when two neighbouring numbers
    travel as one complex number, whose sum is the two sums (0.08 µs a row; numpy 2.4).
    """
    width = matrix_VD.shape[1]
    kind = matrix_VD.dtype
    if width % 2 == 0:
        kind, width = np.result_type(kind, np.complex64), width // 2
    places_BD = rows_B.astype(np.int64)[:, None] * width + np.arange(width)
    flat = matrix_VD.view(kind).reshape(-1)
    assert np.shares_memory(flat, matrix_VD), "the sum would go into a copy"
    values = np.ascontiguousarray(values_BD, matrix_VD.dtype).view(kind)
    np.add.at(flat, places_BD.reshape(-1), values.reshape(-1))


def clip_rows(values_BD: Float, longest: float) -> None:
    """Shorten every row that is longer than this, in place."""
    squares_B = np.einsum("bd,bd->b", values_BD, values_BD)
    long_B = np.flatnonzero(squares_B > longest * longest)
    if len(long_B):
        values_BD[long_B] *= (longest / np.sqrt(squares_B[long_B]))[:, None]
