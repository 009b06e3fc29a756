"""One run in several processes: who does what, and how they stay together.

torchrun (or Ray) starts the processes; each runs the same recipe and finds its rank in the environment. Then

    every rank     its portions of the step (`learn.data.shares`) ─ backward ─┐
                                                                              ├─ gradients summed ─ the same step
    every rank     ...                                              backward ─┘
    the leader     validates, saves, logs, writes the bundle; the others wait for its word

and all of them end with the same weights, those that one process would have ended with. What decides the course of the
run (losses, measures, when to save or stop) is agreed on, so no rank waits for one that has turned off elsewhere.

Three kinds of team share an interface (`learn.teams` chooses): `Alone`; `Replicas`, where every process holds the whole
model (DDP, Li et al., 2020); `Shards` (`learn.fsdp`), where each holds a part of every matrix (FSDP2, Zhao et al., 2023).
Processes talk by
gloo on CPUs and by NCCL on GPUs.

Files: all ranks see the same folder of the run, as on one machine or a shared file system. A rank that fails leaves its
message in the processes' common store and ends; the others notice the broken connection, and end with that message.
"""

from __future__ import annotations

import atexit
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import timedelta
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from inkstone.ground import processes
from inkstone.ground.errors import TrainingError
from inkstone.learn.data.batches import Batch
from inkstone.learn.objectives.loss import Loss, Objective
from inkstone.learn.optim import Optimizers
from inkstone.learn.state import Checkpoints, State

Validate = Callable[[nn.Module], dict[str, float]]
LONGEST_WAIT = timedelta(
    days=1
)  # for the leader, who may validate and write for hours; a dead process is noticed at once
FAILED = "inkstone/failed"  # in the processes' store: what the first that failed had to say


class Team(Protocol):
    """The processes of a run, as one of them sees them. `model` is what is trained here; a step goes

    loss and backward of each portion, `last` True at the last one -> `total` of what they counted -> step.
    """

    rank: int
    world: int
    model: nn.Module

    def loss(self, objective: Objective, batch: Batch, smoothing: float, *, last: bool) -> Loss:
        """The objective's loss of one batch; after the backward pass of the last one, gradients are those of all."""
        ...

    @property
    def scale(self) -> float:
        """What gradients have to be multiplied by to be the sums over all processes."""
        ...

    def total(self, *values: float) -> list[float]:
        """The sums of these numbers over all processes."""
        ...

    def measured(self, validate: Validate) -> dict[str, float]:
        """The measures of a validation, the same for all."""
        ...

    def save(
        self, checkpoints: Checkpoints, kind: str, state: State, optimizer: Optimizers | None = None
    ) -> None:
        """Write a checkpoint."""
        ...

    def finish(self, checkpoints: Checkpoints) -> None:
        """Wait for all, and give every process the best weights, whole, in the model that was handed in."""
        ...


class Alone:
    """One process: nothing to agree on."""

    rank, world, scale = 0, 1, 1.0

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self.model = model.to(device)

    def loss(self, objective: Objective, batch: Batch, smoothing: float, *, last: bool) -> Loss:
        """See `Team`."""
        return objective(self.model, batch, smoothing)

    def total(self, *values: float) -> list[float]:
        """See `Team`."""
        return list(values)

    def measured(self, validate: Validate) -> dict[str, float]:
        """See `Team`."""
        return validate(self.model)

    def save(
        self, checkpoints: Checkpoints, kind: str, state: State, optimizer: Optimizers | None = None
    ) -> None:
        """See `Team`."""
        checkpoints.save(kind, self.model, state, optimizer)

    def finish(self, checkpoints: Checkpoints) -> None:
        """See `Team`."""
        checkpoints.load(checkpoints.best(), self.model)


