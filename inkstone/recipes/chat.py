"""Teach a language model to answer: from conversations to a bundle with its report card. Read it top to bottom.

    base ─ opened, with a chat template ─ conversations, rendered and encoded ─ held out ─ rows of what the assistant said
    -> train, all weights or an adapter -> checkpoint -> served engine, proved equal -> judge beside the base -> bundle

The base is a causal model of `inkstone pretrain` or a decoder that `inkstone pull` brought. Its own chat template is
kept; one without any gets the house's (`text.template`), in the form of ChatML, and its two marks as new special tokens,
of which `<|im_end|>` ends what it writes. What is asked for is what the assistant said, its end mark included, and
nothing else. While it runs, everything lives in `<out>.run/`; killed at any moment, it goes on with `inkstone train
resume`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from inkstone.ground.errors import BundleError, Collected, ConfigError, raise_all, require
from inkstone.ground.files import sha256
from inkstone.ground.processes import leads
from inkstone.ground.progress import say
from inkstone.recipes.chat_bundle import finish
from inkstone.recipes.chat_recipe import ADAPTER, ChatRecipe
from inkstone.recipes.preflight import (
    check_all,
    cut_findings,
    dropped_findings,
    parameters_of,
    refuse_small_disk,
)
from inkstone.recipes.run import clear, kept_recipe, kept_run
from inkstone.recipes.talks import as_they_came, read_talks, replies_of
from inkstone.text.foreign_tokenizer import ForeignTokenizer
from inkstone.text.template import CHATML, DEFAULT_CHAT_TEMPLATE
from inkstone.text.tokenizer import BOS, Tokenizer

if TYPE_CHECKING:
    from inkstone.learn.data.batches import Feed
    from inkstone.learn.data.conversations import ChatExample
    from inkstone.learn.loop import Outcome
    from inkstone.model.lora import Adapters
    from inkstone.model.transformer import Transformer
    from inkstone.recipes.talks import Talks


@dataclass(frozen=True, slots=True)
class Taught:
    """A model that can be taught to answer, and how it reads conversations. new: its tokens that were added for that."""

    model: Transformer
    tokenizer: ForeignTokenizer
    folder: Path
    digest: str
    new: int
    languages: tuple[str, ...] = ()


def train_chat(recipe: ChatRecipe, out: Path) -> dict[str, Any]:
    """Run the recipe into the bundle `out`, or go on where a killed run stopped; what `inkstone train` prints.

    Raises InkstoneError subclasses for data, options and places that cannot be used, and `Interrupted` on Ctrl-C.
    """
    require("torch", "training", "train")
    taught = check_beforehand(recipe, out, Collected(recipe.name.strip() or "recipe"))
    with kept_run("chat", recipe, out, dry=recipe.training.preflight == "only") as run:
        return _train(recipe, taught, out, run)


def check_beforehand(recipe: ChatRecipe, out: Path, found: Collected) -> Taught:
    """Say what cannot be before anything is trained: all of it, with what was found before. Raises InkstoneError.

    Gives the base, which had to be opened for that.
    """
    from inkstone.learn.watch import require_watchers

    bases: list[Taught] = []

    def base() -> None:
        bases.append(opened(recipe))
        check(recipe, bases[0])

    def disk() -> None:
        for one in bases:
            size, whole = parameters_of(one.model.config), recipe.lora is None
            refuse_small_disk(out, size, recipe.training.preflight, moments=whole)

    check_all(
        found,
        recipe,
        lambda: check_options(recipe),
        base,
        lambda: require_watchers(recipe.training.watch),
        disk,
        read=lambda: as_they_came(recipe),
    )
    return bases[0]


def findings(talks: Talks, block: int) -> list[str]:
    """What is worth knowing of the data before a model learns from it."""
    dropped = Counter(talks.dropped)
    shared = f"test overlap: {talks.shared:,} of {len(talks.test):,} test conversations stand in the validation data too"
    return [
        *dropped_findings(dropped, len(talks.train), "conversations"),
        *cut_findings(talks.cut, len(talks.train), "conversations", block),
        *([shared] if talks.shared else []),
    ]


def _train(recipe: ChatRecipe, taught: Taught, out: Path, run: Path) -> dict[str, Any]:
    from inkstone.learn.data.shares import steps_of

    talks = read_talks(recipe, taught.tokenizer)
    before = replies_of(taught.model, talks.test)
    learnt = learn(recipe, taught, talks, run)
    if not leads():
        return {}  # of several processes, one writes and judges
    adapters = learnt.adapters
    model = taught.model if adapters is None else adapters.merged(ADAPTER)
    per_epoch = steps_of(len(learnt.feed.epoch(0)), recipe.training.accumulate)
    result = finish(
        recipe,
        out,
        talks,
        taught,
        model.cpu(),
        adapters,
        before,
        learnt.outcome,
        per_epoch,
        learnt.foreseen,
    )
    clear(run)
    return result


class Learnt(NamedTuple):
    """How the teaching went; what was taught is the model that was handed in, and its adapter."""

    adapters: Adapters | None
    feed: Feed
    outcome: Outcome
    foreseen: dict[str, Any]


def learn(recipe: ChatRecipe, taught: Taught, talks: Talks, run: Path) -> Learnt:
    """The middle of `train_chat`, up to the best weights. State is kept in the folder `run`."""
    from inkstone.learn.data.conversations import ConversationFeed
    from inkstone.learn.loop import train_on
    from inkstone.learn.objectives import causal
    from inkstone.learn.preflight import preflight

    training = recipe.training
    say(f"{len(talks.train):,} conversations, {len(talks.valid):,} for validation")

    def feed_of(examples: Sequence[ChatExample]) -> ConversationFeed:
        return ConversationFeed(
            examples,
            block=recipe.block,
            tokens_per_batch=training.tokens_per_batch,
            seed=training.seed,
            pad_id=taught.model.config.pad_id,
        )

    feed, validate = feed_of(talks.train), validation(feed_of(talks.valid))
    with learning(recipe, taught) as adapters:
        found = findings(talks, recipe.block)
        foreseen = preflight(taught.model, causal, feed, validate, training, run, found)
        outcome = train_on(
            taught.model,
            causal,
            feed,
            validate,
            training,
            run,
            fingerprint=_fingerprint(recipe, taught, talks.train),
            title=recipe.name,
        )
    return Learnt(adapters, feed, outcome, foreseen)


def opened(recipe: ChatRecipe) -> Taught:
    """The base, with a chat template. Raises BundleError for what is no decoder, or has no tokenizer."""
    from inkstone.model.bundle import open_bundle
    from inkstone.model.checkpoint import load_model
    from inkstone.model.families.folder import is_foreign
    from inkstone.model.resizing import with_tokens
    from inkstone.model.transformer import Transformer

    folder, languages = Path(recipe.base), ()
    if not is_foreign(folder):
        bundle = open_bundle(recipe.base, task="language-model")
        folder, languages = bundle.path, bundle.languages  # type: ignore[assignment]
    model = load_model(folder)
    if not isinstance(model, Transformer) or model.config.shape != "decoder":
        raise BundleError(
            f"{recipe.base} is no decoder: it cannot go on with a text. Give a model of `inkstone pretrain` (causal) or "
            "a decoder that `inkstone pull` brought."
        )
    tokenizer = foreign_tokenizer(folder)
    known = tokenizer.vocab_size
    if not tokenizer.chat_templates:
        tokenizer = tokenizer.taught_to_chat(DEFAULT_CHAT_TEMPLATE, CHATML, CHATML[1])
        model = with_tokens(model, tokenizer.vocab_size)
        config = replace(model.config, eos_id=tokenizer.id_of(CHATML[1]))
        model = Transformer.of_weights(config, model.state_dict())
    if recipe.dropout is not None:
        model = Transformer.of_weights(replace(model.config, dropout=recipe.dropout), model.state_dict())
    digest = (
        sha256(folder / "model.safetensors") if (folder / "model.safetensors").exists() else _digest(model)
    )
    return Taught(model, tokenizer, folder, digest, tokenizer.vocab_size - known, languages)


def foreign_tokenizer(folder: Path) -> ForeignTokenizer:
    """The tokenizer of a decoder's folder, ours or another's."""
    if (folder / "tokenizer_config.json").exists() or not (folder / "inkstone.json").exists():
        return ForeignTokenizer.load(folder)
    return ForeignTokenizer.of(Tokenizer.load(folder), before=[BOS])


def _digest(model: Transformer) -> str:
    """Of weights in several files."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.float().numpy().tobytes())
    return digest.hexdigest()


