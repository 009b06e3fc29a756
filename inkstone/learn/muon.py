"""Muon (Jordan et al., 2024): momentum whose step is made orthogonal, for the matrices of the hidden layers.

A step of AdamW changes a matrix mostly along a few directions. Muon gives every direction of the momentum one size, by
five Newton-Schulz iterations (matrix products alone, in bfloat16): the rare ones are learnt as fast as the common ones.
The step is scaled to the root mean square of AdamW's (Liu et al., 2025), so that one learning rate serves both.

Beside `torch.optim.Muon`, which takes matrix after matrix, this one stacks those of one shape: less than half the time
for a small model on a CPU (docs/journal.md). A test holds the two together. Of sharded matrices (`learn.fsdp`) the
momentum is gathered for its step: no part of it is orthogonal by itself.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from inkstone.learn.shards import part, whole

MOMENTUM = 0.95
PRECISION = torch.bfloat16
ITERATIONS = 5
QUINTIC = (3.4445, -4.7750, 2.0315)  # of the quintic a x + b x^3 + c x^5: steep at 0 (Jordan et al., 2024)


class Muon(torch.optim.Optimizer):
    """Steps matrices by orthogonal momentum (Nesterov), with decoupled weight decay."""

    def __init__(self, matrices: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step of every matrix that has a gradient."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[nn.Parameter]] = {}
            for matrix in group["params"]:
                if matrix.grad is not None:
                    alike.setdefault(matrix.shape, []).append(matrix)
            for (rows, columns), matrices in alike.items():
                steps = orthogonal(torch.stack([whole(self._momentum(matrix)) for matrix in matrices]))
                size = group["lr"] * 0.2 * max(rows, columns) ** 0.5
                for matrix, step in zip(matrices, steps.to(matrices[0].dtype), strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.add_(part(step, matrix), alpha=-size)

    def _momentum(self, matrix: nn.Parameter) -> Tensor:
        """The running mean of the gradients, one step ahead."""
        gradient, state = matrix.grad, self.state[matrix]
        assert gradient is not None
        if not state:
            state["momentum"] = torch.zeros_like(gradient)
        momentum: Tensor = state["momentum"]
        momentum.lerp_(gradient, 1 - MOMENTUM)
        return gradient.lerp(momentum, MOMENTUM)


def orthogonal(matrices_NRC: Tensor) -> Tensor:
    """Nearly the closest matrices with all singular values 1 (they come out between about 0.7 and 1.2), in bfloat16."""
    x = matrices_NRC.to(PRECISION)
    upright = x.shape[1] > x.shape[2]
    if upright:
        x = x.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    a, b, c = QUINTIC
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.mT if upright else x
