"""Batches by length within a token budget.

The batches of an epoch are a pure function of (seed, epoch): examples are shuffled, sorted by length inside large
pools so that neighbours need little padding, cut wherever the padded size would pass the budget, and the batches
shuffled. So the place in the data is two numbers, (epoch, index), and a resumed run goes on with exactly the batch that
an uninterrupted one would have taken.

    budget counts padded cells:   rows x (longest source + longest target) <= tokens_per_batch
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from inkstone.ground.errors import TrainingError
from inkstone.model.padding import Ids, pad

POOL = 32_768  # examples sorted together: large enough to pad little, small enough to keep the order random

FIXED = 1 << 20  # stands for the epoch where batches must always be the same


@dataclass(frozen=True, slots=True)
class PairExample:
    """A source, complete with its marks, and a target without marks, as token ids."""

    source: Ids
    target: Ids

    def lengths(self) -> tuple[int, int]:
        """Tokens on each side as the model sees them; the target gains one mark."""
        return len(self.source), len(self.target) + 1


@dataclass(frozen=True, slots=True)
class LabelExample:
    """A text as token (or feature) ids, and the numbers of its labels."""

    ids: Ids
    labels: tuple[int, ...]

    def lengths(self) -> tuple[int, int]:
        """Tokens of the text, and nothing on the other side."""
        return len(self.ids), 0


@dataclass(frozen=True, slots=True)
class RelatedExample:
    """Two texts that belong together, and texts that do not belong to the first, as token ids with their marks."""

    source: Ids
    target: Ids
    negatives: tuple[Ids, ...] = ()

    def lengths(self) -> tuple[int, int]:
        """Tokens of the source, and of the longest of the others."""
        return len(self.source), max(map(len, (self.target, *self.negatives)))


@dataclass(frozen=True, slots=True)
class PairBatch:
    """Padded pairs. The decoder reads `target_BT` (begin mark first) and is asked for `wanted_N`.

    counted_N: the places of the real tokens in the flattened (B * T) target, so that the vocabulary is only scored
    where a loss is taken. tokens: real tokens, both sides.
    """

    source_BS: Tensor
    target_BT: Tensor
    counted_N: Tensor
    wanted_N: Tensor
    tokens: int


@dataclass(frozen=True, slots=True)
class LabelBatch:
    """Padded texts with their labels: class numbers (B) or, for multi-label data, zeros and ones (B, C)."""

    ids_BS: Tensor
    labels: Tensor
    tokens: int


@dataclass(frozen=True, slots=True)
class TokenExample:
    """A part of a document as token ids, from which a batch makes what it needs.

    words: of each token, which word of the part it belongs to, where that is asked for. sizes: tokens on each side of
    what a batch makes of it, where that is not simply the part itself.
    """

    ids: Ids
    words: Ids = ()
    sizes: tuple[int, int] | None = None

    def lengths(self) -> tuple[int, int]:
        """Tokens on each side as a model sees them."""
        return self.sizes or (len(self.ids), 0)


@dataclass(frozen=True, slots=True)
class TokenBatch:
    """Rows of tokens, of some of which something is asked: `wanted_N` at the places `counted_N` of the flat (B * T).

    segments_BT: which of the texts in its row each token belongs to, 0 for padding; None where each row is one text.
    """

    ids_BT: Tensor
    segments_BT: Tensor | None
    counted_N: Tensor
    wanted_N: Tensor
    tokens: int


@dataclass(frozen=True, slots=True)
class RelatedBatch:
    """Padded texts that belong together: `source_BS[i]` and `target_PT[i]`; the targets after B are given negatives.

    rivals_BP: True where a target must be told apart from a source's own.
    """

    source_BS: Tensor
    target_PT: Tensor
    rivals_BP: Tensor
    tokens: int


Example = PairExample | LabelExample | TokenExample | RelatedExample
Batch = PairBatch | LabelBatch | TokenBatch | RelatedBatch
Collate = Callable[[Sequence[Any]], Any]
Random = np.random.Generator
Make = Callable[[Sequence[Any], Random], Batch]


class Feed(Protocol):
    """What a run is fed with: the batches of each epoch, made when they are called for, the same every time."""

    def epoch(self, number: int) -> Sequence[Callable[[], Batch]]:
        """The batches of an epoch, in order."""
        ...


def pair_batch(examples: Sequence[PairExample], *, pad_id: int, bos_id: int, eos_id: int) -> PairBatch:
    """Pad pairs into one batch."""
    source_BS = pad([example.source for example in examples], pad_id)
    target_BT = pad([[bos_id, *example.target] for example in examples], pad_id)
    wanted = [np.append(np.asarray(example.target, dtype=np.int64), eos_id) for example in examples]
    width = target_BT.shape[1]
    counted = [np.arange(len(row)) + number * width for number, row in enumerate(wanted)]
    return PairBatch(
        source_BS,
        target_BT,
        torch.from_numpy(np.concatenate(counted)),
        torch.from_numpy(np.concatenate(wanted)),
        tokens=sum(sum(example.lengths()) for example in examples),
    )


def label_batch(
    examples: Sequence[LabelExample], *, pad_id: int, num_labels: int, multi_label: bool
) -> LabelBatch:
    """Pad texts into one batch."""
    if multi_label:
        labels = torch.zeros(len(examples), num_labels)
        for number, example in enumerate(examples):
            labels[number, list(example.labels)] = 1.0
    else:
        labels = torch.tensor([example.labels[0] for example in examples])
    ids_BS = pad([example.ids for example in examples], pad_id)
    return LabelBatch(ids_BS, labels, tokens=sum(len(example.ids) for example in examples))


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The same batch with its tensors on another device."""
    values = [getattr(batch, field.name) for field in fields(batch)]
    kind: Any = type(batch)
    moved: Batch = kind(*(v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for v in values))
    return moved


