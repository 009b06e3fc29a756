"""Labelled texts with changed copies of themselves, for a classifier to learn from (`corpus.augment`)."""

from __future__ import annotations

from functools import lru_cache

from inkstone.corpus.augment import AugmentOptions, Near, Rewrite, changed_copies
from inkstone.ground.progress import say
from inkstone.learn.labelled import Texts
from inkstone.vectors.formats import read_vectors

NEAREST = 5  # words that may stand for one
SIMILAR = 0.5  # cosine; below it, words are about other things


def with_copies(data: Texts, options: AugmentOptions, seed: int, rewrite: Rewrite | None = None) -> Texts:
    """The texts and their copies, with the same labels. Raises DataError for a file that holds no word vectors.

    rewrite: says texts in other words, where `options.back_translate` asks for it.
    """
    if not options.copies and rewrite is None:
        return data
    near = nearest(options.vectors) if options.vectors is not None and options.replace else None
    copies = changed_copies(data.texts, options, seed, near) if options.copies else []
    if rewrite is not None:
        pairs = zip(data.texts, rewrite(data.texts), strict=True)
        copies += [(n, other) for n, (text, other) in enumerate(pairs) if other.strip() not in ("", text)]
    say(f"{len(copies):,} changed copies of {len(data):,} training texts")
    return Texts(
        [*data.texts, *(text for _, text in copies)],
        [*data.labels, *(data.labels[number] for number, _ in copies)],
    )


def nearest(path: str) -> Near:
    """What is near a word by the word vectors of a file, as it is written or in lower case."""
    vectors = read_vectors(path).vectors

    @lru_cache(maxsize=100_000)
    def near(word: str) -> tuple[str, ...]:
        known = next((form for form in (word, word.lower()) if form in vectors), None)
        if known is None:
            return ()
        return tuple(one.word for one in vectors.neighbours(known, k=NEAREST) if one.similarity >= SIMILAR)

    return near
