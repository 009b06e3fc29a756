"""`inkstone train chat`: a language model learns to answer, from conversations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from inkstone.cli.corpus import parse_fields
from inkstone.cli.training import AsJson, DryRun, Name, On, Out, Profile, RecipeFile, Settings, Workers
from inkstone.ground.errors import ConfigError


def train_chat(
    data: Annotated[
        list[str],
        typer.Option(
            help="Conversations: messages in the OpenAI form, or instruction and output. Repeatable."
        ),
    ] = [],  # noqa: B006
    base: Annotated[
        str | None,
        typer.Option(help="What learns: a causal model of `inkstone pretrain`, or a pulled decoder."),
    ] = None,
    out: Out = None,
    valid: Annotated[
        list[str], typer.Option(help="Validation conversations. Default: held out of the data.")
    ] = [],  # noqa: B006
    test: Annotated[list[str], typer.Option(help="Test conversations. Default: held out of the data.")] = [],  # noqa: B006
    lora: Annotated[
        bool, typer.Option("--lora", help="Only an adapter beside the base's weights learns.")
    ] = False,
    block: Annotated[int | None, typer.Option(help="Tokens that the model reads at once.")] = None,
    fields: Annotated[str | None, typer.Option(help="Field names, such as messages=dialogue.")] = None,
    name: Name = None,
    recipe: RecipeFile = None,
    settings: Settings = [],  # noqa: B006
    dry_run: DryRun = False,
    profile: Profile = False,
    on: On = None,
    workers: Workers = 2,
    as_json: AsJson = False,
) -> None:
    """Teach a language model to answer, from conversations."""
    from inkstone.cli import recipe_of, recipe_values, train_and_report, training_manner
    from inkstone.recipes.chat import check_beforehand
    from inkstone.recipes.chat import train_chat as run
    from inkstone.recipes.chat_recipe import ChatRecipe, laid_under

    given: dict[str, Any] = {
        "data": data,
        "valid": valid,
        "test": test,
        "base": base,
        "block": block,
        "fields": parse_fields(fields),
        "name": name,
        "training": training_manner(dry_run, profile),
    }
    given = {key: value for key, value in given.items() if value} | ({"lora": {}} if lora else {})
    values = laid_under(recipe_values(recipe, given, settings, "chat"))
    if not values.get("data") or not values.get("base"):
        raise ConfigError(
            "there is nothing to train on, or nothing that learns. Give --data FILE (conversations) and --base MODEL, "
            "or a --recipe that names both."
        )
    title = str(recipe or "recipe")
    resolved, place = recipe_of(ChatRecipe, values, out, title, "conversations", check_beforehand)
    train_and_report(run, resolved, place, as_json, on, workers)


def resume_chat(run: Path, *how: Any) -> None:
    """Go on with an unfinished run."""
    from inkstone.cli import train_and_report
    from inkstone.recipes.chat import load_recipe
    from inkstone.recipes.chat import train_chat as go_on

    recipe, out = load_recipe(run)
    train_and_report(go_on, recipe, out, *how)
