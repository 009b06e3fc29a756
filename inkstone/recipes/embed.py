"""Train a sentence encoder: from pairs of texts to a served bundle with its report card. Read it top to bottom.

    read and clean -> hold out -> tokenizer, of both sides -> examples -> model -> train, the best by what it finds
    -> checkpoint -> served engine, proved equal -> judge beside BM25 -> report card -> bundle

The model is a new one, or an encoder that learns on (`base`). While it runs, everything lives in `<out>.run/`. Killed at
any moment, it goes on with `inkstone train resume <out>.run` and ends with the same weights.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from inkstone.corpus.rules import make_rules
from inkstone.ground.errors import BundleError, Collected, ConfigError, not_known, raise_all, require
from inkstone.ground.files import sha256
from inkstone.ground.processes import leads
from inkstone.ground.progress import say
from inkstone.judge.retrieval import Retrieval
from inkstone.recipes.beginning import Beginning, begun_with
from inkstone.recipes.embed_bundle import finish
from inkstone.recipes.embed_recipe import EmbedRecipe
from inkstone.recipes.pairs import evenly
from inkstone.recipes.preflight import (
    check_all,
    cut_findings,
    dropped_findings,
    length_findings,
    parameters_of,
    readable,
    refuse_small_disk,
    shared_findings,
)
from inkstone.recipes.related import RelatedCorpus, read_pairs_of, sides_of
from inkstone.recipes.run import clear, is_begun, kept_recipe, kept_run
from inkstone.text.reader import TextReader
from inkstone.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from inkstone.ground.records import Related
    from inkstone.learn.data.batches import Feed, RelatedExample
    from inkstone.learn.loop import Outcome
    from inkstone.model.config import ModelConfig
    from inkstone.model.transformer import Transformer

MEASURES = ("mrr", "recall_at_1", "recall_at_10")  # of a validation
VALIDATED = 1000  # pairs at most that every validation looks at
DECIDED = ("tokenizer", "vocab_size", "alphabet_share", "size", "family")  # by the base
HEADS = ("pooler.", "prediction_head.", "classifier.", "output")  # of a base, which vectors do not need


@dataclass(frozen=True, slots=True)
class Base:
    """The encoder that a run begins with."""

    name: str
    path: Path
    model: Transformer
    reader: TextReader
    digest: str


def train_encoder(recipe: EmbedRecipe, out: Path) -> dict[str, Any]:
    """Run the recipe into the bundle `out`, or go on where a killed run stopped; what `inkstone train` prints.

    Raises InkstoneError subclasses for data, options and places that cannot be used, and `Interrupted` on Ctrl-C.
    """
    require("torch", "training", "train")
    base = check_beforehand(recipe, out, Collected(recipe.name.strip() or "recipe"))
    with kept_run("embed", recipe, out, dry=recipe.training.preflight == "only") as run:
        return _train(recipe, base, out, run)


def check_beforehand(recipe: EmbedRecipe, out: Path, found: Collected) -> Base | None:
    """Say what cannot be before anything is trained: all of it, with what was found before. Raises InkstoneError.

    Gives the base, which had to be opened for that.
    """
    from inkstone.learn.watch import require_watchers

    bases: list[Base | None] = []

    def base() -> None:
        bases.append(opened_base(recipe))
        check(recipe, bases[0])

    def disk() -> None:
        for one in bases:
            size = parameters_of(configuration(recipe, one, recipe.vocab_size))
            refuse_small_disk(out, size, recipe.training.preflight, moments=recipe.lora is None)

    check_all(
        found,
        recipe,
        base,
        lambda: require_watchers(recipe.training.watch),
        disk,
        read=lambda: read_pairs_of(replace(readable(recipe), hard_negatives=0)),
    )
    return bases[0]


def findings(corpus: RelatedCorpus) -> list[str]:
    """What is worth knowing of the data before a model learns from it."""
    tests = [pair for pairs in corpus.tests.values() for pair in pairs]
    return [
        *dropped_findings(corpus.dropped, len(corpus.train), "pairs"),
        *length_findings(corpus.train, "pairs"),
        *shared_findings(corpus.valid, tests, "pairs"),
    ]


def _train(recipe: EmbedRecipe, base: Base | None, out: Path, run: Path) -> dict[str, Any]:
    from inkstone.learn.data.shares import steps_of

    learnt = learn(recipe, base, run)
    if not leads():
        return {}  # of several processes, one writes and judges
    per_epoch = steps_of(len(learnt.feed.epoch(0)), recipe.training.accumulate)
    result = finish(
        recipe,
        out,
        learnt.corpus,
        learnt.reader,
        learnt.begun,
        learnt.outcome,
        per_epoch,
        learnt.foreseen,
    )
    clear(run)
    return result


class Learnt(NamedTuple):
    """A trained encoder, and what it was trained with."""

    corpus: RelatedCorpus
    reader: TextReader
    begun: Beginning
    feed: Feed
    outcome: Outcome
    foreseen: dict[str, Any]


def learn(recipe: EmbedRecipe, base: Base | None, run: Path) -> Learnt:
    """The first half of `train_encoder`, up to the best weights. State is kept in the folder `run`."""
    from inkstone.learn.data.batches import Plan, Planned
    from inkstone.learn.data.related import related_batch
    from inkstone.learn.loop import train_on
    from inkstone.learn.objectives.contrastive import contrasted
    from inkstone.learn.preflight import preflight

    corpus = read_pairs_of(recipe)
    reader = _reader(recipe, base, corpus, run)
    beginning = begin(recipe, base, reader)
    model = beginning.model
    most = longest(recipe, model.config)
    examples, cut = encode(reader, corpus.train, most)
    say(f"{len(examples):,} pairs, {len(corpus.valid):,} for validation, vocabulary {reader.vocab_size:,}")
    total = sum(2 + len(pair.negatives) for pair in corpus.train)
    found = [*findings(corpus), *cut_findings(cut, total, "texts", most)]
    training = recipe.training
    plan = Plan(
        examples,
        tokens_per_batch=training.tokens_per_batch,
        seed=training.seed,
        rows=recipe.pairs_per_batch,
    )
    feed = Planned(plan, examples, partial(related_batch, pad_id=model.config.pad_id))
    objective, validate = contrasted(recipe.objective), validation(corpus.valid, reader)
    with beginning.learning():
        foreseen = preflight(model, objective, feed, validate, training, run, found)
        outcome = train_on(
            model,
            objective,
            feed,
            validate,
            training,
            run,
            fingerprint=_fingerprint(recipe, examples, base),
            title=recipe.name,
        )
    return Learnt(corpus, reader, beginning, feed, outcome, foreseen)


def _reader(recipe: EmbedRecipe, base: Base | None, corpus: RelatedCorpus, run: Path) -> TextReader:
    """The base's, that of the run that goes on, or a new one; left-overs of a finished run do not count."""
    if base is not None:
        return base.reader
    file = run / "tokenizer.json"
    if file.exists() and is_begun(run):
        return TextReader.load(run)
    tokenizer = Tokenizer.train(
        sides_of(corpus.train),
        kind=recipe.tokenizer,
        vocab_size=recipe.vocab_size,
        alphabet_share=recipe.alphabet_share,
    )
    tokenizer.save(file)
    return TextReader(tokenizer)


