"""An n-gram model with interpolated modified Kneser-Ney smoothing: what a language model must beat.

For decades the best that counting could do (Kneser and Ney, 1995; Chen and Goodman, 1999, section 3), and with enough
text hard to beat by a small network trained briefly. The probability of a token after a context of k - 1 tokens is

    p(w | context) = max(a(context w) - D, 0) / A(context)  +  b(context) p(w | context without its first token)

a     how often the n-gram was seen for the longest n-grams; for shorter ones, after how many different tokens it was seen
      (n-grams at the beginning of a text, which nothing precedes, keep how often they were seen; Heafield et al., 2013)
A     the sum of a over all tokens after the context
D     the discount: one for a = 1, one for a = 2, one for a >= 3, of each length, from the counts of counts
b     what the discounts took, so that all adds up to one
and below the single tokens, the uniform distribution over the vocabulary: every text has a probability.

Counting is done with sorted arrays of numbers: an n-gram is the pair (number of its first n - 1 tokens, last token).
There is nothing to tune but the order. Ids are whatever a tokenizer gives, so that the figures of a network and of this
model on the same ids compare bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from inkstone.ground.errors import ConfigError, DataError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
FALLBACK = (0.5, 1.0, 1.5)  # discounts where there are too few n-grams to estimate them (as in KenLM)


@dataclass(frozen=True, slots=True)
class _Length:
    """What is known of the n-grams of one length. C: contexts (n-grams one shorter), N: n-grams."""

    keys_N: Ints  # context number * vocabulary + last token, sorted: the place is the n-gram's number
    taken_N: Floats  # max(a - D, 0)
    totals_C: Floats  # A
    rest_C: Floats  # b


class KneserNey:
    """Make one with `fit`. Texts are ids that begin with a mark of the beginning and end with one of the end.

    >>> model = KneserNey.fit([[0, 2, 3, 1], [0, 2, 2, 1]], order=2, vocab_size=4)
    >>> bits = -model.log_probabilities([0, 2, 3, 1]).sum() / np.log(2)
    """

    def __init__(self, lengths: Sequence[_Length], vocab_size: int) -> None:
        self._lengths, self.vocab_size, self.order = tuple(lengths), vocab_size, len(lengths)

    @classmethod
    def fit(cls, texts: Sequence[Sequence[int]], *, order: int = 5, vocab_size: int) -> KneserNey:
        """Count. Raises DataError where there is no text, ConfigError for an order below 1."""
        if order < 1:
            raise ConfigError(f"order={order} must be at least 1.")
        tokens_I, places_I = _joined(texts)
        if not (places_I > 0).any():
            raise DataError("there is no text to count n-grams in.")
        keys: list[Ints] = []
        numbers: list[
            Ints
        ] = []  # of the n-gram that ends at each token, -1 where the text has not so many before
        contexts_I = np.zeros_like(tokens_I)
        for length in range(1, order + 1):
            whole_I = (places_I >= length - 1) & (contexts_I >= 0)
            found, inverse = np.unique((contexts_I * vocab_size + tokens_I)[whole_I], return_inverse=True)
            ends_I = np.full(len(tokens_I), -1, dtype=np.int64)
            ends_I[whole_I] = inverse
            keys.append(found)
            numbers.append(ends_I)
            contexts_I = _before(ends_I, places_I)
        lengths = []
        for length in range(1, order + 1):
            longer_I = numbers[length] if length < order else None
            counts_N = _counts(numbers[length - 1], longer_I, len(keys[length - 1]), places_I, length)
            contexts = len(keys[length - 2]) if length > 1 else 1
            lengths.append(_length(keys[length - 1], counts_N, contexts, vocab_size))
        return cls(lengths, vocab_size)

    def log_probabilities(self, text: Sequence[int]) -> Floats:
        """The natural logarithm of the probability of each token after the first: one shorter than the text."""
        return self.score([text])[0]

    def score(self, texts: Sequence[Sequence[int]]) -> list[Floats]:
        """`log_probabilities` of many texts at once."""
        tokens_I, places_I = _joined(texts)
        chance_I = np.full(len(tokens_I), 1 / self.vocab_size)
        contexts_I = np.zeros_like(tokens_I)  # -1: never seen
        for level in self._lengths:
            known_I = contexts_I >= 0
            at_I = np.where(known_I, contexts_I, 0)
            keys_I = np.where(known_I, at_I * self.vocab_size + tokens_I, -1)
            ends_I = _find(level.keys_N, keys_I)
            counted_I = known_I & (level.totals_C[at_I] > 0)
            taken_I = np.where(ends_I >= 0, level.taken_N[np.maximum(ends_I, 0)], 0.0)
            seen_I = taken_I / np.maximum(level.totals_C[at_I], 1) + level.rest_C[at_I] * chance_I
            chance_I = np.where(counted_I, seen_I, chance_I)
            contexts_I = _before(ends_I, places_I)
        logs_I = np.log(chance_I)
        ends = np.cumsum([len(text) for text in texts])
        return [logs_I[end - len(text) + 1 : end] for end, text in zip(ends, texts, strict=True)]


def _joined(texts: Sequence[Sequence[int]]) -> tuple[Ints, Ints]:
    """All tokens one after another, and the place of each in its text."""
    if not len(texts):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    tokens_I = np.concatenate([np.asarray(text, dtype=np.int64) for text in texts])
    places_I = np.concatenate([np.arange(len(text), dtype=np.int64) for text in texts])
    return tokens_I, places_I


def _before(ends_I: Ints, places_I: Ints) -> Ints:
    """The number of the n-gram that ends at the token before; -1 at the beginning of a text."""
    before_I = np.concatenate([[-1], ends_I[:-1]])
    return np.where(places_I > 0, before_I, -1)


def _find(keys_N: Ints, wanted_I: Ints) -> Ints:
    """The places of the wanted keys among the sorted ones; -1 for what is not there."""
    if not len(keys_N):
        return np.full(len(wanted_I), -1, dtype=np.int64)
    at_I = np.minimum(np.searchsorted(keys_N, wanted_I), len(keys_N) - 1)
    return np.where(keys_N[at_I] == wanted_I, at_I, -1)


def _counts(ends_I: Ints, longer_I: Ints | None, size: int, places_I: Ints, length: int) -> Ints:
    """a of each n-gram. The first token of a text is given, never predicted: as a single token it counts nothing."""
    if longer_I is None:
        counts_N: Ints = np.bincount(ends_I[(ends_I >= 0) & (places_I > 0)], minlength=size)
        return counts_N
    suffix_M = np.zeros(int(longer_I.max(initial=-1)) + 1, dtype=np.int64)
    whole_I = longer_I >= 0
    suffix_M[longer_I[whole_I]] = ends_I[whole_I]
    counts_N = np.bincount(suffix_M, minlength=size)
    first_I = (places_I == length - 1) & (places_I > 0)  # n-grams that begin a text
    counts_N += np.bincount(ends_I[first_I], minlength=size)
    return counts_N


def _length(keys_N: Ints, counts_N: Ints, contexts: int, vocab_size: int) -> _Length:
    discounts = np.array([0.0, *_discounts(counts_N)])
    kinds_N = np.minimum(counts_N, 3)
    context_N = keys_N // vocab_size
    totals_C = np.bincount(context_N, weights=counts_N, minlength=contexts).astype(np.float64)
    lost_C = np.bincount(context_N, weights=discounts[kinds_N], minlength=contexts)
    rest_C = np.divide(lost_C, totals_C, out=np.ones_like(lost_C), where=totals_C > 0)
    return _Length(keys_N, counts_N - discounts[kinds_N], totals_C, rest_C)


def _discounts(counts_N: Ints) -> tuple[float, ...]:
    """Chen and Goodman's estimates for counts of 1, 2, and 3 or more; fixed ones where these make no sense."""
    once, twice, thrice, often = (float((counts_N == count).sum()) for count in (1, 2, 3, 4))
    if not (once and twice and thrice and often):
        return FALLBACK
    share = once / (once + 2 * twice)
    found = (1 - 2 * share * twice / once, 2 - 3 * share * thrice / twice, 3 - 4 * share * often / thrice)
    sound = all(0 <= discount <= count for count, discount in enumerate(found, 1))
    return found if sound else FALLBACK
