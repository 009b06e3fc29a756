"""Preflight: what a training will take, found out before its first step by rehearsing it.

    few rows of the longest batch ─ what autograd keeps, measured ─ a straight line in the rows ─ does all of it fit? ─┐
    stand-ins of the weights ─ some steps of the optimiser, a save ─ moments, seconds                                  │
    the longest batch, forward and backward, with the moments' memory taken ─ trouble shows here, or not at all       <┘
    batches of all lengths ─ seconds each        validation, once ─ seconds

    time   = steps x (batch + forward + backward + optimiser) + validations + saves
    memory = the most that the process held while it rehearsed, and on a CPU a quarter of its growth for fragments

Why rehearse and not compute: what an allocator keeps and what a kernel needs beside its tensors is a third of the
memory of a small model on a CPU, and stands in no formula; seconds depend on the machine and on who else is on it
(docs/journal.md). What is computed is what must be known before anything large is tried: what autograd keeps for the
backward pass grows with the rows by the same bytes each, so that two small batches tell the large one.

Nothing that training looks at is changed: no weight is written (the optimiser steps stand-ins), gradients are dropped,
random states put back. A run with a preflight ends with the very weights of one without.

Not predicted: how early a run stops, the work after training (export, judging), and other processes.
"""

from __future__ import annotations

import math
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from inkstone.ground.errors import TrainingError
from inkstone.ground.files import write_json
from inkstone.ground.manifest import read_json
from inkstone.ground.processes import leads, rank, world
from inkstone.ground.progress import say
from inkstone.learn.adversarial import AdversarialOptions
from inkstone.learn.data.batches import Batch, Feed, Planned, Varied, to_device
from inkstone.learn.data.shares import divided, steps_of
from inkstone.learn.distributed import Validate
from inkstone.learn.loop import (
    TrainingOptions,
    keep_freed_memory,
    pick_device,
    picks_bfloat16,
    with_threads,
)
from inkstone.learn.memory import available_bytes, peak_memory_bytes, saved_activations, taken_bytes
from inkstone.learn.objectives.loss import Objective
from inkstone.learn.optim import OPTIMIZERS, Optimizers
from inkstone.learn.recompute import recomputed
from inkstone.learn.regularize import regularized
from inkstone.learn.state import Checkpoints, State

FILE = "preflight.json"  # in the run's folder
LOOKED_AT = 40  # batches of the first epoch whose sizes are looked at
TIMED, PASSES = 8, 3  # of them timed at most, and how often each
STEPS_EACH = 4  # of the training for each one timed: a short run is not rehearsed longer than it takes
FEW = (16, 8)  # parts of the longest batch that tell what all of it will take
PATIENCE_S, PATIENCE = 20.0, 0.05  # seconds, share of the training: after either no further pass is begun
OPTIMISER_STEPS = 4
FRAGMENTS = 0.25  # of what a rehearsal takes: holes that many steps leave in a CPU's heap (docs/journal.md)


class DryRun(Exception):
    """The preflight was all that was asked for. Carries its report."""

    def __init__(self, report: dict[str, Any]) -> None:
        super().__init__("a dry run ends with its preflight")
        self.report = report


@dataclass(frozen=True, slots=True)
class Preflight:
    """What a training will take. Sizes in bytes, times in seconds.

    memory: its parts; "activations" is all that a step needs besides the others, "fragments" an allowance.
    available: what the process may grow to, None where the system does not say. time: its parts; all of it, if
    nothing stops the run early.
    """

    parameters: int
    learnt_parameters: int
    steps: int
    steps_per_epoch: int
    tokens_per_epoch: int
    largest_rows: int
    largest_cells: int
    memory_bytes: int
    memory: dict[str, int]
    available_bytes: int | None
    seconds: float
    time: dict[str, float]
    validations: int
    run_bytes: int  # of the run's folder on disk, at most
    device: str
    threads: int
    precision: str

    def lines(self) -> list[str]:
        """For people."""
        learnt = (
            "" if self.learnt_parameters == self.parameters else f", {self.learnt_parameters:,} of them learn"
        )
        of = "" if self.available_bytes is None else f" of {size(self.available_bytes)} that can be had"
        memory = ", ".join(f"{name} {size(part)}" for name, part in self.memory.items())
        spent = ", ".join(f"{name} {span(part)}" for name, part in self.time.items())
        return [
            f"preflight: {self.parameters:,} parameters{learnt}; {self.device}, {self.threads} threads, {self.precision}",
            f"  steps   {self.steps:,}; an epoch has {self.steps_per_epoch:,} and {self.tokens_per_epoch:,} tokens;"
            f" the largest batch {self.largest_rows:,} rows, {self.largest_cells:,} cells",
            f"  memory  {size(self.memory_bytes)}{of}: {memory}",
            f"  time    {span(self.seconds)}: {spent}; if it does not stop early, and without the judging after it",
            f"  disk    {size(self.run_bytes)} for the run's folder",
        ]


