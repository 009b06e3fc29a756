"""Texts that belong together as batches in which every other pair is a counterexample.

    source   a  b  c        target   A  B  C | x  y      x, y: negatives given with some of the pairs
    rivals   a    .  1  1  1  1
             b    1  .  1  1  1
             c    1  1  .  1  1

How many counterexamples there are is how hard the task is, so batches hold so many pairs, not so many tokens
(`Plan(rows=...)`); pairs of similar length stand together as elsewhere, which saves padding and makes counterexamples
harder, since length tells nothing. A text that stands in a batch twice is no counterexample to itself: a false negative
would push apart what belongs together.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inkstone.learn.data.batches import RelatedBatch, RelatedExample
from inkstone.model.padding import Ids, pad


def related_batch(examples: Sequence[RelatedExample], *, pad_id: int) -> RelatedBatch:
    """Pad pairs and their negatives into one batch."""
    sources = [example.source for example in examples]
    targets = [example.target for example in examples]
    targets += [negative for example in examples for negative in example.negatives]
    return RelatedBatch(
        pad(sources, pad_id),
        pad(targets, pad_id),
        _rivals(sources, targets),
        tokens=sum(map(len, sources)) + sum(map(len, targets)),
    )


def _rivals(sources: Sequence[Ids], targets: Sequence[Ids]) -> Tensor:
    """True where target p is no right answer to source b: unlike b's own target, unlike b, of no source like b."""
    numbers: dict[tuple[int, ...], int] = {}
    source_B, target_P = (
        torch.tensor([numbers.setdefault(tuple(map(int, ids)), len(numbers)) for ids in side])
        for side in (sources, targets)
    )
    count = len(source_B)
    rivals_BP = target_P != target_P[:count, None]
    rivals_BP &= target_P != source_B[:, None]
    rivals_BP[:, :count] &= source_B != source_B[:, None]
    return rivals_BP
