"""The folder of a run: `models/mine.run` beside `models/mine`, with all that `inkstone train resume` needs.

It holds the resolved recipe and, as the training goes on, its checkpoints and logs. What the caller did wrong leaves
none behind: a run that is refused before its first checkpoint takes its folder away again.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from inkstone.ground.configuration import build, plain, read_yaml
from inkstone.ground.errors import ConfigError, InkstoneError, OutputError, not_known
from inkstone.ground.files import explained, write_text
from inkstone.ground.processes import leads

R = TypeVar("R")
RECIPE = "recipe.yaml"


def place_of(out: Path | None, values: dict[str, Any]) -> Path:
    """Where the model goes: the option, or what the recipe says, which is taken out of it; it names the model, too."""
    written = values.pop("out", None)
    if written is not None and not isinstance(written, str):
        raise ConfigError(f"out={written!r} is not the name of a folder.")
    place = out or (Path(written) if written else None)
    if place is None:
        raise ConfigError("where should the model go? Give --out FOLDER.")
    values.setdefault("name", place.name)
    return place


def recipe_file(given: Path, others: Iterable[str] = ()) -> Path:
    """The file of a recipe: a path, or the name of one that comes with Inkstone. Raises ConfigError.

    others: what else would have been understood.
    """
    own = sorted(file.stem for file in Path(__file__).parent.glob("*.yaml"))
    if str(given) in own and not given.is_file():
        return Path(__file__).parent / f"{given}.yaml"
    if given.suffix or given.exists() or len(given.parts) > 1:
        return given
    raise ConfigError(f"{not_known('recipe', str(given), [*others, *own])} Or give the path of a YAML file.")


def run_folder(out: Path) -> Path:
    """Where a run keeps its state while it goes on."""
    return out.with_name(f"{out.name}.run")


def refuse_taken(out: Path) -> None:
    """Say before hours of training that the model could not be written. Raises ConfigError, OutputError."""
    with explained(out):
        if out.is_symlink() or out.exists():
            raise ConfigError(f"{out} already exists. Choose another --out, or remove it first.")
    run = run_folder(out)
    if is_begun(run):
        raise ConfigError(
            f"{run} holds an unfinished run. Go on with it: inkstone train resume {run} - or remove that"
            " folder to begin anew."
        )
    nearest = next(folder for folder in out.absolute().parents if folder.exists())
    if not nearest.is_dir():
        raise OutputError(f"cannot write {out}: {nearest} is a file, not a folder. Choose another --out.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {out}: {nearest} may not be written to. Choose another --out.")


def is_begun(run: Path) -> bool:
    """Whether a run has come as far as to keep checkpoints, or the batch at which it diverged."""
    return any(run.rglob("checkpoints")) or any(run.rglob("not-finite-*"))


@contextmanager
def kept_run(task: str, recipe: Any, out: Path, *, dry: bool = False) -> Iterator[Path]:
    """The folder of a run with its recipe in it. When the block fails before a checkpoint, a new folder goes again.

    dry: a folder elsewhere, gone after the block.
    """
    import yaml

    if dry:
        with TemporaryDirectory(prefix="inkstone-dry-run-") as scratch:
            yield Path(scratch)
        return

    run = run_folder(out)
    is_new = not run.exists()
    try:
        with explained(run):
            run.mkdir(parents=True, exist_ok=True)
        if leads() and not _holds(run, recipe):
            kept = {"task": task, "out": str(out), "recipe": plain(recipe)}
            write_text(run / RECIPE, yaml.safe_dump(kept, allow_unicode=True, sort_keys=False))
        yield run
    except BaseException:
        if leads() and is_new and not is_begun(run):
            shutil.rmtree(run, ignore_errors=True)
        raise


def clear(run: Path) -> None:
    """The model is written: the run's checkpoints go, its recipe and its logs stay; a run that took no steps has none."""
    for place in list(run.rglob("checkpoints")):
        shutil.rmtree(place, ignore_errors=True)
    if not any(run.rglob("log.jsonl")):
        shutil.rmtree(run, ignore_errors=True)


def _holds(run: Path, recipe: Any) -> bool:
    try:
        return bool(kept_recipe(run, type(recipe))[0] == recipe)
    except InkstoneError:  # none, or that of an earlier run
        return False


def kept_recipe(run: Path, kind: type[R]) -> tuple[R, Path]:
    """The recipe and the output of an unfinished run. Raises ConfigError when its recipe.yaml is not one."""
    file = run / RECIPE
    saved = read_yaml(file)
    if not isinstance(saved.get("recipe"), dict):
        raise ConfigError(
            f"{file} holds no recipe: it was not written by `inkstone train`, or changed since."
        )
    place = run.resolve()  # wherever it was moved to, and wherever we are
    if place.suffix != ".run":
        raise ConfigError(f"{run} must be named like the model, with .run. Give it that name again.")
    return build(kind, saved["recipe"], str(file), complete=True), place.with_suffix("")


def short_path(path: str) -> str:
    """A data file by its folder and name: where it lay on this machine is nobody's business."""
    return f"{Path(path).parent.name}/{Path(path).name}".lstrip("/")
