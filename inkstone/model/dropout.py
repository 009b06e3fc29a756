"""Dropout whose random numbers are cheap on a CPU.

Torch's own draws one Mersenne-twister number an element, on one thread: a tenth of a training step of a small model
(docs/journal.md). Here one random byte an element decides, drawn by SFC64, which is seeded from torch's generator - so
torch's generator state still decides everything, and a resumed run repeats it. The rate is rounded to 1/256, and kept
values are scaled by the exact inverse of the rounded rate. On other devices it is torch's own dropout.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 256


class _ByteDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: int) -> Tensor:
        seed = int(torch.randint(2**62, ()))
        random = np.random.Generator(np.random.SFC64(seed)).bytes(x.numel())
        bytes_ = torch.frombuffer(bytearray(random), dtype=torch.uint8).view(x.shape)
        scale = (bytes_ >= threshold).to(x.dtype).mul_(LEVELS / (LEVELS - threshold))
        ctx.save_for_backward(scale)
        return x * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (scale,) = ctx.saved_tensors
        return gradients[0] * scale, None


class Dropout(nn.Module):
    """Zero each element with this probability while training, and scale the others up to keep the mean."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        """The thinned values; the input itself when evaluating."""
        threshold = min(LEVELS - 1, round(self.probability * LEVELS))
        if not self.training or threshold == 0 or x.numel() == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, threshold / LEVELS)
        return _ByteDropout.apply(x, threshold)  # type: ignore[no-any-return, no-untyped-call]
