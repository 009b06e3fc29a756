"""Documents as blocks of tokens, and the rows that a decoder learns from.

A document longer than a block is cut into consecutive parts, and the last, short one is kept: nothing is lost. Parts
overlap by the one token that the next part begins with, since what is read is not what is asked for:

    document   <s> a b c d e </s>     block 3     parts   <s> a b c | c d e </s>
                                                  read    <s> a b   | c d e
                                                  asked       a b c |   d e </s>

Every token but the first is so asked for exactly once. Where a model is measured, parts overlap by more
(`generate.foresight`).

Packing: the parts of an epoch are shuffled, and in that order each goes into the first row with room for it, longest
first within a pool. A row is as long as a block, so that no batch has more than a few cells of padding, and a batch is
a mixture of long and short texts. That parts in a row do not see each other is the model's affair (`segments`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from inkstone.ground.errors import TrainingError
from inkstone.learn.data.batches import Batch, TokenBatch
from inkstone.model.padding import Ids, pad

POOL = 2048  # parts that are packed together: enough short ones for every gap


def parts(ids: Ids, block: int) -> Iterator[list[int]]:
    """The parts of a document (with its marks): at most block + 1 tokens, the first shared with the part before."""
    for start in range(0, max(1, len(ids) - 1), block):
        yield list(ids[start : start + block + 1])


def pack(lengths: Sequence[int] | npt.NDArray[np.int64], block: int) -> list[list[int]]:
    """Numbers of texts in rows of at most `block` tokens: first fit, longest first (Johnson, 1973).

    Raises TrainingError for a text longer than a row.
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    if len(order) and lengths[order[0]] > block:
        raise TrainingError(f"a text of {lengths[order[0]]} tokens does not fit into a row of {block}.")
    rows: list[list[int]] = []
    room: npt.NDArray[np.int64] = np.zeros(len(order), dtype=np.int64)
    for number in order:
        fits = np.flatnonzero(room[: len(rows)] >= lengths[number])
        place = int(fits[0]) if len(fits) else len(rows)
        if place == len(rows):
            rows.append([])
            room[place] = block
        rows[place].append(int(number))
        room[place] -= lengths[number]
    return rows


def causal_batch(rows: Sequence[Sequence[Any]], pad_id: int) -> TokenBatch:
    """Rows of parts (ids; each read without its last token, asked for without its first) as one batch."""
    ids_BT = pad([np.concatenate([part[:-1] for part in row]) for row in rows], pad_id)  # type: ignore[misc]
    alone = all(len(row) == 1 for row in rows)
    segments: list[Any] = [
        np.repeat(np.arange(1, len(row) + 1), [len(part) - 1 for part in row]) for row in rows
    ]
    width = ids_BT.shape[1]
    counted = [np.arange(len(row)) + number * width for number, row in enumerate(segments)]
    wanted = [np.asarray(part[1:], dtype=np.int64) for row in rows for part in row]
    return TokenBatch(
        ids_BT,
        None if alone else pad(segments, 0),
        torch.from_numpy(np.concatenate(counted)),
        torch.from_numpy(np.concatenate(wanted)),
        tokens=sum(map(len, segments)),
    )


class PackedFeed:
    """Documents in rows of `block` tokens, for a decoder: the batches of each epoch are packed anew."""

    def __init__(
        self,
        documents: Sequence[Ids],
        *,
        block: int,
        tokens_per_batch: int,
        seed: int,
        pad_id: int,
    ) -> None:
        if tokens_per_batch < block:
            raise TrainingError(
                f"a row has {block} tokens, but a batch may hold {tokens_per_batch}. "
                "Raise tokens_per_batch or lower block."
            )
        cut = [np.asarray(part, dtype=np.int32) for ids in documents for part in parts(ids, block)]
        if not cut:
            raise TrainingError("there is nothing to train on: no document is left.")
        self.lengths = np.array([len(part) - 1 for part in cut], dtype=np.int64)
        self.ends = np.cumsum(self.lengths + 1)
        self.tokens = np.concatenate(cut)  # four bytes each; as lists they would take tens
        self.block, self.rows, self.seed, self.pad_id = block, tokens_per_batch // block, seed, pad_id

    def packed(self, number: int) -> list[list[int]]:
        """The rows of an epoch: numbers of parts."""
        random = np.random.default_rng((self.seed, number))
        order = random.permutation(len(self.lengths))
        rows: list[list[int]] = []
        for start in range(0, len(order), POOL):
            pool = order[start : start + POOL]
            rows += [[int(pool[place]) for place in row] for row in pack(self.lengths[pool], self.block)]
        return [rows[place] for place in random.permutation(len(rows))]

    def epoch(self, number: int) -> Sequence[Callable[[], Batch]]:
        """See `Feed`."""
        rows = self.packed(number)
        return [
            partial(self._batch, rows[start : start + self.rows]) for start in range(0, len(rows), self.rows)
        ]

    def _batch(self, rows: Sequence[Sequence[int]]) -> Batch:
        return causal_batch([[self._part(n) for n in row] for row in rows], self.pad_id)

    def _part(self, number: int) -> npt.NDArray[np.int32]:
        end = self.ends[number]
        return self.tokens[end - self.lengths[number] - 1 : end]
