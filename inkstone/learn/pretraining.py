"""What each objective of pre-training makes of documents: the kind of model, special tokens, batches.

    causal    a decoder       each token from those before it
    masked    an encoder      hidden tokens from all around them
    span      both            hidden spans, one after another, from the text with gaps

A `Course` is that table's row. Documents come as token ids without marks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from inkstone.learn.cluster import in_blocks
from inkstone.learn.data.batches import Batch, Feed, Varied
from inkstone.learn.data.corruption import (
    MASK,
    Gaps,
    Masking,
    masked_parts,
    sentinels_for,
)
from inkstone.learn.data.documents import PackedFeed, causal_batch, pack, parts
from inkstone.learn.objectives import OBJECTIVES
from inkstone.learn.objectives.loss import Objective
from inkstone.model.config import Shape
from inkstone.model.padding import Ids
from inkstone.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class CourseOptions:
    """What is asked of any objective. block: tokens a model reads at once. The others: see `learn.data.corruption`."""

    block: int = 256
    hidden_share: float = 0.15
    span_length: float = 3.0
    whole_words: bool = True


@dataclass(frozen=True, slots=True)
class Course:
    """How one objective is trained. overlay: fields of the model's configuration.

    specials: the special tokens it needs. feed: of (texts, tokenizer, options, tokens_per_batch, seed). fixed: the same
    texts as batches that are always the same, for measuring.
    """

    objective: Objective
    shape: Shape
    feed: Callable[[Sequence[str], Tokenizer, CourseOptions, int, int], Feed]
    fixed: Callable[[Sequence[str], Tokenizer, CourseOptions, int], Iterator[Batch]]
    specials: Callable[[CourseOptions], tuple[str, ...]] = lambda options: ()
    overlay: Mapping[str, Any] = field(default_factory=dict)


def marked(tokenizer: Tokenizer, texts: Sequence[str]) -> list[Ids]:
    """Texts as a decoder reads them: between the marks of beginning and end."""
    return [[tokenizer.bos_id, *ids, tokenizer.eos_id] for ids in tokenizer.encode_batch(texts)]


def _causal_feed(
    texts: Sequence[str], tokenizer: Tokenizer, options: CourseOptions, tokens_per_batch: int, seed: int
) -> Feed:
    ids = in_blocks(tokenizer.encode_batch, texts)
    return PackedFeed(
        [[tokenizer.bos_id, *row, tokenizer.eos_id] for row in ids],
        block=options.block,
        tokens_per_batch=tokens_per_batch,
        seed=seed,
        pad_id=tokenizer.pad_id,
    )


def _causal_fixed(
    texts: Sequence[str], tokenizer: Tokenizer, options: CourseOptions, tokens_per_batch: int
) -> Iterator[Batch]:
    found = [part for ids in marked(tokenizer, texts) for part in parts(ids, options.block)]
    rows = pack([len(part) - 1 for part in found], options.block)
    count = max(1, tokens_per_batch // options.block)
    for start in range(0, len(rows), count):
        yield causal_batch([[found[n] for n in row] for row in rows[start : start + count]], tokenizer.pad_id)


def _masked_feed(
    texts: Sequence[str], tokenizer: Tokenizer, options: CourseOptions, tokens_per_batch: int, seed: int
) -> Varied:
    examples = masked_parts(tokenizer, texts, options.block, options.whole_words)
    hide = Masking.of(tokenizer, options.hidden_share)
    return Varied(examples, hide, tokens_per_batch=tokens_per_batch, seed=seed)


def _span_feed(
    texts: Sequence[str], tokenizer: Tokenizer, options: CourseOptions, tokens_per_batch: int, seed: int
) -> Varied:
    hide = Gaps.of(tokenizer, options.block, options.hidden_share, options.span_length)
    examples = hide.parts(tokenizer.encode_batch(texts), options.block)
    return Varied(examples, hide, tokens_per_batch=tokens_per_batch, seed=seed)


COURSES: dict[str, Course] = {
    "causal": Course(OBJECTIVES["causal"], "decoder", _causal_feed, _causal_fixed),
    "masked": Course(
        OBJECTIVES["masked"],
        "encoder",
        _masked_feed,
        lambda texts, tokenizer, options, tokens: _masked_feed(texts, tokenizer, options, tokens, 0).fixed(),
        lambda options: (MASK,),
        {"prediction_head": True, "output_bias": True},
    ),
    "span": Course(
        OBJECTIVES["span"],
        "encoder-decoder",
        _span_feed,
        lambda texts, tokenizer, options, tokens: _span_feed(texts, tokenizer, options, tokens, 0).fixed(),
        lambda options: sentinels_for(options.block, options.hidden_share, options.span_length),
    ),
}
