"""The training loop. It knows models, objectives and batches, and nothing of tasks.

    for each step:  seed by (seed, step) -> batch -> objective -> backward -> clip -> learning rate -> optimiser
    now and then:   validate (and keep the best), save, report

Exactness: every random draw of a step is seeded by (seed, step) and the batch of a step by (seed, epoch, index), so a
run that was killed and resumed from its last checkpoint takes the very same steps as one that was not (same machine,
same number of threads). Saving can therefore go by the clock.

A loss (or a gradient) that is not finite stops the run at once, with the last checkpoint intact and the batch saved
(`learn.divergence`); training on would only hide it.
"""

from __future__ import annotations

import math
import resource
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch
from torch import nn

from inkstone.ground.errors import ConfigError, InkstoneError, TrainingError, not_known, raise_all
from inkstone.ground.progress import Progress, progress, say
from inkstone.learn.data.ahead import Turn, ahead
from inkstone.learn.data.batches import Collate, Example, Feed, Plan, Planned, to_device
from inkstone.learn.divergence import refuse_not_finite
from inkstone.learn.objectives.loss import Objective
from inkstone.learn.optim import OPTIMIZERS, SCHEDULES, OptimizerName, Optimizers, Schedule, rate
from inkstone.learn.receipt import note_step, receipt_of, surroundings
from inkstone.learn.state import Checkpoints, State
from inkstone.learn.watch import Watch

Precision = Literal["auto", "float32", "bfloat16"]
REPORT_EVERY = 20  # steps between entries of the log


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """How to train. The defaults suit a small model on a laptop."""

    epochs: float = 20.0
    tokens_per_batch: int = 8192  # padded, both sides
    optimizer: OptimizerName = "adamw"
    learning_rate: float = 2e-3
    schedule: Schedule = "cosine"
    warmup_steps: int = 200
    weight_decay: float = 0.01
    beta2: float = 0.98
    clip_norm: float = 1.0
    smoothing: float = 0.1
    validate_every: int = 0  # steps; 0 = once an epoch
    metric: str = "accuracy"  # of the validation: the one that decides which checkpoint is best
    patience: int = 5  # validations without a gain before stopping early; 0 = never
    save_every_s: float = 60.0
    precision: Precision = "auto"
    threads: int = 0  # 0 = as torch finds best
    seed: int = 1
    # Not in the repr, which is part of what decides the weights: these decide nothing.
    workers: int = field(default=0, repr=False)  # processes that make batches ahead; 0 = none
    stop_after: int = field(default=0, repr=False)  # steps, of a schedule for all epochs; 0 = go to the end

    def __post_init__(self) -> None:
        least = {"validate_every": 0, "patience": 0, "warmup_steps": 0, "weight_decay": 0, "save_every_s": 0}
        least |= {
            "workers": 0,
            "stop_after": 0,
            "threads": 0,
            "seed": 0,
            "smoothing": 0,
            "beta2": 0,
            "tokens_per_batch": 1,
        }
        problems = [
            f"{name}={getattr(self, name)} must be at least {low}"
            for name, low in least.items()
            if not getattr(self, name) >= low
        ]
        problems += [
            f"{name}={getattr(self, name)} must be above 0 and finite"
            for name in ("epochs", "learning_rate", "clip_norm")
            if not 0 < getattr(self, name) < math.inf
        ]
        problems += [
            f"{name}={getattr(self, name)} must be below 1"
            for name in ("smoothing", "beta2")
            if getattr(self, name) >= 1
        ]
        if self.optimizer not in OPTIMIZERS:
            problems.append(not_known("optimizer", self.optimizer, OPTIMIZERS))
        if self.schedule not in SCHEDULES:
            problems.append(not_known("schedule", self.schedule, SCHEDULES))
        if self.seed >= 2**31:
            problems.append(f"seed={self.seed} must be below {2**31}")
        raise_all(ConfigError, "training options", problems)


class Interrupted(InkstoneError):
    """Ctrl-C during training; everything is saved."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run went. The model given to `train` holds the best weights."""

    steps: int
    best_step: int
    seconds: float
    tokens_per_second: float
    peak_memory_bytes: int
    curve: list[dict[str, float]]
    stopped_early: bool
    receipt: dict[str, Any] = field(
        default_factory=dict
    )  # see `learn.receipt`; empty for what is not trained by steps


Validate = Callable[[nn.Module], dict[str, float]]


