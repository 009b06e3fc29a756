"""`inkstone embed`, and `inkstone train embed`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from inkstone.cli.corpus import named_tests, parse_fields
from inkstone.cli.training import AsJson, DryRun, Name, On, Out, Profile, RecipeFile, Settings, Workers
from inkstone.cli.translate import lines_of
from inkstone.ground.errors import ConfigError

_DIGITS = 6


def embed(
    model: Annotated[str, typer.Argument(help="A model of `inkstone train embed`.")],
    texts: Annotated[
        list[str] | None,
        typer.Argument(help="Texts; - reads standard input, each line a text.", metavar="[TEXT...|-]"),
    ] = None,
    dimensions: Annotated[
        int | None, typer.Option(help="So many numbers of each vector. Default: all.")
    ] = None,
    threads: Annotated[int, typer.Option(min=0, max=256, help="0 takes all cores.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="As always here: one JSON document.")] = True,
) -> None:
    """Give each text its vector, of length one: what means the same lies close. Prints one JSON document."""
    from inkstone.apps.embed import SentenceEncoder
    from inkstone.cli import print_json

    wanted = lines_of(sys.stdin.buffer, "standard input") if texts == ["-"] else list(texts or [])
    if not wanted:
        raise ConfigError("there is no text. Give one or more, or - for standard input.")
    encoder = SentenceEncoder(model, threads=threads)
    vectors_ND = encoder.encode(wanted, dimensions=dimensions)
    results = [
        {"text": text, "vector": [round(float(one), _DIGITS) for one in vector]}
        for text, vector in zip(wanted, vectors_ND, strict=True)
    ]
    print_json({"model": encoder.name, "dimensions": vectors_ND.shape[1], "results": results})


def train_embed(
    data: Annotated[
        list[str],
        typer.Option(help="Pairs of texts that belong together: any format. Repeatable."),
    ] = [],  # noqa: B006
    out: Out = None,
    valid: Annotated[list[str], typer.Option(help="Validation pairs. Default: held out of the data.")] = [],  # noqa: B006
    test: Annotated[
        list[str], typer.Option(help="Test pairs, FILE or NAME=FILE. Default: held out of the data.")
    ] = [],  # noqa: B006
    size: Annotated[str | None, typer.Option(help="bag, tiny, small or base.")] = None,
    family: Annotated[
        str | None,
        typer.Option(help="Of public checkpoints, such as bert: programs that know it open the model."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="An encoder to begin with: a masked language model, or minilm (English)."),
    ] = None,
    lora: Annotated[
        bool, typer.Option("--lora", help="With --base: only an adapter beside its weights learns.")
    ] = False,
    both_ways: Annotated[bool, typer.Option("--both-ways", help="Test from targets to sources too.")] = False,
    fields: Annotated[
        str | None, typer.Option(help="Field names, such as source=title+question,target=answer.")
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
    """Train an encoder that gives texts vectors, from pairs of texts that belong together."""
    from inkstone.cli import recipe_of, recipe_values, train_and_report, training_manner
    from inkstone.recipes.embed import check_beforehand, train_encoder
    from inkstone.recipes.embed_recipe import EmbedRecipe

    given: dict[str, Any] = {
        "data": data,
        "valid": valid,
        "test": named_tests(test),
        "size": size,
        "family": family,
        "base": base,
        "both_ways": both_ways,
        "fields": parse_fields(fields),
        "name": name,
        "training": training_manner(dry_run, profile),
    }
    given = {key: value for key, value in given.items() if value} | ({"lora": {}} if lora else {})
    values = recipe_values(recipe, given, settings, "embed")
    title = str(recipe or "recipe")
    resolved, place = recipe_of(EmbedRecipe, values, out, title, "pairs of texts", check_beforehand)
    train_and_report(train_encoder, resolved, place, as_json, on, workers)


def resume_embed(run: Path, *how: Any) -> None:
    """Go on with an unfinished run."""
    from inkstone.cli import train_and_report
    from inkstone.recipes.embed import load_recipe, train_encoder

    recipe, out = load_recipe(run)
    train_and_report(train_encoder, recipe, out, *how)