def opened_base(recipe: EmbedRecipe) -> Base | None:
    """The encoder that the recipe names, if any. Raises BundleError for what is none."""
    if recipe.base is None:
        return None
    from inkstone.generate.sentence_encoder import minilm_folder
    from inkstone.model.bundle import open_bundle
    from inkstone.model.checkpoint import load_model
    from inkstone.model.families.folder import is_foreign
    from inkstone.model.transformer import Transformer

    folder, name = minilm_folder() if recipe.base == "minilm" else Path(recipe.base), Path(recipe.base).name
    if not is_foreign(folder):
        bundle = open_bundle(recipe.base)
        folder, name = bundle.path, bundle.name
    model = load_model(folder) if (folder / "config.json").exists() else None
    if not isinstance(model, Transformer) or model.config.shape != "encoder":
        raise BundleError(
            f"{recipe.base} is no encoder. Give a model of `inkstone pretrain --objective masked` or `inkstone train "
            'embed`, a BERT that `inkstone pull` brought, or "minilm".'
        )
    digest = sha256(folder / "model.safetensors")
    return Base(name, folder, model, TextReader.load(folder), digest)


def configuration(recipe: EmbedRecipe, base: Base | None, vocab_size: int) -> ModelConfig:
    """The configuration of the model that will learn; it reads as many tokens at once as it learns from."""
    from inkstone.model.config import preset
    from inkstone.model.presets import in_family

    if base is not None:
        plain: dict[str, Any] = {"num_labels": 0, "pooler": False, "prediction_head": False}
        return replace(base.model.config, pooling="mean", output_bias=False, **plain, **recipe.model)
    overlay = {"max_positions": recipe.max_length, **recipe.model}
    found: ModelConfig = in_family(preset(recipe.size, vocab_size, "encoder", overlay), recipe.family)
    return found


def longest(recipe: EmbedRecipe, config: ModelConfig) -> int:
    """Tokens of a text that are learnt from."""
    return min(recipe.max_length, config.position_limit or recipe.max_length)


