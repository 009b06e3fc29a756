"""The conversations of instruction tuning: read, held out, rendered by the chat template, encoded; what a model thinks of
their answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from inkstone.corpus.conversations import read_conversations
from inkstone.ground.errors import Collected, DataError, raise_all
from inkstone.ground.progress import say
from inkstone.ground.records import Conversation
from inkstone.text.foreign_tokenizer import ForeignTokenizer
from inkstone.text.template import ChatTemplate, encode_chat

if TYPE_CHECKING:
    from inkstone.learn.data.conversations import ChatExample
    from inkstone.model.transformer import Transformer
    from inkstone.recipes.chat_recipe import ChatRecipe

HELD_OUT_SHARE, MOST = 0.05, 500  # of the conversations, where no validation or test data is given


@dataclass(frozen=True, slots=True)
class Talks:
    """The conversations of a run; test_talks: the test ones as they came."""

    train: list[ChatExample]
    valid: list[ChatExample]
    test: list[ChatExample]
    test_talks: list[Conversation]
    dropped: dict[str, int]
    cut: int = 0  # training conversations of which only the beginning is learnt from
    shared: int = 0  # test conversations that stand in the validation data too


def read_talks(recipe: ChatRecipe, tokenizer: ForeignTokenizer) -> Talks:
    """Read, render, encode, hold out. Raises DataError where nothing is left to train on, or too little to hold out."""
    from inkstone.learn.data.conversations import fitting

    template = ChatTemplate.of(tokenizer)
    train, valid, test, dropped = as_they_came(recipe)
    held = {_key(one) for one in (*valid, *test)}
    seen: set[str] = set()
    kept = []
    for one in train:
        key = _key(one)
        reason = "overlap" if key in held else "duplicate" if key in seen else ""
        seen.add(key)
        if reason:
            dropped[reason] = dropped.get(reason, 0) + 1
        else:
            kept.append(one)
    encoded, cuts = [], {}
    for use, talks in (("train", kept), ("valid", valid), ("test", test)):
        examples, cut, left = fitting(encode(template, tokenizer, talks), recipe.block)
        if cut or left:
            say(
                f"{use}: {cut:,} conversations are longer than {recipe.block} tokens and read so far; {left:,} left out"
            )
        cuts[use] = cut
        if use == "train" and left:
            dropped["nothing said in a row"] = left
        if not examples:
            raise DataError(f"no conversation is left to {use} with. Give other data, or raise block.")
        encoded.append(examples)
    shared = len({_key(one) for one in test} & {_key(one) for one in valid})
    return Talks(encoded[0], encoded[1], encoded[2], test, dropped, cuts["train"], shared)


def as_they_came(
    recipe: ChatRecipe,
) -> tuple[list[Conversation], list[Conversation], list[Conversation], dict[str, int]]:
    """Read and hold out, without a tokenizer: for training, validation and test, and what could not be read.

    Raises every DataError of the three uses at once.
    """
    dropped: dict[str, int] = {}
    found, read = Collected("data"), dict[str, list[Conversation]]()
    for use in ("test", "valid", "data"):
        with found.check():
            read[use] = _read(recipe, getattr(recipe, use), dropped if use == "data" else {})
    found.raise_all()
    return *_split(read["data"], read["valid"], read["test"]), dropped


def encode(
    template: ChatTemplate, tokenizer: ForeignTokenizer, talks: Sequence[Conversation]
) -> list[ChatExample]:
    """Conversations as the model reads them. Raises DataError listing those that the template refuses."""
    from inkstone.learn.data.conversations import ChatExample

    found, problems = [], []
    for talk in talks:
        try:
            one = encode_chat(tokenizer, template.render_with_spans(talk.messages))
        except DataError as error:
            problems.append(f"{talk.origin}: {error}")
            continue
        found.append(ChatExample(one.ids, one.said))
    if len(problems) > 20:
        problems = [*problems[:20], f"and {len(problems) - 20} more"]
    raise_all(DataError, "conversations that the chat template does not take", problems)
    return found


def _read(recipe: ChatRecipe, paths: Sequence[str], dropped: dict[str, int]) -> list[Conversation]:
    if not paths:
        return []
    reading = read_conversations(paths, fields=recipe.fields)
    found = list(reading)
    for source in reading.sources:
        say(source.describe())
    if reading.problem_count:
        dropped["unreadable record"] = reading.problem_count
    return found


def _key(talk: Conversation) -> str:
    return hashlib.sha256(json.dumps(talk.messages, sort_keys=True).encode()).hexdigest()


def _split(
    train: list[Conversation], valid: list[Conversation], test: list[Conversation]
) -> tuple[list[Conversation], list[Conversation], list[Conversation]]:
    """Hold out conversations where none were given: by their hash, so always the same ones."""
    size = min(MOST, max(1, int(len(train) * HELD_OUT_SHARE)))
    wanted = (0 if valid else size) + (0 if test else size)
    if not wanted:
        return train, valid, test
    if len(train) < 2 * wanted + 1:
        raise DataError(
            f"{len(train)} conversations are too few to hold out {wanted} of them. Give --valid and --test, or more."
        )
    ordered = sorted(train, key=_key)
    held, rest = ordered[:wanted], ordered[wanted:]
    if not test:
        test, held = held[:size], held[size:]
    return rest, valid or held, test


def replies_of(model: Transformer, examples: Sequence[ChatExample]) -> NDArray[np.float64]:
    """Of each conversation nats, tokens found and tokens asked for, of what the assistant said: (N, 3)."""
    import torch

    from inkstone.learn.data.conversations import conversation_batch
    from inkstone.learn.objectives import causal

    model.eval()
    rows = []
    for one in examples:
        with torch.no_grad():
            loss = causal(model, conversation_batch([[one]], model.config.pad_id))
        rows.append((float(loss.mean) * loss.count, loss.correct, loss.count))
    return np.array(rows, np.float64)