def check_options(recipe: ChatRecipe) -> None:
    """Say what of the recipe cannot be, whatever the base is. Raises ConfigError."""
    problems = [] if recipe.name.strip() else ["name is empty: give the model a name"]
    if recipe.block < 8:
        problems.append(f"block={recipe.block} must be at least 8 tokens")
    if recipe.block > recipe.training.tokens_per_batch:
        problems.append(
            f"block={recipe.block} is more than training.tokens_per_batch={recipe.training.tokens_per_batch}: "
            "a batch must hold a row"
        )
    if recipe.training.metric not in ("loss", "accuracy"):
        problems.append(f"training.metric={recipe.training.metric} is not known. Valid: loss, accuracy")
    raise_all(ConfigError, "recipe", problems)


def check(recipe: ChatRecipe, taught: Taught) -> None:
    """Say what goes against the base. Raises ConfigError."""
    from inkstone.ship.ctranslate2 import obstacles

    config, problems = taught.model.config, []
    if 0 < config.position_limit < recipe.block:
        problems.append(
            f"block={recipe.block} is more than the base's max_positions={config.max_positions}: lower it"
        )
    problems += [f"the base cannot be served: {one}" for one in obstacles(config)]
    raise_all(ConfigError, "recipe", problems)


@contextmanager
def learning(recipe: ChatRecipe, taught: Taught) -> Iterator[Adapters | None]:
    """Everything inside goes through the adapter, where one is asked for; else all weights learn.

    Rows of new tokens learn beside the adapter: nobody has taught them before.
    """
    import torch

    from inkstone.model.lora import Adapters

    model = taught.model
    if recipe.lora is None:
        model.requires_grad_(True)
        yield None
        return
    adapters = Adapters(model)
    adapters.add(ADAPTER, recipe.lora, torch.Generator().manual_seed(recipe.training.seed))
    adapters.learn(ADAPTER)
    tables = [model.embedding.weight, *([model.output.weight] if model.output is not None else [])]
    hooks = []
    for table in tables if taught.new else []:
        table.requires_grad_(True)
        new = torch.arange(len(table), device=table.device)[:, None] >= len(table) - taught.new
        hooks.append(table.register_hook(partial(torch.mul, new)))  # type: ignore[no-untyped-call]
    learns = sum(one.numel() for one in model.parameters() if one.requires_grad)
    old = sum((len(table) - taught.new) * table.shape[1] for table in tables) if taught.new else 0
    say(f"{learns - old:,} of {sum(one.numel() for one in model.parameters()):,} parameters learn")
    with adapters.use(ADAPTER):
        yield adapters
    for hook in hooks:
        hook.remove()


