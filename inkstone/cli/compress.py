"""`inkstone compress`: a smaller model, with a table of what it gains and what it costs."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from inkstone.cli.corpus import parse_fields
from inkstone.ground.errors import ConfigError


def compress(
    model: Annotated[str, typer.Argument(help="A model folder, or the name of a bundled model.")],
    data: Annotated[
        list[str],
        typer.Option(
            help="Texts to measure on, and for --prune, --layers, --distill to learn from. Repeatable. "
            "Default: those that the model was made from, where they are still at hand."
        ),
    ] = [],  # noqa: B006
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The new folder. Default: models/NAME-compressed.")
    ] = None,
    test: Annotated[
        list[str], typer.Option(help="Texts to measure on. Default: the data, or what is held out of it.")
    ] = [],  # noqa: B006
    quantize: Annotated[
        Literal["int8", "int4"] | None,
        typer.Option(help="int8: the served engine. int4: weights in 4 bits for torch, too. Default: int8."),
    ] = None,
    prune: Annotated[
        float | None, typer.Option(help="The share of heads and feed-forward columns to take away, as 0.3.")
    ] = None,
    prune_what: Annotated[
        Literal["structure", "weights"] | None,
        typer.Option(help="structure: heads and columns. weights: single weights become zero."),
    ] = None,
    layers: Annotated[
        str | None, typer.Option(help="Layers to keep: of the encoder and of the decoder, as 4,1 (0: all).")
    ] = None,
    distill: Annotated[
        str | None, typer.Option(help="Teach a new, smaller model: tiny, small or base.")
    ] = None,
    limit: Annotated[
        str | None, typer.Option(help="What may be lost of the deciding metric, as 1%. Default: 1%.")
    ] = None,
    fields: Annotated[str | None, typer.Option(help="Field names, such as source=en,target=zh.")] = None,
    source: Annotated[str | None, typer.Option("--from", help="Source language of the data.")] = None,
    target: Annotated[str | None, typer.Option("--to", help="Target language of the data.")] = None,
    with_torch: Annotated[
        bool, typer.Option("--torch", help="Write a torch engine with int8 weights, too.")
    ] = False,
    settings: Annotated[
        list[str], typer.Option("--set", help="Anything else, as in training.epochs=2. Repeatable.")
    ] = [],  # noqa: B006
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Make a model smaller, and see in a table what that costs."""
    # Threads that wait for work must sleep, not spin: on a busy machine spinning slows everything ten-fold.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from inkstone.cli import print_json
    from inkstone.ground.configuration import build, from_settings, overlay
    from inkstone.ground.errors import require

    given: dict[str, Any] = {
        "data": data,
        "test": test,
        "quantize": quantize,
        "prune": prune,
        "prune_what": prune_what,
        "layers": _layers(layers),
        "distil": distill,
        "limit": _share(limit),
        "fields": parse_fields(fields),
        "source": source,
        "target": target,
        "torch": with_torch,
    }
    require("torch", "compression", "train")
    from inkstone.learn.loop import Interrupted
    from inkstone.recipes.compress.run import compress as run
    from inkstone.recipes.compress.run import made_of
    from inkstone.recipes.compress.trial import STUDENT, CompressRecipe, TooLossy

    given = {key: value for key, value in given.items() if value not in (None, [], False)}
    known = {} if data else made_of(model)
    values = overlay({"training": STUDENT} if distill else {}, known, given, from_settings(settings))
    recipe = build(CompressRecipe, values, "compress")
    out = out or Path("models") / f"{Path(model).resolve().name}-compressed"
    try:
        result = run(model, recipe, out)
    except Interrupted as error:
        raise Interrupted(f"{error} The same command goes on from there.") from None
    except TooLossy as error:
        _show(error.result, print_json if as_json else None)
        raise
    _show(result, print_json if as_json else None)


def _show(result: Mapping[str, Any], as_json: Any) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from inkstone.judge.facts import metric_title
    from inkstone.recipes.compress.trial import cells

    if as_json is not None:
        as_json(result)
        return
    headings, lines = cells(result)
    table = Table(
        title=f"{result['n']:,} texts; {'; '.join(result['steps'])}", title_justify="left", box=SIMPLE_HEAD
    )
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left", no_wrap=not number)
    for line in lines:
        table.add_row(*line)
    Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 140).print(table)
    print(f"Compared with {result['baseline']}. Memory is that of a whole process.")
    if result["written"]:
        print(
            f"Written to {result['bundle']}; "
            f"the limit was {100 * result['limit']:g} % of the {metric_title(result['metric'])}."
        )


def _share(text: str | None) -> float | None:
    """A limit as a share: "1%" and "0.01" are the same. Raises ConfigError for anything else."""
    if text is None:
        return None
    number, percent = text.strip().removesuffix("%"), text.strip().endswith("%")
    try:
        value = float(number)
    except ValueError:
        raise ConfigError(f'--limit "{text}" is no share. Write 1% or 0.01.') from None
    return value / 100 if percent else value


def _layers(text: str | None) -> list[int] | None:
    """How many layers a side to keep. Raises ConfigError for anything but two whole numbers."""
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise ConfigError(
            f'--layers "{text}" is not two numbers, of the encoder and of the decoder. Write --layers 4,1.'
        )
    return [int(part) for part in parts]
