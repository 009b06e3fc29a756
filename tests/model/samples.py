"""What the tests of all architectures share: models shaken out of their zeros, rows of token ids."""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import nn

M = TypeVar("M", bound=nn.Module)


@torch.no_grad()
def shaken(model: M) -> M:
    """The model with biases and norms away from their zeros and ones, so that forgetting one shows."""
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


def ids(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    """Random tokens, none of them a mark."""
    return torch.randint(4, 40, (rows, length), generator=torch.Generator().manual_seed(seed))


def padded_ids(lengths: list[int]) -> torch.Tensor:
    """Rows of these lengths, padded on the right."""
    return torch.stack([F.pad(ids(1, n, seed=n)[0], (0, max(lengths) - n)) for n in lengths])
