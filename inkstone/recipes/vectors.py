"""From files to word vectors: read, cut into words, count, learn, write.

    summary = make_vectors(["corpus.jsonl"], "vectors/", MakingVectors(method="skip-gram", workers=2))

The files are whatever `corpus.read` understands; every text of a record is used. No torch.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from inkstone import __version__
from inkstone.corpus.read import Source, task_of
from inkstone.corpus.rules import sides
from inkstone.ground.errors import ConfigError, not_known
from inkstone.ground.files import whole_file
from inkstone.ground.progress import progress, say
from inkstone.recipes.clean import Cleaning, open_reading, refuse_own_input
from inkstone.recipes.run import refuse_taken
from inkstone.text.language import checked_code
from inkstone.text.normalize import Script
from inkstone.vectors.cooccurrence import count_cooccurrences
from inkstone.vectors.formats import FORMATS, Format, write_vectors
from inkstone.vectors.glove import Glove, train_glove
from inkstone.vectors.parallel import check_workers
from inkstone.vectors.rows import Float
from inkstone.vectors.store import WordVectors, save
from inkstone.vectors.vocabulary import EncodedCorpus, Vocabulary, encode, units_of
from inkstone.vectors.word2vec import Word2Vec, train_word2vec

Method = Literal["skip-gram", "cbow", "glove"]
METHODS: tuple[str, ...] = get_args(Method)


@dataclass(frozen=True, slots=True)
class MakingVectors:
    """What a run was asked for; None stands for the method's own default."""

    method: Method = "skip-gram"
    dimensions: int = 100
    window: int | None = None
    epochs: int | None = None
    learning_rate: float | None = None
    negatives: int = 5
    subsample: float = 1e-3
    x_max: float | None = None
    min_count: int = 5
    max_words: int | None = None
    language: str | None = None
    lowercase: bool = True
    script: Script | None = None
    fields: Mapping[str, str] | None = None
    seed: int = 1
    workers: int = 1

    def settings(self) -> Word2Vec | Glove:
        """The method's settings. Raises ConfigError listing what cannot be."""
        if self.method not in METHODS:
            raise ConfigError(not_known("method", self.method, METHODS))
        chosen: dict[str, Any] = {
            "window": self.window,
            "epochs": self.epochs,
            "learning_rate": self.learning_rate,
        }
        chosen = {name: value for name, value in chosen.items() if value is not None}
        settings: Word2Vec | Glove
        if self.method == "glove":
            settings = Glove(dimensions=self.dimensions, seed=self.seed, **chosen)
            settings = settings if self.x_max is None else replace(settings, x_max=self.x_max)
        else:
            if self.x_max is not None:
                raise ConfigError(
                    f"x_max={self.x_max} is for glove, and the method is {self.method}. Leave it out."
                )
            chosen |= {"negatives": self.negatives, "subsample": self.subsample}
            settings = Word2Vec(self.method, self.dimensions, seed=self.seed, **chosen)
        settings.check()
        return settings


@dataclass(frozen=True, slots=True)
class MadeVectors:
    """What came of a run."""

    vectors: str
    format: str
    method: str
    words: int
    dimensions: int
    corpus_words: int  # words of the vocabulary in the corpus
    epochs: int
    losses: list[float]  # of GloVe, per epoch
    seconds: float
    reading_seconds: float
    training_seconds: float
    words_per_second: float  # corpus words x epochs, while training
    peak_memory_bytes: int  # of the largest process
    sources: list[Source]

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def make_vectors(
    paths: Sequence[str | Path],
    out: str | Path,
    ask: MakingVectors | None = None,
    format_: Format = "inkstone",
) -> MadeVectors:
    """Learn vectors from files and write them. Raises InkstoneError for what cannot be, with nothing written."""
    ask, out, began = ask or MakingVectors(), Path(out), time.perf_counter()
    settings = ask.settings()
    check_workers(ask.workers)
    if format_ not in FORMATS:
        raise ConfigError(not_known("format", format_, FORMATS))
    refuse_own_input(paths, [out])
    _refuse_unwritable(out, format_)
    sources: list[Source] = []
    language = checked_code(ask.language) if ask.language else None
    units = units_of(_texts(paths, ask, sources), language, lowercase=ask.lowercase)
    vocabulary, corpus = encode(units, min_count=ask.min_count, max_words=ask.max_words)
    read = time.perf_counter()
    say(f"{len(corpus):,} words, {len(vocabulary):,} of them different")
    matrix_VD, losses = learn(vocabulary, corpus, settings, ask.workers)
    trained = time.perf_counter()
    made = {"version": __version__, "settings": asdict(ask), "data": [source.path for source in sources]}
    description = {"method": ask.method, "language": language or "", "lowercase": ask.lowercase}
    vectors = WordVectors(vocabulary.words, matrix_VD, vocabulary.counts_V, description)
    if format_ == "inkstone":
        save(vectors, out, made)
    else:
        write_vectors(vectors, out, format_)
    return MadeVectors(
        vectors=str(out),
        format=format_,
        method=ask.method,
        words=len(vocabulary),
        dimensions=settings.dimensions,
        corpus_words=len(corpus),
        epochs=settings.epochs,
        losses=losses,
        seconds=time.perf_counter() - began,
        reading_seconds=read - began,
        training_seconds=trained - read,
        words_per_second=len(corpus) * settings.epochs / (trained - read),
        peak_memory_bytes=_peak_memory(),
        sources=sources,
    )


def learn(
    vocabulary: Vocabulary, corpus: EncodedCorpus, settings: Word2Vec | Glove, workers: int
) -> tuple[Float, list[float]]:
    """The vectors, and for GloVe the loss of each epoch."""
    if isinstance(settings, Word2Vec):
        with progress(settings.architecture, len(corpus) * settings.epochs) as bar:
            return train_word2vec(vocabulary, corpus, settings, workers=workers, advance=bar.advance), []
    counts = count_cooccurrences(corpus, len(vocabulary), settings.window)
    say(f"{len(counts):,} pairs of words stand near each other")
    with progress("glove", len(counts) * settings.epochs) as bar:
        return train_glove(counts, settings, workers=workers, advance=bar.advance)


class _Tried(Exception):
    """The file could be begun, and is given up."""


def _refuse_unwritable(out: Path, format_: Format) -> None:
    """Say before the training that its result could not be written. Raises ConfigError, OutputError."""
    if format_ == "inkstone":
        refuse_taken(out)
        return
    with suppress(_Tried), whole_file(out):
        raise _Tried


def _texts(paths: Sequence[str | Path], ask: MakingVectors, sources: list[Source]) -> Iterator[str]:
    """Every text of the files; what each file was taken for goes into `sources`, its bad lines to stderr."""
    from inkstone.text.normalize import normalize

    cleaning = Cleaning(fields=ask.fields)
    for path in paths:
        reading = open_reading([path], task_of([path], ask.fields), cleaning)
        for record in reading:
            for text in sides(record):
                yield normalize(text, script=ask.script)
        sources.extend(reading.sources)
        if reading.problem_count:
            say(f"{path}: {reading.problem_count:,} bad lines, first {reading.problems[0]}")


def _peak_memory() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * max(
        resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
