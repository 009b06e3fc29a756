"""Train a summariser: from documents and their summaries to a served bundle with its report card. Read it top to bottom.

    read and clean -> split -> tokenizer -> examples -> model -> train        `recipes.sequences`
    -> checkpoint -> served engine, proved equal                              `recipes.sequence_bundle`
    -> judge beside the first sentence -> report card -> bundle               `recipes.summarizer_bundle`

Everything else is as for a translator (`recipes.translate`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inkstone.recipes.run import kept_recipe
from inkstone.recipes.sequences import train
from inkstone.recipes.summarizer_bundle import finish
from inkstone.recipes.summarizer_recipe import SummarizeRecipe


def train_summarizer(recipe: SummarizeRecipe, out: Path) -> dict[str, Any]:
    """Run the recipe into the bundle `out`, or go on where a killed run stopped; what `inkstone train` prints.

    Raises InkstoneError subclasses for data, options and places that cannot be used, and `Interrupted` on Ctrl-C.
    """
    return train(recipe, out, lambda learnt: finish(recipe, learnt, out))


def load_recipe(run: Path) -> tuple[SummarizeRecipe, Path]:
    """The recipe and the output of an unfinished run."""
    return kept_recipe(run, SummarizeRecipe)
