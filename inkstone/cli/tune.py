"""`inkstone tune`: search for a better recipe, or for a learning rate."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inkstone.cli.corpus import parse_fields
from inkstone.cli.training import AsJson, RecipeFile, Settings
from inkstone.ground.errors import ConfigError

if TYPE_CHECKING:
    from inkstone.learn.rate_curve import RateCurve
    from inkstone.recipes.tune import Search

_SHOWN = 20  # rows of a curve
_WIDEST = 40  # of a bar


def tune(
    what: Annotated[
        str,
        typer.Argument(
            help="translate, summarize, classify, pretrain, embed or chat; or a recipe in YAML.",
            metavar="TASK|RECIPE",
        ),
    ],
    space: Annotated[
        Path | None,
        typer.Option(help="What may vary, in YAML: name: {low: 1e-4, high: 1e-2, log: true} or [a, b]."),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="How many in all, those before a stop included.")] = 20,
    out: Annotated[
        Path | None, typer.Option(help="The folder of the search; it goes on where it stopped.")
    ] = None,
    find_rate: Annotated[
        bool, typer.Option("--find-rate", help="Only find a learning rate: one short run while it rises.")
    ] = False,
    data: Annotated[list[str], typer.Option(help="Training data, over the recipe's. Repeatable.")] = [],  # noqa: B006
    valid: Annotated[list[str], typer.Option(help="Validation data. Default: held out of the data.")] = [],  # noqa: B006
    fields: Annotated[str | None, typer.Option(help="Field names, such as source=en,target=zh.")] = None,
    recipe: RecipeFile = None,
    settings: Settings = [],  # noqa: B006
    seed: Annotated[int, typer.Option(min=0, help="Where the search's random numbers start.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Search for a better recipe: trials judged by validation, poor ones stopped early; ends with best.yaml."""
    # Threads that wait for work must sleep, not spin: on a busy machine spinning slows everything ten-fold.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from inkstone.cli import print_json, recipe_values
    from inkstone.ground.errors import require

    require("torch", "tuning", "train")
    from inkstone.learn.loop import Interrupted
    from inkstone.recipes.run import recipe_file
    from inkstone.recipes.tune import TASKS, rate_of, task_of
    from inkstone.recipes.tune import tune as run

    if what not in TASKS and recipe is not None:
        raise ConfigError(
            f'"{what}" is no task, and --recipe is given: write inkstone tune {"|".join(TASKS)}.'
        )
    named = Path(what) if what in TASKS else recipe_file(Path(what), sorted(TASKS))
    if what not in TASKS and not named.exists():
        raise ConfigError(f'"{what}" is neither a task ({", ".join(TASKS)}) nor the file of a recipe.')
    file = recipe if what in TASKS else named
    given: dict[str, Any] = {"data": data, "valid": valid, "fields": parse_fields(fields)}
    given = {key: value for key, value in given.items() if value}
    values = recipe_values(file, given, settings, what if what in TASKS else None)
    values.setdefault("name", "tuned")
    if not values.get("data"):
        raise ConfigError("there is nothing to train on. Give --data FILE, or a recipe that names data.")
    task = what if what in TASKS else task_of(values, str(file))
    values.pop("task", None)
    if find_rate:
        curve = rate_of(task, values)
        if as_json:
            print_json(_curve_json(curve))
        else:
            _show_curve(curve)
        return
    if space is None or out is None:
        raise ConfigError("what may vary, and where does the search go? Give --space FILE and --out FOLDER.")
    try:
        found = run(task, values, space, out, trials=trials, seed=seed)
    except Interrupted as error:
        raise Interrupted(f"{error} The same command goes on from there.") from None
    if as_json:
        print_json(found.as_json())
    else:
        _show(found)


def _show(found: Search) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from inkstone.learn.tune import described

    table = Table(box=SIMPLE_HEAD)
    for heading in ("trial", found.metric, "", "validations", "seconds"):
        table.add_column(heading, justify="left" if not heading else "right")
    table.add_column("tried", overflow="fold")
    for one in sorted(
        found.trials, key=lambda one: -float("inf") if one.value is None else one.value, reverse=True
    ):
        value = found.shown(one)
        state = "best" if one == found.best else "" if one.state == "complete" else one.state
        table.add_row(
            str(one.number),
            "-" if value is None else f"{value:.4f}",
            state,
            str(one.validations),
            f"{one.seconds:.0f}",
            described(one.parameters),
        )
    Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 140).print(table)
    print(f"The best recipe is in {found.recipe}.")


def _curve_json(curve: RateCurve) -> dict[str, Any]:
    points = [{"rate": rate, "loss": loss} for rate, loss in zip(curve.rates, curve.losses, strict=True)]
    return {"suggestion": curve.suggestion, "lowest": curve.lowest, "curve": points}


def _show_curve(curve: RateCurve) -> None:
    top, bottom = max(curve.losses), min(curve.losses)
    step = max(1, len(curve.rates) // _SHOWN)
    print("learning rate   loss")
    for rate, loss in list(zip(curve.rates, curve.losses, strict=True))[::step]:
        bar = "█" * round(_WIDEST * (loss - bottom) / (top - bottom or 1))
        print(f"{rate:13.2e} {loss:6.3f} {bar}")
    print(f"The loss is lowest at {curve.lowest:.2g}. Suggested: training.learning_rate={curve.suggestion:g}")
