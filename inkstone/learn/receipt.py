"""The receipt of a training: enough of how it began to see, later and elsewhere, whether it can be repeated.

    first          of each of the first 50 steps: the loss, exactly, and the sha256 of the batch
    surroundings   what decides the bits of a sum: processor, build of torch, threads, precision
    order          who put the examples in order, from which seed, and where the run came to

A training repeats itself bit for bit where these surroundings are the same, and only there: torch promises nothing
across releases, processors or numbers of threads, since sums in another order round otherwise. A loss is written as
Python writes floats in hexadecimal, which loses nothing: 0x1.1f0000p+3 is 8.96875.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from inkstone.learn.data.batches import Feed
from inkstone.learn.data.shares import Portion

if TYPE_CHECKING:
    from inkstone.learn.loop import TrainingOptions
    from inkstone.learn.state import State

FIRST = 50  # steps that are noted
Surroundings = dict[str, str | int]


def surroundings(device: torch.device, precision: str, processes: int = 1) -> Surroundings:
    """What decides the bits of a step, besides data and options; call it with the threads set as they will be."""
    build = f"{torch.__version__} {torch.__config__.show()} {torch.version.cuda}"
    found: Surroundings = {
        "machine": platform.machine(),
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "torch": torch.__version__,
        "torch_build": hashlib.sha256(build.encode()).hexdigest()[:16],
        "threads": torch.get_num_threads(),
        "processes": processes,
        "precision": precision,
        "matmul_precision": torch.get_float32_matmul_precision(),
    }
    return found


def processor() -> str:
    """The model of the processor, as the system names it."""
    listed = Path("/proc/cpuinfo")
    for line in listed.read_text("utf-8", "replace").splitlines() if listed.exists() else ():
        if line.lower().startswith(("model name", "cpu model")):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def note_step(state: State, loss: float, portions: Sequence[Portion], here: Surroundings) -> None:
    """Note a step that was taken from this state, when it is one of the first. Call it before the state moves on.

    Steps after a change of surroundings (a run that goes on elsewhere) are not noted: they prove nothing there.
    """
    if state.step >= FIRST or len(state.first) != state.step:
        return
    if state.step == 0:
        state.begun = here
    if state.begun == here:
        state.first.append([loss.hex(), digest_of_portions(portions)])


def receipt_of(state: State, feed: Feed, options: TrainingOptions) -> dict[str, Any]:
    """The receipt of a run that stands here."""
    return {
        "first": [{"loss": loss, "batch_sha256": digest} for loss, digest in state.first],
        "surroundings": state.begun,
        "order": {
            "by": type(feed).__name__,
            "seed": options.seed,
            "epoch": state.epoch,
            "index": state.index,
        },
        "steps": state.step,
        "tokens": state.tokens,
        "resumed": state.resumed,
        "fingerprint": state.data,
    }


def fitted_receipt(model: nn.Module) -> dict[str, Any]:
    """The receipt of a model that was fitted: all texts at once, no steps, so its weights are what is repeated."""
    return {
        "weights_sha256": digest_of_weights(model),
        "surroundings": surroundings(torch.device("cpu"), "float32"),
    }


def digest_of_portions(portions: Sequence[Portion]) -> str:
    """The sha256 of everything that a step reads."""
    digest = hashlib.sha256()
    for portion in portions:
        digest.update(type(portion.batch).__name__.encode() + repr((portion.place, portion.counts)).encode())
        for field in fields(portion.batch):
            value = getattr(portion.batch, field.name)
            digest.update(field.name.encode())
            digest.update(
                _described(value) + _bytes(value) if isinstance(value, Tensor) else repr(value).encode()
            )
    return digest.hexdigest()


def digest_of_weights(model: nn.Module) -> str:
    """The sha256 of all weights of a model, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + _described(tensor) + _bytes(tensor))
    return digest.hexdigest()


def _described(tensor: Tensor) -> bytes:
    return repr((tensor.dtype, tuple(tensor.shape))).encode()


def _bytes(tensor: Tensor) -> bytes:
    """The numbers of a tensor as they lie in memory, whatever their type."""
    return (
        tensor.detach()
        .cpu()
        .reshape(-1)
        .clone(memory_format=torch.contiguous_format)
        .view(torch.uint8)
        .numpy()
        .tobytes()
    )