def pick_device() -> torch.device:
    """The GPU when there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def picks_bfloat16(precision: Precision, device: torch.device) -> bool:
    """Whether to compute in bfloat16: asked for, or "auto" on hardware with instructions for it."""
    if precision != "auto":
        return precision == "bfloat16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported())


def train(
    model: nn.Module,
    objective: Objective,
    examples: Sequence[Example],
    collate: Collate,
    validate: Validate,
    options: TrainingOptions,
    run: Path,
    *,
    fingerprint: str = "",
    title: str = "training",
) -> Outcome:
    """Train until the epochs are over or the validation metric has stopped rising; resume when `run` holds a checkpoint.

    run: the folder for checkpoints, logs and TensorBoard. fingerprint: of the data and the configuration; a run is never
    resumed with another. validate: returns named measures of the model, `options.metric` among them; higher is better,
    except for "loss".
    Raises TrainingError when the loss is not finite or the run's checkpoint belongs to other data; Interrupted on Ctrl-C.
    """
    plan = Plan(examples, tokens_per_batch=options.tokens_per_batch, seed=options.seed)
    feed = Planned(plan, examples, collate)
    return train_on(model, objective, feed, validate, options, run, fingerprint=fingerprint, title=title)


def train_on(
    model: nn.Module,
    objective: Objective,
    feed: Feed,
    validate: Validate,
    options: TrainingOptions,
    run: Path,
    *,
    fingerprint: str = "",
    title: str = "training",
) -> Outcome:
    """As `train`, with the batches of a feed. Their sizes are the feed's affair, not `options.tokens_per_batch`."""
    keep_freed_memory()
    per_epoch = len(feed.epoch(0))
    total = max(1, math.ceil(options.epochs * per_epoch))
    device = pick_device()
    model.to(device)
    optimizer = OPTIMIZERS[options.optimizer](
        model, learning_rate=options.learning_rate, weight_decay=options.weight_decay, beta2=options.beta2
    )
    checkpoints = Checkpoints(run)
    state = _begin(checkpoints, model, optimizer, fingerprint)
    every = options.validate_every or per_epoch
    stopped = out_of_patience(state, options)  # a run may be killed after it stopped early
    end = state.step if stopped else min(total, options.stop_after or total)
    left = max(0, end - state.step)
    with (
        _threads(options.threads),
        ahead(feed, state.epoch, state.index, left, options.workers) as turns,
        Watch(run) as watch,
        progress(title, total) as bar,
        _interruptible() as interrupted,
    ):
        keeper = _Keeper(model, optimizer, checkpoints, state, options, total, watch, bar)
        keeper.resumed()
        for turn in turns:
            keeper.step(objective, turn)
            if state.step % every == 0 or state.step == end:
                stopped = keeper.validated(validate(model))
            if stopped or state.step == end or interrupted() or keeper.due():
                keeper.save()
            if interrupted():
                raise Interrupted(f"stopped at step {state.step} of {total}; everything is saved.")
            if stopped:
                break
    best = checkpoints.newest("best")
    if best is None:
        raise TrainingError(
            f"{run / 'checkpoints'} has lost its best checkpoint. Remove {run} and begin again."
        )
    checkpoints.load(best, model)
    model.eval()
    return Outcome(
        state.step,
        state.best_step,
        state.seconds,
        state.tokens / max(state.seconds, 1e-9),
        peak_memory_bytes(device),
        state.curve,
        stopped,
        receipt_of(state, feed, options),
    )


def _begin(checkpoints: Checkpoints, model: nn.Module, optimizer: Optimizers, fingerprint: str) -> State:
    place = checkpoints.newest("last")
    if place is None:
        checkpoints.sweep(0)
        return State(data=fingerprint)
    state = checkpoints.load(place, model, optimizer)
    if state.data != fingerprint:
        raise TrainingError(
            f"{place.parent.parent} was begun with other data or another configuration. "
            "Give the same ones to resume, or another output to begin anew."
        )
    checkpoints.sweep(state.step)
    state.resumed += 1
    return state


def out_of_patience(state: State, options: TrainingOptions) -> bool:
    """Whether so many validations in a row brought no gain that it is time to stop."""
    return bool(options.patience) and state.since_best >= options.patience


