"""Words and how often they occur; a corpus as numbers.

A corpus comes as *units*, lists of words that no window crosses (sentences, paragraphs, lines of a poem: the caller
decides). One pass gives each new word the next number and keeps the numbers; afterwards rare words go and the others
are renumbered by frequency, so no text is read twice and word 0 is always the most frequent one. Equal counts are
ordered by spelling: the same corpus gives the same numbers, in whatever order its parts came.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from inkstone.ground.errors import ConfigError, DataError
from inkstone.text.segment import words

Ids = NDArray[np.int32]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Vocabulary:
    """Words by falling frequency, and their counts (shape V)."""

    words: tuple[str, ...]
    counts_V: Counts

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def number_of(self) -> dict[str, int]:
        """Word -> its number."""
        return {word: number for number, word in enumerate(self.words)}


@dataclass(frozen=True, slots=True)
class EncodedCorpus:
    """A corpus as numbers: the word at each place, and the unit that the place belongs to (both of shape N)."""

    ids_N: Ids
    units_N: Ids

    def __len__(self) -> int:
        return len(self.ids_N)


def units_of(
    texts: Iterable[str], language: str | None = None, *, lowercase: bool = True
) -> Iterator[list[str]]:
    """The words of each paragraph (an empty line ends one). Chinese is segmented by `text.segment`.

    >>> list(units_of(["The cat\\nsat.\\n\\n我爱北京。"]))
    [['the', 'cat', 'sat'], ['我', '爱', '北京']]
    """
    for text in texts:
        for paragraph in (text.lower() if lowercase else text).split("\n\n"):
            found = words(paragraph, language)
            if found:
                yield found


def encode(
    units: Iterable[Sequence[str]], *, min_count: int = 5, max_words: int | None = None
) -> tuple[Vocabulary, EncodedCorpus]:
    """The vocabulary of a corpus and the corpus in its numbers.

    Words that occur less than `min_count` times leave the text before any window is laid over it, as in word2vec;
    max_words keeps only the most frequent. Raises DataError when fewer than two words are left.
    """
    if min_count < 1:
        raise ConfigError(
            f"min_count={min_count} is below 1. Give how often a word must occur to get a vector."
        )
    if max_words is not None and max_words < 2:
        raise ConfigError(f"max_words={max_words} is below 2. Give the most words that get a vector.")
    number_of: dict[str, int] = {}
    ids, lengths = array("i"), array("i")
    for unit in units:
        ids.extend([number_of.setdefault(word, len(number_of)) for word in unit])
        lengths.append(len(unit))
    found = list(number_of)
    raw_ids_N = np.frombuffer(ids, np.int32) if ids else np.zeros(0, np.int32)
    counts = np.bincount(raw_ids_N, minlength=len(found)).astype(np.int64)
    order = sorted(np.flatnonzero(counts >= min_count).tolist(), key=lambda n: (-counts[n], found[n]))[
        :max_words
    ]
    if len(order) < 2:
        frequent = (
            f'; the most frequent, "{found[int(counts.argmax())]}", {counts.max():,} times' if found else ""
        )
        raise DataError(
            f"{len(order)} words occur {min_count} times or more, where two are needed: the corpus has {len(ids):,} "
            f"words, {len(found):,} of them different{frequent}. Give more text, or a lower --min-count."
        )
    new_number = np.full(len(found), -1, np.int32)
    new_number[order] = np.arange(len(order), dtype=np.int32)
    ids_N = new_number[raw_ids_N]
    units_N = np.repeat(np.arange(len(lengths), dtype=np.int32), np.frombuffer(lengths, np.int32))
    kept_N = ids_N >= 0
    return Vocabulary(tuple(found[n] for n in order), counts[order]), EncodedCorpus(
        ids_N[kept_N], units_N[kept_N]
    )
