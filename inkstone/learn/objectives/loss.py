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
    through memory a dozen times. Here each chunk of rows is scored and turned into probabilities, which after 1 is taken
    from the right class are its gradient, and multiplied into the gradient of x while it is still in the caches. Only
    these slopes exist as a whole, for one product with x at the end.

    Label smoothing adds nothing to the chunks: spread evenly over all classes it asks for the mean of the logits, which
    is x times the mean row of W.
    """

    @staticmethod
    def forward(
        ctx: Any, x_ND: Tensor, weight_VD: Tensor, wanted_N: Tensor, smoothing: float
    ) -> tuple[Tensor, Tensor]:
        count, vocabulary = len(x_ND), len(weight_VD)
        x, weight = x_ND.detach(), weight_VD.detach().to(x_ND.dtype)
        x_gradient, slopes_NV = torch.empty_like(x), x.new_empty(count, vocabulary)
        right_N1, top_N, share_N = x.new_empty(count, 1), x.new_empty(count), x.new_empty(count)
        less = x.new_full((min(CHUNK, count), 1), smoothing - 1)
        for start in range(0, count, CHUNK):
            rows = slice(start, start + CHUNK)
            wanted, slopes = wanted_N[rows, None], slopes_NV[rows]
            logits = x[rows] @ weight.t()
            torch.gather(logits, 1, wanted, out=right_N1[rows])
            torch.amax(logits, 1, out=top_N[rows])
            torch.softmax(logits, 1, out=slopes)
            torch.amax(slopes, 1, out=share_N[rows])
            slopes.scatter_add_(1, wanted, less[: len(slopes)])
            torch.mm(slopes, weight, out=x_gradient[rows])
        weight_gradient = (slopes_NV.t() @ x).float()
        right_N = right_N1[:, 0].float()
        normaliser_N = top_N.float() - share_N.float().log()  # log softmax of a class is its logit less this
        total = (normaliser_N - right_N).sum()
        if smoothing:
            mean_D, x_float = weight_VD.detach().float().mean(0), x.float()
            total = (1 - smoothing) * total + smoothing * (normaliser_N - x_float @ mean_D).sum()
            x_gradient -= (smoothing * mean_D).to(x.dtype)
            weight_gradient -= smoothing / vocabulary * x_float.sum(0)
        ctx.save_for_backward(x_gradient, weight_gradient.to(weight_VD.dtype))
        ctx.count = count
        return total / count, (right_N >= top_N.float()).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x_gradient, weight_gradient = ctx.saved_tensors
        scale = gradients[0] / ctx.count
        return x_gradient * scale, weight_gradient * scale, None, None


def linear_cross_entropy(x_ND: Tensor, weight_VD: Tensor, wanted_N: Tensor, smoothing: float = 0.0) -> Loss:
    """Cross entropy of the classes `wanted_N` under softmax(x W^T), with label smoothing (Szegedy et al., 2016).

    Equal to F.cross_entropy(x @ W.T, wanted, label_smoothing=smoothing) in value and gradients, in the precision of x.
    """
    mean, correct = _LinearCrossEntropy.apply(x_ND, weight_VD, wanted_N, smoothing)  # type: ignore[no-untyped-call]
    return Loss(mean, len(wanted_N), int(correct))
