"""Conversations as rows of tokens of which only what the assistant said is asked for.

    tokens   <|im_start|> user ⏎ Hello <|im_end|> ⏎ <|im_start|> assistant ⏎ Good day <|im_end|> ⏎
    said                                                                     1    1   1
    read     all but the last        asked for     the tokens said, each from those before it

Several conversations share a row as documents do (`learn.data.documents`), and do not see each other. One that is longer
than a row is read to the row's end; where the assistant has said nothing by then, it is left out. Both are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from inkstone.ground.errors import TrainingError
from inkstone.learn.data.batches import Batch, TokenBatch
from inkstone.learn.data.documents import POOL, pack
from inkstone.model.padding import Ids, pad


@dataclass(frozen=True, slots=True)
class ChatExample:
    """A conversation as token ids; said[i]: whether the assistant said token i."""

    ids: Ids
    said: Sequence[bool]


def fitting(examples: Sequence[ChatExample], block: int) -> tuple[list[ChatExample], int, int]:
    """Those that can be learnt from in rows of `block` tokens; how many of these were cut, and how many left out."""
    kept: list[ChatExample] = []
    cut = 0
    for one in examples:
        short = ChatExample(one.ids[: block + 1], one.said[: block + 1])
        if any(short.said[1:]):
            kept.append(short)
            cut += len(one.ids) > block + 1
    return kept, cut, len(examples) - len(kept)


def conversation_batch(rows: Sequence[Sequence[ChatExample]], pad_id: int) -> TokenBatch:
    """Rows of conversations as one batch: each is read without its last token; asked for is what was said."""
    ids_BT = pad([np.concatenate([one.ids[:-1] for one in row]) for row in rows], pad_id)  # type: ignore[misc]
    segments = [np.repeat(np.arange(1, len(row) + 1), [len(one.ids) - 1 for one in row]) for row in rows]
    width = ids_BT.shape[1]
    said = [np.concatenate([np.asarray(one.said[1:], bool) for one in row]) for row in rows]
    counted = [np.flatnonzero(flags) + number * width for number, flags in enumerate(said)]
    following = [np.concatenate([np.asarray(one.ids[1:], np.int64) for one in row]) for row in rows]
    wanted = [ids[flags] for ids, flags in zip(following, said, strict=True)]
    alone = all(len(row) == 1 for row in rows)
    return TokenBatch(
        ids_BT,
        None if alone else pad(segments, 0),  # type: ignore[arg-type]
        torch.from_numpy(np.concatenate(counted)),
        torch.from_numpy(np.concatenate(wanted)),
        tokens=sum(map(len, segments)),
    )


class ConversationFeed:
    """Conversations in rows of `block` tokens: the batches of each epoch are packed anew."""

    def __init__(
        self, examples: Sequence[ChatExample], *, block: int, tokens_per_batch: int, seed: int, pad_id: int
    ) -> None:
        if not examples:
            raise TrainingError("there is nothing to train on: no conversation is left.")
        if tokens_per_batch < block:
            raise TrainingError(
                f"a row has {block} tokens, but a batch may hold {tokens_per_batch}. "
                "Raise tokens_per_batch or lower block."
            )
        self.examples, self.block, self.rows = examples, block, tokens_per_batch // block
        self.lengths = np.array([len(one.ids) - 1 for one in examples], np.int64)
        self.seed, self.pad_id = seed, pad_id

    def epoch(self, number: int) -> Sequence[Callable[[], Batch]]:
        """See `Feed`."""
        random = np.random.default_rng((self.seed, number))
        order = random.permutation(len(self.lengths))
        rows: list[list[int]] = []
        for start in range(0, len(order), POOL):
            pool = order[start : start + POOL]
            rows += [[int(pool[place]) for place in row] for row in pack(self.lengths[pool], self.block)]
        return self._batches([rows[place] for place in random.permutation(len(rows))])

    def fixed(self) -> Sequence[Callable[[], Batch]]:
        """The same conversations as batches that are always the same, for measuring."""
        return self._batches(pack(self.lengths, self.block))

    def _batches(self, rows: Sequence[Sequence[int]]) -> Sequence[Callable[[], Batch]]:
        return [
            partial(self._batch, rows[start : start + self.rows]) for start in range(0, len(rows), self.rows)
        ]

    def _batch(self, rows: Sequence[Sequence[int]]) -> Batch:
        return conversation_batch([[self.examples[n] for n in row] for row in rows], self.pad_id)