def preflight(
    model: nn.Module,
    objective: Objective,
    feed: Feed,
    validate: Validate,
    options: TrainingOptions,
    run: Path,
    findings: Sequence[str] = (),
) -> dict[str, Any]:
    """Rehearse a training, say what it will take, and keep that in the run's folder; the report as JSON holds it.

    findings: what was found in the data, for the report.
    A run that goes on was looked at when it began: its report is read. Raises TrainingError where the memory will not
    do (unless `options.preflight` is "force"), and DryRun where nothing more was asked for.
    """
    if options.preflight == "skip":
        return {}
    if any((run / "checkpoints").glob("last-*")):
        return read_json(run / FILE) if (run / FILE).exists() else {}
    if world() > 1 and options.parallel == "fsdp":
        say("no preflight: it would need the whole model in one process, which is what fsdp avoids")
        return {}
    device = pick_device()
    keep_freed_memory()
    model.to(device)
    with (
        with_threads(options.threads),
        recomputed(model, options.checkpoint_activations),
        _untouched(model, device),
    ):
        found = _Rehearsal(model, objective, feed, options, device).all_of_it(validate, run)
    for line in found.lines():
        say(line)
    for finding in findings:
        say(f"  data    {finding}")
    report = {**asdict(found), "data": list(findings)}
    if options.preflight == "only":
        raise DryRun(report)
    if leads():
        write_json(run / FILE, report)
    return report


