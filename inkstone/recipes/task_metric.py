"""The last part of an export's proof: what the model is for, measured before and after on real texts.

    texts ─┬─ the model in torch, float32 ─> answers ─┬─ metrics of the task ─> parity.json
           └─ the export, by its own engine ─ answers ─┘

Both answer through the same application (`apps`), so that only the engine differs. In float32 an answer may differ only
where two were as good to within rounding; with the same answers the metrics are the same. In int8 both are stated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inkstone.apps.classify import Classification, Classifier
from inkstone.apps.translate import Translation, Translator
from inkstone.corpus.read import read_labelled, read_pairs
from inkstone.generate.batching import windows
from inkstone.generate.classify_engine import Array, ClassifyEngine
from inkstone.generate.classify_onnx import OnnxClassifier
from inkstone.generate.ctranslate2_engine import CTranslate2Engine
from inkstone.generate.engine import Engine
from inkstone.generate.onnx_engine import OnnxEngine
from inkstone.generate.torch_engine import TorchEngine
from inkstone.ground.errors import BundleError, ConfigError, DataError, raise_all
from inkstone.ground.progress import say
from inkstone.judge.compare import PRIMARY
from inkstone.judge.evaluate import label_tallies, signatures, translation_tallies
from inkstone.metrics.statistics import Tally
from inkstone.model.bundle import Bundle
from inkstone.model.checkpoint import load_model
from inkstone.recipes.evaluate import MeasuredOn, one_direction, unknown_labels
from inkstone.recipes.pairs import evenly
from inkstone.recipes.preflight import language_findings
from inkstone.recipes.run import short_path
from inkstone.text.reader import TextReader
from inkstone.text.tokenizer import Tokenizer

MOST = 300  # texts at most that are answered twice
TIE = 1e-3  # nats a token of two translations, or probability of two labels: as good as each other in float32
SHOWN = 3  # differing answers in a message


@dataclass(frozen=True, slots=True)
class _Trial:
    """What a task brings: the texts, how an engine answers them, what answers are worth, and which are as good."""

    texts: list[str]
    answers: Callable[[Any], list[Any]]
    tallies: Callable[[list[Any]], dict[str, Tally]]
    differ: Callable[[Any, Any], bool]
    as_good: Callable[[Any, Any], bool]
    said: str  # of the data


def task_metric(
    bundle: Bundle,
    model: torch.nn.Module,
    folder: Path,
    export: Path,
    to: str,
    quantization: str,
    on: MeasuredOn,
) -> dict[str, Any]:
    """The metrics of a model and of its export, for parity.json. folder: the model's own, with its tokenizer.

    Raises DataError for texts that do not fit the task, BundleError where an export in float32 answers otherwise.
    """
    trial = _translations(bundle, on) if bundle.task == "translate" else _labels(bundle, on)
    engines = _translators if bundle.task == "translate" else _classifiers
    say(f"measuring the model and the export on {len(trial.texts):,} texts")
    before, after = (trial.answers(engine) for engine in engines(model.eval(), folder, export, to))
    differing = [n for n, pair in enumerate(zip(before, after, strict=True)) if trial.differ(*pair)]
    if quantization == "float32":
        wrong = [n for n in differing if not trial.as_good(before[n], after[n])]
        problems = [f"{trial.texts[n]!r:.80} is answered otherwise" for n in wrong[:SHOWN]]
        problems += [f"and {len(wrong) - SHOWN} more of {len(before)}"] if len(wrong) > SHOWN else []
        raise_all(BundleError, "the export does not answer as the model does; nothing was written", problems)
    tallies = trial.tallies(before)
    return {
        "metric": PRIMARY[bundle.task],
        "original": {name: round(tally.value, 4) for name, tally in tallies.items()},
        "export": {name: round(tally.value, 4) for name, tally in trial.tallies(after).items()},
        "n": len(before),
        "answers_identical": f"{len(before) - len(differing)} of {len(before)}",
        "data": trial.said,
        "signatures": signatures(tallies),
    }


def _translations(bundle: Bundle, on: MeasuredOn) -> _Trial:
    directions = {"-".join(one): one for one in bundle.description["directions"]}
    wanted = on.direction or (next(iter(directions)) if len(directions) == 1 else None)
    if wanted is not None and wanted not in directions:
        raise ConfigError(f"{bundle.name} does not translate {wanted}. Valid: {', '.join(directions)}.")
    known = directions[wanted] if wanted else (None, None)
    try:
        reading = read_pairs(
            list(on.data), fields=on.fields, source_language=known[0], target_language=known[1]
        )
        pairs = evenly(list(reading), MOST)
        source, target = one_direction(pairs)
    except (DataError, ConfigError) as error:
        if wanted is None:
            raise DataError(
                f"{error} (Of an export, say --direction, such as {next(iter(directions))}.)"
            ) from error
        raise
    for finding in language_findings(pairs, "test"):
        say(finding)
    translator, texts = Translator(bundle.path), [pair.source for pair in pairs]

    def answers(engine: Engine) -> list[Translation]:
        translator.engine = engine
        return translator.translate(texts, to=target, source=source)

    def tallies(found: list[Translation]) -> dict[str, Tally]:
        outputs, references = [one.translation for one in found], [pair.target for pair in pairs]
        return translation_tallies(outputs, references, target_language=target)

    return _Trial(
        texts,
        answers,
        tallies,
        differ=lambda one, other: one.translation != other.translation,
        as_good=lambda one, other: abs(one.score - other.score) <= TIE,
        said=", ".join(short_path(file) for file in on.data),
    )


def _labels(bundle: Bundle, on: MeasuredOn) -> _Trial:
    reading = read_labelled(list(on.data), fields=on.fields)
    records = evenly(list(reading), MOST)
    if not records:
        raise DataError("the data holds no labelled text: there is nothing to measure.")
    for note in unknown_labels(bundle, records):
        say(note)
    classifier, texts = Classifier(bundle.path), [record.text for record in records]
    how: dict[str, Any] = {"out_of_scope": bundle.description.get("out_of_scope")}
    how |= {"multi_label": bool(bundle.description.get("multi_label"))}

    def answers(engine: ClassifyEngine) -> list[Classification]:
        classifier.engine = engine
        return classifier.predict(texts)

    def as_good(one: Classification, other: Classification) -> bool:
        """Whether the labels that only one of them gave were on the edge of being given."""
        if not how["multi_label"]:
            return abs(one.scores[str(one.label)] - one.scores[str(other.label)]) <= TIE
        return all(abs(one.scores[label] - 0.5) <= TIE for label in set(one.labels) ^ set(other.labels))

    return _Trial(
        texts,
        answers,
        tallies=lambda found: label_tallies(
            [record.labels for record in records], [one.labels for one in found], **how
        ),
        differ=lambda one, other: set(one.labels) != set(other.labels),
        as_good=as_good,
        said=", ".join(short_path(file) for file in on.data),
    )


def _translators(model: Any, folder: Path, export: Path, to: str) -> tuple[Engine, Engine]:
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    opened: dict[str, Callable[[], Engine]] = {
        "ct2": lambda: CTranslate2Engine(export, tokenizer, threads=1),
        "onnx": lambda: OnnxEngine(export, tokenizer, threads=1),
        "hf": lambda: TorchEngine(load_model(export)),
    }
    return TorchEngine(model), opened[to]()


def _classifiers(model: Any, folder: Path, export: Path, to: str) -> tuple[ClassifyEngine, ClassifyEngine]:
    opened: dict[str, Callable[[], ClassifyEngine]] = {
        "onnx": lambda: OnnxClassifier(folder, export, threads=1),
        "hf": lambda: _TorchClassifier(load_model(export), TextReader.load(folder)),
    }
    return _TorchClassifier(model, TextReader.load(folder)), opened[to]()


class _TorchClassifier:
    """The trained classifier itself; a text of more tokens than it has positions in windows, as the engines read it."""

    name = "torch"

    def __init__(self, model: Any, reader: TextReader) -> None:
        self._model, self._reader = model, reader
        self._longest = int(getattr(model.config, "max_positions", 0))

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """See `ClassifyEngine.encode`."""
        return self._reader.marked(texts)

    @torch.inference_mode()
    def logits(self, texts: Sequence[str]) -> Array:
        """See `ClassifyEngine.logits`."""
        return np.stack([self._one(ids) for ids in self._reader.bare(texts)])

    def _one(self, ids: Sequence[int]) -> Array:
        """The mean of a text's windows, each counting by its tokens: (C)."""
        parts = windows(ids, self._longest, self._reader.before, self._reader.after)
        logits_WC = np.stack([self._model(torch.tensor([part]))[0].float().numpy() for part in parts])
        weights_W = np.array([len(part) for part in parts], np.float32)
        mean_C: Array = (weights_W[:, None] * logits_WC).sum(0) / weights_W.sum()
        return mean_C
