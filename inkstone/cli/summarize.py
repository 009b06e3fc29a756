"""`inkstone summarize`, and `inkstone train summarize`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO, Annotated, Any, Literal

import typer

from inkstone.cli.corpus import named_tests, parse_fields
from inkstone.cli.training import AsJson, DryRun, Name, On, Out, Profile, RecipeFile, Settings, Workers
from inkstone.cli.translate import lines_of
from inkstone.ground.errors import ConfigError, DataError


def summarize(
    documents: Annotated[
        list[Path] | None,
        typer.Argument(help="Text files, each a document; - reads standard input.", metavar="[FILE...|-]"),
    ] = None,
    model: Annotated[
        str, typer.Option(help="A model of `inkstone train summarize`: none comes with Inkstone yet.")
    ] = "",
    text: Annotated[list[str] | None, typer.Option("--text", help="A document itself. Repeatable.")] = None,
    to: Annotated[
        str | None, typer.Option("--to", help="The language, such as en. Default: told by the document.")
    ] = None,
    beam_size: Annotated[
        int | None, typer.Option(min=1, max=64, help="Width of the search; 1 is greedy.")
    ] = None,
    threads: Annotated[int, typer.Option(min=0, max=256, help="0 takes all cores.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Summarise documents. Of one longer than the model reads at once, every part is summarised: nothing is cut off."""
    from dataclasses import replace

    from inkstone.apps.summarize import SEARCH, Summarizer
    from inkstone.cli import print_json

    if not model:
        raise ConfigError("no summariser comes with Inkstone yet. Train one, and give --model FOLDER.")
    texts = [*(text or []), *(_document(file) for file in documents or [])]
    if not texts:
        raise ConfigError(
            "there is nothing to summarise. Give a text file, - for standard input, or --text TEXT."
        )
    summarizer = Summarizer(model, threads=threads)
    options = replace(SEARCH, beam_size=beam_size or SEARCH.beam_size)
    found = summarizer.summarize(texts, language=to, options=options)
    if as_json:
        print_json({"model": summarizer.name, "results": [one.as_json() for one in found]})
        return
    for one in found:
        print(one.summary)


def _document(file: Path) -> str:
    if str(file) == "-":
        return _whole(sys.stdin.buffer, "standard input")
    try:
        with file.open("rb") as opened:
            return _whole(opened, str(file))
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}.") from error


def _whole(file: IO[bytes], name: str) -> str:
    return "\n".join(lines_of(file, name))


def train_summarize(
    data: Annotated[
        list[str],
        typer.Option(help="Documents with their summaries: JSON Lines, CSV, TSV or Parquet. Repeatable."),
    ] = [],  # noqa: B006
    out: Out = None,
    valid: Annotated[list[str], typer.Option(help="Validation data. Default: held out of the data.")] = [],  # noqa: B006
    test: Annotated[
        list[str], typer.Option(help="Test data, FILE or NAME=FILE. Default: held out of the data.")
    ] = [],  # noqa: B006
    language: Annotated[
        str | None, typer.Option(help="Of all data, such as en. Default: told by each document.")
    ] = None,
    architecture: Annotated[
        Literal["transformer", "rnn", "cnn"] | None, typer.Option(help="Default: transformer.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="tiny, small or base.")] = None,
    family: Annotated[
        str | None,
        typer.Option(help="Of public checkpoints, such as bart: programs that know it open the model."),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="A summariser to begin with: its weights learn on from your data.")
    ] = None,
    lora: Annotated[
        bool, typer.Option("--lora", help="With --base: only an adapter beside its weights learns.")
    ] = False,
    vectors: Annotated[
        str | None, typer.Option(help="Word vectors to begin a new model's embedding with; any format.")
    ] = None,
    fields: Annotated[
        str | None, typer.Option(help="Field names, such as document=text,summary=title.")
    ] = None,
    name: Name = None,
    recipe: RecipeFile = None,
    settings: Settings = [],  # noqa: B006
    dry_run: DryRun = False,
    profile: Profile = False,
    on: On = None,
    workers: Workers = 2,
    as_json: AsJson = False,
) -> None:
    """Train a summariser from documents and their summaries."""
    from inkstone.cli import recipe_of, recipe_values, train_and_report, training_manner
    from inkstone.recipes.beginning import laid_under
    from inkstone.recipes.sequences import check
    from inkstone.recipes.summarize import train_summarizer
    from inkstone.recipes.summarizer_recipe import SummarizeRecipe

    given: dict[str, Any] = {
        "data": data,
        "valid": valid,
        "test": named_tests(test),
        "language": language,
        "architecture": architecture,
        "size": size,
        "family": family,
        "base": base,
        "vectors": vectors,
        "fields": parse_fields(fields),
        "name": name,
        "training": training_manner(dry_run, profile),
    }
    given = {key: value for key, value in given.items() if value} | ({"lora": {}} if lora else {})
    values = laid_under(recipe_values(recipe, given, settings, "summarize"))
    title = str(recipe or "recipe")
    resolved, place = recipe_of(SummarizeRecipe, values, out, title, "documents with summaries", check)
    train_and_report(train_summarizer, resolved, place, as_json, on, workers)


def resume_summarize(run: Path, *how: Any) -> None:
    """Go on with an unfinished run."""
    from inkstone.cli import train_and_report
    from inkstone.recipes.summarize import load_recipe, train_summarizer

    recipe, out = load_recipe(run)
    train_and_report(train_summarizer, recipe, out, *how)
