"""`inkstone pretrain`: a language model of your own from your own documents, ending with its report card."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from inkstone.cli.corpus import parse_fields
from inkstone.cli.training import AsJson, DryRun, Name, On, Out, Profile, RecipeFile, Settings, Workers
from inkstone.ground.errors import ConfigError


def pretrain(
    which: Annotated[
        Path | None, typer.Argument(help="A recipe, as with --recipe.", metavar="[RECIPE]")
    ] = None,
    data: Annotated[
        list[str],
        typer.Option(help="Documents: any format; each line of a plain file is one. Repeatable."),
    ] = [],  # noqa: B006
    out: Out = None,
    valid: Annotated[
        list[str], typer.Option(help="Validation documents. Default: held out of the data.")
    ] = [],  # noqa: B006
    test: Annotated[list[str], typer.Option(help="Test documents. Default: held out of the data.")] = [],  # noqa: B006
    objective: Annotated[str | None, typer.Option(help="causal (default), masked or span.")] = None,
    size: Annotated[str | None, typer.Option(help="tiny, small or base.")] = None,
    family: Annotated[
        str | None,
        typer.Option(help="Of public checkpoints, such as llama: programs that know it open the model."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="A model of `inkstone pretrain` to begin with: it reads on in your documents."),
    ] = None,
    lora: Annotated[
        bool, typer.Option("--lora", help="With --base: only an adapter beside its weights learns.")
    ] = False,
    block: Annotated[int | None, typer.Option(help="Tokens that the model reads at once.")] = None,
    fields: Annotated[str | None, typer.Option(help="The field of the text, such as text=body.")] = None,
    name: Name = None,
    recipe: RecipeFile = None,
    settings: Settings = [],  # noqa: B006
    dry_run: DryRun = False,
    profile: Profile = False,
    on: On = None,
    workers: Workers = 2,
    as_json: AsJson = False,
) -> None:
    """Train a language model from documents. A run that was killed goes on with `inkstone train resume`."""
    from inkstone.cli import recipe_of, recipe_values, train_and_report, training_manner
    from inkstone.recipes.beginning import laid_under
    from inkstone.recipes.pretrain import check
    from inkstone.recipes.pretrain import pretrain as run
    from inkstone.recipes.pretrain_recipe import PretrainRecipe

    # Threads that wait for work must sleep, not spin: on a busy machine spinning slows everything ten-fold.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    given: dict[str, Any] = {
        "data": data,
        "valid": valid,
        "test": test,
        "objective": objective,
        "size": size,
        "family": family,
        "base": base,
        "lora": {} if lora else None,
        "block": block,
        "fields": parse_fields(fields),
        "name": name,
        "training": training_manner(dry_run, profile),
    }
    given = {
        key: value for key, value in given.items() if value not in (None, [], {}) or (key == "lora" and lora)
    }
    if which is not None and recipe is not None:
        raise ConfigError(f"two recipes are given, {which} and {recipe}. Give one.")
    recipe = which or recipe
    values = laid_under(recipe_values(recipe, given, settings, "pretrain"))
    resolved, place = recipe_of(PretrainRecipe, values, out, str(recipe or "recipe"), "documents", check)
    train_and_report(run, resolved, place, as_json, on, workers)


def resume_pretrain(run: Path, *how: Any) -> None:
    """Go on with an unfinished run."""
    from inkstone.cli import train_and_report
    from inkstone.recipes.pretrain import load_recipe
    from inkstone.recipes.pretrain import pretrain as go_on

    recipe, out = load_recipe(run)
    train_and_report(go_on, recipe, out, *how)