def begin(recipe: EmbedRecipe, base: Base | None, reader: TextReader) -> Beginning:
    """The model as it is before the first step; drawn numbers come from the recipe's seed."""
    import torch

    from inkstone.model.transformer import Transformer

    config = configuration(recipe, base, reader.vocab_size)
    generator = torch.Generator().manual_seed(recipe.training.seed)
    model = Transformer(config, generator)
    if base is None:
        return Beginning(model)
    weights = base.model.state_dict()
    model.load_state_dict({name: one for name, one in weights.items() if not name.startswith(HEADS)})
    return begun_with(model, base, recipe.lora, generator)


def encode(reader: TextReader, pairs: Sequence[Related], longest: int) -> tuple[list[RelatedExample], int]:
    """Pairs as examples, and how many of their texts were cut."""
    from inkstone.learn.data.batches import RelatedExample

    sources, first = reader.cut([pair.source for pair in pairs], longest)
    targets, second = reader.cut([pair.target for pair in pairs], longest)
    given, third = reader.cut([text for pair in pairs for text in pair.negatives], longest)
    rows = iter(given)
    examples = [
        RelatedExample(source, target, tuple(next(rows) for _ in pair.negatives))
        for source, target, pair in zip(sources, targets, pairs, strict=True)
    ]
    return examples, first + second + third


def check(recipe: EmbedRecipe, base: Base | None = None) -> None:
    """Say what cannot be before anything is read, not after hours of training. Raises ConfigError."""
    make_rules(recipe.cleaning, recipe.rules)
    problems = [] if recipe.name.strip() else ["name is empty: give the model a name"]
    if base is not None:
        defaults = {name: one.default for name, one in EmbedRecipe.__dataclass_fields__.items()}
        given = [
            f"{name}={getattr(recipe, name)}" for name in DECIDED if getattr(recipe, name) != defaults[name]
        ]
        given += [f"model.{name}={value}" for name, value in recipe.model.items() if name != "dropout"]
        problems += [f"{one}: the base decides that; leave it out, or train without --base" for one in given]
    elif recipe.lora is not None:
        problems.append("lora is an adapter beside weights that are there: give --base MODEL too")
    if recipe.max_length < 3:
        problems.append(f"max_length={recipe.max_length} leaves no room for a word: give 3 or more")
    if not 0 <= recipe.hard_negatives <= 64:
        problems.append(f"hard_negatives={recipe.hard_negatives} must be between 0 and 64")
    if recipe.pairs_per_batch < 2:
        problems.append(
            f"pairs_per_batch={recipe.pairs_per_batch} leaves nothing to tell apart: give 2 or more"
        )
    if recipe.training.metric not in MEASURES:
        problems.append(not_known("training.metric", recipe.training.metric, MEASURES))
    raise_all(ConfigError, "recipe", problems)
    config = configuration(recipe, base, recipe.vocab_size)
    wide = [size for size in recipe.objective.dimensions if size >= config.hidden_size]
    if wide:
        problems.append(
            f"objective.dimensions={wide} must be below the width of the model, {config.hidden_size}"
        )
    if config.shape != "encoder" or config.pooling != "mean" or config.num_labels or config.pooler:
        problems.append("model: an encoder of sentences has pooling=mean, no labels and no pooler")
    raise_all(ConfigError, "recipe", problems)


def validation(pairs: Sequence[Related], reader: TextReader) -> Any:
    """A function that measures how well a model finds the targets of these pairs among each other."""
    import torch

    from inkstone.generate.sentence_encoder import FolderEncoder, Reading, torch_states

    looked_at = Retrieval.of(evenly(pairs, VALIDATED))

    def validate(model: torch.nn.Module) -> dict[str, float]:
        model.eval()
        reading = Reading("mean", model.config.position_limit)  # type: ignore[arg-type, union-attr]
        encoder = FolderEncoder("validation", reader, reading, torch_states(model))
        scores_QN = encoder.encode(looked_at.queries) @ encoder.encode(looked_at.candidates).T
        return {name: tally.value for name, tally in looked_at.tallies(scores_QN).items()}

    return validate


def _fingerprint(recipe: EmbedRecipe, examples: Sequence[RelatedExample], base: Base | None) -> str:
    """Of everything that decides the weights: the pairs as ids, the model, the objective, the training options."""
    decides = (
        recipe.size,
        recipe.model,
        recipe.family,
        recipe.objective,
        recipe.pairs_per_batch,
        recipe.training,
        base and base.digest,
        *([recipe.lora] if recipe.lora else []),
    )
    digest = hashlib.sha256(repr(decides).encode())
    for example in examples:
        digest.update(repr((example.source, example.target, example.negatives)).encode())
    return digest.hexdigest()


def load_recipe(run: Path) -> tuple[EmbedRecipe, Path]:
    """The recipe and the output of an unfinished run."""
    return kept_recipe(run, EmbedRecipe)
