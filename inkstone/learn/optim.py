"""The optimiser and its schedule."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import nn

Schedule = Literal["cosine", "inverse-sqrt", "linear", "constant"]


def adamw(model: nn.Module, *, learning_rate: float, weight_decay: float, beta2: float) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter, 2019); only matrices decay, not biases, norms or embedding tables."""
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (decayed if parameter.dim() > 1 and "embedding" not in name else others).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, beta2), eps=1e-8, fused=True)


def _cosine(step: int, warmup: int, total: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, total - warmup))))


def _linear(step: int, warmup: int, total: int) -> float:
    return max(0.0, (total - step) / max(1, total - warmup))


def _inverse_sqrt(step: int, warmup: int, total: int) -> float:
    return math.sqrt(max(1, warmup) / max(1, step))


def _constant(step: int, warmup: int, total: int) -> float:
    return 1.0


SCHEDULES: dict[str, Callable[[int, int, int], float]] = {
    "cosine": _cosine,
    "inverse-sqrt": _inverse_sqrt,
    "linear": _linear,
    "constant": _constant,
}


def rate(schedule: str, step: int, warmup: int, total: int) -> float:
    """The share of the peak learning rate at a step (counted from 0): a linear rise, then the schedule."""
    return (step + 1) / warmup if step < warmup else SCHEDULES[schedule](step, warmup, total)
