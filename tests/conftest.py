"""What all tests share: one thread for arithmetic, and a tiny translator trained once by the real recipe."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: the tests share the machine
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from made_corpus import made_labelled, made_pairs, quick_recipe, write_pairs

if TYPE_CHECKING:
    from inkstone.recipes.translator_recipe import TranslateRecipe

# A busy machine is no fault of the code: nothing fails for being slow.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")


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


@dataclass(frozen=True)
class TrainedClassifier:
    """A finished run of `inkstone train classify`: the bundle's folder, and what the command printed."""

    bundle: Path
    printed: str


@pytest.fixture(scope="session")
def trained_classifier(tmp_path_factory: pytest.TempPathFactory) -> TrainedClassifier:
    """Music or weather, told apart by a bag of words trained in seconds. Do not write into it."""
    pytest.importorskip("torch", reason="training needs torch")
    pytest.importorskip("inkstone.cli.classify", reason="the classify verbs are not here yet")
    from inkstone.cli import main

    folder = tmp_path_factory.mktemp("labelled")
    rows = [{"text": f"{text} {n}", "label": label} for n in range(8) for text, label in made_labelled()]
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    command = ["train", "classify", "--data", str(folder / "data.jsonl"), "--out", str(folder / "model")]
    with redirect_stdout(StringIO()) as printed, redirect_stderr(StringIO()) as errors:
        assert main([*command, "--architecture", "bag", "--json"]) == 0, errors.getvalue()
    return TrainedClassifier(folder / "model", printed.getvalue())
