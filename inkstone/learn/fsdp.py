"""Fully sharded training (FSDP2): each process holds a part of every matrix, of its gradient and of its moments.

    between steps   rank 0: rows 0 .. V/2 of every matrix      rank 1: the other rows
    in a block      its matrices are gathered, used, and let go; in the backward pass once more
    afterwards      each rank keeps the sums of its own rows' gradients, and steps them alone

A model that one GPU cannot hold beside its gradients and moments so fits on several (`learn.layout` computes how many).
The unit that is gathered at once is a block of a Transformer; what is outside the blocks (embeddings, last norm) stays
gathered from the forward to the backward pass, since both ends need it. Other architectures are one unit.

Checkpoints are sharded too (`learn.shards`). Any number of processes can go on from them, one as well; and several can go
on from what one process wrote.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from inkstone.learn.data.batches import Batch
from inkstone.learn.distributed import Company, Door, Validate, through
from inkstone.learn.objectives.loss import Loss, Objective
from inkstone.learn.optim import Optimizers
from inkstone.learn.shards import SHARDS, write_shards
from inkstone.learn.state import Checkpoints, State, optimizer_tensors
from inkstone.model.transformer import Block


class Shards(Company):
    """Every process holds a part of the model. `model` is a sharded copy of the one handed in, which gets the best
    weights, whole, at the end."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.whole, self.model = model, copy.deepcopy(model)
        self.door = Door(self.model)
        mesh = init_device_mesh(device.type, (self.world,))
        for unit in units(self.model):
            fully_shard(unit, mesh=mesh)
        fully_shard(self.door, mesh=mesh)

    def loss(self, objective: Objective, batch: Batch, smoothing: float, *, last: bool) -> Loss:
        """See `Team`. Gradients are summed after each portion: nobody has room for a whole one."""
        with (
            warnings.catch_warnings()
        ):  # of keys and values, which a block gives back as views: nobody writes in them
            warnings.filterwarnings("ignore", message=".*returned a view tensor")
            return through(self.door, objective, batch, smoothing)

    def measured(self, validate: Validate) -> dict[str, float]:
        """All validate, since the blocks of each need the parts of all; the leader's numbers count."""
        measures: dict[str, float] = self.agreed(self.door(validate))
        return measures

    def save(
        self, checkpoints: Checkpoints, kind: str, state: State, optimizer: Optimizers | None = None
    ) -> None:
        """Each process writes its parts into the folder that the leader makes and seals."""

        def write(folder: Path) -> None:
            tensors = named_tensors(self.model, optimizer)
            write_shards(self.agreed(folder / SHARDS), tensors)

        if self.rank == 0:
            self.agreed(checkpoints.has(kind, state))
            checkpoints.save(kind, self.model, state, optimizer, write)
        elif not self.agreed(None):
            write(Path())
        dist.barrier()  # only then may anybody read it

    def finish(self, checkpoints: Checkpoints) -> None:
        """See `Team`."""
        dist.barrier()
        checkpoints.load(checkpoints.best(), self.whole)
        dist.barrier()


def units(model: nn.Module) -> Iterator[Any]:
    """What is gathered at once, inner units first: the blocks, and of attention to a memory the keys and values.

    Those are computed before the block is entered, for all tokens of the target at once.
    """
    for block in model.modules():
        if isinstance(block, Block):
            across = block.memory_attention
            if across is not None:
                yield [part for part in (across.key_value, across.key_norm) if part is not None]
            yield block


def named_tensors(model: nn.Module, optimizer: Optimizers | None) -> dict[str, Tensor]:
    """Everything of a checkpoint under one name each: "model.", "optimizer."."""
    tensors = {f"model.{name}": tensor.detach() for name, tensor in model.state_dict().items()}
    if optimizer is not None:
        tensors |= {f"optimizer.{name}": tensor for name, tensor in optimizer_tensors(optimizer).items()}
    return tensors
