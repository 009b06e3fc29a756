"""`inkstone train`: a model of your own from your own data, ending with its report card."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from inkstone.cli.chat import resume_chat, train_chat
from inkstone.cli.classify import train_classify
from inkstone.cli.corpus import named_tests, parse_fields
from inkstone.cli.embed import resume_embed, train_embed
from inkstone.cli.summarize import resume_summarize, train_summarize
from inkstone.cli.training import AsJson, DryRun, Name, On, Out, Profile, RecipeFile, Settings, Workers
from inkstone.ground.errors import ConfigError, not_known

app = typer.Typer(no_args_is_help=True, add_completion=False)
app.command("summarize")(train_summarize)
app.command("classify")(train_classify)
app.command("embed")(train_embed)
app.command("chat")(train_chat)


@app.callback()
def prepare() -> None:
    """Train a translator, a summariser, a classifier, a chat model or a sentence encoder on your own data."""
    # Threads that wait for work must sleep, not spin: on a busy machine spinning slows everything ten-fold.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@app.command("translate")
def train_translate(
    data: Annotated[
        list[str],
        typer.Option(help="Pairs: any format, or parallel files as 'train.{en,de}.gz'. Repeatable."),
    ] = [],  # noqa: B006
    out: Out = None,
    valid: Annotated[list[str], typer.Option(help="Validation pairs. Default: held out of the data.")] = [],  # noqa: B006
    test: Annotated[
        list[str], typer.Option(help="Test pairs, FILE or NAME=FILE. Default: held out of the data.")
    ] = [],  # noqa: B006
    source: Annotated[str | None, typer.Option("--from", help="Source language code, such as en.")] = None,
    target: Annotated[str | None, typer.Option("--to", help="Target language code, such as de.")] = None,
    both_directions: Annotated[
        bool, typer.Option("--both-directions", help="One model for both directions.")
    ] = False,
    architecture: Annotated[
        Literal["transformer", "rnn", "cnn"] | None, typer.Option(help="Default: transformer.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="tiny, small or base.")] = None,
    family: Annotated[
        str | None,
        typer.Option(help="Of public checkpoints, such as marian: programs that know it open the model."),
    ] = None,
    base: Annotated[
        str | None, typer.Option(help="A translator to begin with: its weights learn on from your data.")
    ] = None,
    lora: Annotated[
        bool, typer.Option("--lora", help="With --base: only an adapter beside its weights learns.")
    ] = False,
    vectors: Annotated[
        str | None, typer.Option(help="Word vectors to begin a new model's embedding with; any format.")
    ] = None,
    fields: Annotated[str | None, typer.Option(help="Field names, such as source=en,target=zh.")] = None,
    name: Name = None,
    recipe: RecipeFile = None,
    settings: Settings = [],  # noqa: B006
    dry_run: DryRun = False,
    profile: Profile = False,
    on: On = None,
    workers: Workers = 2,
    as_json: AsJson = False,
) -> None:
    """Train a translator from pairs of sentences."""
    from inkstone.cli import recipe_of, recipe_values, training_manner
    from inkstone.recipes.beginning import laid_under
    from inkstone.recipes.sequences import check
    from inkstone.recipes.translator_recipe import TranslateRecipe

    given: dict[str, Any] = {
        "data": data,
        "valid": valid,
        "test": named_tests(test),
        "source": source,
        "target": target,
        "both_directions": both_directions,
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
    values = laid_under(recipe_values(recipe, given, settings, "translate"))
    resolved, place = recipe_of(TranslateRecipe, values, out, str(recipe or "recipe"), "pairs", check)
    _train_translator(resolved, place, as_json, on, workers)


@app.command("resume")
def resume(
    run: Annotated[Path, typer.Argument(help="The folder of the unfinished run, such as models/mine.run.")],
    on: On = None,
    workers: Workers = 2,
    as_json: AsJson = False,
) -> None:
    """Go on with a run that was stopped or killed; it ends as if it had not been."""
    from inkstone.ground.configuration import read_yaml

    if not (run / "recipe.yaml").exists():
        raise ConfigError(
            f"{run} is not the folder of a run: it has no recipe.yaml. It is named like the model, with .run."
        )
    task = read_yaml(run / "recipe.yaml").get("task")
    tasks = {
        "translate": _resume_translator,
        "summarize": resume_summarize,
        "classify": _resume_classifier,
        "pretrain": _resume_language_model,
        "embed": resume_embed,
        "chat": resume_chat,
    }
    if not isinstance(task, str) or task not in tasks:
        raise ConfigError(f"{run / 'recipe.yaml'}: {not_known('task', task, tasks)}")
    tasks[task](run, as_json, on, workers)


@app.command("look")
def look(
    batch: Annotated[
        Path, typer.Argument(help="A saved batch, such as models/mine.run/not-finite-00000042.")
    ],
    as_json: AsJson = False,
) -> None:
    """Show the texts of the batch at which a training stopped because its loss was not finite."""
    from inkstone.cli import print_json
    from inkstone.learn.divergence import read_batch

    found = read_batch(batch)
    if as_json:
        print_json(found)
        return
    print(
        f"{found['what']} {found['value']} at step {found['step']}: batch {found['index']} of epoch {found['epoch']} "
        f"(both from 0), {found['tokens']:,} tokens"
    )
    for number, row in enumerate(found["rows"], 1):
        for name, text in row.items():
            print(f"{number:4}  {name:9}  {text}")


def _resume_translator(run: Path, *how: Any) -> None:
    from inkstone.recipes.translate import load_recipe

    recipe, out = load_recipe(run)
    _train_translator(recipe, out, *how)


def _resume_classifier(run: Path, *how: Any) -> None:
    from inkstone.cli.classify import resume_classify

    resume_classify(run, *how)


def _resume_language_model(run: Path, *how: Any) -> None:
    from inkstone.cli.pretrain import resume_pretrain

    resume_pretrain(run, *how)


def _train_translator(recipe: Any, out: Path, *how: Any) -> None:
    from inkstone.cli import train_and_report
    from inkstone.recipes.translate import train_translator

    train_and_report(train_translator, recipe, out, *how)
