"""How likely a text is that may be longer than a model can read at once: in windows that overlap.

text     <s> a b c d e f g </s>      block 4, stride 2
windows  <s> a b c d
               b c d e f             asks for e and f; c and d are only context
                   d e f g </s>      asks for g and </s>
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Ids = Sequence[int]
Floats = NDArray[np.float64]


class Foresees(Protocol):
    """An engine that says of each token of each row but the first how likely it is, in nats."""

    def log_probabilities(self, rows: Sequence[Ids]) -> list[Floats]:
        """One number fewer than tokens in each row."""
        ...


def windows(ids: Ids, block: int, stride: int) -> Iterator[tuple[list[int], int]]:
    """Parts of at most block + 1 tokens, each with how many of its predictions were asked for before.

    With a stride below the block, all tokens but the first of a text have at least block - stride before them.
    """
    counted = 0  # predictions made so far
    for start in range(0, max(1, len(ids) - 1), stride):
        part = list(ids[start : start + block + 1])
        yield part, counted - start
        counted = start + len(part) - 1
        if counted >= len(ids) - 1:
            break


def scored_in_windows(engine: Foresees, texts: Sequence[Ids], block: int) -> list[Floats]:
    """The log-probability of each token of each text after its first, with at least half a block before it."""
    cut = [list(windows(ids, block, max(1, block // 2))) for ids in texts]
    scores = iter(engine.log_probabilities([part for parts in cut for part, _ in parts]))
    return [np.concatenate([next(scores)[context:] for _, context in parts]) for parts in cut]
