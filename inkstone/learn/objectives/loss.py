"""What an objective returns, and the cross entropy over a vocabulary that the sequence objectives share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from inkstone.learn.data.batches import Batch

CHUNK = 256  # rows of logits held at once: 256 x 10,000 float32 is 10 MB, near the caches


@dataclass(frozen=True, slots=True)
class Loss:
    """The mean loss to follow downhill, over how many items it is a mean, and how many of them were predicted right."""

    mean: Tensor
    count: int
    correct: int


class Objective(Protocol):
    """A training objective. smoothing: the share of each target that is spread evenly over all classes."""

    def __call__(self, model: nn.Module, batch: Batch, smoothing: float = 0.0) -> Loss:
        """The loss of one batch."""
        ...


class _LinearCrossEntropy(torch.autograd.Function):
    """Mean cross entropy of softmax(x W^T), a few rows at a time, gradients made on the way.

    The logits of a batch (tokens x vocabulary) are the largest tensor of a small model by far; written out, they travel
    through memory a dozen times. Here each chunk of rows is scored, turned into its own gradient in place and multiplied
    into the gradients of x and W while it is still in the caches, so logits never exist as a whole.
    """

    @staticmethod
    def forward(
        ctx: Any, x_ND: Tensor, weight_VD: Tensor, wanted_N: Tensor, smoothing: float
    ) -> tuple[Tensor, Tensor]:
        count, vocabulary = len(x_ND), len(weight_VD)
        weight = weight_VD.detach().to(x_ND.dtype)
        x = x_ND.detach()
        x_gradient, weight_gradient = torch.empty_like(x), torch.zeros_like(weight_VD, dtype=torch.float32)
        total = torch.zeros((), device=x.device)
        correct = torch.zeros((), dtype=torch.long, device=x.device)
        for start in range(0, count, CHUNK):
            rows, wanted = x[start : start + CHUNK], wanted_N[start : start + CHUNK, None]
            logits = (rows @ weight.t()).float()
            right = logits.gather(1, wanted)
            mean = logits.mean(1, keepdim=True)
            top = logits.amax(1, keepdim=True)
            correct += (right >= top).sum()
            mass = logits.sub_(top).exp_().sum(1, keepdim=True)
            total += (mass.log() + top - (1 - smoothing) * right - smoothing * mean).sum()
            logits.mul_(1 / (mass * count))
            if smoothing:
                logits.sub_(smoothing / vocabulary / count)
            logits.scatter_add_(1, wanted, torch.full_like(right, (smoothing - 1) / count))
            slope = logits.to(x.dtype)
            torch.mm(slope, weight, out=x_gradient[start : start + CHUNK])
            weight_gradient += slope.t() @ rows
        ctx.save_for_backward(x_gradient, weight_gradient.to(weight_VD.dtype))
        return total / count, correct

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x_gradient, weight_gradient = ctx.saved_tensors
        return x_gradient * gradients[0], weight_gradient * gradients[0], None, None


def linear_cross_entropy(x_ND: Tensor, weight_VD: Tensor, wanted_N: Tensor, smoothing: float = 0.0) -> Loss:
    """Cross entropy of the classes `wanted_N` under softmax(x W^T), with label smoothing (Szegedy et al., 2016).

    Equal to F.cross_entropy(x @ W.T, wanted, label_smoothing=smoothing) in value and gradients, in the precision of x.
    """
    mean, correct = _LinearCrossEntropy.apply(x_ND, weight_VD, wanted_N, smoothing)  # type: ignore[no-untyped-call]
    return Loss(mean, len(wanted_N), int(correct))