def validation(feed: Any) -> Any:
    """A function that measures loss (nats a token said) and token accuracy of a model on these conversations."""
    import torch

    from inkstone.learn.data.batches import to_device
    from inkstone.learn.objectives import causal

    def validate(model: torch.nn.Module) -> dict[str, float]:
        model.eval()
        device = next(model.parameters()).device
        with torch.no_grad():
            losses = [causal(model, to_device(make(), device)) for make in feed.fixed()]
        count = sum(loss.count for loss in losses)
        return {
            "loss": sum(float(loss.mean) * loss.count for loss in losses) / count,
            "accuracy": sum(loss.correct for loss in losses) / count,
        }

    return validate


def _fingerprint(recipe: ChatRecipe, taught: Taught, examples: Sequence[ChatExample]) -> str:
    """Of everything that decides the weights: the base, the conversations, the adapter, the training options."""
    decides = (taught.digest, taught.model.config, recipe.lora, recipe.block, recipe.training)
    digest = hashlib.sha256(repr(decides).encode())
    for one in examples:
        digest.update(repr((list(one.ids), list(one.said))).encode())
    return digest.hexdigest()


def load_recipe(run: Path) -> tuple[ChatRecipe, Path]:
    """The recipe and the output of an unfinished run."""
    return kept_recipe(run, ChatRecipe)
