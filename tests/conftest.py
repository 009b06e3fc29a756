"""What all tests share: one thread for arithmetic, and a tiny translator trained once by the real recipe."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: the tests share the machine
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from made_corpus import made_pairs, quick_recipe, write_pairs

if TYPE_CHECKING:
    from inkstone.recipes.translate import TranslateRecipe


@dataclass(frozen=True)
class Trained:
    """A finished run: the recipe, the bundle's folder, and what the recipe returned."""

    recipe: TranslateRecipe
    bundle: Path
    result: dict[str, Any]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A translator zh-en in both directions, trained in seconds on made sentences. Do not write into it."""
    pytest.importorskip("torch", reason="training needs torch")
    from inkstone.recipes.translate import train_translator

    folder = tmp_path_factory.mktemp("made")
    recipe = quick_recipe(write_pairs(folder / "pairs.tsv", made_pairs()))
    return Trained(recipe, folder / "made", train_translator(recipe, folder / "made"))
