"""`inkstone evaluate`: a model's scores on a file, with their intervals, alone or against another model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from inkstone.cli.corpus import parse_fields
from inkstone.ground.errors import ConfigError, not_known

if TYPE_CHECKING:
    from rich.console import RenderableType

    from inkstone.recipes.evaluate import Evaluation


def evaluate(
    model: Annotated[str, typer.Argument(help="A model folder, or the name of a bundled model.")],
    data: Annotated[
        list[Path], typer.Option("--data", help="Test data the model has not seen. May be repeated.")
    ],
    beside: Annotated[
        list[str] | None,
        typer.Option(help="Another model that answers together with it, as one. May be repeated."),
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Another model to compare with, on the same data.")
    ] = None,
    fields: Annotated[str | None, typer.Option(help="Field names, such as source=en,target=zh.")] = None,
    source: Annotated[str | None, typer.Option("--from", help="Source language, such as zh.")] = None,
    target: Annotated[str | None, typer.Option("--to", help="Target language, such as en.")] = None,
    tokenize: Annotated[
        str | None,
        typer.Option(help="How BLEU cuts: 13a, zh, char, intl, none. Default: by the target language."),
    ] = None,
    beam_size: Annotated[
        int | None, typer.Option(min=1, max=64, help="Beam width of the translation search.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad line of the data.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Where the random numbers of the intervals start.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Measure a model on test data, and decide whether it is better than another (--against)."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    from inkstone.metrics.text import Tokenize
    from inkstone.recipes.evaluate import Options
    from inkstone.recipes.evaluate import evaluate as run

    if tokenize is not None and tokenize not in get_args(Tokenize):
        raise ConfigError(not_known("tokenize", tokenize, get_args(Tokenize)))
    options = Options(
        fields=parse_fields(fields),
        source_language=source,
        target_language=target,
        tokenize=tokenize,  # type: ignore[arg-type]
        beam_size=beam_size,
        strict=strict,
        seed=seed,
    )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    terminal = Console(stderr=True)
    with Bar(*columns, console=terminal, transient=True, disable=not terminal.is_terminal) as bar:
        tasks: dict[str, int] = {}

        def progress(title: str, done: int, total: int) -> None:
            if title not in tasks:
                tasks[title] = bar.add_task(title, total=total)
            bar.update(tasks[title], completed=done)  # type: ignore[arg-type]

        found = run(model, data, beside=beside or [], against=against, options=options, progress=progress)
    if as_json:
        print(json.dumps(found.as_json(), ensure_ascii=False))
        return
    stderr = Console(stderr=True, highlight=False)
    for line in (*found.sources, *found.notes):
        stderr.print(line, markup=False, soft_wrap=True)
    Console(highlight=False, markup=False).print(table(found))
    if found.comparison:
        print(f"Verdict: {found.comparison.verdict}. {found.comparison.reason}")


def table(found: Evaluation) -> RenderableType:
    """The figures of an evaluation, a row for each metric."""
    from rich.table import Table

    from inkstone.judge.facts import metric_title, shown, shown_measured

    where = f", {found.direction.replace('-', ' → ')}" if found.direction else ""
    rows = Table(title=f"{found.n:,} examples{where}; in brackets the 95 % interval", title_justify="left")
    rows.add_column("")
    rows.add_column(found.model, justify="right")
    if found.comparison and found.against is not None:
        for heading in (str(found.against_model), "difference", "p"):
            rows.add_column(heading, justify="right")
    for name, measured in found.metrics.items():
        cells = [metric_title(name), shown_measured(name, measured)]
        if found.comparison and found.against is not None:
            gain = found.comparison.differences[name]
            low, value, high = (shown(name, x).removesuffix(" %") for x in (gain.low, gain.value, gain.high))
            sign = "+" if gain.value > 0 else ""
            cells += [
                shown_measured(name, found.against[name]),
                f"{sign}{value} ({low} to {high})",
                f"{gain.p:.3f}",
            ]
        rows.add_row(*cells)
    return rows