@contextmanager
def _untouched(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Random states and modes are after the block as before it; gradients are gone."""
    modes = [(module, module.training) for module in model.modules()]
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        yield
    for module, training in modes:
        module.training = training
    model.zero_grad(set_to_none=True)


class _Rehearsal:
    """Steps without consequences, and what they took."""

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        feed: Feed,
        options: TrainingOptions,
        device: torch.device,
    ) -> None:
        self.model, self.options, self.device = model, options, device
        self.objective = regularized(objective, model, options.regularize, options.adversarial)
        # The passes of an attack come one after another: what is kept is kept of one.
        self.one_pass = regularized(objective, model, options.regularize, AdversarialOptions())
        self.bfloat16 = picks_bfloat16(options.precision, device)
        self.feed, self.makers = feed, feed.epoch(0)
        self.seen = [make() for make in _spread(self.makers, LOOKED_AT)]
        self.largest = largest(feed, self.seen)
        if options.accumulate % world():  # processes share the rows of each batch, not whole ones
            self.largest = divided(self.largest, 0, world()).batch
        self.tokens_per_epoch = _tokens(feed, self.seen, len(self.makers))
        self.held = taken_bytes(device)  # the process, its data and the weights
        self.left = available_bytes(device)
        self.peak_before = peak_memory_bytes(device)
        self.weights = _bytes(model.parameters())
        self.learnt = _bytes(one for one in model.parameters() if one.requires_grad)

    def all_of_it(self, validate: Validate, run: Path) -> Preflight:
        """The whole rehearsal, the small before the large."""
        options, per_epoch = self.options, steps_of(len(self.makers), self.options.accumulate)
        steps = max(1, math.ceil(options.epochs * per_epoch))
        foreseen = self._foreseen()
        self._refuse(
            self.held + foreseen, "computed from a few rows of the longest batch, before it was tried"
        )
        try:
            stepping, saving, saved_bytes, moments = self._optimiser(run)
            for _ in range(min(2, options.accumulate)):  # the second finds the gradients of the first
                self._forward_backward(self.largest, keep=True)
            self.model.zero_grad(set_to_none=True)
            reading = self._seconds_a_batch(steps)
            self._forward_backward(
                self.largest
            )  # again, in a heap that batches of other shapes have left holes in
            validating = _seconds(lambda: validate(self.model))
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise TrainingError(
                f"there is not enough memory: {size(self.held + foreseen)} at least are needed. {self._advice()}"
            ) from error
        peak = peak_memory_bytes(self.device)
        if peak > self.peak_before:  # else something before needed as much, and has given it back
            self._refuse(peak, "taken by the longest batch, tried out")
        every = options.validate_every or per_epoch
        validations = steps // every + (1 if steps % every else 0)
        batches = min(options.accumulate, len(self.makers)) / world()  # of a step, for each process
        spent = {"steps": steps * (batches * reading + stepping), "validation": validations * validating}
        saves = 1 + (sum(spent.values()) // options.save_every_s if options.save_every_s else steps)
        spent["saving"] = validations * saving["best"] + saves * saving["last"]
        memory = self._parts(peak, _bytes(moments))
        return Preflight(
            parameters=sum(one.numel() for one in self.model.parameters()),
            learnt_parameters=sum(one.numel() for one in self.model.parameters() if one.requires_grad),
            steps=steps,
            steps_per_epoch=per_epoch,
            tokens_per_epoch=self.tokens_per_epoch,
            largest_rows=len(rows_of(self.largest)),
            largest_cells=cells(self.largest),
            memory_bytes=sum(memory.values()),
            memory=memory,
            available_bytes=None if self.left is None else self.held + self.left,
            seconds=round(sum(spent.values()), 2),
            time={name: round(value, 2) for name, value in spent.items()},
            validations=validations,
            # A new one is written before the old one goes.
            run_bytes=saved_bytes["best"] + 2 * saved_bytes["last"],
            device=self.device.type,
            threads=torch.get_num_threads(),
            precision="bfloat16" if self.bfloat16 else "float32",
        )

    def _parts(self, peak: int, moments: int) -> dict[str, int]:
        """What the peak is made of."""
        parts = {
            "process and data": self.held - self.weights,
            "weights": self.weights,
            "gradients": self.learnt,
            "moments": moments,
        }
        parts["activations"] = max(0, peak - sum(parts.values()))
        parts["process and data"] += peak - sum(parts.values())  # less, where it has given something back
        if self.device.type == "cpu":
            parts["fragments"] = int(FRAGMENTS * max(0, peak - self.held))
        return parts

    def _foreseen(self) -> int:
        """What a step will take besides what is held: two small batches tell what autograd keeps of the largest."""
        rows = len(rows_of(self.largest))
        small = [a_few(self.feed, self.largest, part) for part in FEW]
        few, more = (len(rows_of(batch)) for batch in small)
        kept = [self._kept(batch) for batch in small]
        slope = (kept[1] - kept[0]) / max(1, more - few)
        per_row = max(slope, 0.0)
        self.fixed_bytes = max(0.0, kept[0] - per_row * few) + 3 * self.learnt  # gradients, two moments
        self.row_bytes, self.rows = per_row, rows
        return int(self.fixed_bytes + per_row * rows)

    def _kept(self, batch: Batch) -> int:
        self.model.train()
        with (
            saved_activations(self.model) as saved,
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16),
        ):
            self.one_pass(self.model, to_device(batch, self.device), self.options.smoothing)
        return saved.size_bytes

    def _refuse(self, needed: int, how: str) -> None:
        if self.left is None or needed <= self.held + self.left or self.options.preflight == "force":
            return
        raise TrainingError(
            f"this training needs {size(needed)} of memory ({how}), and {size(self.held + self.left)} can be had. "
            f"{self._advice()} To try it all the same: --set training.preflight=force."
        )

    def _advice(self) -> str:
        """What would make it fit, with a number where there is one."""
        room = (self.left or 0) - self.fixed_bytes
        rows = int(0.9 * room / self.row_bytes) if self.row_bytes else 0
        wide = cells(self.largest) // max(1, self.rows)
        if rows >= 1:
            return f"Lower training.tokens_per_batch to {rows * wide:,} or less (now {cells(self.largest):,} cells)."
        return (
            "A smaller batch alone will not do: take a smaller --size, or let an adapter learn beside a model that is"
            " there (--base MODEL --lora); shorter texts (max_length, block) help too."
        )

    def _optimiser(self, run: Path) -> tuple[float, dict[str, float], dict[str, int], list[Tensor]]:
        """Seconds of a step of the optimiser and of each kind of save, sizes of these, and its moments."""
        options = self.options
        stand_in = _StandIn(self.model)
        optimizer = OPTIMIZERS[options.optimizer](
            stand_in,
            learning_rate=options.learning_rate,
            weight_decay=options.weight_decay,
            beta2=options.beta2,
        )
        spans = []
        for _ in range(OPTIMISER_STEPS):
            stand_in.give_gradients()
            spans.append(_seconds(lambda: _step(stand_in, optimizer, options.clip_norm), self.device))
        saving, sizes = self._saves(optimizer, run)
        moments = [
            v for values in optimizer.moments().values() for v in values.values() if isinstance(v, Tensor)
        ]
        return statistics.median(spans[1:]), saving, sizes, moments

    def _saves(self, optimizer: Optimizers, run: Path) -> tuple[dict[str, float], dict[str, int]]:
        place = run / f"preflight-{rank()}.part"
        trial = Checkpoints(place)
        parts: dict[str, Optimizers | None] = {"best": None, "last": optimizer}
        try:
            taken = {
                kind: _seconds(lambda kind=kind, part=part: trial.save(kind, self.model, State(), part))  # type: ignore[misc]
                for kind, part in parts.items()
            }
            sizes = {
                kind: sum(one.stat().st_size for one in place.rglob(f"{kind}-*/*") if one.is_file())
                for kind in parts
            }
        finally:
            shutil.rmtree(place, ignore_errors=True)
        return taken, sizes

    def _forward_backward(self, batch: Batch, *, keep: bool = False) -> None:
        batch = to_device(batch, self.device)
        self.model.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            loss = self.objective(self.model, batch, self.options.smoothing)
        float(loss.mean.detach())
        loss.mean.backward()  # type: ignore[no-untyped-call]
        if not keep:
            self.model.zero_grad(set_to_none=True)

    def _seconds_a_batch(self, steps: int) -> float:
        """The mean over batches of all lengths, each made and sent through."""
        order = sorted(range(len(self.seen)), key=lambda n: _cost(self.seen[n]))
        chosen = _spread(order, min(TIMED, max(2, steps // STEPS_EACH)))
        makers = _spread(self.makers, LOOKED_AT)
        self._forward_backward(self.seen[chosen[0]])  # its kernels are new to the machine
        spans: dict[int, list[float]] = {n: [] for n in chosen}
        started = time.perf_counter()
        for _ in range(PASSES):
            for n in chosen:
                spans[n].append(_seconds(lambda n=n: self._forward_backward(makers[n]()), self.device))  # type: ignore[misc]
            mean = statistics.mean(statistics.median(one) for one in spans.values())
            if time.perf_counter() - started > min(PATIENCE_S, PATIENCE * mean * steps):
                break
        return mean


class _StandIn(nn.Module):
    """Parameters of the same names and shapes, for an optimiser to step."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.copies = [
            (
                name,
                nn.Parameter(
                    one.detach().clone() if one.requires_grad else one.detach()[:0], one.requires_grad
                ),
            )
            for name, one in model.named_parameters()
        ]

    def named_parameters(self, *args: Any, **options: Any) -> Iterator[tuple[str, nn.Parameter]]:
        """See `nn.Module`."""
        return iter(self.copies)

    def give_gradients(self) -> None:
        """Something finite and not zero where there is something to learn."""
        for _, one in self.copies:
            if one.requires_grad:
                one.grad = torch.full_like(one, 1e-3)


