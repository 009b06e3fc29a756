"""Make a model smaller, and say what it costs. Read it top to bottom, then the task's own file.

    open -> measure the original -> (student) -> (fewer layers) -> (prune) -> heal by distillation -> quantise -> measure
    -> the table -> within the limit: bundle with card, certificate and manifest; else nothing is written

What is measured, and against what, is in `recipes.compress.trial`; the steps are in `recipes.compress.shrink`.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from inkstone.ground.errors import ConfigError, OutputError, require
from inkstone.model.bundle import open_bundle
from inkstone.recipes.compress.classifier import compress_classifier
from inkstone.recipes.compress.translator import compress_translator
from inkstone.recipes.compress.trial import CompressRecipe
from inkstone.recipes.run import run_folder

TASKS = {"translate": compress_translator, "classify": compress_classifier}


def made_of(model: str | Path) -> dict[str, Any]:
    """The data that a model was made from and tested on, as options of a recipe.

    A manifest names files by their folder and name: they are looked for from here, and below $INKSTONE_DATA. Raises
    ConfigError naming those that are not found.
    """
    bundle = open_bundle(model)
    recipe = bundle.manifest.get("made", {}).get("recipe", {})
    test = recipe.get("test") or []
    test = [file for some in test.values() for file in some] if isinstance(test, dict) else test
    named = {"data": recipe.get("data") or [], "test": test}
    places = [Path(), *(Path(place) for place in [os.environ.get("INKSTONE_DATA")] if place)]
    absent: list[str] = []
    found: dict[str, Any] = {"data": [], "test": []}
    for use, files in named.items():
        for file in files:
            at = next((place / file for place in places if (place / file).is_file()), None)
            found[use] += [] if at is None else [str(at)]
            absent += [file] if at is None else []
    if absent or not found["data"]:
        made = f" ({bundle.name} was made from {', '.join(absent)}: not found here)" if absent else ""
        raise ConfigError(f"there is nothing to measure on. Give --data FILE{made}.")
    same = {key: recipe[key] for key in ("fields", "source", "target") if recipe.get(key)}
    return {**found, **same}


def compress(model: str | Path, recipe: CompressRecipe, out: Path) -> dict[str, Any]:
    """Write a smaller bundle into `out`; what `inkstone compress` prints.

    Raises TooLossy, with the table, when an engine of it would break the limit: then nothing is written. Raises other
    InkstoneErrors for models, data and options that cannot be used, and `Interrupted` on Ctrl-C, after which the same
    command goes on.
    """
    require("torch", "compression", "train")
    if out.is_symlink() or out.exists():
        raise ConfigError(f"{out} already exists. Choose another --out, or remove it first.")
    nearest = next(folder for folder in out.absolute().parents if folder.exists())
    if not nearest.is_dir():
        raise OutputError(f"cannot write {out}: {nearest} is a file, not a folder. Choose another --out.")
    bundle = open_bundle(model)
    if bundle.task not in TASKS:
        raise ConfigError(
            f"{bundle.path} is of task {bundle.task}, which cannot be compressed yet. Valid: {', '.join(TASKS)}."
        )
    result = TASKS[bundle.task](bundle, recipe, out)
    shutil.rmtree(run_folder(out), ignore_errors=True)
    return result
