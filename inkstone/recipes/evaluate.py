"""Measure a model on a file it was not trained on, and, when asked, decide whether it is better than another.

    read the data -> let the model answer -> measure -> (let the other model answer -> compare -> verdict)

The reference answers are the file's; the task is the model's. Both models answer the same examples, so the
comparison is paired (`judge.compare`). The random generator of the bootstrap starts from `seed`: the same
command on the same files prints the same figures.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from inkstone.corpus.read import Reading, read_documents, read_labelled, read_pairs
from inkstone.corpus.related import read_related
from inkstone.corpus.summaries import as_pairs, read_summaries
from inkstone.ground.errors import ConfigError, DataError
from inkstone.ground.records import Document, Labelled, Pair, Related, Summarized
from inkstone.judge.compare import PRIMARY, Comparison, compare
from inkstone.judge.evaluate import label_tallies, measure, signatures, summary_tallies, translation_tallies
from inkstone.judge.language_modelling import foresight_tallies
from inkstone.judge.retrieval import Retrieval
from inkstone.metrics.classification import label_names
from inkstone.metrics.statistics import RESAMPLES, Measured, Tally
from inkstone.metrics.text import Tokenize
from inkstone.model.bundle import Bundle, open_bundle
from inkstone.recipes.preflight import language_findings
from inkstone.text.normalize import normalize

Progress = Callable[[str, int, int], None]  # what is being done, how many are done, how many in all
_AT_ONCE = 128


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What `inkstone evaluate` found. `notes` are things a reader of the figures must know."""

    task: str
    model: str
    n: int
    metrics: Mapping[str, Measured]
    signatures: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    direction: str = ""
    against_model: str | None = None
    against: Mapping[str, Measured] | None = None
    comparison: Comparison | None = None
    sources: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The JSON document; without a second model `against`, `difference` and `verdict` are null."""
        compared: Mapping[str, Any] = self.comparison.as_json() if self.comparison else {}
        against = None if self.against is None else {m: v.as_json() for m, v in self.against.items()}
        return {
            "task": self.task,
            "model": self.model,
            "n": self.n,
            "metrics": {name: measured.as_json() for name, measured in self.metrics.items()},
            "against": against,
            "difference": compared.get("difference"),
            "verdict": compared.get("verdict"),
            "reason": compared.get("reason"),
            "against_model": self.against_model,
            "direction": self.direction or None,
            "signatures": dict(self.signatures),
            "seconds": self.seconds,
            "data": list(self.sources),
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class MeasuredOn:
    """The texts to measure on. direction: "zh-en", where a model has several and the data does not tell."""

    data: tuple[str, ...]
    fields: dict[str, str] | None = None
    direction: str | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """How to read the data and how to measure; see the command's help for each."""

    fields: Mapping[str, str] | None = None
    source_language: str | None = None
    target_language: str | None = None
    tokenize: Tokenize | None = None
    beam_size: int | None = None
    strict: bool = False
    seed: int = 0
    resamples: int = RESAMPLES


@dataclass(frozen=True, slots=True)
class Side:
    """What answers: a bundle, alone or with others beside it as one model."""

    bundle: Bundle
    beside: tuple[Bundle, ...] = ()

    @property
    def name(self) -> str:
        """Its name; of several, all names."""
        return " + ".join(one.name for one in (self.bundle, *self.beside))

    @property
    def beside_paths(self) -> tuple[Path, ...]:
        """The folders of the others."""
        return tuple(one.path for one in self.beside)


