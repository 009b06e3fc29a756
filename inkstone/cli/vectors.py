"""`inkstone vectors train|evaluate|neighbours|convert`: a vector for each word, and what it is worth."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from inkstone.vectors.evaluation import Evaluated
    from inkstone.vectors.formats import Read

app = typer.Typer(help="Train word vectors, measure them, look at them.", no_args_is_help=True)
_FORMATS = Literal["inkstone", "word2vec", "word2vec-binary", "glove"]
_VECTORS = "Word vectors: a folder that `train` wrote, word2vec text or binary, or GloVe; gzipped or not."


@app.callback()
def vectors() -> None:
    """Train word vectors, measure them, look at them."""


@app.command()
def train(
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="JSON Lines, CSV, TSV, Parquet or text, gzipped or not; - for stdin.", metavar="FILES..."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where the vectors go.")],
    method: Annotated[
        Literal["skip-gram", "cbow", "glove"], typer.Option(help="How to learn them.")
    ] = "skip-gram",
    dimensions: Annotated[int, typer.Option(help="Numbers of a vector.")] = 100,
    window: Annotated[
        int | None, typer.Option(help="Words to each side that count. Default: 5, glove 10.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes. Default: 5, glove 25.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="At the start. Default: skip-gram 0.025, cbow 0.15, glove 0.05.")
    ] = None,
    negatives: Annotated[int, typer.Option(help="Negative samples of a pair (skip-gram, cbow).")] = 5,
    subsample: Annotated[
        float, typer.Option(help="Words with a larger share are thinned out; 0: none (skip-gram, cbow).")
    ] = 1e-3,
    x_max: Annotated[
        float | None, typer.Option(help="Count from which a pair has full weight (glove). Default: 10.")
    ] = None,
    min_count: Annotated[int, typer.Option(help="Fewest occurrences of a word that gets a vector.")] = 5,
    max_words: Annotated[int | None, typer.Option(help="Most words that get one.")] = None,
    language: Annotated[
        str | None, typer.Option(help="Such as zh or en. Default: told from the text.")
    ] = None,
    lowercase: Annotated[
        bool, typer.Option("--lowercase/--keep-case", help="Write all words in small letters.")
    ] = True,
    script: Annotated[
        Literal["simplified", "traditional"] | None, typer.Option(help="Write all Chinese in one script.")
    ] = None,
    fields: Annotated[str | None, typer.Option(help="Field names, such as text=body.")] = None,
    format_: Annotated[
        _FORMATS, typer.Option("--format", help="What to write: a folder of Inkstone, or one file.")
    ] = "inkstone",
    seed: Annotated[int, typer.Option(help="With one worker, the same seed gives the same vectors.")] = 1,
    workers: Annotated[int, typer.Option(help="Processes. Default: one for each core.")] = 0,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print one JSON document: vectors, format, method, words, dimensions, corpus_words, epochs, losses, "
            "seconds, reading_seconds, training_seconds, words_per_second, peak_memory_bytes, sources.",
        ),
    ] = False,
) -> None:
    """Learn word vectors from files. Chinese is cut into words; empty lines end a text, other line breaks do not."""
    from inkstone.cli import print_json
    from inkstone.cli.corpus import parse_fields, with_standard_input
    from inkstone.recipes.vectors import MakingVectors, make_vectors

    ask = MakingVectors(
        method=method,
        dimensions=dimensions,
        window=window,
        epochs=epochs,
        learning_rate=learning_rate,
        negatives=negatives,
        subsample=subsample,
        x_max=x_max,
        min_count=min_count,
        max_words=max_words,
        language=language,
        lowercase=lowercase,
        script=script,
        fields=parse_fields(fields),
        seed=seed,
        workers=workers or _cores(),
    )
    with with_standard_input(inputs) as files:
        made = make_vectors(files, out, ask, format_)
    if as_json:
        print_json(made.as_json())
        return
    print(f"{made.vectors}: {made.words:,} words x {made.dimensions} ({made.method})")
    print(
        f"{made.corpus_words:,} words of text, {made.epochs} passes in {made.training_seconds:.1f} s "
        f"({made.words_per_second:,.0f} words/s)"
    )


@app.command()
def evaluate(
    vectors: Annotated[Path, typer.Argument(help=_VECTORS)],
    sets: Annotated[
        list[Path],
        typer.Argument(
            help="Tables `word word score` or `category a b c d`, or a folder of files sim.* and analogy.*",
            metavar="SETS...",
        ),
    ],
    language: Annotated[str | None, typer.Option(help="Of a folder, only the sets of this language.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print one JSON document: vectors, format, words, dimensions, notes, results[]: set, kind, n, used, "
            "coverage, metrics {spearman, pearson or accuracy: {value, low, high}}, categories {name: {right, used}}.",
        ),
    ] = False,
) -> None:
    """Measure word vectors on similarity and analogy sets, with 95 % intervals and how many rows could be used."""
    from inkstone.cli import print_json
    from inkstone.vectors.evaluation import evaluate as measure
    from inkstone.vectors.evaluation import read_word_set, word_set_files

    wanted = [read_word_set(file) for file in word_set_files(sets, language)]
    read = _read(vectors)
    results = [measure(read.vectors, one, seed=seed) for one in wanted]
    if as_json:
        print_json({**_about(vectors, read), "results": [result.as_json() for result in results]})
        return
    width = max(len(result.name) for result in results)
    for result in results:
        print(f"{result.name:<{width}}  {result.used:>6,} of {result.rows:>6,} rows  {_figures(result)}")


@app.command()
def neighbours(
    vectors: Annotated[Path, typer.Argument(help=_VECTORS)],
    words: Annotated[list[str], typer.Argument(help="Words.", metavar="WORDS...")],
    analogy: Annotated[
        bool, typer.Option("--analogy", help="The words are a b c: find d so that a is to b as c is to d.")
    ] = False,
    k: Annotated[int, typer.Option("-k", min=1, help="How many.")] = 10,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            help="Print one JSON document: vectors, format, words, dimensions, notes, "
            "results[]: query[], neighbours[]: word, similarity.",
        ),
    ] = False,
) -> None:
    """The words most similar to each of these, or the answers to an analogy."""
    from inkstone.cli import print_json
    from inkstone.ground.errors import ConfigError

    if analogy and len(words) != 3:
        raise ConfigError(f"--analogy needs three words, a b c, not {len(words)}: a is to b as c is to …")
    read = _read(vectors)
    read.vectors.rows(words)  # names every unknown word at once
    if analogy:
        a, b, c = words
        found = [([a, b, c], read.vectors.neighbours(b, c, negative=[a], k=k))]
    else:
        found = [([word], read.vectors.neighbours(word, k=k)) for word in words]
    if as_json:
        results = [
            {
                "query": query,
                "neighbours": [{"word": one.word, "similarity": one.similarity} for one in near],
            }
            for query, near in found
        ]
        print_json({**_about(vectors, read), "results": results})
        return
    for query, near in found:
        print(" ".join(query))
        for one in near:
            print(f"  {one.similarity:6.3f}  {one.word}")


@app.command()
def convert(
    vectors: Annotated[Path, typer.Argument(help=_VECTORS)],
    out: Annotated[Path, typer.Argument(help="Where they go; a file called .gz is gzipped.")],
    format_: Annotated[_FORMATS, typer.Option("--format", help="What to write.")] = "inkstone",
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print one JSON document: vectors, format, words, dimensions, notes, out, written."
        ),
    ] = False,
) -> None:
    """Write word vectors in another format."""
    from inkstone.cli import print_json
    from inkstone.recipes.clean import refuse_own_input
    from inkstone.vectors.formats import write_vectors

    refuse_own_input([str(vectors)], [out])
    read = _read(vectors)
    write_vectors(read.vectors, out, format_)
    if as_json:
        print_json({**_about(vectors, read), "out": str(out), "written": format_})
        return
    print(f"{out}: {len(read.vectors):,} words x {read.vectors.dimensions} ({read.format} to {format_})")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _read(path: Path) -> Read:
    from inkstone.ground.progress import say
    from inkstone.vectors.formats import read_vectors

    read = read_vectors(path)
    for note in read.notes:
        say(note)
    return read


def _about(path: Path, read: Read) -> dict[str, object]:
    return {
        "vectors": str(path),
        "format": read.format,
        "words": len(read.vectors),
        "dimensions": read.vectors.dimensions,
        "notes": list(read.notes),
    }


def _figures(result: Evaluated) -> str:
    if not result.metrics:
        return "too few to measure"
    return "  ".join(
        f"{name} {one.value:.3f} ({one.low:.3f} to {one.high:.3f})" for name, one in result.metrics.items()
    )
