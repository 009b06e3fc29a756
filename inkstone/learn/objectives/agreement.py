"""How much two passes of a model over the same batch disagree: what R-Drop (Liang et al., 2021) holds small.

    KL(p || q) + KL(q || p)  =  sum_v (p_v - q_v) (a_v - b_v)        p = softmax(a), q = softmax(b)

since the logarithms of the two sums cancel. With a sigmoid for each label the same holds label by label.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from inkstone.learn.objectives.loss import CHUNK


class _LinearDisagreement(torch.autograd.Function):
    """The mean over N for softmaxes over x W^T, a few rows at a time, gradients made on the way (as in `loss`)."""

    @staticmethod
    def forward(ctx: Any, one_ND: Tensor, other_ND: Tensor, weight_VD: Tensor) -> Tensor:
        count = len(one_ND)
        one, other, weight = one_ND.detach(), other_ND.detach(), weight_VD.detach().to(one_ND.dtype)
        one_gradient, other_gradient = torch.empty_like(one), torch.empty_like(other)
        weight_gradient = torch.zeros_like(weight_VD, dtype=torch.float32)
        total = torch.zeros((), device=one.device)
        for start in range(0, count, CHUNK):
            place = slice(start, start + CHUNK)
            a, b = (one[place] @ weight.t()).float(), (other[place] @ weight.t()).float()
            p, q = a.softmax(1), b.softmax(1)
            apart, unlike = a.sub_(b), p - q
            total += (unlike * apart).sum()
            a_slope = (p * (apart - (p * apart).sum(1, keepdim=True)) + unlike).div_(count).to(one.dtype)
            b_slope = (q * ((q * apart).sum(1, keepdim=True) - apart) - unlike).div_(count).to(one.dtype)
            torch.mm(a_slope, weight, out=one_gradient[place])
            torch.mm(b_slope, weight, out=other_gradient[place])
            weight_gradient += a_slope.t() @ one[place] + b_slope.t() @ other[place]
        ctx.save_for_backward(one_gradient, other_gradient, weight_gradient.to(weight_VD.dtype))
        return total / count

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        return tuple(saved * gradients[0] for saved in ctx.saved_tensors)


def linear_disagreement(one_ND: Tensor, other_ND: Tensor, weight_VD: Tensor) -> Tensor:
    """KL both ways of softmax(one W^T) and softmax(other W^T), the mean over N; gradients for all three."""
    found: Tensor = _LinearDisagreement.apply(one_ND, other_ND, weight_VD)  # type: ignore[no-untyped-call]
    return found


def disagreement(a_BC: Tensor, b_BC: Tensor, *, multi_label: bool) -> Tensor:
    """KL both ways of the classes under these scores, the mean over B; or of each label's yes or no, over all."""
    if multi_label:
        return ((a_BC.sigmoid() - b_BC.sigmoid()) * (a_BC - b_BC)).mean()
    return ((a_BC.softmax(1) - b_BC.softmax(1)) * (a_BC - b_BC)).sum(1).mean()
