"""Words and their vectors: neighbours, similarity, analogies, and a folder on disk.

    vectors.safetensors   one matrix, `vectors`, a row for each word
    vocabulary.tsv        the words in the order of the rows, each with its count
    inkstone.json         how they were made
    manifest.json         the sha256 of every file above

Similarity is the cosine. An analogy a : b = c : ? is answered by the word nearest to b - a + c, each of length one, the
three asked about left out (3CosAdd; Mikolov et al., 2013; Levy & Goldberg, 2014).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkstone.ground.errors import BundleError, ConfigError, DataError, raise_all
from inkstone.ground.files import whole_folder, write_json, write_text
from inkstone.ground.manifest import problems, read_json, seal
from inkstone.vectors.rows import Float

MATRIX, VOCABULARY, DESCRIPTION = "vectors.safetensors", "vocabulary.tsv", "inkstone.json"
TASK = "vectors"
_KEY = "vectors"
_SHOWN = 10  # problems of a file
_SUGGESTED = 5


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A word and how similar it is, from -1 to 1."""

    word: str
    similarity: float


@dataclass(frozen=True)
class WordVectors:
    """One vector per word. counts_V: how often each occurred, where that is known; description: how they were made.

    Raises DataError for words named twice, numbers that are not finite, and shapes that do not fit.

    >>> vectors = WordVectors(("cat", "dog", "tea"), np.array([[2, 1], [1, 1], [-1, 2]], np.float32))
    >>> vectors.neighbours("cat", k=1)[0].word
    'dog'
    """

    words: tuple[str, ...]
    matrix_VD: Float
    counts_V: NDArray[np.int64] | None = None
    description: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        shape = self.matrix_VD.shape
        found = []
        if self.matrix_VD.ndim != 2 or 0 in shape:
            found.append(f"the vectors have the shape {list(shape)}, where words x dimensions are needed")
        elif len(self.words) != shape[0]:
            found.append(f"there are {len(self.words):,} words and {shape[0]:,} vectors")
        if self.counts_V is not None and len(self.counts_V) != len(self.words):
            found.append(f"there are {len(self.words):,} words and {len(self.counts_V):,} counts")
        if not found:
            bad = np.flatnonzero(~np.isfinite(self.matrix_VD).all(axis=1))
            found += [
                f'the vector of "{self.words[n]}" holds a number that is not finite' for n in bad[:_SHOWN]
            ]
            found += [f'"{word}" has two vectors' for word in _twice(self.words)[:_SHOWN]]
        raise_all(DataError, "these are no word vectors", found)

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: str) -> bool:
        return word in self.number_of

    @property
    def dimensions(self) -> int:
        """D, the numbers of a vector."""
        return int(self.matrix_VD.shape[1])

    @cached_property
    def number_of(self) -> dict[str, int]:
        """Word -> its row."""
        return {word: number for number, word in enumerate(self.words)}

    @cached_property
    def unit_VD(self) -> Float:  # noqa: N802  named as the matrix is
        """The vectors, each of length one (a vector of zeros stays one)."""
        lengths_V1 = np.linalg.norm(self.matrix_VD, axis=1, keepdims=True)
        unit_VD: Float = (self.matrix_VD / np.where(lengths_V1 > 0, lengths_V1, 1)).astype(np.float32)
        return unit_VD

    def __getitem__(self, word: str) -> Float:
        """The vector of a word (D). Raises DataError with near spellings when there is none."""
        vector_D: Float = self.matrix_VD[self.rows([word])[0]]
        return vector_D

    def rows(self, words: Sequence[str]) -> list[int]:
        """The rows of words. Raises DataError naming every unknown one, each with near spellings."""
        unknown = [word for word in dict.fromkeys(words) if word not in self.number_of]
        raise_all(DataError, "unknown words", [self._unknown(word) for word in unknown])
        return [self.number_of[word] for word in words]

    def similarity(self, one: str, other: str) -> float:
        """The cosine between two words."""
        first, second = self.rows([one, other])
        return float(self.unit_VD[first] @ self.unit_VD[second])

    def neighbours(self, *positive: str, negative: Sequence[str] = (), k: int = 10) -> list[Neighbour]:
        """The k words most similar to the sum of these, less the negative ones; those asked about are left out.

        `neighbours("woman", "king", negative=["man"])` answers man : king = woman : ?
        """
        if not positive:
            raise ConfigError("no word was given. Give at least one.")
        if k < 1:
            raise ConfigError(f"k={k} is below 1. Give the number of neighbours.")
        asked = self.rows([*positive, *negative])
        signs = np.array([1] * len(positive) + [-1] * len(negative), np.float32)
        direction_D = signs @ self.unit_VD[asked]
        length = float(np.linalg.norm(direction_D))
        scores_V = self.unit_VD @ (direction_D / (length or 1))
        scores_V[asked] = -np.inf
        count = min(k, len(self) - len(set(asked)))
        best = np.argpartition(-scores_V, max(0, count - 1))[:count]
        best = best[np.lexsort((best, -scores_V[best]))]
        return [Neighbour(self.words[n], float(scores_V[n])) for n in best]

    def _unknown(self, word: str) -> str:
        near = self._near_spellings(word)
        hint = f". Near spellings: {', '.join(near)}" if near else ""
        return f'"{word}" has no vector among these {len(self):,} words{hint}'

    def _near_spellings(self, word: str) -> list[str]:
        other_case = [
            w for w in dict.fromkeys((word.lower(), word.title(), word.upper())) if w in self.number_of
        ]
        alike = [w for w in self.words if abs(len(w) - len(word)) <= 2 and not set(w).isdisjoint(word)]
        close = get_close_matches(word, alike, n=_SUGGESTED, cutoff=0.5 if len(word) < 4 else 0.7)
        return list(dict.fromkeys(other_case + close))[:_SUGGESTED]


