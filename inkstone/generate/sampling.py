"""Drawing a token: temperature, top-k, top-p and min-p cut the distribution, one random number chooses from the rest.

The cuts come in the order of `transformers`: repeated tokens, n-grams, temperature, top-k, top-p, min-p. All engines
draw here, in numpy, from the scores that their model gives, so that they cannot differ in more than rounding.

Every output has random numbers of its own, one a token, from a generator seeded by (seed, number of the alternative).
What else is in the batch, and in which engine it runs, changes none of them. The number is compared with the running
sum of the probabilities in the order of the vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from inkstone.generate.constraints import Scores, penalised, without_repeated_ngrams
from inkstone.generate.engine import GenerationOptions

AT_ONCE = 1024  # of the likeliest tokens are sorted first; top-p rarely needs more


def log_softmax(scores_V: Scores) -> Scores:
    """Log-probabilities of scores."""
    shifted = scores_V.astype(np.float64) - scores_V.max()
    logs: Scores = (shifted - np.log(np.exp(shifted).sum())).astype(np.float32)
    return logs


def highest(scores_V: Scores, count: int) -> NDArray[np.int64]:
    """The places of the highest scores, best first, of equals the first."""
    count = min(count, len(scores_V))
    if count < len(scores_V):
        border = np.partition(scores_V, len(scores_V) - count)[len(scores_V) - count]
        places = np.flatnonzero(scores_V >= border)
    else:
        places = np.arange(len(scores_V))
    order = np.argsort(-scores_V[places], kind="stable")
    chosen: NDArray[np.int64] = places[order][:count]
    return chosen


def cut_top_k(scores_V: Scores, top_k: int) -> Scores:
    """-inf for all but the top_k highest scores and their equals (Fan et al., 2018); 0 keeps all."""
    if not 0 < top_k < len(scores_V):
        return scores_V
    border = np.partition(scores_V, len(scores_V) - top_k)[len(scores_V) - top_k]
    return np.where(scores_V < border, np.float32(-np.inf), scores_V)


def cut_top_p(scores_V: Scores, top_p: float) -> Scores:
    """-inf for all but the likeliest tokens that have at least top_p together (Holtzman et al., 2020)."""
    if top_p >= 1:
        return scores_V
    shares_V = np.exp(log_softmax(scores_V).astype(np.float64))
    places = highest(scores_V, AT_ONCE)
    if shares_V[places].sum() < top_p:
        places = highest(scores_V, len(scores_V))
    before = np.cumsum(shares_V[places]) - shares_V[places]  # of the likelier ones
    kept = places[(before < top_p) | (np.arange(len(places)) == 0)]
    cut_V = np.full_like(scores_V, -np.inf)
    cut_V[kept] = scores_V[kept]
    return cut_V


def cut_min_p(scores_V: Scores, min_p: float) -> Scores:
    """-inf for tokens less than min_p times as likely as the likeliest (Nguyen et al., 2024)."""
    if min_p <= 0:
        return scores_V
    return np.where(scores_V < scores_V.max() + np.log(min_p), np.float32(-np.inf), scores_V)


def shaped(scores_V: Scores, ids: Sequence[int], options: GenerationOptions) -> Scores:
    """The scores as the options change them, given the tokens before: softmax of these is what is drawn from."""
    scores_V = penalised(scores_V, ids, options.repetition_penalty)
    scores_V = without_repeated_ngrams(scores_V, ids, options.no_repeat_ngram)
    if not options.temperature:
        return scores_V
    scores_V = cut_top_k(scores_V / np.float32(options.temperature), options.top_k)
    return cut_min_p(cut_top_p(scores_V, options.top_p), options.min_p)


class Draw:
    """The tokens of one output, one after another. alternative: its number among those of the same input."""

    def __init__(self, options: GenerationOptions, alternative: int) -> None:
        self.options = options
        seed = None if options.seed is None else [options.seed, alternative]
        self._random = np.random.default_rng(seed)

    def token(self, scores_V: Scores, ids: Sequence[int]) -> int:
        """The next token, given the model's scores and the tokens before: the likeliest when there is no temperature."""
        scores_V = shaped(scores_V, ids, self.options)
        if not self.options.temperature:
            return int(scores_V.argmax())
        places = np.flatnonzero(scores_V > -np.inf)
        if not len(places):
            return int(scores_V.argmax())
        sums = np.cumsum(np.exp((scores_V[places] - scores_V[places].max()).astype(np.float64)))
        place = np.searchsorted(sums, self._random.random() * sums[-1], side="right")
        return int(places[min(int(place), len(places) - 1)])
