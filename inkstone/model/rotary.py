"""Rotary positions (Su et al., 2021): each pair of features of a query or key turns with the position, at its own rate.

Two tokens then see only the distance between them. To read further than the pre-training did, the rates are changed:
linear      all divided by the factor (Chen et al., 2023)
llama3      those that turn less than `rotary_slow` times over the trained positions divided, those that turn more than
            `rotary_fast` times kept, in between a mixture by the number of turns (Llama 3.1)
yarn        the same, with the mixture by the number of the feature, and what is rotated made larger (Peng et al., 2023)
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from inkstone.model.config import ModelConfig


def rotary_rates(config: ModelConfig) -> Tensor:
    """The angle of each pair of features at position 1, in radians: (K / 2,), in float32."""
    size, factor, trained = config.head_size, config.rotary_factor, config.rotary_trained
    rates = 1.0 / config.rotary_base ** (torch.arange(0, size, 2).float() / size)
    if config.rotary_scaling == "none":
        return rates
    if config.rotary_scaling == "linear":
        return rates / factor
    if config.rotary_scaling == "llama3":
        turns = trained / (2 * math.pi / rates)
        kept = ((turns - config.rotary_slow) / (config.rotary_fast - config.rotary_slow)).clamp(0, 1)
    else:
        fast, slow = (
            size * math.log(trained / (turns * 2 * math.pi)) / (2 * math.log(config.rotary_base))
            for turns in (config.rotary_fast, config.rotary_slow)
        )
        low, high = max(math.floor(fast), 0), min(math.ceil(slow), size - 1)
        kept = 1 - ((torch.arange(size // 2).float() - low) / max(high - low, 0.001)).clamp(0, 1)
    return rates / factor * (1 - kept) + rates * kept


class Rotary(nn.Module):
    """The cosines and sines of the positions asked for so far."""

    table_2TK: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("table_2TK", torch.empty(2, 0, config.head_size), persistent=False)

    def forward(self, end: int, places_BT: Tensor | None, start: int) -> Tensor:
        """The table of positions start to end, (2, T, K), or of each row's own positions, (2, B, 1, T, K)."""
        if end > self.table_2TK.shape[1]:
            length = min(max(64, 2 * end), max(end, self.config.max_positions))
            angles = torch.arange(length).float()[:, None] * rotary_rates(self.config)
            table = torch.stack([angles.cos(), angles.sin()]).repeat(1, 1, 2) * self.config.rotary_magnitude
            self.table_2TK = table.to(self.table_2TK.device)
        if places_BT is None:
            return self.table_2TK[:, start:end]
        return self.table_2TK[:, places_BT].unsqueeze(2)


def rotate(x_BHTK: Tensor, table: Tensor) -> Tensor:
    """Turn each pair (i, i + K/2) of query or key features by its position's angle."""
    cos, sin = table[..., : x_BHTK.shape[-1] // 2].to(x_BHTK.dtype).unbind(0)
    turned: Tensor = _Rotation.apply(x_BHTK, cos, sin)  # type: ignore[no-untyped-call]
    return turned


class _Rotation(torch.autograd.Function):
    """Written straight into its place; the way back is the same turn the other way round."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _turned(gradients[0], cos, -sin), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(first, second) -> (first cos - second sin, second cos + first sin)."""
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    (first, second), (left, right) = x.chunk(2, dim=-1), out.chunk(2, dim=-1)
    torch.mul(first, cos, out=left).addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=right).addcmul_(first, sin)
    return out
