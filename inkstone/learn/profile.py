"""A look inside some training steps: a trace for a viewer, where the time went, and the share of the machine's ceiling.

    steps      1 .. 5 warm up      6 .. 15 are traced      the rest goes on as if nothing had been
    trace      <run>/profile.trace.json, for chrome://tracing or https://ui.perfetto.dev
    table      <run>/profile.json, and printed

Time is told by kind, each moment once: an operation belongs to the outermost thing that has a kind of its own (the
optimiser, dropout), else to what it is itself. What no operation explains is Python, and waiting.

The ceiling is measured, not looked up: large square products in float32 and bfloat16, with the threads of the training.
The work of a step is counted by the profiler from the shapes of its products, padding included: for a Transformer,
6 x (parameters in matrices) + 12 x (layers x width x length) for each token, forward and backward (Kaplan et al., 2020).
Products of the optimiser (Muon) cost time but do no work of the model. Recurrent layers count theirs only in part, and
fused attention not at all.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from inkstone.ground.files import write_json
from inkstone.ground.progress import say
from inkstone.learn.data.shares import Portion

Portions = Sequence[Portion]
WARM, TRACED = 5, 10  # steps
TRACE, TABLE = "profile.trace.json", "profile.json"
BATCH = "inkstone: batch building"
CEILING_SIZES = (512, 1024, 2048)  # of the square products; caches favour one or another
CEILING_SIZES_GPU = (4096, 8192)
CEILING_S = 0.4  # for each size and precision

KINDS = (
    "matrix products",
    "attention",
    "dropout",
    "casts",
    "loss",
    "optimiser",
    "batch building",
    "other operations",
    "Python and waiting",
)
# Of operations inside these, the kind is that of the outermost: name begins with ... -> kind
OUTER = {
    BATCH: "batch building",
    "Optimizer.step#": "optimiser",
    "_StripDropout": "dropout",
    "aten::dropout": "dropout",
    "aten::native_dropout": "dropout",
    "aten::scaled_dot_product_attention": "attention",
    "aten::to": "casts",
    "aten::_to_copy": "casts",
}
INNER = {
    "aten::mm": "matrix products",
    "aten::addmm": "matrix products",
    "aten::linear": "matrix products",
    "aten::convolution": "matrix products",
    "aten::_convolution": "matrix products",
    "aten::mkldnn": "matrix products",
    "aten::lstm": "matrix products",
    "aten::bmm": "attention",
    "aten::baddbmm": "attention",
    "aten::softmax": "attention",
    "aten::_softmax": "attention",
    "aten::masked_fill": "attention",
    "aten::linalg_vector_norm": "optimiser",  # of the gradients, for clipping
    "aten::_foreach": "optimiser",
    "aten::cross_entropy": "loss",
    "aten::nll_loss": "loss",
    "aten::log_softmax": "loss",
    "aten::_log_softmax": "loss",
    "_LinearCrossEntropy": "loss",
}
LOSS = "_LinearCrossEntropy"  # its products are products, everything else in it is loss
PRODUCTS = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::conv")


class Profiler(Protocol):
    """What the loop tells of its steps."""

    def batches(self, batches: Iterator[Portions]) -> Iterator[Portions]:
        """The same portions of each step, their making watched."""
        ...

    def close(self) -> None:
        """No more steps will come."""
        ...


class NoProfiler:
    """Nobody looks."""

    def batches(self, batches: Iterator[Portions]) -> Iterator[Portions]:
        """See `Profiler`."""
        return batches

    def close(self) -> None:
        """See `Profiler`."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Where the time of some steps went: seconds by kind; work in floating-point operations."""

    steps: int
    tokens: int
    seconds: float
    seconds_by_kind: dict[str, float]
    flops: float
    ceiling_float32: float  # operations a second
    ceiling_bfloat16: float
    precision: str
    threads: int
    device: str

    @property
    def share_of_ceiling(self) -> float:
        """Of what the machine's products could have done in the same time, in the precision in use."""
        ceiling = self.ceiling_bfloat16 if self.precision == "bfloat16" else self.ceiling_float32
        return self.flops / self.seconds / ceiling

    def lines(self) -> list[str]:
        """The table, for people."""
        rows = [
            f"  {kind:<20}{1e3 * spent / self.steps:>10.1f} ms a step {spent / self.seconds:>7.1%}"
            for kind, spent in self.seconds_by_kind.items()
        ]
        work = self.flops / self.seconds / 1e9
        return [
            f"profile of {self.steps} steps, {self.tokens / self.seconds:,.0f} tokens/s on {self.device},"
            f" {self.threads} threads, {self.precision}",
            *rows,
            f"  ceiling of matrix products: {self.ceiling_float32 / 1e9:,.0f} GFLOP/s float32,"
            f" {self.ceiling_bfloat16 / 1e9:,.0f} bfloat16, measured now",
            f"  work: {self.flops / self.tokens / 1e6:,.1f} MFLOP a token,"
            f" {work:,.1f} GFLOP/s: {self.share_of_ceiling:.1%} of the ceiling in {self.precision}",
        ]


