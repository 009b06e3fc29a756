"""What a compression is made of, whatever the task: the recipe, the trial with its rows, the table, the limit, the card.

Every row of the table is an engine measured by `recipes.compress.footprint`: bytes it reads, memory of its process,
seconds for one text at a time on one thread, and the task's metrics on the same texts. Two rows are the original: the
trained checkpoint in float32 by torch, against which every loss is told, and what is shipped today. The limit is on
the metric that decides (`judge.compare.PRIMARY`; of a translator its mean over the directions), as a share of the
original's.
"""

from __future__ import annotations

import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from inkstone.ground.configuration import plain
from inkstone.ground.errors import ConfigError, InkstoneError, not_known, raise_all
from inkstone.ground.files import sha256, write_json, write_text
from inkstone.ground.manifest import MANIFEST
from inkstone.ground.progress import say
from inkstone.judge.facts import Result, metric_title, shown
from inkstone.judge.report import CARD_FILE, ReportCard
from inkstone.learn.loop import TrainingOptions
from inkstone.learn.objectives.distillation import DistillationOptions
from inkstone.model.bundle import Bundle
from inkstone.model.config import PRESETS
from inkstone.recipes.compress.footprint import Footprint, measure
from inkstone.recipes.run import run_folder, short_path

TABLE_FILE = "compression.json"
STUDENT = {
    "epochs": 8,
    "learning_rate": 2e-3,
    "warmup_steps": 100,
}  # of the training, for who begins with nothing
ORIGINAL = "original: float32, torch"


@dataclass(frozen=True, slots=True)
class CompressRecipe:
    """Everything that was asked. data, test: any format that `corpus.read` reads."""

    data: tuple[str, ...]
    test: tuple[str, ...] = ()  # empty: the data, or what is held out of it where something is learnt
    fields: dict[str, str] | None = None
    source: str | None = None
    target: str | None = None
    quantize: Literal["int8", "int4"] = "int8"
    torch: bool = False  # a torch engine with int8 weights, too (int4 always has one)
    prune: float = 0.0
    prune_what: Literal["structure", "weights"] = "structure"
    score: Literal["wanda", "magnitude"] = "wanda"
    layers: tuple[int, int] | None = None  # of the encoder and the decoder, to keep
    distil: str | None = None  # the size of a student
    student: dict[str, Any] = field(default_factory=dict)  # fields of its configuration laid over the size
    sequences: bool = True  # the student of a translator learns the teacher's outputs
    distillation: DistillationOptions = field(default_factory=DistillationOptions)
    training: TrainingOptions = field(
        default_factory=lambda: TrainingOptions(
            epochs=2, tokens_per_batch=4096, learning_rate=5e-4, warmup_steps=50, smoothing=0.0
        )
    )
    limit: float = 0.01  # of the metric that decides, relative
    most: int = 300  # texts that are measured, in each direction
    timed: int = 20  # of them, one by one
    beam_size: int = 4

    def __post_init__(self) -> None:
        problems = [] if 0 <= self.prune < 1 else [f"prune={self.prune} must be at least 0 and below 1"]
        problems += [] if 0 <= self.limit <= 1 else [f"limit={self.limit} must be between 0 and 1 (100 %)"]
        problems += [
            f"{name}={getattr(self, name)} must be at least 1"
            for name in ("most", "timed", "beam_size")
            if getattr(self, name) < 1
        ]
        if self.layers is not None and min(self.layers) < 0:
            problems.append(f"layers={self.layers[0]},{self.layers[1]} must not be negative")
        if self.distil is not None and self.distil not in PRESETS:
            problems.append(not_known("distil", self.distil, PRESETS))
        if self.student and not self.distil:
            problems.append("student options are given, but no student: give --distill SIZE")
        raise_all(ConfigError, "what is asked for", problems)

    @property
    def learns(self) -> bool:
        """Whether anything has to be trained."""
        return bool(self.distil or self.layers or self.prune)


@dataclass(frozen=True, slots=True)
class Row:
    """One engine of the table."""

    name: str
    size_bytes: int
    memory_bytes: int
    latency_s: float
    metrics: Mapping[str, float]

    def beside(self, original: Row) -> dict[str, Any]:
        """As JSON, with what it gains and loses against the original: shares of it."""
        return {
            **asdict(self),
            "smaller": round(original.size_bytes / self.size_bytes, 2),
            "faster": round(original.latency_s / max(self.latency_s, 1e-9), 2),
            "memory_share": round(self.memory_bytes / original.memory_bytes, 3),
            "loss": {name: round(lost(original, self, name), 5) for name in self.metrics},
        }


def lost(original: Row, row: Row, metric: str) -> float:
    """How much of the original's metric a row has lost, as a share of it; negative where it gained."""
    before = original.metrics[metric]
    return (before - row.metrics[metric]) / before if before else 0.0


class TooLossy(InkstoneError):
    """What would have been written breaks the limit. `result` is what was measured."""

    def __init__(self, message: str, result: dict[str, Any]) -> None:
        super().__init__(message)
        self.result = result


