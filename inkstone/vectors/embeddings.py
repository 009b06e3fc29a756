"""The first values of a model's embedding matrix, taken from word vectors.

A model's tokens are pieces of text, and vectors belong to words, so only tokens that are whole words can be matched:
"▁cat", "Ġcat", "cat</w>" and WordPiece's "cat" are; "##s" and a lone byte are not. Chinese is written without spaces:
there a token of Han characters counts as a word whether or not a space went before it. `words_of` reads this off the
token strings; a caller whose tokens are words already passes them as they are. What is not matched keeps the values
that it has, and the report says how much that is.

Vectors of another width than the model's are turned, not cut: into more dimensions by a random rotation, which keeps
every angle; into fewer by their principal directions, which keep what can be kept. The matched rows are then scaled to
the size that the matrix's own rows have, so that layers behind it see what they expect.

No torch here: `matrix_VD` is numpy's, as `embedding.weight.detach().numpy()` gives it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inkstone.ground.errors import DataError
from inkstone.text.language import HAN
from inkstone.vectors.evaluation import Lookup
from inkstone.vectors.rows import Float
from inkstone.vectors.store import WordVectors

_HAN = re.compile(f"[{HAN}]+")
_MARK = re.compile(r"<[^>]*>|\[[A-Z]+\]")
_LETTER = re.compile(r"[^\W_]")


@dataclass(frozen=True, slots=True)
class Coverage:
    """tokens: of the vocabulary; words: those that are whole words; matched: those with a vector."""

    tokens: int
    words: int
    matched: int

    @property
    def share(self) -> float:
        """The share of the whole words that got a vector."""
        return self.matched / max(1, self.words)

    def __str__(self) -> str:
        return (
            f"{self.matched:,} of {self.words:,} whole-word tokens ({self.share:.1%}) start from word vectors; "
            f"{self.tokens - self.matched:,} of {self.tokens:,} tokens keep the values they had"
        )


def words_of(tokens: Sequence[str]) -> list[str | None]:
    """The word that each token of a vocabulary spells out, None for pieces of words, marks and punctuation.

    How words are marked is told from the vocabulary as a whole, by the mark that most tokens carry: ▁ or Ġ before a
    word, </w> after it, or ## before what is no beginning; with none of these every token is a word.

    >>> words_of(["<pad>", "▁cat", "s", "▁北京", "天"])
    [None, 'cat', None, '北京', '天']
    """
    marks = {
        "Ġ": sum(token.startswith("Ġ") for token in tokens),
        "▁": sum(token.startswith("▁") for token in tokens),
        "</w>": sum(token.endswith("</w>") for token in tokens),
        "##": sum(token.startswith("##") for token in tokens),
    }
    mark = max(marks, key=lambda name: marks[name])
    if marks[mark] and mark == "Ġ":
        byte_of = _byte_alphabet()
        return [_word(_spelled(token, byte_of), " ", "", "") for token in tokens]
    if marks[mark] and mark == "▁":
        return [_word(token, "▁", "", "") for token in tokens]
    if marks[mark] and mark == "</w>":
        return [_word(token, "", "</w>", "") for token in tokens]
    return [_word(token, "", "", "##") for token in tokens]


def initialise(
    matrix_VD: Float, words: Sequence[str | None], vectors: WordVectors, *, seed: int = 0
) -> tuple[Float, Coverage]:
    """A copy of an embedding matrix with the rows of known words taken from vectors, and how many these are.

    words: for each row its word, or None (`words_of`). Two tokens may spell one word; both get its vector. Raises
    DataError when the matrix has not a row for each, or when no word is known.
    """
    if matrix_VD.ndim != 2 or len(words) != len(matrix_VD):
        raise DataError(
            f"the matrix has the shape {list(matrix_VD.shape)}, and there are {len(words):,} tokens."
        )
    numbers = Lookup(vectors)
    rows = [row for row, word in enumerate(words) if word is not None and word in numbers]
    coverage = Coverage(len(words), sum(word is not None for word in words), len(rows))
    if not rows:
        raise DataError(
            f"none of {coverage.words:,} whole-word tokens has a vector among {len(vectors):,} words. "
            "Are the vectors of another language?"
        )
    taken_MD = vectors.matrix_VD[[numbers[str(words[row])] for row in rows]].astype(np.float64)
    turned_MD = _turned(taken_MD, matrix_VD.shape[1], seed)
    size = float(np.sqrt(np.mean(turned_MD**2)))
    own_size = float(np.sqrt(np.mean(matrix_VD.astype(np.float64) ** 2)))
    result_VD = matrix_VD.copy()
    result_VD[rows] = turned_MD * (own_size / size if size > 0 and own_size > 0 else 1.0)
    return result_VD, coverage


def _turned(taken_MD: NDArray[np.float64], width: int, seed: int) -> NDArray[np.float64]:
    """Vectors in a space of this width: as they are, rotated into a wider one, or on their principal directions."""
    dimensions = taken_MD.shape[1]
    if dimensions == width:
        return taken_MD
    if dimensions < width:
        random_KD = np.random.default_rng(seed).standard_normal((width, dimensions))
        axes_DK = np.linalg.qr(random_KD)[0].T
    else:
        axes_DK = np.linalg.eigh(taken_MD.T @ taken_MD).eigenvectors[:, ::-1][:, :width]
    turned_MK: NDArray[np.float64] = taken_MD @ axes_DK
    return turned_MK


def _word(token: str, start: str, end: str, inside: str) -> str | None:
    bare = token.removeprefix(start).removesuffix(end)
    if _MARK.fullmatch(bare):
        return None
    is_whole = (
        (not start or token.startswith(start))
        and (not end or token.endswith(end))
        and not (inside and token.startswith(inside))
    )
    if is_whole or _HAN.fullmatch(bare):
        return bare if _LETTER.search(bare) else None
    return None


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's characters for bytes (Radford et al., 2019): printable ones as they are, the others from U+0100 on."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


def _spelled(token: str, byte_of: dict[str, int]) -> str:
    """A byte-level token as text; one that is no text on its own stays as it is, and is no word."""
    try:
        return bytes(byte_of[character] for character in token).decode("utf-8")
    except (KeyError, UnicodeDecodeError):
        return "<bytes>"
