"""More training texts from those there are: the same words, some left out, exchanged or replaced (Wei and Zou, 2019).

    the food here is really good   ->   the food is really good            deleted
                                        the here food is really good       swapped
                                        the meal here is truly good        replaced by what is near
                                        the food there is very tasty       translated there and back

Words are those of `text.segment`, so Chinese is changed by words too, not by characters. What stands between words -
spaces, punctuation - stays. What is near a word is the caller's to say: a function, such as the neighbours in word
vectors. (The original takes them from WordNet; neighbours in word vectors are often opposites, so a label that hangs on
one word may be wrong afterwards.) Who translates there and back (after Sennrich et al., 2016; Xie et al., 2020) is the
caller's to say, too. Only texts to learn from are ever to be changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np

from inkstone.ground.errors import ConfigError, raise_all
from inkstone.text.segment import words

Near = Callable[[str], Sequence[str]]  # a word -> what may stand for it, if anything
Rewrite = Callable[[Sequence[str]], Sequence[str]]  # texts -> the same in other words


@dataclass(frozen=True, slots=True)
class AugmentOptions:
    """How many changed texts to make of each, and which share of its words is changed in which way."""

    copies: int = 0
    delete: float = 0.1
    swap: float = 0.1
    replace: float = 0.0  # by what is near
    vectors: str | None = None  # the file of word vectors that says what is near
    back_translate: str | None = (
        None  # a translator of both ways: one more copy of each, translated there and back
    )

    def __post_init__(self) -> None:
        problems = [] if 0 <= self.copies <= 100 else [f"copies={self.copies} must be between 0 and 100"]
        problems += [
            f"{one.name}={getattr(self, one.name)} must be at least 0 and below 1"
            for one in fields(self)
            if one.type == "float" and not 0 <= getattr(self, one.name) < 1
        ]
        if self.replace and self.vectors is None:
            problems.append(f"replace={self.replace} needs word vectors that say what is near: give vectors")
        if self.copies and not (self.delete or self.swap or self.replace):
            problems.append(
                "copies are asked for, but delete, swap and replace are all 0: nothing would change"
            )
        raise_all(ConfigError, "augmentation", problems)


def augmented(
    text: str, options: AugmentOptions, random: np.random.Generator, near: Near | None = None
) -> str:
    """The text with some of its words changed. At least one word stays; a text without words stays as it is."""
    parts = _parts(text)
    if near is not None and options.replace:
        parts = _replaced(parts, options.replace, random, near)
    if options.swap:
        parts = _swapped(parts, options.swap, random)
    if options.delete:
        parts = _deleted(parts, options.delete, random)
    return "".join(parts).strip()


def changed_copies(
    texts: Sequence[str], options: AugmentOptions, seed: int, near: Near | None = None
) -> list[tuple[int, str]]:
    """Changed texts, each with the number of the text it comes from; one that is there already is left out.

    The copies of a text depend on the seed and on the text and its number, not on the other texts.
    """
    found: list[tuple[int, str]] = []
    for number, text in enumerate(texts):
        random = np.random.default_rng((seed, number))
        made = (augmented(text, options, random, near) for _ in range(options.copies))
        found += [(number, copy) for copy in dict.fromkeys(made) if copy and copy != text]
    return found


def _parts(text: str) -> list[str]:
    """What stands between words, and the words, in turn: [between, word, between, word, ..., between]."""
    parts: list[str] = []
    end = 0
    for word in words(text):
        start = text.index(word, end)
        parts += [text[end:start], word]
        end = start + len(word)
    return [*parts, text[end:]]


def _deleted(parts: list[str], share: float, random: np.random.Generator) -> list[str]:
    """Without some words, each with what stands before it."""
    count = len(parts) // 2
    gone = random.random(count) < share
    if gone.all():
        return parts
    kept = [
        part for number in range(count) if not gone[number] for part in parts[2 * number : 2 * number + 2]
    ]
    return [*kept, parts[-1]]


def _swapped(parts: list[str], share: float, random: np.random.Generator) -> list[str]:
    """With about so many words in each other's places."""
    count = len(parts) // 2
    parts = list(parts)
    for _ in range(random.binomial(count, share / 2) if count > 1 else 0):  # a swap moves two words
        one, other = 2 * random.choice(count, 2, replace=False) + 1
        parts[one], parts[other] = parts[other], parts[one]
    return parts


def _replaced(parts: list[str], share: float, random: np.random.Generator, near: Near) -> list[str]:
    """With some words replaced by what is near, where anything is."""
    parts = list(parts)
    for place in np.flatnonzero(random.random(len(parts) // 2) < share) * 2 + 1:
        if candidates := near(parts[place]):
            parts[place] = candidates[int(random.integers(len(candidates)))]
    return parts
