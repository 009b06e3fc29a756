"""Texts that are almost an earlier text, found in one pass.

MinHash over character trigrams (Broder, 1997) with banding (Leskovec et al., ch. 3), computed by rensa;
then each candidate is checked by its true Jaccard similarity, so that the hashing decides what is looked
at and never what is dropped. Trigrams of characters need no words and therefore serve Chinese and English
alike.

64 permutations in 16 bands of 4: a pair at similarity 0.8 becomes a candidate with probability 1 - (1 -
0.8⁴)¹⁶ = 0.9998, one at 0.4 with 0.34 (and is then refused by the check). The library's own choice of
bands misses one copy in five. Texts under `shortest` characters are left alone: "He is 20." and "He is
21." are two sentences.

Memory: the key of every kept text and its sketch, some 1 kB a text of 100 characters.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

_PERMUTATIONS, _BANDS, _SEED = 64, 16, 20231
_MARGIN = 0.2  # four standard errors of an estimate from 64 permutations: below that no check is worth it


class NearDuplicates:
    """Remembers texts and says which earlier one a new text almost repeats.

    threshold: Jaccard similarity of the trigram sets from which two texts count as the same.
    """

    def __init__(self, threshold: float = 0.8, shortest: int = 60) -> None:
        self.threshold, self.shortest = threshold, shortest
        self._kept: list[tuple[str, Any, str]] = []

    @cached_property
    def _index(self) -> Any:
        from rensa import RMinHashLSH

        return RMinHashLSH(threshold=self.threshold, num_perm=_PERMUTATIONS, num_bands=_BANDS)

    @cached_property
    def _sketch(self) -> Any:
        from rensa import RMinHash

        return RMinHash

    def find(self, key: str, name: str) -> tuple[str, float] | None:
        """The name of an earlier text like `key`, and how like; a text unlike all before is remembered."""
        if len(key) < max(3, self.shortest):
            return None
        shingles = _shingles(key)
        sketch = self._sketch(num_perm=_PERMUTATIONS, seed=_SEED)
        sketch.update(shingles)
        for at in sorted(self._index.query(sketch)):
            other, remembered, earlier = self._kept[at]
            if sketch.jaccard(remembered) >= self.threshold - _MARGIN:
                similarity = jaccard(set(shingles), set(_shingles(other)))
                if similarity >= self.threshold:
                    return earlier, similarity
        self._index.insert(len(self._kept), sketch)
        self._kept.append((key, sketch, name))
        return None


def jaccard(one: set[bytes], other: set[bytes]) -> float:
    """Shared part of two sets, 0 to 1."""
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared) if one or other else 1.0


def _shingles(key: str) -> list[bytes]:
    """All runs of three characters, as 12 bytes each; numpy cuts them six times faster than slicing does."""
    import numpy

    windows = numpy.ndarray(len(key) - 2, "S12", key.encode("utf-32-le", "replace"), strides=(4,))
    shingles: list[bytes] = windows.tolist()
    return shingles
