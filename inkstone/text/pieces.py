"""Long text in pieces that a model can read: whole sentences as far as they go, and nothing cut off.

text ─ sentences ─ those over twice the comfortable length at their commas, then in the middle ─ packed together
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from inkstone.text.sentences import split_sentences

_CLAUSE = re.compile(r"(?<=[,;:，；：、])")
Length = Callable[[str], int]  # of a text, in tokens


def packed(text: str, length: Length, comfortable: int, most: int) -> list[str]:
    """A text in pieces of a comfortable number of tokens, each as many whole sentences as fit.

    most: tokens that a sentence alone may have; one with more is split.
    """
    if length(text) <= comfortable:
        return [text]
    parts: list[str] = []
    for sentence in _small_enough(split_sentences(text), length, most):
        if parts and length(parts[-1] + sentence) <= comfortable:
            parts[-1] += sentence
        else:
            parts.append(sentence)
    return [part.strip() for part in parts if part.strip()]


def _small_enough(sentences: Sequence[str], length: Length, most: int) -> Iterator[str]:
    """Sentences, the over-long ones split at commas, then in the middle."""
    for sentence in sentences:
        if length(sentence) <= most:
            yield sentence
            continue
        for clause in _CLAUSE.split(sentence):
            yield from _halved(clause, length, most)


def _halved(text: str, length: Length, most: int) -> Iterator[str]:
    if length(text) <= most or len(text) < 2:
        yield text
        return
    middle = len(text) // 2
    space = text.find(" ", middle)
    cut = space + 1 if 0 <= space < len(text) - 1 else middle
    yield from _halved(text[:cut], length, most)
    yield from _halved(text[cut:], length, most)
