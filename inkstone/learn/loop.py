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
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Literal, get_args

import torch
from torch import nn

from inkstone.ground.errors import ConfigError, InkstoneError, TrainingError, not_known, raise_all
from inkstone.ground.processes import leads, world
from inkstone.ground.progress import Progress, progress, say
from inkstone.learn.adversarial import AdversarialOptions
from inkstone.learn.averaging import Averages, better_mean
from inkstone.learn.data.ahead import Turn, ahead
from inkstone.learn.data.batches import Collate, Example, Feed, Plan, Planned, to_device
from inkstone.learn.data.shares import Portion, Steps
from inkstone.learn.distributed import Team, Validate, all_alike, together
from inkstone.learn.divergence import refuse_not_finite
from inkstone.learn.listening import listener
from inkstone.learn.memory import peak_memory_bytes
from inkstone.learn.objectives.loss import Objective
from inkstone.learn.optim import OPTIMIZERS, SCHEDULES, OptimizerName, Optimizers, Schedule, rate
from inkstone.learn.profile import NoProfiler, Profiler, StepProfiler
from inkstone.learn.receipt import note_step, receipt_of, surroundings
from inkstone.learn.recompute import recomputed
from inkstone.learn.regularize import Regularization, regularized
from inkstone.learn.state import Checkpoints, State, measures_of, value_of
from inkstone.learn.teams import TEAMS, Parallel, assemble
from inkstone.learn.watch import WATCHERS, Unwatched, Watch

Precision = Literal["auto", "float32", "bfloat16"]
PreflightMode = Literal["check", "only", "force", "skip"]
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
    ema: float = 0.0  # decay of the moving average of the weights, such as 0.999; 0 = none
    average_last: int = 0  # validations whose mean weights are tried at the end; 0 = none
    regularize: Regularization = field(default_factory=Regularization)
    adversarial: AdversarialOptions = field(default_factory=AdversarialOptions)
    accumulate: int = 1  # batches that make one step, and that several processes share
    parallel: Parallel = "ddp"  # of several processes: "ddp" holds the whole model in each, "fsdp" a part
    checkpoint_activations: bool = False  # run each layer twice instead of keeping what happens in it
    precision: Precision = "auto"
    threads: int = 0  # 0 = as torch finds best
    seed: int = 1
    # How the run is gone about, not what comes of it: outside `repr`, of which fingerprints are made.
    # preflight: "only" stops after it, "force" goes on where memory looks short.
    preflight: PreflightMode = field(default="check", repr=False)
    profile: bool = field(default=False, repr=False)  # trace some steps, and say where their time went
    watch: tuple[str, ...] = field(default=("tensorboard",), repr=False)
    workers: int = field(default=0, repr=False)  # processes that make batches ahead; 0 = none
    stop_after: int = field(default=0, repr=False)  # steps, of a schedule for all epochs; 0 = go to the end

    def __post_init__(self) -> None:
        least = {"validate_every": 0, "patience": 0, "warmup_steps": 0, "weight_decay": 0, "save_every_s": 0}
        least |= {"threads": 0, "seed": 0, "smoothing": 0, "beta2": 0, "tokens_per_batch": 1, "accumulate": 1}
        least |= {"ema": 0, "average_last": 0, "workers": 0, "stop_after": 0}
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
            for name in ("smoothing", "beta2", "ema")
            if getattr(self, name) >= 1
        ]
        if self.optimizer not in OPTIMIZERS:
            problems.append(not_known("optimizer", self.optimizer, OPTIMIZERS))
        if self.schedule not in SCHEDULES:
            problems.append(not_known("schedule", self.schedule, SCHEDULES))
        if self.average_last == 1:
            problems.append("average_last=1 is no mean: give 2 or more, or 0 for none")
        if self.parallel not in TEAMS:
            problems.append(not_known("parallel", self.parallel, TEAMS))
        problems += [not_known("watch", one, WATCHERS) for one in self.watch if one not in WATCHERS]
        if self.preflight not in get_args(PreflightMode):
            problems.append(not_known("preflight", self.preflight, get_args(PreflightMode)))
        problems += self._contradictions()
        if self.seed >= 2**31:
            problems.append(f"seed={self.seed} must be below {2**31}")
        raise_all(ConfigError, "training options", problems)

    def _contradictions(self) -> list[str]:
        """Options that exclude each other."""
        whole = {
            "ema": self.ema,
            "average_last": self.average_last,
            "adversarial": self.adversarial.kind != "none",
            "regularize.mixup": self.regularize.mixup,
        }
        problems = [
            f"{name} needs whole weights in every process: it goes with parallel=ddp, not fsdp"
            for name, wanted in whole.items()
            if wanted and self.parallel == "fsdp"
        ]
        if self.regularize.stochastic_depth and self.checkpoint_activations:
            problems.append("checkpoint_activations would run other layers again than stochastic_depth left")
        return problems


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
    device = pick_device()
    team = assemble(model, options.parallel, device)
    steps = Steps(feed, options.accumulate, team.rank, team.world)
    per_epoch = len(steps.epoch(0))
    total = max(1, math.ceil(options.epochs * per_epoch))
    optimizer = OPTIMIZERS[options.optimizer](
        team.model,
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        beta2=options.beta2,
    )
    objective = regularized(objective, model, options.regularize, options.adversarial)
    listener().begins(model, objective, feed, options)
    averages = Averages(team.model, options.ema)
    checkpoints = Checkpoints(run, averages.tensors, recent=options.average_last)
    begins = checkpoints.newest("last") is None
    every = options.validate_every or per_epoch
    with (
        together(team),
        recomputed(team.model, options.checkpoint_activations),
        with_threads(options.threads),
        Watch(run, options.watch, title, begins) if team.rank == 0 else nullcontext(Unwatched()) as watch,
        progress(title, total) as bar,
        _interruptible() as interrupted,
        _profiling(options, run, device) as profiler,
    ):
        all_alike(team, fingerprint)
        state = _begin(checkpoints, team, optimizer, fingerprint)
        stopped = out_of_patience(state, options)  # a run may be killed after it stopped early
        keeper = _Keeper(team, optimizer, averages, checkpoints, state, options, total, watch, bar)
        keeper.resumed()
        end = state.step if stopped else min(total, options.stop_after or total)
        left = max(0, end - state.step)
        with ahead(steps, state.epoch, state.index, left, options.workers) as turns:
            for portions in profiler.batches(keeper.follow(turns)):
                keeper.step(objective, portions)
                if state.step % every == 0 or state.step == end:
                    with averages.shown():
                        stopped = keeper.validated(team.measured(validate))
                halted, due = team.total(interrupted(), team.rank == 0 and keeper.due())
                if stopped or state.step == end or halted or due:
                    keeper.save()
                if halted:
                    raise Interrupted(f"stopped at step {state.step} of {total}; everything is saved.")
                if stopped:
                    break
        team.finish(checkpoints)
        mean = better_mean(team, checkpoints, state, validate, options.metric)
    model.eval()
    curve = state.curve + mean
    listener().ended(max(value_of(measures_of(point), options.metric) for point in curve))
    return Outcome(
        state.step,
        state.step if mean else state.best_step,
        state.seconds,
        state.tokens / max(state.seconds, 1e-9),
        peak_memory_bytes(device),
        curve,
        stopped,
        receipt_of(state, feed, options),
    )


