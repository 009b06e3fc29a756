"""Kneser-Ney against the formula written out over dictionaries, against a case by hand, and as a distribution."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest

from inkstone.ground.errors import ConfigError, DataError
from inkstone.judge.kneser_ney import FALLBACK, KneserNey

BOS, EOS = 0, 1


def texts(count: int = 60, words: int = 9, seed: int = 1) -> list[list[int]]:
    """Texts of a made language in which each word leans on the one before."""
    random = np.random.default_rng(seed)
    likes = random.dirichlet(np.full(words, 0.3), size=words + 2)
    found = []
    for _ in range(count):
        text = [BOS]
        while len(text) < random.integers(2, 14):
            text.append(int(random.choice(words, p=likes[text[-1]])) + 2)
        found.append([*text, EOS])
    return found


class Written:
    """The same formula, one n-gram at a time."""

    def __init__(self, data: Sequence[Sequence[int]], order: int, vocab_size: int) -> None:
        self.order, self.vocab_size = order, vocab_size
        seen = [Counter[tuple[int, ...]]() for _ in range(order + 2)]
        for text in data:
            for end in range(1, len(text) + 1):
                for length in range(1, min(order, end) + 1):
                    seen[length][tuple(text[end - length : end])] += 1
        self.counts: list[dict[tuple[int, ...], int]] = [{}]
        for length in range(1, order + 1):
            if length == order:
                counts = dict(seen[length])
            else:
                before: dict[tuple[int, ...], set[int]] = defaultdict(set)
                for gram in seen[length + 1]:
                    before[gram[1:]].add(gram[0])
                counts = {g: seen[length][g] if g[0] == BOS else len(before[g]) for g in seen[length]}
            counts.pop((BOS,), None)
            self.counts.append(counts)
        self.discounts = [self.estimate(counts) for counts in self.counts]

    @staticmethod
    def estimate(counts: dict[tuple[int, ...], int]) -> tuple[float, ...]:
        n = [sum(count == wanted for count in counts.values()) for wanted in range(5)]
        if not all(n[1:]):
            return FALLBACK
        y = n[1] / (n[1] + 2 * n[2])
        found = tuple(k - (k + 1) * y * n[k + 1] / n[k] for k in (1, 2, 3))
        return found if all(0 <= d <= k for k, d in enumerate(found, 1)) else FALLBACK

    def chance(self, word: int, context: tuple[int, ...]) -> float:
        context = context[max(0, len(context) - self.order + 1) :]
        below = self.chance(word, context[1:]) if context else 1 / self.vocab_size
        length = len(context) + 1
        after = {g[-1]: count for g, count in self.counts[length].items() if g[:-1] == context}
        total = sum(after.values())
        if not total:
            return below

        def discount(count: int) -> float:
            return self.discounts[length][min(count, 3) - 1]

        own = after[word] - discount(after[word]) if word in after else 0.0
        return own / total + sum(map(discount, after.values())) / total * below


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_it_is_the_formula_written_out(order: int) -> None:
    data, unseen = texts(), [*texts(5, seed=2), [BOS, 11, 4, 12, 12, EOS], [BOS, EOS]]
    model, written = KneserNey.fit(data, order=order, vocab_size=14), Written(data, order, 14)
    for text, found in zip([*data[:5], *unseen], model.score([*data[:5], *unseen]), strict=True):
        expected = [np.log(written.chance(text[n], tuple(text[:n]))) for n in range(1, len(text))]
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_a_case_by_hand() -> None:
    """Two texts, "a b" and "a a" (a = 2, b = 3), pairs of tokens; too few for estimates, so D is 0.5, 1 and 1.5.

    Pairs: <s>a twice, ab, b</s>, aa, a</s> once. Different tokens before a: <s> and a; b: a; </s>: b and a. So for single
    tokens a = {a: 2, b: 1, </s>: 2}, A = 5, D taken {1, 0.5, 1}, b = 2.5 / 5, and 1/4 of that falls on each of 4 tokens.
    """
    half, quarter = Fraction(1, 2), Fraction(1, 4)
    single_a = Fraction(2 - 1, 5) + half * quarter
    single_b = (1 - half) / 5 + half * quarter
    after_beginning = Fraction(2 - 1, 2) + half * single_a  # <s>a twice: D = 1, b = 1 / 2
    b_after_a = (1 - half) / 3 + half * single_b  # after a: a, b, </s> once each, D = 0.5, b = 1.5 / 3
    model = KneserNey.fit([[BOS, 2, 3, EOS], [BOS, 2, 2, EOS]], order=2, vocab_size=4)
    found = np.exp(model.log_probabilities([BOS, 2, 3]))
    np.testing.assert_allclose(found, [float(after_beginning), float(b_after_a)], rtol=1e-12)


@pytest.mark.parametrize("context", [[BOS], [BOS, 5], [BOS, 4, 6, 3], [BOS, 12], [BOS, 2, 2, 2, 2, 2]])
def test_probabilities_sum_to_one(context: list[int]) -> None:
    model = KneserNey.fit(texts(), order=4, vocab_size=14)
    last = [np.exp(model.log_probabilities([*context, word])[-1]) for word in range(14)]
    assert sum(last) == pytest.approx(1, abs=1e-12)
    assert min(last) > 0


def test_longer_contexts_help_where_there_is_something_to_learn() -> None:
    everything = texts(700)
    data, unseen = everything[:600], everything[600:]
    bits = [
        -np.concatenate(KneserNey.fit(data, order=order, vocab_size=14).score(unseen)).mean()
        for order in (1, 2)
    ]
    assert bits[1] < bits[0] - 0.2


def test_nothing_to_count_is_refused() -> None:
    for nothing in ([], [[BOS]]):
        with pytest.raises(DataError, match="no text to count"):
            KneserNey.fit(nothing, order=2, vocab_size=4)
    with pytest.raises(ConfigError, match="order=0"):
        KneserNey.fit(texts(), order=0, vocab_size=14)