class StepProfiler:
    """Traces some steps after a few that warm up, and writes what it saw into the run's folder."""

    def __init__(self, run: Path, device: torch.device, bfloat16: bool) -> None:
        os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the tracer's own chatter
        self.run, self.device = run, device
        self.precision = "bfloat16" if bfloat16 else "float32"
        self.steps = self.tokens = 0
        self.started = 0.0
        self.trace: Any = None
        self.is_done = False

    def batches(self, batches: Iterator[Portions]) -> Iterator[Portions]:
        """See `Profiler`. Between two of them the loop takes one step."""
        while True:
            with torch.profiler.record_function(BATCH):
                portions = next(batches, None)
            if portions is None:
                return
            yield portions
            if not self.is_done:
                self._stepped(sum(portion.batch.tokens for portion in portions))

    def _stepped(self, tokens: int) -> None:
        self.steps += 1
        if self.trace is not None:
            self.tokens += tokens
        if self.steps == WARM:
            self._start()
        elif self.steps == WARM + TRACED:
            self.close()

    def _start(self) -> None:
        cuda = self.device.type == "cuda"
        kinds = [torch.profiler.ProfilerActivity.CPU] + [torch.profiler.ProfilerActivity.CUDA] * cuda
        self.trace = torch.profiler.profile(activities=kinds, with_flops=True)
        self.trace.__enter__()
        self.started = time.perf_counter()

    def close(self) -> None:
        """See `Profiler`. A run of few steps is looked at as far as it went."""
        if self.is_done:
            return
        self.is_done = True
        if self.trace is None or self.steps == WARM:
            say(
                f"--profile: the run had only {self.steps} steps, and the first {WARM} warm up; nothing was traced."
            )
            if self.trace is not None:
                self.trace.__exit__(None, None, None)
            return
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        seconds = time.perf_counter() - self.started
        self.trace.__exit__(None, None, None)
        self.trace.export_chrome_trace(str(self.run / TRACE))
        by_kind, flops = spent(self.trace.events(), seconds, cuda=self.device.type == "cuda")
        self.trace = None
        found = Profile(
            steps=self.steps - WARM,
            tokens=self.tokens,
            seconds=seconds,
            seconds_by_kind=by_kind,
            flops=flops,
            ceiling_float32=ceiling(self.device, torch.float32),
            ceiling_bfloat16=ceiling(self.device, torch.bfloat16),
            precision=self.precision,
            threads=torch.get_num_threads(),
            device=self.device.type,
        )
        write_json(self.run / TABLE, {**asdict(found), "share_of_ceiling": found.share_of_ceiling})
        for line in found.lines():
            say(line)
        say(f"  trace: {self.run / TRACE}")


def spent(events: Any, seconds: float, *, cuda: bool) -> tuple[dict[str, float], float]:
    """Seconds by kind, all of the `seconds` told; and the floating-point operations of the model's products."""
    found = dict.fromkeys(KINDS, 0.0)
    flops = 0.0
    kinds: dict[int, str] = {}
    for event in events:
        kind = _kind(event, kinds)
        found[kind] += (event.self_device_time_total if cuda else event.self_cpu_time_total) / 1e6
        if kind != "optimiser" and event.name.startswith(PRODUCTS):
            flops += event.flops or 0
    told = sum(found.values())
    found["Python and waiting"] += max(0.0, seconds - told)
    scale = seconds / max(seconds, told)  # threads beside each other may have more seconds than the clock
    return {kind: found[kind] * scale for kind in KINDS}, flops


def _kind(event: Any, known: dict[int, str]) -> str:
    """The kind of an operation: of the outermost that has one of its own, else by its own name."""
    if event.id in known:
        return known[event.id]
    outer, here, in_loss = "", event, False
    while here is not None:
        outer = _named(here.name, OUTER) or outer
        in_loss = in_loss or here.name.startswith(LOSS)
        here = here.cpu_parent
    kind = outer or _named(event.name, INNER) or ("loss" if in_loss else "other operations")
    known[event.id] = kind
    return kind


def _named(name: str, table: dict[str, str]) -> str:
    return next((kind for start, kind in table.items() if name.startswith(start)), "")


def ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations a second of the best square matrix product found: what a training cannot pass."""
    best = 0.0
    for size in CEILING_SIZES if device.type == "cpu" else CEILING_SIZES_GPU:
        left = torch.ones(size, size, dtype=dtype, device=device)
        right = torch.ones(size, size, dtype=dtype, device=device)
        out = left @ right
        ends = time.perf_counter() + CEILING_S
        while time.perf_counter() < ends:
            started = time.perf_counter()
            torch.mm(left, right, out=out)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            best = max(best, 2.0 * size**3 / (time.perf_counter() - started))
    return best
