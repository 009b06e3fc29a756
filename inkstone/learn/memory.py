"""Memory: what the machine has left, what a process has taken, what a step keeps for its way back.

The system's view (resident size) is what runs out, so it is what predictions speak of. It is more than the sum of the
tensors: libraries, data, and blocks that the allocator keeps between steps (`learn.loop.keep_freed_memory`).
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

PROC = Path("/proc")
CGROUP = Path("/sys/fs/cgroup")


def taken_bytes(device: torch.device) -> int:
    """What the process holds now: on a GPU its allocated tensors, else its resident memory (where it cannot be told: the
    most it ever held)."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    try:
        pages = int((PROC / "self/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return peak_memory_bytes(device)
    return pages * resource.getpagesize()


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory used so far: of the GPU where there is one, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def available_bytes(device: torch.device) -> int | None:
    """What may still be taken beside what the process holds now; None where the system does not say."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    found = [size for size in (_of_machine(), _of_group()) if size is not None]
    return min(found) if found else None


def _of_machine() -> int | None:
    try:
        lines = (PROC / "meminfo").read_text().splitlines()
    except OSError:
        return None
    sizes = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return int(sizes[0]) * 1024 if sizes else None


def _of_group() -> int | None:
    """What the limit of a container leaves: version 2 of control groups, else version 1."""
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            most, now = ((CGROUP / name).read_text().strip() for name in (limit, used))
        except OSError:
            continue
        if most.isdigit() and int(most) < 1 << 60:  # "max", or a number past any machine: no limit
            return max(0, int(most) - int(now))
    return None


class Saved:
    """Counts what autograd keeps of a forward pass, each storage once, parameters not counted."""

    def __init__(self, weights: set[int]) -> None:
        self.weights, self.storages, self.size_bytes = weights, set[int](), 0

    def __call__(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        place = storage.data_ptr()
        if place not in self.weights and place not in self.storages:
            self.storages.add(place)
            self.size_bytes += storage.nbytes()
        return tensor


@contextmanager
def saved_activations(model: torch.nn.Module) -> Iterator[Saved]:
    """What the forward pass inside the block keeps for the backward pass."""
    saved = Saved({parameter.untyped_storage().data_ptr() for parameter in model.parameters()})
    with torch.autograd.graph.saved_tensors_hooks(saved, lambda tensor: tensor):
        yield saved
