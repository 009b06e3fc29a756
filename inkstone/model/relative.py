"""Relative positions as a bias of the scores (Raffel et al., 2020, section 2.1): one number for each head and distance.

Near distances have a bucket each, far ones share buckets that widen logarithmically up to `relative_distance`; all beyond
share the last. An encoder keeps half of the buckets for what stands to the right. One table serves all layers of a side.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from inkstone.model.config import ModelConfig


def bucket(distance: Tensor, buckets: int, farthest: int, *, both_ways: bool) -> Tensor:
    """The bucket of each distance (position of the key - position of the query)."""
    first = torch.zeros_like(distance)
    if both_ways:
        buckets //= 2
        first = (distance > 0).long() * buckets
        distance = distance.abs()
    else:
        distance = (-distance).clamp(min=0)
    near = buckets // 2
    ratio = torch.log(distance.clamp(min=1).float() / near) / math.log(farthest / near)
    far = (near + (ratio * (buckets - near)).long()).clamp(max=buckets - 1)
    return first + torch.where(distance < near, distance, far)


class RelativeBias(nn.Module):
    """The biases of one side of a model."""

    def __init__(self, config: ModelConfig, *, both_ways: bool) -> None:
        super().__init__()
        self.config, self.both_ways = config, both_ways
        self.embedding = nn.Embedding(config.relative_buckets, config.num_heads)

    def forward(self, start: int, end: int) -> Tensor:
        """For queries at start to end and keys at 0 to end: (1, H, T, L)."""
        places = torch.arange(end, device=self.embedding.weight.device)
        distance_TL = places[None, :] - places[start:, None]
        numbers_TL = bucket(
            distance_TL, self.config.relative_buckets, self.config.relative_distance, both_ways=self.both_ways
        )
        bias_1HTL: Tensor = self.embedding(numbers_TL).permute(2, 0, 1)[None]
        return bias_1HTL
