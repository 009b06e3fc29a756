"""Which team trains: this process alone, or with others in one of the ways of `TEAMS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import nn

from inkstone.learn.distributed import Alone, Replicas, Team, join

Parallel = Literal["ddp", "fsdp"]


def assemble(model: nn.Module, parallel: Parallel, device: torch.device) -> Team:
    """The team of this process: alone, or joined with the others that torchrun started."""
    if not join():
        return Alone(model, device)
    return TEAMS[parallel](model, device)


def _shards(model: nn.Module, device: torch.device) -> Team:
    from inkstone.learn.fsdp import Shards

    team: Team = Shards(model, device)
    return team


TEAMS: dict[str, Callable[[nn.Module, torch.device], Team]] = {"ddp": Replicas, "fsdp": _shards}
