"""What a process reads of each step: planned batches, gathered into steps and divided among the processes of a run.

    planned     a b c d e f g h            accumulate 4, two processes
    steps      (a b c d) (e f g h)
    rank 0      a   c     e   g            whole batches are dealt out where their number allows it,
    rank 1        b   d     f   h
                                           accumulate 1, two processes
    rank 0      a0 b0 c0 d0 ...            else each batch is divided by its rows: 0, 2, 4 ... and 1, 3, 5 ...
    rank 1      a1 b1 c1 d1 ...

A step is the same planned batches however many processes there are, so the number of processes changes the time and not
what is learnt: losses are weighted by what they count (`learn.loop`), and a batch that is dealt out whole draws its
dropout by its place in the step, not by who reads it. Only where rows are divided does dropout fall differently. Steps do
not cross epochs: the last one of an epoch may be smaller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from inkstone.ground.errors import ConfigError
from inkstone.learn.data.batches import Batch, Feed, LabelBatch, PairBatch, TokenBatch


@dataclass(frozen=True, slots=True)
class Portion:
    """A batch that this process reads in a step.

    place: the number that seeds its dropout, unlike those of the step's other portions. counts: False where the batch
    only keeps this process in step with the others, because it had no row for it.
    """

    batch: Batch
    place: int = 0
    counts: bool = True


class Steps:
    """A feed of steps instead of batches: each gives the portions of one process."""

    def __init__(self, feed: Feed, accumulate: int = 1, rank: int = 0, world: int = 1) -> None:
        self.feed, self.accumulate, self.rank, self.world = feed, accumulate, rank, world

    def epoch(self, number: int) -> Sequence[Callable[[], list[Portion]]]:
        """The steps of an epoch, in order; the same every time."""
        planned = self.feed.epoch(number)
        return [
            partial(self._portions, planned[start : start + self.accumulate])
            for start in range(0, len(planned), self.accumulate)
        ]

    def _portions(self, planned: Sequence[Callable[[], Batch]]) -> list[Portion]:
        if len(planned) % self.world == 0:
            return [Portion(planned[place](), place) for place in range(self.rank, len(planned), self.world)]
        places = (place * self.world + self.rank for place in range(len(planned)))
        return [
            divided(make(), self.rank, self.world, place) for make, place in zip(planned, places, strict=True)
        ]


def steps_of(batches: int, accumulate: int) -> int:
    """How many steps an epoch of so many batches has."""
    return -(-batches // accumulate)


def divided(batch: Batch, rank: int, world: int, place: int = 0) -> Portion:
    """The rows rank, rank + world, ... of a batch. Raises ConfigError for a kind of batch that cannot be divided."""
    if type(batch) not in DIVISIONS:
        raise ConfigError(
            f"a {type(batch).__name__} cannot be divided among {world} processes. "
            "Set training.accumulate to a multiple of their number."
        )
    part = DIVISIONS[type(batch)](batch, slice(rank, None, world))
    return Portion(batch, place, counts=False) if part is None else Portion(part, place)


def _counted(counted_N: Tensor, wanted_N: Tensor, width: int, rows: slice) -> tuple[Tensor, Tensor]:
    """Of these rows, what is asked for and where: `counted_N` is numbered anew."""
    row_N, column_N = counted_N // width, counted_N % width
    kept_N = (row_N >= rows.start) & ((row_N - rows.start) % rows.step == 0)
    new_N = (row_N[kept_N] - rows.start) // rows.step
    return new_N * width + column_N[kept_N], wanted_N[kept_N]


def _pairs(batch: PairBatch, rows: slice) -> PairBatch | None:
    count, width = batch.target_BT.shape
    counted_N, wanted_N = _counted(batch.counted_N, batch.wanted_N, width, rows)
    if not len(counted_N):
        return None
    tokens = _tokens(batch, count, rows)
    return PairBatch(batch.source_BS[rows], batch.target_BT[rows], counted_N, wanted_N, tokens)


def _labels(batch: LabelBatch, rows: slice) -> LabelBatch | None:
    ids_BS, labels = batch.ids_BS[rows], batch.labels[rows]
    return LabelBatch(ids_BS, labels, _tokens(batch, len(batch.ids_BS), rows)) if len(ids_BS) else None


def _rows(batch: TokenBatch, rows: slice) -> TokenBatch | None:
    count, width = batch.ids_BT.shape
    counted_N, wanted_N = _counted(batch.counted_N, batch.wanted_N, width, rows)
    if not len(counted_N):
        return None
    segments_BT = None if batch.segments_BT is None else batch.segments_BT[rows]
    return TokenBatch(batch.ids_BT[rows], segments_BT, counted_N, wanted_N, _tokens(batch, count, rows))


def _tokens(batch: Batch, count: int, rows: slice) -> int:
    """Of the real tokens of a batch of `count` rows, what falls to these rows if all are alike; the parts add up."""
    edges_R = torch.arange(count + 1) * batch.tokens // count
    return int(edges_R.diff()[rows].sum())


DIVISIONS: dict[type, Callable[[Any, slice], Any]] = {
    PairBatch: _pairs,
    LabelBatch: _labels,
    TokenBatch: _rows,
}
