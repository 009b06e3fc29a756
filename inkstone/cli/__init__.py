"""The command line: one file per verb. Verbs are loaded when they are called, so that `inkstone --help` is instant.

`main` is the door: it prints an InkstoneError as one message (exit code 2), lets everything else show its traceback
(exit code 1), answers Ctrl-C with 130, and says when the disk behind its output is full.
"""

from __future__ import annotations

import errno
import io
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import typer

from inkstone.ground.errors import Collected, ConfigError, InkstoneError
from inkstone.ground.processes import leads, world

# verb: (module, attribute, help). A verb whose attribute is `app` has sub-commands.
VERBS: dict[str, tuple[str, str, str]] = {
    "translate": ("translate", "translate", "Translate texts or files."),
    "summarize": ("summarize", "summarize", "Say in short what documents say."),
    "classify": ("classify", "classify", "Label texts."),
    "generate": ("generate", "generate", "Go on with a text, as a language model would."),
    "embed": ("embed", "embed", "Give texts vectors: what means the same lies close."),
    "train": (
        "train",
        "app",
        "Train a model on your own data: to translate, summarise, classify, chat or embed.",
    ),
    "pretrain": ("pretrain", "pretrain", "Train a language model on your own documents."),
    "tune": ("tune", "tune", "Search for a better recipe, or a learning rate."),
    "pull": ("pull", "pull", "Bring a public checkpoint here, checked."),
    "evaluate": ("evaluate", "evaluate", "Measure a model, and compare it with another."),
    "verify": (
        "verify",
        "verify",
        "Check every file of a model, and that its engine still answers as certified.",
    ),
    "rerun": (
        "rerun",
        "rerun",
        "Repeat the first steps of a training, and see whether it comes out the same.",
    ),
    "compress": ("compress", "compress", "Make a model smaller, and see what that costs."),
    "export": ("export", "export", "Write a model for other programs, proved equal."),
    "serve": ("serve", "serve", "Serve models over HTTP, with the workbench."),
    "corpus": ("corpus", "app", "Clean a corpus."),
    "tokenizer": ("tokenizer", "app", "Train a tokenizer, or look at one."),
    "vectors": ("vectors", "app", "Train word vectors, measure them, look at them."),
    "doctor": ("doctor", "doctor", "Check this installation."),
}

SHARED = ("train", "pretrain")  # what several processes can do together (docs/scaling.md)

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PLACES = (
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
)  # the caller's, wherever found


