"""Train a translator: from raw pairs to a served bundle with its report card. Read it top to bottom.

    read and clean -> split -> tokenizer -> examples -> model -> train        `recipes.sequences`
    -> checkpoint -> served engine, proved equal                              `recipes.sequence_bundle`
    -> judge beside the baselines -> report card -> bundle                    `recipes.translator_bundle`

While it runs, everything lives in `<out>.run/`: the resolved recipe, the tokenizer, checkpoints, logs. Killed at any
moment, it goes on with `inkstone train resume <out>.run` and ends with the same weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inkstone.recipes.run import kept_recipe
from inkstone.recipes.sequences import train
from inkstone.recipes.translator_bundle import finish
from inkstone.recipes.translator_recipe import TranslateRecipe


def train_translator(recipe: TranslateRecipe, out: Path) -> dict[str, Any]:
    """Run the recipe into the bundle `out`, or go on where a killed run stopped; what `inkstone train` prints.

    Raises InkstoneError subclasses for data, options and places that cannot be used, and `Interrupted` on Ctrl-C.
    """
    return train(recipe, out, lambda learnt: finish(recipe, learnt, out))


def load_recipe(run: Path) -> tuple[TranslateRecipe, Path]:
    """The recipe and the output of an unfinished run."""
    return kept_recipe(run, TranslateRecipe)
