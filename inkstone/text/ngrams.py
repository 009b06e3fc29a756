"""A text as a bag of features: its words, its runs of words, and pieces of its words.

    "What is ink?"   words       what, is, ink, ?
                     word pairs  <s> what, what is, is ink, ink ?, ? </s>;  and runs of three
                     gaps        <s> ... is, what ... ink, is ... ?, ...       (pairs with one or two words between)
                     opening     what | what is | what is ink;  the first one or two with each later word: what ... ink
                     pieces      <wh, wha, hat, at>, <wha, what, hat>, ...      (of words that are not Chinese)
    "味道不错"        words       味道, 不错;  word pairs;  opening
                     pieces      味, 道, 不, 错, 味道, 道不, 不错, 味道不, 道不错   (of runs of Han characters)

Pieces say something about words never seen (Bojanowski et al., 2017), and for Chinese they mend what segmentation cut
wrongly. The opening is where questions and commands say what they are. Each feature counts once a text, however often
it occurs; how much it counts is its inverse document frequency, and pieces and words that stand apart, of which there are
many, count less.

A `FeatureVocabulary` numbers the features seen in training; number 0 is padding, and unseen features are left out.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkstone.ground.errors import BundleError, ConfigError, DataError, raise_all
from inkstone.ground.files import write_text
from inkstone.text.language import HAN
from inkstone.text.segment import words

FORMAT = 1
_HAN_RUN = re.compile(f"[{HAN}]+")


@dataclass(frozen=True, slots=True)
class NgramOptions:
    """Which features a text has; 0 leaves a kind out."""

    longest_words: int = 3  # runs of up to so many words
    longest_gap: int = 2  # words left out between two
    opening_words: int = (
        3  # the first one, two, ... words; with any, also the first one and two with each later word
    )
    shortest_piece: int = 3  # characters of a piece of a word, its ends marked < and >
    longest_piece: int = 4
    longest_han: int = 3  # runs of up to so many Han characters
    piece_weight: float = 0.6  # of a piece of a word, where a word counts 1
    apart_weight: float = 0.5  # of words that stand apart: with a gap, or an opening and a later word

    def __post_init__(self) -> None:
        problems = [
            f"{name}={getattr(self, name)} must be between {low} and {high}"
            for name, low, high in (
                ("longest_words", 1, 5),
                ("longest_gap", 0, 8),
                ("opening_words", 0, 8),
                ("shortest_piece", 1, 8),
                ("longest_piece", 0, 8),
                ("longest_han", 0, 5),
                ("piece_weight", 0.01, 10),
                ("apart_weight", 0.01, 10),
            )
            if not low <= getattr(self, name) <= high
        ]
        raise_all(ConfigError, "features", problems)


def ngrams(text: str, options: NgramOptions) -> list[str]:
    """The distinct features of a text, in order. The first character says the kind.

    >>> ngrams("Is it", NgramOptions(longest_words=1, opening_words=2, longest_piece=0))
    ['1is', '1it', '^is', '^is it']
    """
    text = text.casefold()
    found = words(text, punctuation=True)
    features = [f"1{word}" for word in found]
    marked = ["<s>", *found, "</s>"]
    for size in range(2, options.longest_words + 1):
        features += [f"{size}{' '.join(marked[at : at + size])}" for at in range(len(marked) - size + 1)]
    for gap in range(1, options.longest_gap + 1):
        pairs = zip(marked, marked[gap + 1 :], strict=False)
        features += [f"_{gap}{first} {second}" for first, second in pairs]
    if options.opening_words:
        features += [
            f"^{' '.join(found[:size])}" for size in range(1, min(options.opening_words, len(found)) + 1)
        ]
        for size in (1, 2):
            features += [f"&{' '.join([*found[:size], word])}" for word in found[max(2, size) :]]
    if options.longest_piece:
        for word in found:
            if word[0].isalnum() and not _HAN_RUN.match(word):
                features += [f"~{piece}" for piece in _pieces(f"<{word}>", options)]
    if options.longest_han and not text.isascii():
        for run in _HAN_RUN.findall(text):
            for size in range(1, options.longest_han + 1):
                features += [f"字{run[at : at + size]}" for at in range(len(run) - size + 1)]
    return list(dict.fromkeys(features))


def _pieces(word: str, options: NgramOptions) -> list[str]:
    longest = min(options.longest_piece, len(word) - 1)
    sizes = range(options.shortest_piece, longest + 1)
    return [word[at : at + size] for size in sizes for at in range(len(word) - size + 1)]


class FeatureVocabulary:
    """The features known to a model, numbered from 1."""

    def __init__(self, names: Sequence[str], options: NgramOptions) -> None:
        self.names, self.options = tuple(names), options
        self._numbers = {name: number for number, name in enumerate(names, 1)}

    def __len__(self) -> int:
        """How many numbers there are, padding included."""
        return len(self.names) + 1

    @classmethod
    def train(
        cls, texts: Iterable[str], options: NgramOptions, *, min_count: int = 1, most: int = 60_000
    ) -> tuple[FeatureVocabulary, NDArray[np.float32]]:
        """The `most` frequent features in at least `min_count` texts, and the weight of each number.

        Of features in equally many texts all are kept or none, where that leaves any: to keep those that came first
        would tell early texts from late ones, and often with them the labels.
        Raises DataError when there is none.
        """
        counts: Counter[str] = Counter()
        size = 0
        for text in texts:
            counts.update(ngrams(text, options))
            size += 1
        found = counts.most_common(most + 1)
        least = max(min_count, found[most][1] + 1 if len(found) > most else 0)
        names = [name for name, count in found if count >= least]
        names = names or [name for name, count in found[:most] if count >= min_count]
        if not names:
            raise DataError(
                "the texts hold no words to learn from. Give texts with letters or signs in them."
            )
        kinds = {"~": options.piece_weight, "&": options.apart_weight, "_": options.apart_weight}
        weights = [0.0]
        for name in names:
            rarity = 1 + math.log((1 + size) / (1 + counts[name]))
            weights.append(rarity * kinds.get(name[0], 1.0))
        return cls(names, options), np.array(weights, dtype=np.float32)

    def encode(self, text: str) -> list[int]:
        """The numbers of the known features of a text; empty when it has none."""
        numbers = (self._numbers.get(name) for name in ngrams(text, self.options))
        return [number for number in numbers if number is not None]

    def save(self, file: str | Path) -> None:
        """Write the vocabulary as JSON, whole or not at all."""
        value = {"format": FORMAT, "options": asdict(self.options), "features": list(self.names)}
        write_text(file, json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")

    @classmethod
    def load(cls, file: str | Path) -> FeatureVocabulary:
        """Read what `save` wrote. Raises BundleError naming the file."""
        try:
            value: Any = json.loads(Path(file).read_text("utf-8"))
            if value["format"] != FORMAT:
                raise ValueError(f"format {value['format']!r} is not {FORMAT}")
            return cls([str(name) for name in value["features"]], NgramOptions(**value["options"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BundleError(f"{file} is not a vocabulary of features: {error}") from error
