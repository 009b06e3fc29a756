"""Sharded checkpoints on disk: `shards/`, with one safetensors file for each process that wrote it.

torch.distributed.checkpoint writes and reads them. Each file says in its header which part of which tensor it holds, so a
reader takes what it needs, whole tensors or its own parts, however many processes wrote them. Nothing is pickled.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SHARDS = "shards"  # the folder, in a checkpoint's


def write_shards(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write the parts that this process holds. All processes of the run have to take part."""
    from torch.distributed import checkpoint

    writer: Any = checkpoint.HuggingFaceStorageWriter(str(folder), save_distributed=True)  # type: ignore[attr-defined]
    checkpoint.save(dict(tensors), storage_writer=writer)  # type: ignore[attr-defined]


def read_shards(folder: Path, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of these names: whole, or of a sharded one the parts that it has in this process."""
    from torch.distributed import checkpoint

    tensors = {name: torch.empty_like(one) for name, one in like.items()}
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="torch.distributed is disabled"
        )  # each reads for itself: meant so
        checkpoint.load(tensors, storage_reader=_reader(folder), no_dist=True)  # type: ignore[attr-defined]
    return tensors


def shapes_of(folder: Path) -> dict[str, torch.Size]:
    """The names and whole shapes of what a sharded checkpoint holds."""
    return {name: one.size for name, one in _reader(folder).read_metadata().state_dict_metadata.items()}


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor gathered from all processes; any other as it is."""
    gathered: Tensor = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
    return gathered


def part(tensor: Tensor, like: Tensor) -> Tensor:
    """Of a whole tensor, what a sharded one of its shape has in this process; all of it where nothing is sharded."""
    if not hasattr(like, "device_mesh"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    on_device = tensor.to(like.device)
    return distribute_tensor(on_device, like.device_mesh, like.placements, src_data_rank=None)  # type: ignore[attr-defined]


def _reader(folder: Path) -> Any:
    from torch.distributed import checkpoint

    return checkpoint.HuggingFaceStorageReader(str(folder))  # type: ignore[attr-defined]
