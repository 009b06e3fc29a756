"""Checkpoints: everything a run needs to go on exactly, each a sealed folder.

    checkpoints/last-00001200/   model.safetensors  optimizer.safetensors  state.json  manifest.json
    checkpoints/best-00000900/   model.safetensors                         state.json  manifest.json

A checkpoint gets its name in one rename, after everything in it reached the disk; only then is the one before it
removed. Whatever kills the process, the newest complete one is there. Nothing is pickled.

There are no random states to keep: every draw of a step is seeded by (seed, step), and the batches of an epoch are a
function of (seed, epoch).
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from inkstone.ground.errors import OutputError, TrainingError
from inkstone.ground.files import explained, whole_folder, write_json
from inkstone.ground.manifest import problems, read_json, seal
from inkstone.ground.progress import say
from inkstone.learn.optim import Optimizers


@dataclass(slots=True)
class State:
    """Where a run stands, besides its weights."""

    step: int = 0
    epoch: int = 0
    index: int = 0  # the next batch of the epoch
    tokens: int = 0
    seconds: float = 0.0
    loss: float = float("nan")  # a running mean of the training loss
    best_step: int = 0
    best_value: float | None = None
    since_best: int = 0  # validations without a gain
    curve: list[dict[str, float]] = field(default_factory=list)
    data: str = ""  # fingerprint of the examples, so that a run is never resumed on other data
    first: list[list[str]] = field(default_factory=list)  # of the first steps: see `learn.receipt`
    begun: dict[str, str | int] = field(default_factory=dict)  # the surroundings in which these were taken
    resumed: int = 0  # times that the run went on from a checkpoint


class Checkpoints:
    """The checkpoints of one run, in `<run>/checkpoints`."""

    def __init__(self, run: Path) -> None:
        self.folder = run / "checkpoints"

    def save(self, kind: str, model: nn.Module, state: State, optimizer: Optimizers | None = None) -> None:
        """Write a checkpoint of a kind ("last", "best") whole, then remove the earlier ones of that kind."""
        place = self.folder / f"{kind}-{state.step:08d}"
        if place.exists() and not problems(place):  # the same step, saved before
            return
        with explained(place):
            self.folder.mkdir(parents=True, exist_ok=True)  # stays, whatever comes: the run has begun
        with whole_folder(place, replace=True) as folder:
            try:
                save_file(_tensors(model), folder / "model.safetensors")
                if optimizer is not None:
                    save_file(_optimizer_tensors(optimizer), folder / "optimizer.safetensors")
            except SafetensorError as error:
                raise OutputError(
                    f"cannot write {place}: {error}. Free some space, then resume; the checkpoint before it is intact."
                ) from error
            write_json(folder / "state.json", asdict(state))
            seal(folder, {"kind": kind})
        for old in self.folder.glob(f"{kind}-*"):
            if old.name < place.name:
                shutil.rmtree(old)

    def newest(self, kind: str) -> Path | None:
        """The latest checkpoint of a kind that is complete, or None."""
        for place in sorted(self.folder.glob(f"{kind}-*"), reverse=True):
            wrong = problems(place)
            if not wrong:
                return place
            say(f"{place} is damaged and is passed over: {'; '.join(wrong)}")
        return None

    def sweep(self, step: int) -> None:
        """Before a run goes on from a step: forget best checkpoints from after it, and what a kill left half written.

        A best checkpoint is newer than the last one when the process died in between.
        """
        for best in self.folder.glob("best-*"):
            if int(best.name.removeprefix("best-")) > step:
                shutil.rmtree(best)
        for left in self.folder.glob(".*.part"):
            shutil.rmtree(left, ignore_errors=True)

    def load(self, place: Path, model: nn.Module, optimizer: Optimizers | None = None) -> State:
        """Put a checkpoint's weights (and the optimiser's moments) in place, and return where the run stood.

        Raises TrainingError when the weights are those of another model.
        """
        stored = load_file(place / "model.safetensors")
        own = _tensors(model)
        if {n: t.shape for n, t in stored.items()} != {n: t.shape for n, t in own.items()}:
            raise TrainingError(
                f"{place} holds the weights of another model. Resume with the recipe it began with."
            )
        model.load_state_dict(stored, strict=False)
        state = State(**read_json(place / "state.json"))
        if optimizer is not None:
            _load_optimizer(optimizer, load_file(place / "optimizer.safetensors"))
        return state


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}


def _optimizer_tensors(optimizer: Optimizers) -> dict[str, Tensor]:
    return {
        f"{number}.{name}": value.contiguous()
        for number, values in optimizer.moments().items()
        for name, value in values.items()
    }


def _load_optimizer(optimizer: Optimizers, stored: Mapping[str, Tensor]) -> None:
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in stored.items():
        number, name = key.split(".", 1)
        moments.setdefault(int(number), {})[name] = value
    optimizer.load_moments(moments)