def _begin(checkpoints: Checkpoints, team: Team, optimizer: Optimizers, fingerprint: str) -> State:
    place = checkpoints.newest("last")
    if place is None:
        if team.rank == 0:
            checkpoints.sweep(0)
        return State(data=fingerprint)
    state = checkpoints.load(place, team.model, optimizer)
    if state.data != fingerprint:
        raise TrainingError(
            f"{place.parent.parent} was begun with other data or another configuration. "
            "Give the same ones to resume, or another output to begin anew."
        )
    if team.rank == 0:
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
        team: Team,
        optimizer: Optimizers,
        averages: Averages,
        checkpoints: Checkpoints,
        state: State,
        options: TrainingOptions,
        total: int,
        watch: Watch | Unwatched,
        bar: Progress,
    ) -> None:
        self.team, self.optimizer, self.checkpoints, self.state = team, optimizer, checkpoints, state
        self.run = checkpoints.folder.parent
        self.place = (0, 0)  # of the step that is taken: (epoch, index)
        self.options, self.total, self.watch, self.bar = options, total, watch, bar
        self.averages = averages
        self.device = next(team.model.parameters()).device
        self.bfloat16 = picks_bfloat16(options.precision, self.device)
        self.surroundings = surroundings(self.device, "bfloat16" if self.bfloat16 else "float32", team.world)
        self.clock = self.saved = time.monotonic()
        self.recent_tokens = self.recent_seconds = 0.0  # fading sums: their ratio is the speed of late

    def resumed(self) -> None:
        """Say where the run goes on."""
        if self.state.step:
            say(f"resuming after step {self.state.step} of {self.total}")
        self.bar.advance(self.state.step)

    def follow(self, turns: Iterator[Turn]) -> Iterator[list[Portion]]:
        """What steps read, keeping the state's place up to date: it names the step after this one."""
        for turn in turns:
            self.place = turn.place
            self.state.epoch, self.state.index = turn.after
            yield turn.portions

    def step(self, objective: Objective, portions: Sequence[Portion]) -> None:
        """One step of the optimiser, over what all processes read for it.

        Raises TrainingError, before it is taken, when the loss or its gradient is not finite.
        """
        state, options, team = self.state, self.options, self.team
        value, tokens = self._gradients(objective, portions)
        refuse = partial(
            refuse_not_finite,
            self.run,
            state.step + 1,
            portions,
            self.place,
            options.learning_rate,
            team.rank,
        )
        refuse("loss", value)
        norm = torch.nn.utils.clip_grad_norm_(team.model.parameters(), options.clip_norm)
        refuse("norm of the gradient", float(getattr(norm, "full_tensor", lambda: norm)()))
        share = rate(options.schedule, state.step, options.warmup_steps, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = options.learning_rate * share
        self.optimizer.step()
        self.optimizer.zero_grad()
        note_step(state, value, portions, self.surroundings)
        state.step += 1
        self.averages.update(state.step)
        state.tokens += tokens
        state.loss = value if math.isnan(state.loss) else 0.98 * state.loss + 0.02 * value
        self._report(tokens, share)

    def _gradients(self, objective: Objective, portions: Sequence[Portion]) -> tuple[float, int]:
        """Leave the gradients of the step's mean loss in the parameters; the loss, and how many tokens were read.

        The mean is over all that the portions of all processes count, so that they are as good as one large batch:
        each is followed down by as much as it counts, and at the end the gradients are divided by what all count.
        """
        team, options = self.team, self.options
        team.model.train()
        alone = len(portions) == 1 and team.world == 1
        summed = counted = tokens = 0.0
        for portion in portions:
            torch.manual_seed(seed_of(options.seed, self.state.step, portion.place))
            batch = to_device(portion.batch, self.device)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
                loss = team.loss(objective, batch, options.smoothing, last=portion is portions[-1])
            weight = 1 if alone else loss.count * portion.counts
            (loss.mean * weight).backward()  # type: ignore[no-untyped-call]
            summed += float(loss.mean.detach()) * weight
            counted += weight
            tokens += portion.batch.tokens * portion.counts
        summed, counted, tokens = team.total(summed, counted, tokens)
        if not alone:
            gradients = [p.grad for p in team.model.parameters() if p.grad is not None]
            torch._foreach_mul_(gradients, team.scale / counted)
        return summed / counted, int(tokens)

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
        state = self.state
        value = value_of(measures, self.options.metric)
        state.curve.append(state.point(measures))
        self.watch.scalars(state.step, {f"valid/{name}": v for name, v in measures.items()})
        if state.best_value is None or value > state.best_value:
            state.best_value, state.best_step, state.since_best = value, state.step, 0
            self.team.save(self.checkpoints, "best", state)
        else:
            state.since_best += 1
        if self.options.average_last:
            self.team.save(self.checkpoints, "recent", state)
        self._tick()
        listener().validated(measures, value)
        return out_of_patience(state, self.options)

    def due(self) -> bool:
        """Whether the last save is long enough ago."""
        return time.monotonic() - self.saved > self.options.save_every_s

    def save(self) -> None:
        """Write the last checkpoint."""
        self._tick()
        self.team.save(self.checkpoints, "last", self.state, self.optimizer)
        self.saved = time.monotonic()


def seed_of(seed: int, step: int, place: int) -> int:
    """What seeds a portion's draws: every step and every place in it another."""
    return ((seed << 32) + step) ^ (place * 0x1E3779B97F4A7C15 & 2**62 - 1)


@contextmanager
def _profiling(options: TrainingOptions, run: Path, device: torch.device) -> Iterator[Profiler]:
    """Who looks inside some steps, where that is asked for."""
    bfloat16 = picks_bfloat16(options.precision, device)
    profiler = StepProfiler(run, device, bfloat16) if options.profile and leads() else NoProfiler()
    try:
        yield profiler
    finally:
        profiler.close()


@contextmanager
def with_threads(count: int) -> Iterator[None]:
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
        if pressed and world() == 1:  # torchrun passes on what the terminal says to all
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