def evaluate(
    model: str | Path,
    data: Sequence[str | Path],
    *,
    beside: Sequence[str | Path] = (),
    against: str | Path | None = None,
    options: Options | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a bundle on data files, alone or with others beside it as one model, or against another of the same task.

    beside: of translators and classifiers, as `Translator` and `Classifier` take them. Raises BundleError for models that
    cannot be used, ConfigError for those that do not go together, DataError for data that does not fit the task.
    """
    options = options or Options()
    bundle = open_bundle(model)
    if beside and bundle.task not in ("translate", "classify"):
        raise ConfigError(
            f"{bundle.name} is of task {bundle.task}: only translators and classifiers answer as several."
        )
    measured = Side(bundle, tuple(open_bundle(one, task=bundle.task) for one in beside))
    rival = Side(open_bundle(against, task=bundle.task)) if against is not None else None
    steps = {
        "translate": _translations,
        "summarize": _summaries,
        "classify": _labels,
        "language-model": _documents,
        "embed": _related,
    }
    return steps[bundle.task](measured, rival, data, options, progress)


def _translations(
    side: Side,
    rival: Side | None,
    data: Sequence[str | Path],
    options: Options,
    progress: Progress | None,
) -> Evaluation:
    reading = read_pairs(
        data,
        source_language=options.source_language,
        target_language=options.target_language,
        fields=options.fields,
        strict=options.strict,
    )
    pairs = list(reading)
    source, target = one_direction(pairs)
    references = [pair.target for pair in pairs]
    sources = [pair.source for pair in pairs]

    def answer(one: Side) -> tuple[dict[str, Tally], float]:
        from inkstone.apps.translate import Translator

        translator = Translator(one.bundle.path, beside=one.beside_paths)
        start = time.perf_counter()
        hypotheses = in_pieces(
            lambda texts: [
                found.translation
                for found in translator.translate(texts, to=target, source=source, options=_search(options))
            ],
            sources,
            f"{one.name} translates",
            progress,
        )
        tallies = translation_tallies(
            hypotheses, references, target_language=target, tokenize=options.tokenize
        )
        return tallies, time.perf_counter() - start

    notes = language_findings(pairs, "test")
    return _evaluation(side, rival, answer, reading, options, direction=f"{source}-{target}", notes=notes)


def _summaries(
    side: Side,
    rival: Side | None,
    data: Sequence[str | Path],
    options: Options,
    progress: Progress | None,
) -> Evaluation:
    reading = read_summaries(
        data, language=options.target_language, fields=options.fields, strict=options.strict
    )
    records = list(reading)
    if options.source_language or options.tokenize:
        raise ConfigError(
            "--from and --tokenize are for translators: a summary is in its document's language."
        )
    unknown = sorted({one.language for one in records} - set(side.bundle.languages))
    if unknown:
        raise DataError(
            f"{side.name} writes {', '.join(side.bundle.languages)}; the data is in {', '.join(unknown)} too. "
            "Give --to, or other data."
        )

    def answer(one: Side) -> tuple[dict[str, Tally], float]:
        from inkstone.apps.summarize import SEARCH, Summarizer

        summarizer = Summarizer(one.bundle.path)
        beam = options.beam_size or SEARCH.beam_size
        start = time.perf_counter()

        def written(some: Sequence[Summarized]) -> list[str]:
            texts, languages = [one.document for one in some], [one.language for one in some]
            found = summarizer.summarize(texts, language=languages, options=replace(SEARCH, beam_size=beam))
            return [one.summary for one in found]

        summaries = in_pieces(written, records, f"{one.name} summarises", progress)
        references = [record.summaries for record in records]
        return summary_tallies(summaries, references), time.perf_counter() - start

    pairs = [pair for record in records for pair in as_pairs(record)]
    return _evaluation(side, rival, answer, reading, options, notes=language_findings(pairs, "test"))


def _search(options: Options) -> Any:
    if options.beam_size is None:
        return None
    from inkstone.generate.engine import GenerationOptions

    return GenerationOptions(beam_size=options.beam_size)


def _labels(
    side: Side,
    rival: Side | None,
    data: Sequence[str | Path],
    options: Options,
    progress: Progress | None,
) -> Evaluation:
    reading = read_labelled(data, fields=options.fields, strict=options.strict)
    records = list(reading)
    gold = [record.labels for record in records]
    several = any(
        one.bundle.description.get("multi_label") for one in (side, rival) if one is not None
    ) or any(len(row) != 1 for row in gold)
    outside = side.bundle.description.get("out_of_scope")

    def answer(one: Side) -> tuple[dict[str, Tally], float]:
        from inkstone.apps.classify import Classifier

        classifier = Classifier(one.bundle.path, beside=one.beside_paths)
        start = time.perf_counter()
        predicted = in_pieces(
            lambda texts: [found.labels for found in classifier.predict(texts)],
            [record.text for record in records],
            f"{one.name} classifies",
            progress,
        )
        tallies = label_tallies(gold, predicted, out_of_scope=outside, multi_label=several)
        return tallies, time.perf_counter() - start

    notes = unknown_labels(side.bundle, records)
    return _evaluation(side, rival, answer, reading, options, notes=notes)


def _documents(
    side: Side,
    rival: Side | None,
    data: Sequence[str | Path],
    options: Options,
    progress: Progress | None,
) -> Evaluation:
    reading = read_documents(data, fields=options.fields, strict=options.strict)
    documents = list(reading)
    if not documents:
        raise DataError("the data holds no document to measure on.")

    def answer(one: Side) -> tuple[dict[str, Tally], float]:
        from inkstone.apps.language_model import LanguageModel

        model = LanguageModel(one.bundle.path)
        texts = [
            normalize(document.text, script=one.bundle.description.get("script")) for document in documents
        ]
        start = time.perf_counter()
        found = in_pieces(model.log_probabilities, texts, f"{one.name} reads", progress)
        return foresight_tallies(texts, found), time.perf_counter() - start

    return _evaluation(side, rival, answer, reading, options)


def _related(
    side: Side,
    rival: Side | None,
    data: Sequence[str | Path],
    options: Options,
    progress: Progress | None,
) -> Evaluation:
    reading = read_related(data, fields=options.fields, strict=options.strict)
    sought = Retrieval.of(list(reading))

    def answer(one: Side) -> tuple[dict[str, Tally], float]:
        from inkstone.apps.embed import SentenceEncoder

        encoder = SentenceEncoder(one.bundle.path)
        start = time.perf_counter()
        texts = [*sought.queries, *sought.candidates]
        vectors_ND = np.stack(
            in_pieces(lambda some: list(encoder.encode(some)), texts, f"{one.name} reads", progress)
        )
        scores_QN = vectors_ND[: len(sought.queries)] @ vectors_ND[len(sought.queries) :].T
        return sought.tallies(scores_QN), time.perf_counter() - start

    note = f"each source looks for its target among {len(sought.candidates):,}"
    return _evaluation(side, rival, answer, reading, options, notes=(note,))


def _evaluation(
    side: Side,
    rival: Side | None,
    answer: Callable[[Side], tuple[dict[str, Tally], float]],
    reading: Reading[Pair] | Reading[Summarized] | Reading[Labelled] | Reading[Document] | Reading[Related],
    options: Options,
    *,
    direction: str = "",
    notes: Sequence[str] = (),
) -> Evaluation:
    """Let the models answer, measure both with the same resamples, and compare."""
    tallies, seconds = answer(side)
    against: dict[str, Measured] | None = None
    comparison: Comparison | None = None
    if rival is not None:
        others, _ = answer(rival)
        against = measure(others, rng=np.random.default_rng(options.seed), resamples=options.resamples)
        comparison = compare(
            tallies,
            others,
            primary=PRIMARY[side.bundle.task],
            rng=np.random.default_rng(options.seed),
            resamples=options.resamples,
        )
    if reading.problem_count:
        first = f"; the first: {reading.problems[0]}" if reading.problems else ""
        notes = (*notes, f"{reading.problem_count:,} lines of the data could not be used{first}.")
    return Evaluation(
        task=side.bundle.task,
        model=side.name,
        n=len(next(iter(tallies.values()))),
        metrics=measure(tallies, rng=np.random.default_rng(options.seed), resamples=options.resamples),
        signatures=signatures(tallies),
        seconds=seconds,
        direction=direction,
        against_model=rival.name if rival is not None else None,
        against=against,
        comparison=comparison,
        sources=tuple(source.describe() for source in reading.sources),
        notes=tuple(notes),
    )


def one_direction(pairs: Sequence[Pair]) -> tuple[str, str]:
    """The languages all pairs share: a score over several directions would mean nothing."""
    found = sorted({(pair.source_language, pair.target_language) for pair in pairs})
    if len(found) != 1:
        shown = ", ".join(f"{source} to {target}" for source, target in found) or "none"
        raise DataError(
            f"the data must hold one translation direction; it holds: {shown}. Give --from and --to."
        )
    return found[0]


def unknown_labels(bundle: Bundle, records: Sequence[Labelled]) -> list[str]:
    """A note on gold labels the model cannot give, every one of which counts as an error.

    Raises DataError when it knows none of them: this is the data of another task.
    """
    known = set(bundle.description.get("labels", ()))
    names = label_names([record.labels for record in records])
    unknown = [name for name in names if name not in known]
    if not unknown:
        return []
    shown = ", ".join(unknown[:5]) + (", …" if len(unknown) > 5 else "")
    if len(unknown) == len(names):
        ours = ", ".join(sorted(known)[:5])
        raise DataError(f"{bundle.name} knows none of the labels of the data: {shown}. Its own are {ours}, …")
    count = sum(any(label not in known for label in record.labels) for record in records)
    return [
        f"{count:,} examples have labels that {bundle.name} does not know ({shown}); they count as errors."
    ]


def in_pieces(
    work: Callable[[Sequence[Any]], list[Any]], texts: Sequence[Any], title: str, progress: Progress | None
) -> list[Any]:
    """`work` over all texts or records, some at a time, telling how far it has come."""
    done: list[Any] = []
    for start in range(0, len(texts), _AT_ONCE):
        done.extend(work(texts[start : start + _AT_ONCE]))
        if progress is not None:
            progress(title, len(done), len(texts))
    return done
