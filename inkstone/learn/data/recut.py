"""Pairs whose words are cut otherwise in every epoch (`text.bpe_dropout`).

A word is not cut anew each time it is read: each different word has a table of WAYS cuts, made once, from which every
reading draws one. So a batch costs no more than a plain one, and the cuts of a word depend on nothing but the word and
the seed. The table takes some 400 bytes for each different word; Chinese between two punctuation marks is one word here.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random as Chance

import numpy as np
import numpy.typing as npt

from inkstone.learn.data.batches import Batch, Collate, PairExample, Random
from inkstone.text.bpe_dropout import BpeDropout
from inkstone.text.tokenizer import Tokenizer

WAYS = 16  # cuts of a word to draw from, beside the usual one

Words = npt.NDArray[np.int32]  # numbers of words in a table of cuts


@dataclass(frozen=True, slots=True)
class WordsExample:
    """A pair as words, its marks among them, and about how many tokens a draw gives: a third more at a share of 0.1."""

    source: Words
    target: Words
    sizes: tuple[int, int]

    def lengths(self) -> tuple[int, int]:
        """See `PairExample.lengths`; the mean of what may be drawn."""
        return self.sizes


class Cuts:
    """Every word met so far with its cuts: the usual one first, then WAYS others, some of them alike."""

    def __init__(self, tokenizer: Tokenizer, share: float, seed: int) -> None:
        self.dropout, self.share, self.seed = BpeDropout(tokenizer), share, seed
        self.numbers: dict[str | int, int] = {}  # a word, or the token of a mark
        self.ids, self.sizes = array("i"), array("i")  # of all cuts, one after another: 1 + WAYS of each word

    def words(self, text: str) -> list[int]:
        """The numbers of a text's words."""
        return [self._number(word) for word in self.dropout.words(text)]

    def mark(self, token: int) -> int:
        """The number of a special token, which is always itself."""
        return self._number(token)

    def usual_length(self, words: Sequence[int]) -> int:
        """Tokens of these words when cut as usual."""
        return sum(self.sizes[number * (1 + WAYS)] for number in words)

    def mean_length(self, words: Sequence[int]) -> int:
        """Tokens that a draw of these words has in the mean."""
        cuts = (self.sizes[number * (1 + WAYS) + 1 : (number + 1) * (1 + WAYS)] for number in words)
        return round(sum(map(sum, cuts)) / WAYS)

    def _number(self, word: str | int) -> int:
        if word not in self.numbers:
            self.numbers[word] = len(self.numbers)
            chance = Chance(f"{self.seed} {word}")
            for share in (0.0, *[self.share] * WAYS):
                cut = [word] if isinstance(word, int) else self.dropout.cut(word, share, chance)
                self.ids.extend(cut)
                self.sizes.append(len(cut))
        return self.numbers[word]

    def table(self) -> Table:
        """The cuts of all words met so far, as arrays to draw from."""
        return Table(np.array(self.ids, dtype=np.int32), np.array(self.sizes, dtype=np.int32))


@dataclass(frozen=True, slots=True)
class Table:
    """All cuts one after another. ids: their tokens; sizes: how many each has, 1 + WAYS cuts a word."""

    ids: npt.NDArray[np.int32]
    sizes: npt.NDArray[np.int32]
    starts: npt.NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "starts", np.cumsum(self.sizes) - self.sizes)

    def draw(self, texts: Sequence[Words], limit: int, random: Random) -> list[npt.NDArray[np.int32]]:
        """The tokens of each text, its words cut in ways that are drawn; cut as usual where they would pass the limit."""
        words = np.concatenate(texts).astype(np.int64)
        rows = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
        cuts = words * (1 + WAYS) + random.integers(1, 1 + WAYS, len(words))
        too_long = np.bincount(rows, self.sizes[cuts], len(texts)) > limit
        cuts = np.where(too_long[rows], words * (1 + WAYS), cuts)
        sizes = self.sizes[cuts]
        ends = np.cumsum(sizes)
        places = np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(
            self.starts[cuts] - ends + sizes, sizes
        )
        borders = np.cumsum(np.bincount(rows, sizes, len(texts)).astype(np.int64))
        return np.split(self.ids[places], borders[:-1])


@dataclass(frozen=True, slots=True)
class Recut:
    """Makes batches of `WordsExample`, for the feed `Varied`. limit: tokens a side, marks included."""

    table: Table
    limit: int
    collate: Collate

    def __call__(self, examples: Sequence[WordsExample], random: Random) -> Batch:
        """A batch with the words of its pairs cut as they are drawn."""
        sources = self.table.draw([one.source for one in examples], self.limit, random)
        targets = self.table.draw([one.target for one in examples], self.limit - 1, random)
        pairs = [
            PairExample(source.tolist(), target.tolist())
            for source, target in zip(sources, targets, strict=True)
        ]
        batch: Batch = self.collate(pairs)
        return batch
