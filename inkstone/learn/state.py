"""Checkpoints: everything a run needs to go on exactly, each a sealed folder.

    checkpoints/last-00001200/   model.safetensors  optimizer.safetensors  state.json  manifest.json
    checkpoints/best-00000900/   model.safetensors                         state.json  manifest.json

The last one has averages.safetensors too where there is a moving average; "recent" ones are there to be averaged.
Under FSDP one folder `shards/` stands for the two files (`learn.shards`).

A checkpoint gets its name in one rename, after everything in it reached the disk; only then is the one before it
removed. Whatever kills the process, the newest complete one is there. Nothing is pickled.

There are no random states to keep: every draw of a step is seeded by (seed, step), and the batches of an epoch are a
function of (seed, epoch).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Size, Tensor, nn

from inkstone.ground.errors import ConfigError, OutputError, TrainingError, not_known
from inkstone.ground.files import explained, whole_folder, write_json
from inkstone.ground.manifest import problems, read_json, seal
from inkstone.ground.progress import say
from inkstone.learn.optim import Optimizers
from inkstone.learn.shards import SHARDS, part, read_shards, shapes_of

AVERAGES = "averages.safetensors"


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

    def point(self, measures: Mapping[str, float]) -> dict[str, float]:
        """A validation as the curve holds it."""
        point = {"step": float(self.step), "seconds": round(self.seconds, 1), "train_loss": self.loss}
        return {**point, **{f"valid_{name}": v for name, v in measures.items()}}


def measures_of(point: Mapping[str, float]) -> dict[str, float]:
    """The measures of a point of the curve, as the validation named them."""
    return {name.removeprefix("valid_"): v for name, v in point.items() if name.startswith("valid_")}


def value_of(measures: Mapping[str, float], metric: str) -> float:
    """What decides which checkpoint is best: higher is better, and a loss counts downwards. Raises ConfigError."""
    if metric not in measures:
        raise ConfigError(not_known("training.metric", metric, measures))
    return -measures[metric] if metric == "loss" else measures[metric]


class Checkpoints:
    """The checkpoints of one run, in `<run>/checkpoints`.

    averages: the tensors of a moving average, kept with the last checkpoint, and filled again when the optimiser is.
    recent: how many of that kind stay.
    """

    def __init__(self, run: Path, averages: Mapping[str, Tensor] | None = None, *, recent: int = 0) -> None:
        self.folder = run / "checkpoints"
        self.averages, self.recent = averages or {}, recent

    def save(
        self,
        kind: str,
        model: nn.Module,
        state: State,
        optimizer: Optimizers | None = None,
        write: Callable[[Path], None] | None = None,
    ) -> None:
        """Write a checkpoint of a kind ("last", "best", "recent") whole, then remove the earlier ones of that kind.

        write: writes model and optimiser into the folder where they are not simply here (`learn.fsdp`).
        """
        place = self._place(kind, state)
        if self.has(kind, state):  # the same step, saved before
            return
        with explained(place):
            self.folder.mkdir(parents=True, exist_ok=True)  # stays, whatever comes: the run has begun
        with whole_folder(place, replace=True) as folder:
            try:
                if write is not None:
                    write(folder)
                else:
                    save_file(_tensors(model), folder / "model.safetensors")
                    if optimizer is not None:
                        save_file(optimizer_tensors(optimizer), folder / "optimizer.safetensors")
                if self.averages and kind == "last":
                    save_file(dict(self.averages), folder / AVERAGES)
            except SafetensorError as error:
                raise OutputError(
                    f"cannot write {place}: {error}. Free some space, then resume; the checkpoint before it is intact."
                ) from error
            write_json(folder / "state.json", asdict(state))
            seal(folder, {"kind": kind})
        for old in sorted(self.folder.glob(f"{kind}-*"))[: -self.recent if kind == "recent" else -1]:
            if old.name < place.name:
                shutil.rmtree(old)

    def all_of(self, kind: str) -> list[Path]:
        """The checkpoints of a kind that are complete, in the order of their steps."""
        return [place for place in sorted(self.folder.glob(f"{kind}-*")) if not problems(place)]

    def newest(self, kind: str) -> Path | None:
        """The latest checkpoint of a kind that is complete, or None."""
        for place in sorted(self.folder.glob(f"{kind}-*"), reverse=True):
            wrong = problems(place)
            if not wrong:
                return place
            say(f"{place} is damaged and is passed over: {'; '.join(wrong)}")
        return None

    def has(self, kind: str, state: State) -> bool:
        """Whether the checkpoint of this kind and step stands already."""
        place = self._place(kind, state)
        return place.exists() and not problems(place)

    def _place(self, kind: str, state: State) -> Path:
        return self.folder / f"{kind}-{state.step:08d}"

    def best(self) -> Path:
        """The best checkpoint. Raises TrainingError when there is none."""
        place = self.newest("best")
        if place is None:
            run = self.folder.parent
            raise TrainingError(f"{self.folder} has lost its best checkpoint. Remove {run} and begin again.")
        return place

    def sweep(self, step: int) -> None:
        """Before a run goes on from a step: forget what was validated after it, and what a kill left half written.

        A validated checkpoint is newer than the last one when the process died in between.
        """
        for place in (*self.folder.glob("best-*"), *self.folder.glob("recent-*")):
            if int(place.name.rpartition("-")[2]) > step:
                shutil.rmtree(place)
        for left in self.folder.glob(".*.part"):
            shutil.rmtree(left, ignore_errors=True)

    def load(self, place: Path, model: nn.Module, optimizer: Optimizers | None = None) -> State:
        """Put a checkpoint's weights (and the optimiser's moments) in place, and return where the run stood.

        Model and optimiser may be sharded, and so may be the checkpoint, the one without the other. Raises TrainingError
        when the weights are those of another model.
        """
        state = State(**read_json(place / "state.json"))
        stored = _Stored(place)
        own = model.state_dict()
        shapes = {name: shape for name, shape in stored.shapes.items() if name.startswith("model.")}
        if shapes != {f"model.{name}": tensor.shape for name, tensor in own.items()}:
            raise TrainingError(
                f"{place} holds the weights of another model. Resume with the recipe it began with."
            )
        weights = stored.tensors({f"model.{name}": tensor for name, tensor in own.items()})
        model.load_state_dict({name.removeprefix("model."): tensor for name, tensor in weights.items()})
        if optimizer is not None:
            _load_optimizer(optimizer, stored)
            self._load_averages(place)
        return state

    def _load_averages(self, place: Path) -> None:
        file = place / AVERAGES
        stored = load_file(file) if self.averages and file.exists() else {}
        if {n: t.shape for n, t in stored.items()} != {n: t.shape for n, t in self.averages.items()}:
            raise TrainingError(
                f"{place} holds no averages of this model. Resume with the recipe it began with."
            )
        for name, tensor in stored.items():
            self.averages[name].copy_(tensor)


class _Stored:
    """The tensors of a checkpoint, whole in two files or sharded in many, under the names of `learn.fsdp`."""

    def __init__(self, place: Path) -> None:
        self.shards = place / SHARDS
        self.files: dict[str, Tensor] = {}
        self.shapes: dict[str, Size] = {}
        if self.shards.exists():
            self.shapes = shapes_of(self.shards)
            return
        for kind in ("model", "optimizer"):
            file = place / f"{kind}.safetensors"
            if file.exists():
                self.files |= {f"{kind}.{name}": tensor for name, tensor in load_file(file).items()}
        self.shapes = {name: tensor.shape for name, tensor in self.files.items()}

    def tensors(self, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Those of these names, whole or sharded as these are."""
        if self.shards.exists():
            return read_shards(self.shards, like)
        return {name: part(self.files[name], one) for name, one in like.items()}


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}


def optimizer_tensors(optimizer: Optimizers) -> dict[str, Tensor]:
    """What the optimiser remembers, under a parameter's number and the name of the value."""
    return {
        f"{number}.{name}": value.contiguous()
        for number, values in optimizer.moments().items()
        for name, value in values.items()
    }


def _load_optimizer(optimizer: Optimizers, stored: _Stored) -> None:
    parameters = optimizer.parameters()
    own: dict[str, Tensor] = {}
    for key, shape in stored.shapes.items():
        kind, number, *_ = key.split(".")
        if kind == "optimizer":
            parameter = parameters[int(number)].detach()
            own[key] = torch.zeros_like(parameter) if shape == parameter.shape else torch.zeros(shape)
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in stored.tensors(own).items():
        _, number, name = key.split(".")
        moments.setdefault(int(number), {})[name] = value
    optimizer.load_moments(moments)