class _Keeper:
    """Takes the steps of a run and keeps its books."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizers,
        checkpoints: Checkpoints,
        state: State,
        options: TrainingOptions,
        total: int,
        watch: Watch,
        bar: Progress,
    ) -> None:
        self.model, self.optimizer, self.checkpoints, self.state = model, optimizer, checkpoints, state
        self.run = checkpoints.folder.parent
        self.options, self.total, self.watch, self.bar = options, total, watch, bar
        self.device = next(model.parameters()).device
        self.bfloat16 = picks_bfloat16(options.precision, self.device)
        self.surroundings = surroundings(self.device, "bfloat16" if self.bfloat16 else "float32")
        self.clock = self.saved = time.monotonic()
        self.recent_tokens = self.recent_seconds = 0.0  # fading sums: their ratio is the speed of late

    def resumed(self) -> None:
        """Say where the run goes on."""
        if self.state.step:
            say(f"resuming after step {self.state.step} of {self.total}")
        self.bar.advance(self.state.step)

    def step(self, objective: Objective, turn: Turn) -> None:
        """One step of the optimiser. Raises TrainingError, before it, when loss or gradient is not finite."""
        state, options, batch = self.state, self.options, to_device(turn.batch, self.device)
        torch.manual_seed((options.seed << 32) + state.step)
        self.model.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            loss = objective(self.model, batch, options.smoothing)
        value = float(loss.mean.detach())
        refuse = partial(refuse_not_finite, self.run, state.step + 1, turn, options.learning_rate)
        refuse("loss", value)
        loss.mean.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), options.clip_norm)
        refuse("norm of the gradient", float(norm))
        share = rate(options.schedule, state.step, options.warmup_steps, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = options.learning_rate * share
        self.optimizer.step()
        self.optimizer.zero_grad()
        note_step(state, value, turn.batch, self.surroundings)
        state.epoch, state.index = turn.after
        state.step += 1
        state.tokens += batch.tokens
        state.loss = value if math.isnan(state.loss) else 0.98 * state.loss + 0.02 * value
        self._report(batch.tokens, share)

    def _report(self, tokens: int, share: float) -> None:
        state = self.state
        seconds = self._tick()
        self.recent_tokens = 0.95 * self.recent_tokens + tokens
        self.recent_seconds = 0.95 * self.recent_seconds + seconds
        speed = self.recent_tokens / max(self.recent_seconds, 1e-9)
        self.bar.advance(state.step, f"loss {state.loss:.3f}  {speed:,.0f} tokens/s")
        if state.step % REPORT_EVERY == 0:
            self.watch.scalars(
                state.step,
                {
                    "train/loss": state.loss,
                    "train/learning_rate": self.options.learning_rate * share,
                    "train/tokens_per_second": speed,
                },
            )

    def _tick(self) -> float:
        now = time.monotonic()
        seconds, self.clock = now - self.clock, now
        self.state.seconds += seconds
        return seconds

    def validated(self, measures: dict[str, float]) -> bool:
        """Record a validation; keep the model when it is the best so far. True when it is time to stop."""
        state, metric = self.state, self.options.metric
        if metric not in measures:
            raise ConfigError(not_known("training.metric", metric, measures))
        value = -measures[metric] if metric == "loss" else measures[metric]
        point = {"step": float(state.step), "seconds": round(state.seconds, 1), "train_loss": state.loss}
        state.curve.append({**point, **{f"valid_{name}": v for name, v in measures.items()}})
        self.watch.scalars(state.step, {f"valid/{name}": v for name, v in measures.items()})
        if state.best_value is None or value > state.best_value:
            state.best_value, state.best_step, state.since_best = value, state.step, 0
            self.checkpoints.save("best", self.model, state)
        else:
            state.since_best += 1
        self._tick()
        return out_of_patience(state, self.options)

    def due(self) -> bool:
        """Whether the last save is long enough ago."""
        return time.monotonic() - self.saved > self.options.save_every_s

    def save(self) -> None:
        """Write the last checkpoint."""
        self._tick()
        self.checkpoints.save("last", self.model, self.state, self.optimizer)
        self.saved = time.monotonic()


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """So many threads for torch while the block runs; 0 leaves it as it is."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Ctrl-C (or a polite kill) only raises a flag, which the loop looks at between steps."""
    pressed: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if pressed:
            raise KeyboardInterrupt  # asked twice: go at once
        pressed.append(number)
        say("stopping after this step ...")

    try:
        earlier = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: signals go elsewhere
        earlier = {}
    try:
        yield lambda: bool(pressed)
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def keep_freed_memory() -> None:
    """Ask glibc to keep large freed blocks instead of giving each back to the system and faulting it in again.

    A training step frees and allocates the same large tensors over and over; giving them back costs about a tenth of
    a step (docs/journal.md). Elsewhere than on glibc this does nothing.
    """
    import ctypes
    import sys

    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    trim_threshold, top_pad, mmap_threshold, arena_max = -1, -2, -3, -8
    mallopt(
        arena_max, 1
    )  # the backward pass has threads of its own: let them reuse the forward pass's blocks
    mallopt(mmap_threshold, 1 << 25)  # the largest that glibc takes
    mallopt(trim_threshold, 1 << 29)
    mallopt(top_pad, 1 << 26)


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory used so far: of the GPU where there is one, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
