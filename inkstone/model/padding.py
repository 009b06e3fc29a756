"""Rows of different length as one tensor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

Ids = Sequence[int]


def pad(rows: Sequence[Ids], pad_id: int) -> Tensor:
    """Rows of ids as one tensor, padded on the right: (B, longest), at least one wide."""
    longest = max(1, max(len(row) for row in rows))
    out = np.full((len(rows), longest), pad_id)
    for number, row in enumerate(rows):
        out[number, : len(row)] = row
    return torch.from_numpy(out)
