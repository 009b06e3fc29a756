"""Train a translator: from raw pairs to a served bundle with its report card. Read it top to bottom.

    read and clean -> split -> tokenizer -> examples -> model -> train -> checkpoint -> served engine, proved equal
    -> judge beside the baselines -> report card -> bundle

The model is a new one or an existing one that learns on, whole or through an adapter (`recipes.beginning`).

While it runs, everything lives in `<out>.run/`: the resolved recipe, the tokenizer, checkpoints, logs. Killed at any
moment, it goes on with `inkstone train resume <out>.run` and ends with the same weights.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from inkstone.corpus.rules import make_rules
from inkstone.generate.engine import GenerationOptions
from inkstone.ground.errors import ConfigError, DataError, require
from inkstone.ground.progress import say
from inkstone.model.bundle import Bundle
from inkstone.recipes.beginning import (
    Beginning,
    begin,
    configuration,
    opened_base,
    refuse_directions,
    settled,
)
from inkstone.recipes.pairs import Corpus, both, encode, evenly, read_corpus
from inkstone.recipes.run import is_begun, kept_recipe, kept_run
from inkstone.recipes.translator_bundle import finish
from inkstone.recipes.translator_recipe import TranslateRecipe
from inkstone.text.template import tags_for
from inkstone.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from inkstone.learn.loop import Outcome

VALIDATED = 1000  # pairs at most that every validation looks at


def train_translator(recipe: TranslateRecipe, out: Path) -> dict[str, Any]:
    """Run the recipe into the bundle `out`, or go on where a killed run stopped; what `inkstone train` prints.

    Raises InkstoneError subclasses for data, options and places that cannot be used, and `Interrupted` on Ctrl-C.
    """
    require("torch", "training", "train")
    _check(recipe)
    with kept_run("translate", recipe, out) as run:
        return _train(recipe, out, run)


def _train(recipe: TranslateRecipe, out: Path, run: Path) -> dict[str, Any]:
    learnt = learn(recipe, run)
    result = finish(learnt.recipe, out, *learnt[1:])
    shutil.rmtree(run / "checkpoints", ignore_errors=True)
    return result


class Learnt(NamedTuple):
    """A trained translator, and what it was trained with."""

    recipe: TranslateRecipe  # settled by what it began with
    corpus: Corpus
    directions: list[tuple[str, str]]
    tokenizer: Tokenizer
    begun: Beginning
    examples: Sequence[Any]
    outcome: Outcome


def learn(recipe: TranslateRecipe, run: Path) -> Learnt:
    """The first half of `train_translator`, up to the best weights. State is kept in the folder `run`."""
    from inkstone.learn.data.batches import pair_batch
    from inkstone.learn.loop import train
    from inkstone.learn.objectives import OBJECTIVES

    base = opened_base(recipe)
    recipe = settled(recipe, base)
    corpus = read_corpus(recipe)
    directions = _directions(recipe, corpus.languages)
    tokenizer = _tokenizer(recipe, base, corpus, directions, run)
    examples, too_long = encode(tokenizer, both(corpus.train, directions), recipe.max_length)
    corpus.dropped["too many tokens"] += too_long
    valid, _ = encode(tokenizer, evenly(both(corpus.valid, directions), VALIDATED), recipe.max_length)
    if not examples or not valid:
        raise DataError(
            f"no pair is left to {'train on' if not examples else 'validate with'} after cleaning."
        )
    say(f"{len(examples):,} examples, {len(valid):,} for validation, vocabulary {tokenizer.vocab_size:,}")

    tokenizer.save(run / "tokenizer.json")
    begun = begin(recipe, base, tokenizer)
    config = begun.model.config

    def collate(rows: Sequence[Any]) -> Any:
        return pair_batch(rows, pad_id=config.pad_id, bos_id=config.bos_id, eos_id=config.eos_id)

    with begun.learning():
        outcome = train(
            begun.model,
            OBJECTIVES["sequence-to-sequence"],
            examples,
            collate,
            validation(valid, collate, recipe.training.tokens_per_batch),
            recipe.training,
            run,
            fingerprint=_fingerprint(recipe, examples, begun.digest),
            title=recipe.name,
        )
    return Learnt(recipe, corpus, directions, tokenizer, begun, examples, outcome)


def _directions(recipe: TranslateRecipe, languages: tuple[str, str]) -> list[tuple[str, str]]:
    source, target = languages
    return [(source, target), (target, source)] if recipe.both_directions else [(source, target)]


def _tokenizer(
    recipe: TranslateRecipe,
    base: Bundle | None,
    corpus: Corpus,
    directions: Sequence[tuple[str, str]],
    run: Path,
) -> Tokenizer:
    """The base's, that of the run that goes on, or a new one; left-overs of a finished run do not count."""
    if base is not None:
        refuse_directions(base, directions)
        return Tokenizer.load(base.path / "tokenizer.json")
    file = run / "tokenizer.json"
    if file.exists() and is_begun(run):
        return Tokenizer.load(file)
    texts = (side for pair in corpus.train for side in (pair.source, pair.target))
    return Tokenizer.train(
        texts, kind=recipe.tokenizer, vocab_size=recipe.vocab_size, specials=tags_for(directions)
    )


def _check(recipe: TranslateRecipe) -> None:
    """Say what cannot be before anything is read, not after hours of training. Raises ConfigError."""
    if not recipe.name.strip():
        raise ConfigError("name is empty. Give the model a name.")
    if recipe.max_length < 2:
        raise ConfigError(f"max_length={recipe.max_length} leaves no room for a word. Give 2 or more.")
    GenerationOptions(beam_size=recipe.beam_size)
    make_rules(recipe.cleaning, recipe.rules)
    config = configuration(recipe, opened_base(recipe), recipe.vocab_size)
    if recipe.max_length > config.max_positions:
        raise ConfigError(
            f"max_length={recipe.max_length} is more than the model's max_positions={config.max_positions}."
        )


def validation(examples: Sequence[Any], collate: Any, tokens_per_batch: int) -> Any:
    """A function that measures loss (nats per token, no smoothing) and token accuracy of a model on these examples."""
    import torch

    from inkstone.learn.data.batches import Plan, chunks, to_device
    from inkstone.learn.objectives import sequence_to_sequence

    batches = [
        collate(chunks(examples, n))
        for n in Plan(examples, tokens_per_batch=tokens_per_batch, seed=0).in_order()
    ]

    def validate(model: torch.nn.Module) -> dict[str, float]:
        model.eval()
        device = next(model.parameters()).device
        with torch.no_grad():
            losses = [sequence_to_sequence(model, to_device(batch, device)) for batch in batches]
        count = sum(loss.count for loss in losses)
        return {
            "loss": sum(float(loss.mean) * loss.count for loss in losses) / count,
            "accuracy": sum(loss.correct for loss in losses) / count,
        }

    return validate


def _fingerprint(recipe: TranslateRecipe, examples: Sequence[Any], begun: str) -> str:
    """Of everything that decides the weights: the data as ids, the model, what it began with, the training options."""
    digest = hashlib.sha256(repr((recipe.architecture, recipe.size, recipe.model, recipe.training)).encode())
    digest.update(f"{begun}{recipe.family or ''}".encode())
    for example in examples:
        digest.update(repr((example.source, example.target)).encode())
    return digest.hexdigest()


def load_recipe(run: Path) -> tuple[TranslateRecipe, Path]:
    """The recipe and the output of an unfinished run."""
    return kept_recipe(run, TranslateRecipe)
