"""The optimisers and their schedules.

adamw is the safe choice for every kind of model. muon steps the matrices of the hidden layers in another way
(learn/muon.py) and leaves the rest to AdamW: on the bundled translator it stands after 400 steps where AdamW stands after
550 (docs/journal.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import nn

from inkstone.learn.muon import Muon

OptimizerName = Literal["adamw", "muon"]
Schedule = Literal["cosine", "inverse-sqrt", "linear", "constant"]


class Optimizers:
    """Optimisers that step as one, each over parameters of its own.

    `param_groups` are the very groups of the parts, so that a rate set there counts; the moments of all parameters are
    numbered through, in the order of the parts.
    """

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all parts."""
        return [group for part in self.parts for group in part.param_groups]

    def parameters(self) -> list[nn.Parameter]:
        """All that are stepped, in the order of their numbers."""
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def step(self) -> None:
        """One step of each."""
        for part in self.parts:
            part.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def moments(self) -> dict[int, Mapping[str, Any]]:
        """What the parts remember of each parameter they stepped, by its number."""
        found: dict[int, Mapping[str, Any]] = {}
        for first, part in self._numbered():
            for number, values in part.state_dict()["state"].items():
                found[first + number] = values
        return found

    def load_moments(self, stored: Mapping[int, Mapping[str, Any]]) -> None:
        """Put back what `moments` gave."""
        for first, part in self._numbered():
            count = sum(len(group["params"]) for group in part.param_groups)
            own = {
                number - first: dict(values)
                for number, values in stored.items()
                if first <= number < first + count
            }
            part.load_state_dict({"state": own, "param_groups": part.state_dict()["param_groups"]})

    def _numbered(self) -> list[tuple[int, torch.optim.Optimizer]]:
        """Each part with the number of its first parameter."""
        numbered, first = [], 0
        for part in self.parts:
            numbered.append((first, part))
            first += sum(len(group["params"]) for group in part.param_groups)
        return numbered


def adamw(model: nn.Module, *, learning_rate: float, weight_decay: float, beta2: float) -> Optimizers:
    """AdamW (Loshchilov and Hutter, 2019); only matrices decay, not biases, norms or embedding tables."""
    matrices, others = _divided(model)
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return Optimizers(torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, beta2), eps=1e-8, fused=True))


def muon(model: nn.Module, *, learning_rate: float, weight_decay: float, beta2: float) -> Optimizers:
    """Muon for the matrices, AdamW for everything else (kernels of convolutions too)."""
    matrices, others = _divided(model)
    flat = [parameter for parameter in matrices if parameter.dim() == 2]
    kernels = [parameter for parameter in matrices if parameter.dim() > 2]
    groups = [{"params": kernels, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return Optimizers(
        Muon(flat, lr=learning_rate, weight_decay=weight_decay),
        torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, beta2), eps=1e-8, fused=True),
    )


OPTIMIZERS: dict[str, Callable[..., Optimizers]] = {"adamw": adamw, "muon": muon}


def _divided(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The matrices, and everything else: biases, norms, embedding tables."""
    matrices: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (matrices if parameter.dim() > 1 and "embedding" not in name else others).append(parameter)
    return matrices, others


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
