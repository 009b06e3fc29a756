"""Learn to turn one text into another: the part of a run that translators and summarisers share.

    read and clean -> split -> tokenizer -> examples -> model -> train

A summary is a pair whose sides are in one language; the tag that tells a translator of several directions where to go
tells a summariser of several languages which it writes. The model is a new one or an existing one that learns on, whole
or through an adapter (`recipes.beginning`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from inkstone.corpus.rules import make_rules
from inkstone.generate.engine import GenerationOptions
from inkstone.ground.errors import Collected, ConfigError, DataError, not_known, raise_all, require
from inkstone.ground.processes import leads
from inkstone.ground.progress import say
from inkstone.ground.records import Pair
from inkstone.metrics.statistics import Tally, divide
from inkstone.model.bundle import Bundle
from inkstone.recipes.beginning import (
    Beginning,
    begin,
    configuration,
    opened_base,
    refuse_directions,
    settled,
)
from inkstone.recipes.pairs import Corpus, Direction, as_words, both, encode, read_corpus, spread
from inkstone.recipes.preflight import (
    check_all,
    dropped_findings,
    language_findings,
    length_findings,
    parameters_of,
    readable,
    refuse_small_disk,
    shared_findings,
)
from inkstone.recipes.run import clear, is_begun, kept_run
from inkstone.recipes.sequence_recipe import SequenceRecipe
from inkstone.text.bpe_dropout import MERGED, BpeDropout
from inkstone.text.template import tags_for
from inkstone.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from inkstone.learn.data.batches import Feed
    from inkstone.learn.loop import Outcome

VALIDATED = 1000  # pairs at most that every validation looks at


def train(recipe: SequenceRecipe, out: Path, finish: Callable[[Learnt], dict[str, Any]]) -> dict[str, Any]:
    """Run the recipe, or go on where a killed run stopped, and finish what was learnt; what `inkstone train` prints."""
    require("torch", "training", "train")
    check(recipe, out, Collected(recipe.name.strip() or "recipe"))
    with kept_run(recipe.task, recipe, out, dry=recipe.training.preflight == "only") as run:
        learnt = learn(recipe, run)
        if not leads():
            return {}  # of several processes, one writes and judges
        result = finish(learnt)
        clear(run)
        return result


class Learnt(NamedTuple):
    """A trained model, and what it was trained with."""

    recipe: SequenceRecipe  # settled by what it began with
    corpus: Corpus
    directions: list[Direction]
    tokenizer: Tokenizer
    begun: Beginning
    examples: Sequence[Any]
    feed: Feed
    outcome: Outcome
    foreseen: dict[str, Any]


def learn(recipe: SequenceRecipe, run: Path) -> Learnt:
    """The first half of a run, up to the best weights. State is kept in the folder `run`."""
    from inkstone.learn.data.batches import pair_batch
    from inkstone.learn.loop import train_on
    from inkstone.learn.objectives import OBJECTIVES
    from inkstone.learn.preflight import preflight

    base = opened_base(recipe)
    recipe = settled(recipe, base)
    corpus = read_corpus(recipe)
    directions = _directions(recipe, corpus)
    tokenizer = _tokenizer(recipe, base, corpus, directions, run)
    pairs = both(corpus.train, directions) if recipe.turns else corpus.train
    examples, too_long = encode(tokenizer, pairs, recipe.max_length)
    corpus.dropped["too many tokens"] += too_long
    valid, unread = encode(tokenizer, spread(corpus.valid, directions, VALIDATED), recipe.max_length)
    if not examples or not valid:
        raise DataError(
            f"no pair is left to {'train on' if not examples else 'validate with'} after cleaning."
        )
    said = f" ({unread:,} more are longer than max_length)" if unread else ""
    say(
        f"{len(examples):,} examples, {len(valid):,} for validation{said}, vocabulary {tokenizer.vocab_size:,}"
    )

    tokenizer.save(run / "tokenizer.json")
    begun = begin(recipe, base, tokenizer)
    config = begun.model.config

    def collate(rows: Sequence[Any]) -> Any:
        return pair_batch(rows, pad_id=config.pad_id, bos_id=config.bos_id, eos_id=config.eos_id)

    training = recipe.training
    feed = _feed(recipe, tokenizer, pairs, examples, collate)
    objective = OBJECTIVES["sequence-to-sequence"]
    validate = validation(valid, collate, training.tokens_per_batch)
    with begun.learning():
        foreseen = preflight(begun.model, objective, feed, validate, training, run, findings(corpus))
        outcome = train_on(
            begun.model,
            objective,
            feed,
            validate,
            training,
            run,
            fingerprint=_fingerprint(recipe, examples, begun.digest),
            title=recipe.name,
        )
    return Learnt(recipe, corpus, directions, tokenizer, begun, examples, feed, outcome, foreseen)


def _feed(
    recipe: SequenceRecipe,
    tokenizer: Tokenizer,
    pairs: Sequence[Pair],
    examples: Sequence[Any],
    collate: Any,
) -> Feed:
    """The examples by length; with `bpe_dropout` the same pairs, their words cut otherwise in every epoch."""
    from inkstone.learn.data.batches import Plan, Planned, Varied
    from inkstone.learn.data.recut import Cuts, Recut

    tokens, seed = recipe.training.tokens_per_batch, recipe.training.seed
    if not recipe.bpe_dropout:
        return Planned(Plan(examples, tokens_per_batch=tokens, seed=seed), examples, collate)
    cuts = Cuts(tokenizer, recipe.bpe_dropout, seed)
    words = as_words(cuts, tokenizer, pairs, recipe.max_length)
    return Varied(words, Recut(cuts.table(), recipe.max_length, collate), tokens_per_batch=tokens, seed=seed)


def _directions(recipe: SequenceRecipe, corpus: Corpus) -> list[Direction]:
    """Those of the data, and the way back of each where pairs are read backwards too."""
    ways = [corpus.directions, [(target, source) for source, target in corpus.directions]]
    found = list(dict.fromkeys(way for pair in zip(*ways, strict=True) for way in pair))
    return found if recipe.turns else corpus.directions


def _tokenizer(
    recipe: SequenceRecipe,
    base: Bundle | None,
    corpus: Corpus,
    directions: Sequence[Direction],
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


def check(recipe: SequenceRecipe, out: Path, found: Collected) -> None:
    """Say what cannot be before anything is trained: all of it, with what was found before. Raises InkstoneError."""
    from inkstone.learn.watch import require_watchers

    check_all(
        found,
        recipe,
        lambda: _check_options(recipe),
        lambda: require_watchers(recipe.training.watch),
        lambda: GenerationOptions(beam_size=recipe.beam_size),
        lambda: make_rules(recipe.cleaning, recipe.rules),
        lambda: _check_model(recipe),
        lambda: _check_disk(recipe, out),
        read=lambda: read_corpus(readable(recipe)),
    )


def _check_options(recipe: SequenceRecipe) -> None:
    problems = [] if recipe.name.strip() else ["name is empty. Give the model a name."]
    if not 0 <= recipe.bpe_dropout < 1:
        problems.append(f"bpe_dropout={recipe.bpe_dropout} must be at least 0 and below 1.")
    if recipe.bpe_dropout and recipe.tokenizer not in MERGED:
        problems.append(not_known("tokenizer for bpe_dropout", recipe.tokenizer, MERGED))
    if recipe.max_length < 2:
        problems.append(f"max_length={recipe.max_length} leaves no room for a word. Give 2 or more.")
    raise_all(ConfigError, "recipe", problems)


def _check_model(recipe: SequenceRecipe) -> None:
    base = opened_base(recipe)
    if recipe.bpe_dropout and base is not None:
        BpeDropout(Tokenizer.load(base.path))
    config = configuration(recipe, base, recipe.vocab_size)
    if recipe.max_length > config.max_positions:
        raise ConfigError(
            f"max_length={recipe.max_length} is more than the model's max_positions={config.max_positions}."
        )


def _check_disk(recipe: SequenceRecipe, out: Path) -> None:
    config = configuration(recipe, opened_base(recipe), recipe.vocab_size)
    refuse_small_disk(out, parameters_of(config), recipe.training.preflight, moments=recipe.lora is None)


def findings(corpus: Corpus) -> list[str]:
    """What is worth knowing of the data before a model learns from it."""
    tests = [pair for pairs in corpus.tests.values() for pair in pairs]
    return [
        *dropped_findings(corpus.dropped, len(corpus.train), "pairs"),
        *length_findings(corpus.train, "pairs"),
        *language_findings(corpus.train),
        *(found for name, pairs in corpus.tests.items() for found in language_findings(pairs, f'"{name}"')),
        *shared_findings(corpus.valid, tests, "pairs"),
    ]


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


def foreseen(learnt: Learnt, examples: Sequence[Any]) -> dict[str, Tally]:
    """How well the trained model foresees each token of these examples from the right ones before it.

    token_loss in nats, and token_accuracy, both over all tokens, end marks included.
    """
    import torch
    import torch.nn.functional as F

    from inkstone.learn.data.batches import PairBatch, pair_batch, to_device
    from inkstone.learn.objectives.sequence_to_sequence import target_product

    model = learnt.begun.learnt().eval()
    device, config = next(model.parameters()).device, model.config
    rows = []
    with torch.no_grad():
        for example in examples:
            row = pair_batch([example], pad_id=config.pad_id, bos_id=config.bos_id, eos_id=config.eos_id)
            batch = cast(PairBatch, to_device(row, device))
            states_ND, weight_VD = target_product(model, batch)
            scores_NV = (states_ND @ weight_VD.T).float()
            nats = float(F.cross_entropy(scores_NV, batch.wanted_N, reduction="sum"))
            right = int((scores_NV.argmax(-1) == batch.wanted_N).sum())
            rows.append((nats, right, len(batch.wanted_N)))
    sums = np.array(rows, dtype=np.float64)
    return {
        "token_loss": Tally(
            sums[:, [0, 2]], _share, "nats a token, teacher forced, no smoothing", falling=True
        ),
        "token_accuracy": Tally(sums[:, [1, 2]], _share, "greedy, teacher forced"),
    }


def _share(sums_RK: Any) -> Any:
    return divide(sums_RK[:, 0], sums_RK[:, 1])


def _fingerprint(recipe: SequenceRecipe, examples: Sequence[Any], begun: str) -> str:
    """Of everything that decides the weights: the data as ids, the model, what it began with, the training options."""
    digest = hashlib.sha256(repr((recipe.architecture, recipe.size, recipe.model, recipe.training)).encode())
    digest.update(f"{begun}{recipe.family or ''}{recipe.bpe_dropout or ''}".encode())
    for example in examples:
        digest.update(repr((example.source, example.target)).encode())
    return digest.hexdigest()