def _twice(words: Sequence[str]) -> list[str]:
    seen: set[str] = set()
    return list(dict.fromkeys(word for word in words if word in seen or seen.add(word)))  # type: ignore[func-returns-value]


def save(
    vectors: WordVectors, folder: str | Path, made: Mapping[str, Any] | None = None, *, replace: bool = False
) -> None:
    """Write vectors as a folder, whole or not at all. made: how they came about, for the manifest.

    Raises DataError for words that hold a tab or a line break, OutputError when the place is taken.
    """
    from safetensors.numpy import save_file

    refuse_words(vectors.words, "\t\n\r", "a tab or a line break")
    counts: Sequence[object] = [""] * len(vectors) if vectors.counts_V is None else vectors.counts_V.tolist()
    lines = [f"{word}\t{count}\n" for word, count in zip(vectors.words, counts, strict=True)]
    with whole_folder(folder, replace=replace) as staging:
        save_file({_KEY: np.ascontiguousarray(vectors.matrix_VD, np.float32)}, staging / MATRIX)
        write_text(staging / VOCABULARY, "word\tcount\n" + "".join(lines))
        shape = {"words": len(vectors), "dimensions": vectors.dimensions}
        write_json(staging / DESCRIPTION, {**(vectors.description or {}), "task": TASK, **shape})
        seal(staging, made or {})


def load(folder: str | Path) -> WordVectors:
    """Read a folder that `save` wrote, after checking every file. Raises BundleError naming all that is wrong."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    folder = Path(folder)
    raise_all(BundleError, f"{folder} holds no usable vectors", problems(folder))
    description = read_json(folder / DESCRIPTION) if (folder / DESCRIPTION).exists() else {}
    if description.get("task") != TASK:
        task = f"a model for {description['task']}" if "task" in description else "something else"
        raise BundleError(
            f"{folder} holds {task}, no word vectors. Give a folder that `inkstone vectors train` wrote."
        )
    try:
        matrix_VD = load_file(folder / MATRIX)[_KEY]
        lines = (folder / VOCABULARY).read_text("utf-8").split("\n")[1:-1]
        rows = [line.split("\t") for line in lines]
        counts = [int(count) for _, count in rows] if rows and rows[0][1] else None
        words = tuple(word for word, _ in rows)
        return WordVectors(
            words, matrix_VD, None if counts is None else np.array(counts, np.int64), description
        )
    except (OSError, KeyError, ValueError, IndexError, SafetensorError, DataError) as error:
        raise BundleError(f"{folder} holds no usable vectors: {error}") from error


def refuse_words(words: Sequence[str], forbidden: str, what: str) -> None:
    """Raise DataError listing the words that a format cannot hold."""
    bad = [word for word in words if not word or any(sign in word for sign in forbidden)]
    if bad:
        named = ", ".join(map(repr, bad[:_SHOWN])) + (
            f" and {len(bad) - _SHOWN:,} more" if len(bad) > _SHOWN else ""
        )
        raise DataError(f"this format cannot hold words that are empty or hold {what}: {named}.")