class Door(nn.Module):
    """The model behind one `forward`, whatever is done with it: what DDP and FSDP hook their work on."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, work: Callable[[nn.Module], Any]) -> Any:
        """Do this with the model."""
        return work(self.model)


class Company:
    """What teams of several processes have in common: agreeing."""

    scale: float

    def __init__(self) -> None:
        self.rank, self.world = dist.get_rank(), dist.get_world_size()
        self.scale = float(self.world)  # DDP and FSDP take means over the processes

    def total(self, *values: float) -> list[float]:
        """See `Team`."""
        sums = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(sums)
        return [float(value) for value in sums]

    def agreed(self, value: Any) -> Any:
        """What the leader says, for all."""
        word = [value]
        dist.broadcast_object_list(word, src=0, device=torch.device("cpu"))
        return word[0]


class Replicas(Company):
    """Every process holds the whole model, and gradients are summed while the backward pass goes on (DDP)."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.model = model.to(device)
        self.door: DistributedDataParallel | None = (
            None  # made at the first step, when the weights are in place
        )

    def loss(self, objective: Objective, batch: Batch, smoothing: float, *, last: bool) -> Loss:
        """See `Team`."""
        if self.door is None:
            unused = leaves_unused(self.model, objective, batch, smoothing)
            self.door = DistributedDataParallel(
                Door(self.model),
                find_unused_parameters=any(self.total(unused)),
                gradient_as_bucket_view=True,
            )
        with nullcontext() if last else self.door.no_sync():
            return through(self.door, objective, batch, smoothing)

    def measured(self, validate: Validate) -> dict[str, float]:
        """The leader's; its model is everybody's."""
        measures: dict[str, float] = self.agreed(validate(self.model) if self.rank == 0 else None)
        return measures

    def save(
        self, checkpoints: Checkpoints, kind: str, state: State, optimizer: Optimizers | None = None
    ) -> None:
        """The leader's affair."""
        if self.rank == 0:
            checkpoints.save(kind, self.model, state, optimizer)

    def finish(self, checkpoints: Checkpoints) -> None:
        """See `Team`."""
        dist.barrier()  # the leader may still be writing
        checkpoints.load(checkpoints.best(), self.model)
        dist.barrier()  # nobody may take the checkpoints away before


def leaves_unused(model: nn.Module, objective: Objective, batch: Batch, smoothing: float) -> bool:
    """Whether the objective leaves some parameters without a gradient, as that of a masked model leaves its pooler.

    DDP waits for gradients that do not come unless it is told to look, and looking costs time in every step.
    """
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with torch.random.fork_rng():
        mean = objective(model, batch, smoothing).mean
        return any(gradient is None for gradient in torch.autograd.grad(mean, learning, allow_unused=True))


def through(door: nn.Module, objective: Objective, batch: Batch, smoothing: float) -> Loss:
    """The objective's loss, computed behind a door: its mean must come out as a tensor for the hooks to find it."""
    found: list[Loss] = []

    def work(model: nn.Module) -> Tensor:
        found.append(objective(model, batch, smoothing))
        return found[0].mean

    mean = door(work)
    return replace(found[0], mean=mean)


def join() -> bool:
    """Find the other processes of this run, once; whether there are any."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size() > 1
    if processes.world() == 1:
        return False
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        backend = "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, timeout=LONGEST_WAIT)
    atexit.register(_leave)
    return True


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def all_alike(team: Team, fingerprint: str) -> None:
    """Raise TrainingError unless every process is about to train on the same data with the same configuration."""
    number = float(
        int(hashlib.sha256(fingerprint.encode()).hexdigest()[:10], 16)
    )  # exact in float64, summed too
    (everybody,) = team.total(number)
    (unlike,) = team.total(float(everybody != number * team.world))
    if unlike:
        raise TrainingError(
            f"the {team.world} processes read unlike data, or have unlike recipes. Give all of them the same files."
        )


@contextmanager
def together(team: Team) -> Iterator[None]:
    """End every process of the team when one fails, with its message."""
    if team.world == 1:
        yield
        return
    store = dist.distributed_c10d._get_default_store()
    try:
        yield
    except Exception as error:
        word = _word(store)
        if isinstance(error, RuntimeError) and word:
            raise TrainingError(word) from error
        if "closed by peer" in str(error):
            raise TrainingError(
                f"another of the {team.world} processes ended without a word; the system kills those that need too "
                "much memory. The last checkpoint is intact: resume."
            ) from error
        store.set(FAILED, f"process {team.rank} of {team.world} failed: {error}")
        raise


def _word(store: Any) -> str:
    """What a failed process left behind; nothing when none did, or when the store is gone with it."""
    try:
        return store.get(FAILED).decode() if store.check([FAILED]) else ""
    except RuntimeError:
        return ""
