"""The two normalisations of a Transformer, both computed in float32 and given back in the type that came."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inkstone.model.config import ModelConfig


class RMSNorm(nn.Module):
    """x / rms(x) * weight (Zhang and Sennrich, 2019)."""

    def __init__(self, size: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.epsilon)
        return (wide * self.weight).to(x.dtype)


class LayerNorm(nn.LayerNorm):
    """Layer normalisation (Ba et al., 2016), whatever autocast says."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        if x.device.type == "cpu" and self.weight.dtype == torch.float32:  # the kernel widens by itself
            return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return F.layer_norm(x.float(), self.normalized_shape, self.weight, self.bias, self.eps).to(x.dtype)


def norm(config: ModelConfig, size: int = 0) -> nn.Module:
    """The normalisation the configuration asks for, of states or of vectors of another size."""
    kind = RMSNorm if config.norm == "rms" else LayerNorm
    return kind(size or config.hidden_size, config.norm_epsilon)