class _LazyGroup(typer.core.TyperGroup):
    """A group whose commands are imported when they are asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A stand-in that only knows its help, for the list of commands."""
        if cmd_name not in VERBS:
            return None
        return typer.core.TyperCommand(cmd_name, help=VERBS[cmd_name][2])

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is really called."""
        name, command, rest = super().resolve_command(ctx, args)
        if name in VERBS and name not in SHARED and world() > 1:
            raise ConfigError(f"{name} is the work of one process. Several can {' or '.join(SHARED)}.")
        return name, _loaded(name) if name in VERBS else command, rest


def _loaded(name: str) -> Any:
    module, attribute, help_ = VERBS[name]
    found = getattr(import_module(f"inkstone.cli.{module}"), attribute)
    if isinstance(found, typer.Typer):
        command = typer.main.get_command(found)
        command.name, command.help = name, help_
        return command
    app = typer.Typer(add_completion=False)
    app.command(name, help=found.__doc__)(found)
    return typer.main.get_command(app)


app = typer.Typer(
    cls=_LazyGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Turn your own text into language applications, on your own machine.",
)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
    if version:
        from inkstone import __version__

        print(__version__)
        raise typer.Exit


def print_json(document: Any) -> None:
    """The one JSON document of a `--json` run, on stdout."""
    print(json.dumps(document, ensure_ascii=False, allow_nan=False))


def training_manner(dry_run: bool, profile: bool) -> dict[str, Any]:
    """The training options that `--dry-run` and `--profile` stand for."""
    return ({"preflight": "only"} if dry_run else {}) | ({"profile": True} if profile else {})


def recipe_values(
    recipe: Path | None,
    given: Mapping[str, Any],
    settings: Sequence[str] = (),
    task: str | None = None,
) -> dict[str, Any]:
    """A recipe file's values, the options of the command over them, and over those what `--set` says.

    task: what the command trains; None keeps what the file says. Raises ConfigError for a recipe of another task.
    """
    from inkstone.ground.configuration import from_settings, overlay, read_yaml
    from inkstone.recipes.run import recipe_file

    values = overlay(read_yaml(recipe_file(recipe)) if recipe else {}, given, from_settings(settings))
    if task is not None and (said := values.pop("task", task)) != task:
        raise ConfigError(
            f"{recipe} says that it is a recipe of task {said}, and this command is for {task}."
        )
    return values


def recipe_of(
    kind: type[Any],
    values: dict[str, Any],
    out: Path | None,
    title: str,
    what: str,
    check: Callable[[Any, Path, Collected], object],
) -> tuple[Any, Path]:
    """The recipe that these values make, and where its model goes. Raises InkstoneError with all that is wrong with them.

    what: it learns from, such as "pairs". check: of the recipe itself, asked where something is wrong already.
    """
    from inkstone.ground.configuration import build_collecting
    from inkstone.recipes.run import place_of, refuse_taken

    found, place = Collected(title), None
    with found.check():
        place = place_of(out, values)
    with found.check():
        if not values.get("data"):
            raise ConfigError(
                f"there is nothing to train on. Give --data FILE ({what}), or a --recipe that names data."
            )
    if place is not None:
        with found.check():
            refuse_taken(place)
    named = {"name": "unnamed", "data": [], **values} if found.errors else values
    recipe = build_collecting(kind, named, found)
    if found.errors and recipe is not None and recipe.data:
        check(recipe, place or Path("model"), found)
    found.raise_all()
    assert place is not None, "without a place there was an error"
    return recipe, place


def train_and_report(
    train: Callable[[Any, Path], dict[str, Any]],
    recipe: Any,
    out: Path,
    as_json: bool,
    on: str | None = None,
    workers: int = 1,
) -> None:
    """Run a training recipe and print its report card; Ctrl-C says how to go on. A dry run prints its preflight.

    on: a Ray cluster whose workers train, instead of this process.
    """
    from inkstone.ground.progress import say
    from inkstone.learn.loop import Interrupted
    from inkstone.learn.preflight import DryRun
    from inkstone.recipes.run import run_folder

    if on is not None:
        from inkstone.recipes.on_ray import on_ray

        train = on_ray(train, on, workers)
    try:
        result = train(recipe, out)
    except DryRun as done:
        if as_json:
            print_json(done.report)
        say("a dry run: nothing was trained, nothing was written")
        return
    except Interrupted as error:
        raise Interrupted(f"{error} Go on with: inkstone train resume {run_folder(out)}") from None
    if not leads():
        return
    if as_json:
        print_json(result)
        return
    say(f"the model is in {out}")
    print((out / "README.md").read_text("utf-8"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; the exit code."""
    if isinstance(
        sys.stdout, io.TextIOWrapper
    ):  # our texts are UTF-8, whatever the locale; no file name is unprintable
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        code = _run(arguments)
        if sys.stdout is not None:  # it was closed by who called us
            sys.stdout.flush()
    except OSError as error:
        if error.errno in _PLACES and error.filename is not None:
            print(f"inkstone: {error.filename} cannot be used: {error.strerror}.", file=sys.stderr)
            return 2
        if error.errno not in (errno.EPIPE, *_FULL):
            raise
        _stop_output()
        if (
            error.errno == errno.EPIPE
        ):  # the reader of our output went away, as `head` does: no fault, nothing to say
            return 128 + 13  # what a shell shows for a program ended by SIGPIPE
        where = error.filename or "the output"
        print(
            f"inkstone: cannot write {where}: the disk is full. Free some space and run it again.",
            file=sys.stderr,
        )
        return 2
    return code


def _run(arguments: Sequence[str] | None) -> int:
    try:
        code = app(args=arguments, prog_name="inkstone", standalone_mode=False)
    except InkstoneError as error:
        print(f"inkstone: {error}", file=sys.stderr)
        return 130 if type(error).__name__ == "Interrupted" else 2
    except KeyboardInterrupt:
        code = 130
    except SystemExit as error:  # typer ends the program itself when our output's reader went away
        raise BrokenPipeError(errno.EPIPE, "the reader of the output went away") from error
    except Exception as error:
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # wrong usage of an option, said by typer
            error.show()
            return int(error.exit_code)
        raise
    if code == 130:  # typer makes this of Ctrl-C
        print("inkstone: interrupted", file=sys.stderr)
    return code if isinstance(code, int) else 0


def _stop_output() -> None:
    """Send what is still buffered nowhere, so that the interpreter does not complain about it when it ends."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())  # type: ignore[union-attr]
