"""The report card: everything measured about a model in one record, and the model card written from it.

Nothing in the card is typed in by hand but two short texts, what the model is good and bad at. The card is
kept as JSON (`report.json`, for programs and for the next comparison) and as Markdown (`README.md`, for
whoever has to decide whether to use the model, from a hospital's front desk to its engineers), so every
figure a reader meets has its interval, its number of examples and its baselines beside it (Mitchell et al.,
2019, "Model Cards").

Sentences of the data are quoted only where the data's licence allows it (`quotable`); otherwise the card
says that they are left out. Drawing is in `judge.plot`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inkstone.ground.errors import DataError
from inkstone.ground.files import write_json, write_text
from inkstone.judge.facts import (
    FALLING,
    CurvePoint,
    DataDescription,
    Result,
    Sample,
    TrainingFacts,
    metric_title,
    plain,
    result_from_json,
    result_json,
    shown,
    shown_measured,
)
from inkstone.judge.plot import plot_learning_curve

FORMAT = 1
MOST_SAMPLES = 8
CURVE_FILE, JSON_FILE, CARD_FILE = "learning_curve.png", "report.json", "README.md"

_PURPOSE = {
    "translate": "Translates between {languages}.",
    "summarize": "Writes summaries of {languages} texts.",
    "classify": "Sorts {languages} texts into {labels} classes.",
    "embed": "Gives {languages} texts vectors: what belongs together lies close.",
    "language-model": "Knows how {languages} texts go, from reading them.",
}
_LANGUAGES = {
    "zh": "Chinese",
    "en": "English",
    "de": "German",
    "fr": "French",
    "cs": "Czech",
    "ja": "Japanese",
}
_BASELINES = {
    "copy": "copying the input",
    "dictionary": "word-by-word dictionary",
    "lead": "the first sentence",
    "majority": "always the most frequent label",
    "tfidf-linear": "TF-IDF and a linear classifier",
    "before": "the model it began with",
    "bm25": "BM25 (shared words)",
    "kneser-ney": "an n-gram model (interpolated modified Kneser-Ney)",
    "frequency": "each token by how frequent it is",
}


@dataclass(frozen=True, slots=True)
class ReportCard:
    """All that was measured about one model."""

    name: str
    task: str
    languages: tuple[str, ...]
    data: tuple[DataDescription, ...] = ()
    results: tuple[Result, ...] = ()
    training: TrainingFacts | None = None
    curve: tuple[CurvePoint, ...] = ()
    samples: tuple[Sample, ...] = ()
    parity: Mapping[str, Any] = field(
        default_factory=dict
    )  # the certificate's checks: name -> figure or outcome
    good_at: str = ""
    bad_at: str = ""
    licence: str = ""
    size_bytes: int | None = None
    labels: tuple[str, ...] = ()
    preflight: Mapping[str, Any] = field(default_factory=dict)  # what the training was predicted to take

    @property
    def shown_samples(self) -> tuple[Sample, ...]:
        """The first samples, or none when some of the data may not be quoted."""
        quotable = bool(self.data) and all(source.quotable for source in self.data)
        return self.samples[:MOST_SAMPLES] if quotable else ()

    def to_json(self) -> dict[str, Any]:
        """The card as a JSON object."""
        return {
            "format": FORMAT,
            **{
                name: getattr(self, name)
                for name in ("name", "task", "good_at", "bad_at", "licence", "size_bytes")
            },
            "languages": list(self.languages),
            "labels": list(self.labels),
            "data": [plain(source) for source in self.data],
            "results": [result_json(result) for result in self.results],
            "training": plain(self.training) if self.training else None,
            "curve": [plain(point) for point in self.curve],
            "samples": [plain(sample) for sample in self.shown_samples],
            "parity": dict(self.parity),
            "preflight": dict(self.preflight),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> ReportCard:
        """Read back what `to_json` gave. Raises DataError when it is something else."""
        if value.get("format") != FORMAT:
            raise DataError(f"this is not a report card of format {FORMAT}: format={value.get('format')!r}.")
        try:
            return cls(
                **{
                    name: value[name]
                    for name in ("name", "task", "good_at", "bad_at", "licence", "size_bytes")
                },
                languages=tuple(value["languages"]),
                labels=tuple(value["labels"]),
                data=tuple(DataDescription(**source) for source in value["data"]),
                results=tuple(result_from_json(result) for result in value["results"]),
                training=TrainingFacts(**value["training"]) if value["training"] else None,
                curve=tuple(CurvePoint(**point) for point in value["curve"]),
                samples=tuple(Sample(**sample) for sample in value["samples"]),
                parity=value["parity"],
                preflight=value.get("preflight", {}),  # cards of before have none
            )
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise DataError(f"the report card is damaged: {type(error).__name__}: {error}.") from error

    def to_markdown(self) -> str:
        """The model card. Its pictures are files of the same folder; see `save`."""
        sections = (_summary, _limits, _results, _confusions, _samples, _data, _training, _parity, _method)
        return "\n\n".join(part for section in sections for part in section(self) if part) + "\n"

    def save(self, folder: str | Path) -> None:
        """Write report.json, README.md and the learning curve into an existing folder, each file whole."""
        folder = Path(folder)
        write_json(folder / JSON_FILE, self.to_json())
        if self.curve:
            plot_learning_curve(self.curve, folder / CURVE_FILE)
        write_text(folder / CARD_FILE, self.to_markdown())


def _summary(card: ReportCard) -> Iterator[str]:
    yield f"# {_text(card.name)}"
    yield _PURPOSE.get(card.task, f"A model for the task {card.task}.").format(
        languages=" and ".join(_LANGUAGES.get(code, code) for code in card.languages), labels=len(card.labels)
    )
    for result in card.results:
        yield _sentence(result)
    rows = [("Task", card.task), ("Languages", ", ".join(card.languages)), ("Licence", card.licence)]
    if card.labels:
        rows.append(
            ("Labels", f"{len(card.labels)}: {', '.join(card.labels[:8])}{', …' * (len(card.labels) > 8)}")
        )
    if card.training:
        rows.append(("Parameters", f"{card.training.parameters:,}"))
    if card.size_bytes is not None:
        rows.append(("Size on disk", _bytes(card.size_bytes)))
    yield _table(("", ""), [(f"**{name}**", _text(value)) for name, value in rows if value])


def _sentence(result: Result) -> str:
    """The first metric in one plain sentence, with the best baseline by that metric."""
    name, measured = next(iter(result.metrics.items()))
    where = f"On the {result.n:,} test examples of {_text(result.test_set)}" + _direction(result)
    sentence = f"{where}, its {metric_title(name)} is **{shown(name, measured.value)}**"
    rivals = [(metrics[name].value, rival) for rival, metrics in result.baselines.items() if name in metrics]
    if rivals:
        value, rival = min(rivals) if name in FALLING else max(rivals)
        simple = "" if rival == "before" else "simple "
        named = _BASELINES.get(rival, rival)
        sentence += f"; the best {simple}baseline, {named}, reaches {shown(name, value)}"
    return sentence + "."


def _limits(card: ReportCard) -> Iterator[str]:
    if card.good_at:
        yield f"## What it is good at\n\n{card.good_at.strip()}"
    if card.bad_at:
        yield f"## What it is bad at\n\n{card.bad_at.strip()}"


def _results(card: ReportCard) -> Iterator[str]:
    if not card.results:
        yield "## How well it does\n\nThis model has not been measured."
        return
    yield "## How well it does"
    yield (
        "In brackets: the 95 % interval, the range in which the figure would move with another test set of "
        f"the same kind and size. {_which_is_better(card)} The baselines were computed on the same data."
    )
    for result in card.results:
        systems = {f"**{_text(card.name)}**": result.metrics}
        systems |= {_text(_BASELINES.get(name, name)): metrics for name, metrics in result.baselines.items()}
        rows = [
            (system, *(shown_measured(m, metrics[m]) if m in metrics else "" for m in result.metrics))
            for system, metrics in systems.items()
        ]
        yield f"### {_text(result.test_set)}{_direction(result)} ({result.n:,} examples)"
        yield _table(("", *(metric_title(name) for name in result.metrics)), rows)


def _which_is_better(card: ReportCard) -> str:
    falling = [name for result in card.results for name in result.metrics if name in FALLING]
    if not falling:
        return "Higher is better everywhere; BLEU, chrF and ROUGE run from 0 to 100."
    named = ", ".join(metric_title(name) for name in dict.fromkeys(falling))
    return f"Lower is better for {named}."


def _confusions(card: ReportCard) -> Iterator[str]:
    for result in card.results:
        if result.confusions:
            yield f"## What it mixes up ({_text(result.test_set)})"
            rows = [(_text(c.gold), _text(c.predicted), f"{c.count:,}") for c in result.confusions]
            yield _table(("is really", "was taken for", "times"), rows)


def _samples(card: ReportCard) -> Iterator[str]:
    if not card.samples:
        return
    yield "## Examples"
    if not card.shown_samples:
        yield "None are shown: the licence of the data does not allow its sentences to be quoted."
        return
    yield "Examples of the test set as they come out, taken in order and not by their quality."
    rows = [(_text(s.source), _text(s.hypothesis), _text(s.reference)) for s in card.shown_samples]
    yield _table(("input", "output", "expected"), rows)


def _data(card: ReportCard) -> Iterator[str]:
    if not card.data:
        return
    yield "## The data"
    uses = list(dict.fromkeys(use for source in card.data for use in source.counts))
    rows = [
        (_text(d.name), *(f"{d.counts[use]:,}" if use in d.counts else "" for use in uses), _text(d.licence))
        for d in card.data
    ]
    yield _table(("source", *uses, "licence"), rows)
    dropped = [
        (_text(d.name), _text(why), f"{count:,}") for d in card.data for why, count in d.cleaning.items()
    ]
    if dropped:
        yield "Dropped by cleaning:\n\n" + _table(("source", "reason", "records"), dropped)


def _training(card: ReportCard) -> Iterator[str]:
    facts = card.training
    if facts is None:
        return
    yield "## How it was trained"
    share = f"{facts.learnt_parameters:,} parameters" if facts.learnt_parameters is not None else ""
    rows = [
        ("Begun with", _text(facts.begun_with)),
        ("Learnt", share if facts.learnt_parameters != facts.parameters else ""),
        ("Time", _duration(facts.seconds) + _predicted(card, "seconds", _duration)),
        ("Updates", f"{facts.steps:,}"),
        ("Passes over the data", f"{facts.epochs:.1f}"),
        ("Tokens per second", f"{facts.tokens_per_second:,.0f}" if facts.tokens_per_second else ""),
        ("Peak memory", _peak(card, facts.peak_memory_bytes)),
        ("Device", _text(facts.device)),
    ]
    yield _table(("", ""), [(f"**{name}**", value) for name, value in rows if value])
    if card.curve:
        yield f"![Loss and validation figures over the course of training]({CURVE_FILE})"


def _peak(card: ReportCard, peak: int | None) -> str:
    return _bytes(peak) + _predicted(card, "memory_bytes", _bytes) if peak else ""


def _predicted(card: ReportCard, name: str, shown_as: Callable[[Any], str]) -> str:
    return f" ({shown_as(card.preflight[name])} predicted)" if name in card.preflight else ""


def _parity(card: ReportCard) -> Iterator[str]:
    if card.parity:
        yield "## The served copy against the trained model"
        yield _table(("check", "result"), [(_text(name), _text(str(v))) for name, v in card.parity.items()])


def _method(card: ReportCard) -> Iterator[str]:
    lines = {
        f"{metric_title(m)}: `{s}`" for result in card.results for m, s in result.signatures.items() if s
    }
    if lines:
        yield "## How the figures were made"
        yield (
            "Intervals: percentile bootstrap over the examples of the test set. To compare with other "
            "publications:\n\n" + "\n".join(f"- {line}" for line in sorted(lines))
        )


def _direction(result: Result) -> str:
    return f" ({result.direction.replace('-', ' → ')})" if result.direction else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _text(text: str) -> str:
    """Text as it is, in a Markdown cell: no mark-up, no HTML and no line break comes to life."""
    plain_text = re.sub(r"([\\`*_\[\]|~])", r"\\\1", " ".join(text.split()))
    return plain_text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _bytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