class Plan:
    """Which examples go together, for every epoch. Holds lengths only, so it costs bytes per example."""

    def __init__(
        self, examples: Sequence[Example], *, tokens_per_batch: int, seed: int, rows: int = 0
    ) -> None:
        """rows: so many examples in each batch, or as near as can be, whatever their lengths; 0: by tokens_per_batch."""
        if not examples:
            raise TrainingError(
                "there is nothing to train on: no example is left. Check the data and the rules."
            )
        self.lengths: npt.NDArray[np.int64] = np.array(
            [example.lengths() for example in examples], dtype=np.int64
        )
        self.tokens_per_batch, self.seed, self.rows = tokens_per_batch, seed, rows
        longest = int(self.lengths.sum(1).max())
        if longest > tokens_per_batch and not rows:
            raise TrainingError(
                f"an example has {longest} tokens, but a batch may hold {tokens_per_batch}. "
                "Raise tokens_per_batch or lower max_length."
            )

    def epoch(self, number: int) -> list[npt.NDArray[np.int64]]:
        """The batches of an epoch, each an array of example numbers."""
        random = np.random.default_rng((self.seed, number))
        order = random.permutation(len(self.lengths))
        batches: list[npt.NDArray[np.int64]] = []
        for start in range(0, len(order), POOL):
            pool = order[start : start + POOL]
            first, second = self.lengths[pool, 0], self.lengths[pool, 1]
            batches += self._cut(pool[np.lexsort((first, np.maximum(first, second)))])
        return [batches[place] for place in random.permutation(len(batches))]

    def in_order(self) -> list[npt.NDArray[np.int64]]:
        """Batches for evaluation: longest first, nothing random."""
        return self._cut(np.lexsort((self.lengths[:, 1], self.lengths[:, 0]))[::-1])

    def largest(self) -> npt.NDArray[np.int64]:
        """As many of the longest examples as the budget holds: the batch that needs the most memory."""
        return self._cut(np.argsort(-self.lengths.sum(1), kind="stable")[: self.tokens_per_batch])[0]

    def _cut(self, order: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
        if self.rows:
            return np.array_split(order, -(-len(order) // self.rows))
        batches, start, widest = [], 0, np.zeros(2, dtype=np.int64)
        for end, lengths in enumerate(self.lengths[order]):
            wider = np.maximum(widest, lengths)
            if int(wider.sum()) * (end - start + 1) > self.tokens_per_batch and end > start:
                batches.append(order[start:end])
                start, wider = end, lengths
            widest = wider
        batches.append(order[start:])
        return batches


class Planned:
    """The feed of a plan over examples."""

    def __init__(self, plan: Plan, examples: Sequence[Any], collate: Collate) -> None:
        self.plan, self.examples, self.collate = plan, examples, collate

    def epoch(self, number: int) -> Sequence[Callable[[], Batch]]:
        """See `Feed`."""
        return [partial(self.collated, numbers) for numbers in self.plan.epoch(number)]

    def collated(self, numbers: npt.NDArray[np.int64]) -> Batch:
        """The batch of these examples."""
        batch: Batch = self.collate(chunks(self.examples, numbers))
        return batch


class Varied:
    """The feed of a plan over examples whose batches come out otherwise in every epoch: words hidden, or cut otherwise.

    make: a batch of some examples, with what is random in it drawn from a generator of (seed, epoch, index).
    """

    def __init__(self, examples: Sequence[Any], make: Make, *, tokens_per_batch: int, seed: int) -> None:
        self.plan = Plan(examples, tokens_per_batch=tokens_per_batch, seed=seed)
        self.examples, self.make = examples, make

    def epoch(self, number: int) -> Sequence[Callable[[], Batch]]:
        """See `Feed`."""
        return [
            partial(self._batch, number, index, rows) for index, rows in enumerate(self.plan.epoch(number))
        ]

    def fixed(self) -> Iterator[Batch]:
        """All examples once, made in the same way each time."""
        for index, rows in enumerate(self.plan.in_order()):
            yield self._batch(FIXED, index, rows)

    def collated(self, numbers: npt.NDArray[np.int64]) -> Batch:
        """The batch of these examples, made in a way that no epoch has."""
        return self._batch(FIXED, 0, numbers)

    def _batch(self, epoch: int, index: int, rows: npt.NDArray[np.int64]) -> Batch:
        random = np.random.default_rng((self.plan.seed, epoch, index))
        return self.make(chunks(self.examples, rows), random)


def chunks(items: Sequence[Example], numbers: npt.NDArray[np.int64]) -> list[Example]:
    """The examples of one planned batch."""
    return [items[number] for number in numbers]


def iterate(plan: Plan, epoch: int, start: int = 0) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """The planned batches of an epoch from a place on, with their places."""
    yield from list(enumerate(plan.epoch(epoch)))[start:]
