"""Dropout whose random numbers are cheap on a CPU.

Torch's own draws one Mersenne-twister number an element, on one thread: a tenth of a training step of a small model
(docs/journal.md). Here a mask is a window of one long random strip, which a process makes once from a fixed seed; where
the window begins is drawn from torch's generator, so a whole mask costs one number:

    strip    1 0 1 1 1 0 1 1 0 1 1 1 1 0 1 0 1 1 1 ...      kept or not, 4 million times
    mask           [1 1 0 1 1 0 1 1]                        of one tensor in one step

Any element is kept as often as it should be, and two of one mask are kept together as often as independent ones, to
within 1/2000. Masks of one step may share a stretch of the strip, shifted. A tensor longer than a window takes several.
The rate is rounded to 1/256, and kept values are scaled by the exact inverse of the rounded rate. On other devices it is
torch's own dropout.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 256
STRIP, WINDOW = 2**22, 2**20  # elements; 8 MB in bfloat16


@lru_cache(maxsize=8)
def _strip(threshold: int, dtype: torch.dtype) -> Tensor:
    """0 where a random byte is below the threshold, elsewhere what keeps the mean: (STRIP,)."""
    random = torch.from_numpy(np.random.Generator(np.random.SFC64(1)).integers(0, LEVELS, STRIP, np.uint8))
    return (random >= threshold).to(dtype).mul_(LEVELS / (LEVELS - threshold))


def _masks(count: int, threshold: int, dtype: torch.dtype, starts: list[int]) -> list[Tensor]:
    """The windows that begin at these places and cover so many elements together."""
    sizes = [min(WINDOW, count - done) for done in range(0, count, WINDOW)]
    strip = _strip(threshold, dtype)
    return [strip[start : start + size] for start, size in zip(starts, sizes, strict=True)]


def _thinned(x: Tensor, masks: list[Tensor]) -> Tensor:
    if len(masks) == 1:
        return x * masks[0].view(x.shape)
    flat = x.reshape(-1)
    out = torch.empty_like(flat)
    for part, kept, mask in zip(torch.split(flat, WINDOW), torch.split(out, WINDOW), masks, strict=True):
        torch.mul(part, mask, out=kept)
    return out.view(x.shape)


class _StripDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: int, onto: Tensor | None) -> Tensor:
        windows = -(-x.numel() // WINDOW)
        ctx.threshold, ctx.starts = threshold, torch.randint(STRIP - WINDOW, (windows,)).tolist()
        masks = _masks(x.numel(), threshold, x.dtype, ctx.starts)
        if onto is None:
            return _thinned(x, masks)
        if len(masks) == 1:
            return torch.addcmul(onto, x, masks[0].view(x.shape))
        return _thinned(x, masks).add_(onto)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, Tensor | None]:
        (gradient,) = gradients
        masks = _masks(gradient.numel(), ctx.threshold, gradient.dtype, ctx.starts)
        return _thinned(gradient, masks), None, gradient if ctx.needs_input_grad[2] else None


class Dropout(nn.Module):
    """Zero each element with this probability while training, and scale the others up to keep the mean."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        """The thinned values, added onto others of the same shape where there are any; all of them when evaluating."""
        threshold = min(LEVELS - 1, round(self.probability * LEVELS))
        if not self.training or threshold == 0 or x.numel() == 0:
            return x if onto is None else onto + x
        if x.device.type != "cpu":
            thinned = F.dropout(x, threshold / LEVELS)
            return thinned if onto is None else onto + thinned
        return _StripDropout.apply(x, threshold, onto)  # type: ignore[no-any-return, no-untyped-call]
