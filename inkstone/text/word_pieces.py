"""Which tokens make a word: what whole-word masking hides together (Cui et al., 2021, for Chinese).

A tokenizer's pieces and a reader's words have borders of their own. In English a word is one piece or several; in Chinese
the segmenter (`text.segment`) says what a word is, and a piece may hold two words, or end within one. Tokens belong
together wherever a border of words does not fall between them:

    words     我 爱 | 北京 | 天安门         words     un believ able
    tokens    我爱  | 北 京 | 天安 门       tokens    un|believ|able
    together  0       1  1    2    2                  0  0      0

So a word is never torn, and of words that share a token neither is.
"""

from __future__ import annotations

from collections.abc import Sequence

from inkstone.text.segment import words
from inkstone.text.tokenizer import Tokenizer


def word_numbers(tokenizer: Tokenizer, texts: Sequence[str]) -> list[tuple[list[int], list[int]]]:
    """For each text its ids, and for each id the number of the word that it belongs to, from 0, rising."""
    found = []
    for text, encoding in zip(
        texts, tokenizer.inner.encode_batch(list(texts), add_special_tokens=False), strict=True
    ):
        within = _within(text)
        numbers: list[int] = []
        before = -1
        for start, end in encoding.offsets:
            first = start
            while first < end - 1 and text[first].isspace():  # the space that a piece begins with
                first += 1
            joined = before >= first or (first < len(text) and within[first])
            numbers.append((numbers[-1] + (not joined)) if numbers else 0)
            before = first
        found.append((list(encoding.ids), numbers))
    return found


def _within(text: str) -> list[bool]:
    """Of each character: whether it goes on with the word of the one before."""
    within, place = [False] * len(text), 0
    for word in words(text):
        start = text.find(word, place)
        assert start >= 0, f"the segmenter made up {word!r}"
        place = start + len(word)
        within[start + 1 : place] = [True] * (len(word) - 1)
    return within
