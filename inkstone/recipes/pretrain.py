"""Pre-train a language model: from raw documents to a bundle with its report card. Read it top to bottom.

    read and clean -> hold out -> tokenizer -> batches of the objective -> model -> train -> checkpoint
    -> served engine, proved equal (causal) -> judge on held-out documents beside the baseline -> report card -> bundle

The model is a new one, or one of `inkstone pretrain` that reads on, whole or through an adapter (`recipes.beginning`).
While it runs, everything lives in `<out>.run/`. Killed at any moment, it goes on with `inkstone train resume <out>.run`
and ends with the same weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from inkstone.corpus.rules import make_rules
from inkstone.ground.errors import Collected, ConfigError, raise_all, require
from inkstone.ground.processes import leads
from inkstone.ground.progress import say
from inkstone.ground.records import Document
from inkstone.model.bundle import Bundle, open_bundle
from inkstone.model.checkpoint import read_config
from inkstone.model.families.folder import is_foreign
from inkstone.recipes.beginning import Beginning, begun, decided, settled
from inkstone.recipes.documents import Documents, passages, read_texts
from inkstone.recipes.preflight import (
    check_all,
    dropped_findings,
    length_findings,
    parameters_of,
    readable,
    refuse_small_disk,
    shared_findings,
)
from inkstone.recipes.pretrain_bundle import finish
from inkstone.recipes.pretrain_recipe import PretrainRecipe
from inkstone.recipes.run import clear, is_begun, kept_recipe, kept_run
from inkstone.text.tokenizer import Tokenizer

DECIDED = ("family", "size", "tokenizer", "vocab_size", "alphabet_share")  # by the base

if TYPE_CHECKING:
    from inkstone.learn.data.batches import Feed
    from inkstone.learn.loop import Outcome
    from inkstone.learn.pretraining import Course, CourseOptions
    from inkstone.model.config import ModelConfig


def pretrain(recipe: PretrainRecipe, out: Path) -> dict[str, Any]:
    """Run the recipe into the bundle `out`, or go on where a killed run stopped; what `inkstone pretrain` prints.

    Raises InkstoneError subclasses for data, options and places that cannot be used, and `Interrupted` on Ctrl-C.
    """
    require("torch", "training", "train")
    check(recipe, out, Collected(recipe.name.strip() or "recipe"))
    with kept_run("pretrain", recipe, out, dry=recipe.training.preflight == "only") as run:
        return _train(recipe, out, run)


def _train(recipe: PretrainRecipe, out: Path, run: Path) -> dict[str, Any]:
    learnt = learn(recipe, run)
    if not leads():
        return {}  # of several processes, one writes and judges
    result = finish(settled(recipe, opened_base(recipe)), out, *learnt)
    clear(run)
    return result


class Learnt(NamedTuple):
    """A trained language model, and what it was trained with."""

    texts: Documents
    tokenizer: Tokenizer
    begun: Beginning
    outcome: Outcome
    feed: Feed
    foreseen: dict[str, Any]


def learn(recipe: PretrainRecipe, run: Path) -> Learnt:
    """The first half of `pretrain`, up to the best weights. State is kept in the folder `run`."""
    from inkstone.learn.loop import train_on
    from inkstone.learn.preflight import preflight
    from inkstone.learn.pretraining import COURSES

    base = opened_base(recipe)
    recipe = settled(recipe, base)
    course, options = COURSES[recipe.objective], recipe.course_options()
    texts = read_texts(recipe)
    tokenizer = _tokenizer(recipe, base, texts, course, options, run)
    say(f"{len(texts.train):,} documents, vocabulary {tokenizer.vocab_size:,}")
    tokenizer.save(run / "tokenizer.json")
    training = recipe.training
    feed = course.feed(texts.train, tokenizer, options, training.tokens_per_batch, training.seed)
    beginning = begun(
        configuration(recipe, course, tokenizer.vocab_size, base), base, recipe.lora, training.seed
    )
    validate = validation(course, passages(texts.valid), tokenizer, options, training.tokens_per_batch)
    with beginning.learning():
        foreseen = preflight(
            beginning.model, course.objective, feed, validate, training, run, findings(texts)
        )
        outcome = train_on(
            beginning.model,
            course.objective,
            feed,
            validate,
            training,
            run,
            fingerprint=_fingerprint(recipe, texts, tokenizer) + beginning.digest,
            title=recipe.name,
        )
    return Learnt(texts, tokenizer, beginning, outcome, feed, foreseen)


def opened_base(recipe: PretrainRecipe) -> Bundle | None:
    """The language model that the recipe begins with, if any.

    Raises BundleError for what is none, ConfigError for options that go against what it decides.
    """
    if recipe.base is None:
        if recipe.lora is not None:
            raise ConfigError("lora is an adapter beside weights that are there: give --base MODEL too.")
        return None
    if is_foreign(Path(recipe.base)):
        raise ConfigError(
            f"base={recipe.base} is a checkpoint of another program, whose tokenizer is not ours. Give a model of "
            "`inkstone pretrain`."
        )
    bundle = open_bundle(recipe.base, task="language-model")
    problems = decided(recipe, DECIDED, bundle.description.get("script"))
    if (theirs := bundle.description["objective"]) != recipe.objective:
        problems.append(f"objective={recipe.objective}: the base learnt {theirs}. Give --objective {theirs}")
    if bundle.description.get("chat"):
        problems.append("the base was taught to answer: teach it more with inkstone train chat")
    raise_all(ConfigError, f"begun with {bundle.name}", problems)
    return bundle


def configuration(
    recipe: PretrainRecipe, course: Course, vocab_size: int, base: Bundle | None
) -> ModelConfig:
    """The configuration of the model that will learn; it has as many positions as a block, unless told otherwise."""
    from inkstone.model.config import preset
    from inkstone.model.presets import in_family

    if base is not None:
        read: Any = read_config(base.path)
        known: ModelConfig = replace(read, **recipe.model)
        return known
    overlay = {"max_positions": recipe.block, **course.overlay, **recipe.model}
    config: ModelConfig = in_family(preset(recipe.size, vocab_size, course.shape, overlay), recipe.family)
    return config


def _tokenizer(
    recipe: PretrainRecipe,
    base: Bundle | None,
    texts: Documents,
    course: Course,
    options: CourseOptions,
    run: Path,
) -> Tokenizer:
    """The base's, that of the run that goes on, or a new one; left-overs of a finished run do not count."""
    if base is not None:
        return Tokenizer.load(base.path / "tokenizer.json")
    file = run / "tokenizer.json"
    if file.exists() and is_begun(run):
        return Tokenizer.load(file)
    return Tokenizer.train(
        texts.train,
        kind=recipe.tokenizer,
        vocab_size=recipe.vocab_size,
        specials=course.specials(options),
        alphabet_share=recipe.alphabet_share,
    )


