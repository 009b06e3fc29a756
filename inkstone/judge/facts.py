"""What a report card is made of: the data, the results, the training, the learning curve, the samples.

Plain records, each with its way to JSON and back, and the way a measured value is written for people.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from inkstone.metrics.classification import Confusion
from inkstone.metrics.statistics import Measured

# How a metric is called, and whether it is a share, shown in percent.
METRICS = {
    "bleu": ("BLEU", False),
    "chrf": ("chrF", False),
    "rouge1": ("ROUGE-1", False),
    "rouge2": ("ROUGE-2", False),
    "rougeL": ("ROUGE-L", False),
    "token_accuracy": ("token accuracy", True),
    "accuracy": ("accuracy", True),
    "macro_f1": ("macro-F1", True),
    "micro_f1": ("micro-F1", True),
    "in_scope_accuracy": ("accuracy in scope", True),
    "out_of_scope_recall": ("out-of-scope recall", True),
    "recall_at_1": ("recall at 1", True),
    "recall_at_10": ("recall at 10", True),
    "mrr": ("mean reciprocal rank", True),
    "bits_per_byte": ("bits per byte", False),
    "character_perplexity": ("perplexity per character", False),
    "token_loss": ("nats per token", False),
    "foreseen_loss": ("nats per token asked for", False),
}
# Of these less is better; they are shown with three decimals.
FALLING = ("bits_per_byte", "character_perplexity", "token_loss", "foreseen_loss")


@dataclass(frozen=True, slots=True)
class DataDescription:
    """One source of data: how many records of it were used for what, and what cleaning dropped, by reason.

    quotable: whether the licence allows the card to show sentences of it.
    """

    name: str
    counts: Mapping[str, int]  # {"train": 24838, "valid": 536, "test": 1014}
    cleaning: Mapping[str, int] = field(default_factory=dict)  # {"duplicate": 120, "too long": 8}
    licence: str = ""
    quotable: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What came out on one test set (for a translator: in one direction), with its baselines beside it."""

    test_set: str
    n: int
    metrics: Mapping[str, Measured]
    baselines: Mapping[str, Mapping[str, Measured]] = field(default_factory=dict)
    direction: str = ""  # "zh-en"
    signatures: Mapping[str, str] = field(default_factory=dict)
    confusions: tuple[Confusion, ...] = ()


@dataclass(frozen=True, slots=True)
class TrainingFacts:
    """What the training took."""

    seconds: float
    steps: int
    epochs: float
    parameters: int
    tokens_per_second: float | None = None
    peak_memory_bytes: int | None = None
    device: str = ""
    begun_with: str = ""  # the name of a model, where its weights were not drawn
    learnt_parameters: int | None = None  # where not all of them learnt


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """The state of learning after `step` updates: mean loss since the last point, validation figures."""

    step: int
    seconds: float
    train_loss: float
    valid: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sample:
    """One example of the test set as the model answered it: not chosen, but the first ones."""

    source: str
    reference: str
    hypothesis: str
    direction: str = ""


def metric_title(name: str) -> str:
    """How a metric is called in a table: "macro_f1/long" is "macro-F1 (long)"."""
    base, _, part = name.partition("/")
    title = METRICS.get(base, (base, False))[0]
    return f"{title} ({part})" if part else title


def shown(name: str, value: float) -> str:
    """A value of this metric as text: shares in percent, scores as they are; one decimal, where less is better three."""
    base = name.partition("/")[0]
    if base in FALLING:
        return f"{value:.3f}"
    share = METRICS.get(base, ("", False))[1]
    return f"{100 * value:.1f} %" if share else f"{value:.1f}"


def shown_measured(name: str, measured: Measured) -> str:
    """A measurement as text: the value and its interval.

    >>> shown_measured("accuracy", Measured(0.908, 0.884, 0.934))
    '90.8 % (88.4-93.4)'
    """
    low, high = (shown(name, bound).removesuffix(" %") for bound in (measured.low, measured.high))
    return f"{shown(name, measured.value)} ({low}-{high})"


def plain(record: Any) -> dict[str, Any]:
    """The fields of a record of this module as a JSON object."""
    return {
        name: dict(value) if isinstance(value, Mapping) else value
        for name in record.__slots__
        for value in (getattr(record, name),)
    }


def _measured_json(metrics: Mapping[str, Measured]) -> dict[str, Any]:
    return {name: measured.as_json() for name, measured in metrics.items()}


def _measured_from_json(value: Mapping[str, Mapping[str, float]]) -> dict[str, Measured]:
    return {name: Measured.from_json(measured) for name, measured in value.items()}


def result_json(result: Result) -> dict[str, Any]:
    """A result as a JSON object."""
    return {
        **plain(result),
        "metrics": _measured_json(result.metrics),
        "baselines": {name: _measured_json(metrics) for name, metrics in result.baselines.items()},
        "confusions": [plain(confusion) for confusion in result.confusions],
    }


def result_from_json(value: Mapping[str, Any]) -> Result:
    """Read back what `result_json` gave."""
    fields = {
        **value,
        "metrics": _measured_from_json(value["metrics"]),
        "baselines": {name: _measured_from_json(metrics) for name, metrics in value["baselines"].items()},
        "confusions": tuple(Confusion(**confusion) for confusion in value["confusions"]),
    }
    return Result(**fields)