def _step(stand_in: _StandIn, optimizer: Optimizers, clip_norm: float) -> None:
    torch.nn.utils.clip_grad_norm_([one for _, one in stand_in.copies], clip_norm)
    optimizer.step()
    optimizer.zero_grad()


def largest(feed: Feed, seen: Sequence[Batch]) -> Batch:
    """The batch that needs the most memory: of a plan the longest texts together, else the largest of those seen."""
    if isinstance(feed, Planned | Varied):
        return feed.collated(feed.plan.largest())
    return max(seen, key=_cost)


def _tokens(feed: Feed, seen: Sequence[Batch], count: int) -> int:
    """Real tokens of an epoch: of a plan counted, else reckoned from the batches seen."""
    if isinstance(feed, Planned | Varied):
        return int(feed.plan.lengths.sum())
    return round(sum(batch.tokens for batch in seen) / len(seen) * count)


def rows_of(batch: Batch) -> Tensor:
    """The first tensor of a batch, which has its rows."""
    found: Tensor = getattr(batch, fields(batch)[0].name)
    return found


def _grids(batch: Batch) -> list[Tensor]:
    """The rows of tokens of a batch: sources, targets."""
    values = [getattr(batch, field.name) for field in fields(batch) if "segments" not in field.name]
    return [v for v in values if isinstance(v, Tensor) and v.dim() == 2 and not v.is_floating_point()]


def cells(batch: Batch) -> int:
    """Tokens of a batch with its padding."""
    return sum(grid.numel() for grid in _grids(batch))


def _cost(batch: Batch) -> float:
    """What a batch costs, roughly: cells, and more of them where rows are long and attention wide."""
    return sum(grid.numel() * (1 + grid.shape[1] / 1024) for grid in _grids(batch))


def a_few(feed: Feed, whole: Batch, part: int) -> Batch:
    """A part of the longest batch, a row at least: of a plan its longest texts, else every so many-th row."""
    if isinstance(feed, Planned | Varied):
        rows = feed.plan.largest()
        return feed.collated(rows[: -(-len(rows) // part)])
    return divided(whole, 0, min(part, len(rows_of(whole)))).batch


def _spread(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many of the items, from the middle of as many equal parts."""
    if len(items) <= most:
        return list(items)
    return [items[int((n + 0.5) * len(items) / most)] for n in range(most)]


def _seconds(work: Callable[[], Any], device: torch.device | None = None) -> float:
    started = time.perf_counter()
    work()
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def _bytes(tensors: Any) -> int:
    return sum(one.numel() * one.element_size() for one in tensors)


def size(count: int) -> str:
    """Bytes for people."""
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def span(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