def check(recipe: PretrainRecipe, out: Path, found: Collected) -> None:
    """Say what cannot be before anything is trained: all of it, with what was found before. Raises InkstoneError."""
    from inkstone.learn.watch import require_watchers

    check_all(
        found,
        recipe,
        lambda: make_rules(recipe.cleaning, recipe.rules),
        lambda: require_watchers(recipe.training.watch),
        lambda: _check_options(recipe, out),
        read=lambda: read_texts(readable(recipe)),
    )


def findings(texts: Documents) -> list[str]:
    """What is worth knowing of the data before a model learns from it."""
    train, valid, test = (
        [Document(text) for text in side] for side in (texts.train, texts.valid, texts.test)
    )
    return [
        *dropped_findings(texts.dropped, len(train), "documents"),
        *length_findings(train, "documents"),
        *shared_findings(valid, test, "documents"),
    ]


def _check_options(recipe: PretrainRecipe, out: Path) -> None:
    from inkstone.learn.pretraining import COURSES

    config = configuration(recipe, COURSES[recipe.objective], recipe.vocab_size, opened_base(recipe))
    problems = [] if recipe.name.strip() else ["name is empty: give the model a name"]
    if recipe.block < 8:
        problems.append(f"block={recipe.block} must be at least 8 tokens")
    if 0 < config.position_limit < recipe.block:
        problems.append(
            f"block={recipe.block} is more than the model's max_positions={config.max_positions}: "
            "lower the one or raise the other"
        )
    if recipe.block > recipe.training.tokens_per_batch:
        problems.append(
            f"block={recipe.block} is more than training.tokens_per_batch={recipe.training.tokens_per_batch}: "
            "a batch must hold a block"
        )
    if not 0 < recipe.hidden_share < 1:
        problems.append(f"hidden_share={recipe.hidden_share} must be above 0 and below 1")
    if not recipe.span_length >= 1:
        problems.append(f"span_length={recipe.span_length} must be at least 1")
    if not 1 <= recipe.ngram_order <= 10:
        problems.append(f"ngram_order={recipe.ngram_order} must be between 1 and 10")
    raise_all(ConfigError, "recipe", problems)
    refuse_small_disk(out, parameters_of(config), recipe.training.preflight, moments=recipe.lora is None)


def validation(
    course: Course, texts: Sequence[str], tokenizer: Tokenizer, options: CourseOptions, tokens_per_batch: int
) -> Any:
    """A function that measures loss (nats per token asked for) and token accuracy of a model on these texts."""
    import torch

    from inkstone.learn.data.batches import to_device

    batches = list(course.fixed(texts, tokenizer, options, tokens_per_batch))

    def validate(model: torch.nn.Module) -> dict[str, float]:
        model.eval()
        device = next(model.parameters()).device
        with torch.no_grad():
            losses = [course.objective(model, to_device(batch, device)) for batch in batches]
        count = sum(loss.count for loss in losses)
        return {
            "loss": sum(float(loss.mean) * loss.count for loss in losses) / count,
            "accuracy": sum(loss.correct for loss in losses) / count,
        }

    return validate


def _fingerprint(recipe: PretrainRecipe, texts: Documents, tokenizer: Tokenizer) -> str:
    """Of everything that decides the weights: the texts, the tokens, the model, the objective, the training options."""
    decides = (
        recipe.objective,
        recipe.size,
        recipe.family,
        recipe.model,
        recipe.course_options(),
        recipe.training,
    )
    digest = hashlib.sha256((repr(decides) + (recipe.family or "")).encode())
    digest.update(tokenizer.inner.to_str().encode())
    for text in (*texts.train, *texts.valid):
        digest.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    return digest.hexdigest()


def load_recipe(run: Path) -> tuple[PretrainRecipe, Path]:
    """The recipe and the output of an unfinished run."""
    return kept_recipe(run, PretrainRecipe)
