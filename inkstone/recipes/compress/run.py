"""Make a model smaller, and say what it costs. Read it top to bottom, then the task's own file.

    open -> measure the original -> (student) -> (fewer layers) -> (prune) -> heal by distillation -> quantise -> measure
    -> the table -> within the limit: bundle with card, certificate and manifest; else nothing is written

What is measured, and against what, is in `recipes.compress.trial`; the steps are in `recipes.compress.shrink`.
"""

from __future__ import annotations

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
    result = TASKS[bundle.task](bundle, recipe, out)
    shutil.rmtree(run_folder(out), ignore_errors=True)
    return result