@dataclass(slots=True)
class Trial:
    """What the tasks fill in: the texts that are measured, and how answers to them are judged."""

    bundle: Bundle
    recipe: CompressRecipe
    inputs: list[Any]
    judged: Callable[[Sequence[Any]], list[Result]]  # answers to results, one for each direction
    primary: str
    architecture: str = ""
    rows: list[Row] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)  # of the last row

    def look(self, name: str, folder: Path, engine: str) -> Row:
        """Measure an engine and add its row."""
        say(f"measuring {name}")
        found: Footprint = measure(
            folder,
            engine,
            self.inputs,
            architecture=self.architecture,
            timed=self.recipe.timed,
            beam_size=self.recipe.beam_size,
        )
        self.results = self.judged(found.answers)
        metrics = {
            metric: sum(result.metrics[metric].value for result in self.results) / len(self.results)
            for metric in self.results[0].metrics
        }
        row = Row(name, found.size_bytes, found.memory_bytes, found.latency_s, metrics)
        self.rows.append(row)
        return row


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder that goes when the block ends."""
    folder = Path(tempfile.mkdtemp(prefix="inkstone-compress-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def shipped(bundle: Bundle) -> str:
    """The engine that a bundle holds."""
    found = (place.name for kind in ("ctranslate2-*", "onnx-*") for place in bundle.path.glob(kind))
    return next(found, "numpy")


def report(trial: Trial, out: Path, *, steps: Sequence[str], written: bool) -> dict[str, Any]:
    """The JSON document: the rows beside the original, the limit, and whether it was kept."""
    original = trial.rows[0]
    return {
        "bundle": str(out) if written else None,
        "model": trial.bundle.name,
        "task": trial.bundle.task,
        "n": len(trial.inputs),
        "steps": list(steps),
        "baseline": "the trained checkpoint in float32, run by torch, one text at a time on one thread",
        "metric": trial.primary,
        "limit": trial.recipe.limit,
        "rows": [row.beside(original) for row in trial.rows],
        "written": written,
    }


def refuse_losses(trial: Trial, out: Path, new: Sequence[Row], steps: Sequence[str]) -> None:
    """Raise TooLossy when one of the new rows has lost more than the limit."""
    original, metric, recipe = trial.rows[0], trial.primary, trial.recipe
    over = [row for row in new if lost(original, row, metric) > trial.recipe.limit]
    if not over:
        return
    listed = "; ".join(
        f"{row.name} loses {100 * lost(original, row, metric):.2f} % "
        f"({shown(metric, original.metrics[metric])} to {shown(metric, row.metrics[metric])})"
        for row in over
    )
    raise TooLossy(
        f"nothing was written: more than {100 * trial.recipe.limit:g} % of the {metric_title(metric)} would be lost. "
        f"{listed}. Take less away, train longer, or raise --limit"
        + (f" (what was learnt is in {run_folder(out)} and is not learnt again)." if recipe.learns else "."),
        report(trial, out, steps=steps, written=False),
    )


def write_card(
    trial: Trial, folder: Path, result: Mapping[str, Any], parity: Mapping[str, Any], parameters: int
) -> None:
    """The new bundle's own card: its results beside those of the original, and the table of what was gained and lost."""
    bundle = trial.bundle
    old = bundle.report
    card = ReportCard(
        name=f"{bundle.name}, compressed",
        task=bundle.task,
        languages=bundle.languages,
        labels=tuple(bundle.description.get("labels", ())),
        results=tuple(trial.results),
        parity=parity,
        good_at=str(old.get("good_at", "")),
        bad_at=str(old.get("bad_at", "")),
        licence=str(old.get("licence", "")),
        size_bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
    )
    card.save(folder)
    write_json(folder / TABLE_FILE, {**result, "bundle": None, "parameters": parameters})
    text = (folder / CARD_FILE).read_text("utf-8")
    steps = "; ".join(result["steps"])
    made = (
        f"## How it was made small\n\nMade from {bundle.name}: {steps}. {parameters:,} parameters. "
        f"Losses are against {result['baseline']}.\n\n{as_markdown(result)}\n"
    )
    write_text(folder / CARD_FILE, f"{text}\n{made}")


def cells(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The table as text: its headings and its rows."""
    names = list(result["rows"][0]["metrics"])
    headings = ["", "size", "smaller", "memory", "one text", "faster"]
    for name in names:
        headings += [metric_title(name), "lost"]
    rows = []
    for number, row in enumerate(result["rows"]):
        line = [
            row["name"],
            f"{row['size_bytes'] / 1e6:.2f} MB",
            f"{row['smaller']:.1f} x" if number else "",
            f"{row['memory_bytes'] / 1e6:.0f} MB",
            f"{1000 * row['latency_s']:.2f} ms",
            f"{row['faster']:.1f} x" if number else "",
        ]
        for name in names:
            line += [shown(name, row["metrics"][name]), f"{100 * row['loss'][name]:.2f} %" if number else ""]
        rows.append(line)
    return headings, rows


def as_markdown(result: Mapping[str, Any]) -> str:
    """The table in Markdown."""
    headings, rows = cells(result)
    ruled = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in ruled)


def made_from(trial: Trial, steps: Sequence[str]) -> dict[str, Any]:
    """For the manifest: what the model was made from, how, and with what."""
    recipe, bundle = trial.recipe, trial.bundle
    files = {use: [short_path(path) for path in getattr(recipe, use)] for use in ("data", "test")}
    return {
        "from": {
            "name": bundle.name,
            "manifest_sha256": sha256(bundle.path / MANIFEST),
            "made": bundle.manifest["made"],
        },
        "steps": list(steps),
        "recipe": {**plain(recipe), **files},
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("inkstone", "torch", "numpy", "tokenizers", "ctranslate2")},
        },
    }
