"""From outputs and references to measured results: which metrics a task has, and their intervals.

`translation_tallies` and `label_tallies` decide what is measured; `judge_translations` and `judge_labels`
put the intervals on. A slice is a part of the test set ("long", "negated") measured by the same metrics;
its results are named `metric/slice` beside those of the whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from inkstone.metrics.classification import (
    Labels,
    accuracy,
    in_scope_accuracy,
    macro_f1,
    micro_f1,
    out_of_scope_recall,
)
from inkstone.metrics.rouge import rouge
from inkstone.metrics.statistics import CONFIDENCE, RESAMPLES, Measured, Tally, bootstrap
from inkstone.metrics.text import Tokenize, bleu, chrf, tokenize_for

Slices = Mapping[str, Sequence[bool] | NDArray[np.bool_]]


def translation_tallies(
    hypotheses: Sequence[str],
    references: Sequence[str],
    *,
    target_language: str,
    tokenize: Tokenize | None = None,
) -> dict[str, Tally]:
    """BLEU and chrF. tokenize: how BLEU cuts, when it is not to follow the target language."""
    return {
        "bleu": bleu(hypotheses, references, tokenize=tokenize or tokenize_for(target_language)),
        "chrf": chrf(hypotheses, references),
    }


def summary_tallies(summaries: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Tally]:
    """ROUGE-1, ROUGE-2 and ROUGE-L, the best of each example's references counting."""
    return rouge(summaries, references)


def label_tallies(
    gold: Labels, predicted: Labels, *, out_of_scope: str | None = None, multi_label: bool | None = None
) -> dict[str, Tally]:
    """Accuracy and macro-F1; micro-F1 too when a text may have several labels (or none).

    multi_label: by default the label sets decide. With an out-of-scope label that occurs in the gold
    labels, also accuracy in scope and recall out of scope.
    """
    tallies = {"accuracy": accuracy(gold, predicted), "macro_f1": macro_f1(gold, predicted)}
    if multi_label is None:
        multi_label = any(len(row) != 1 for row in (*gold, *predicted))
    if multi_label:
        tallies["micro_f1"] = micro_f1(gold, predicted)
    if out_of_scope is not None and any(out_of_scope in row for row in gold):
        if not all(out_of_scope in row for row in gold):
            tallies["in_scope_accuracy"] = in_scope_accuracy(gold, predicted, out_of_scope)
        tallies["out_of_scope_recall"] = out_of_scope_recall(gold, predicted, out_of_scope)
    return tallies


def measure(
    tallies: Mapping[str, Tally],
    *,
    rng: np.random.Generator,
    slices: Slices | None = None,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> dict[str, Measured]:
    """Each tally, and each slice of it, with its interval."""
    parts = dict(tallies)
    for slice_name, chosen in (slices or {}).items():
        parts |= {f"{name}/{slice_name}": tally.subset(chosen) for name, tally in tallies.items()}
    return {
        name: bootstrap(tally, rng, resamples=resamples, confidence=confidence)
        for name, tally in parts.items()
    }


def judge_translations(
    hypotheses: Sequence[str],
    references: Sequence[str],
    *,
    target_language: str,
    rng: np.random.Generator,
    tokenize: Tokenize | None = None,
    slices: Slices | None = None,
    resamples: int = RESAMPLES,
) -> dict[str, Measured]:
    """BLEU and chrF of translations into `target_language`, 0 to 100, each with its 95 % interval."""
    tallies = translation_tallies(hypotheses, references, target_language=target_language, tokenize=tokenize)
    return measure(tallies, rng=rng, slices=slices, resamples=resamples)


def judge_summaries(
    summaries: Sequence[str], references: Sequence[Sequence[str]], *, rng: np.random.Generator
) -> dict[str, Measured]:
    """ROUGE of summaries, 0 to 100, each with its 95 % interval."""
    return measure(summary_tallies(summaries, references), rng=rng)


def judge_labels(
    gold: Labels,
    predicted: Labels,
    *,
    rng: np.random.Generator,
    out_of_scope: str | None = None,
    slices: Slices | None = None,
    resamples: int = RESAMPLES,
) -> dict[str, Measured]:
    """Accuracy, F1 and out-of-scope detection, 0 to 1, each with its 95 % interval."""
    tallies = label_tallies(gold, predicted, out_of_scope=out_of_scope)
    return measure(tallies, rng=rng, slices=slices, resamples=resamples)


def signatures(tallies: Mapping[str, Tally]) -> dict[str, str]:
    """What exactly each figure is, by metric."""
    return {name: tally.signature for name, tally in tallies.items()}
