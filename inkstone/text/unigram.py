"""Learn a unigram vocabulary, the same one every time.

The unigram language model (Kudo, 2018) gives each piece of text a probability; a word is cut into the
pieces whose product is greatest. Training starts from every frequent substring and prunes: cut all words,
count the pieces, drop those that the text would miss least (the loss is the count times what the next
best cutting of that piece costs).

The library has a trainer of its own, with expected counts instead of counts of best cuttings. It sums
floating-point numbers in the order of a randomly keyed hash table, so two runs differ (here by 0.03 in
the scores and sometimes in the pieces), and a bundle could not be made again. This one uses the library's
model to cut and plain counts to learn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from math import inf, log

import tokenizers
from tokenizers import models

_LONGEST = 12  # characters of a piece
_SEEDS = 12  # times the wanted size to begin with
_KEEP = 0.7  # of the pieces, each round
_UNUSED = 0.5  # occurrences of a piece that no best cutting uses
_UNKNOWN = "<unk>"


def learn_pieces(words: Counter[str], alphabet: Iterable[str], size: int) -> list[tuple[str, float]]:
    """At most `size` pieces with their log probabilities, most probable first.

    words: how often each word occurs (a word is what no piece crosses). alphabet: the characters that are
    pieces in any case.
    """
    characters = sorted(set(alphabet))
    ordered = sorted(words)
    times = [words[word] for word in ordered]
    counts = _seeds(words, set(characters), _SEEDS * size)
    while True:
        for _ in range(2):
            scores = _scores(counts, characters)
            counts = _count(ordered, times, scores)
        if len(scores) <= size:
            break
        wanted = max(size, int(_KEEP * len(scores)))
        counts = _pruned(counts, scores, characters, wanted)
        if wanted == size:
            scores = _scores(_count(ordered, times, _scores(counts, characters)), characters)
            scores = dict(sorted(scores.items(), key=lambda item: (-item[1], item[0])))
            break
    return sorted(scores.items(), key=lambda item: (-item[1], item[0]))


def _seeds(words: Counter[str], characters: set[str], most: int) -> dict[str, float]:
    """The substrings that cover most text."""
    found: Counter[str] = Counter()
    for word, times in words.items():
        for start in range(len(word)):
            for end in range(start + 2, min(len(word), start + _LONGEST) + 1):
                found[word[start:end]] += times
    pieces = [piece for piece, count in found.items() if count > 1 and characters.issuperset(piece)]
    pieces.sort(key=lambda piece: (-found[piece] * len(piece), piece))
    return {piece: float(found[piece]) for piece in pieces[:most]}


def _scores(counts: dict[str, float], characters: list[str]) -> dict[str, float]:
    """Log probabilities. What no best cutting uses keeps a little: other text may need the part of a longer piece."""
    full = dict.fromkeys(characters, _UNUSED)
    full.update({piece: max(_UNUSED, count) for piece, count in counts.items()})
    total = log(sum(full.values()))
    return {piece: round(log(full[piece]) - total, 6) for piece in sorted(full)}


def _count(words: list[str], times: list[int], scores: dict[str, float]) -> dict[str, float]:
    """How often each piece occurs in the best cuttings."""
    model = models.Unigram([(_UNKNOWN, 0.0), *scores.items()], 0, False)
    cutter = tokenizers.Tokenizer(model)
    found = [0] * (len(scores) + 1)
    for at in range(0, len(words), 10000):
        for encoding, count in zip(
            cutter.encode_batch_fast(words[at : at + 10000]), times[at:], strict=False
        ):
            for number in encoding.ids:
                found[number] += count
    return {piece: float(found[at + 1]) for at, piece in enumerate(scores)}


def _pruned(
    counts: dict[str, float], scores: dict[str, float], characters: list[str], wanted: int
) -> dict[str, float]:
    """The pieces that would be missed most, the alphabet among them."""
    always = set(characters)
    losses = {
        piece: max(_UNUSED, count) * (scores[piece] - _without(piece, scores))
        for piece, count in counts.items()
        if piece not in always
    }
    best = sorted(losses, key=lambda piece: (-losses[piece], piece))[: max(0, wanted - len(always))]
    return {piece: counts[piece] for piece in [*best, *(c for c in characters if c in counts)]}


def _without(piece: str, scores: dict[str, float]) -> float:
    """The best score of a piece that may not be taken whole."""
    best = [0.0] + [-inf] * len(piece)
    for end in range(1, len(piece) + 1):
        for start in range(end):
            part = scores.get(piece[start:end]) if end - start < len(piece) else None
            if part is not None and best[start] + part > best[end]:
                best[end] = best[start] + part
    return best[-1]
