"""How much of a reference a summary has: ROUGE-1, ROUGE-2 and ROUGE-L (Lin, 2004).

Of a summary and a reference, F1 of the words (ROUGE-1), of the pairs of neighbours (ROUGE-2), and of the longest sequence
of words that both have in order, with gaps (ROUGE-L). Of several references the best counts, by each measure for itself;
the score of many summaries is the mean. No stemming.

What a word is decides the figure. Here a run of letters and digits without case is one, and a Chinese character or a
Japanese kana by itself is one: for text in ASCII this is the cut of the usual Python package (rouge-score), which
leaves letters beyond ASCII out and so finds nothing in Chinese. A test holds the two equal.

Scores run from 0 to 100.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from inkstone.ground.errors import DataError
from inkstone.metrics.statistics import Array, Tally, divide

_SINGLE = (
    "\u3005-\u3007\u3041-\u309f\u30a1-\u30fe\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_WORD = re.compile(rf"[{_SINGLE}]|(?:(?![{_SINGLE}_])\w)+")
_SIGNATURE = "F1, best of the references, mean; no stemming, characters where words have no spaces"


def rouge_words(text: str) -> list[str]:
    """The words of a text as ROUGE compares them.

    >>> rouge_words("The GPU's memory, 显存")
    ['the', 'gpu', 's', 'memory', '显', '存']
    """
    return _WORD.findall(text.lower())


def rouge(hypotheses: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Tally]:
    """ROUGE-1, ROUGE-2 and ROUGE-L of summaries, each beside one or more references. Raises DataError for none."""
    if len(hypotheses) != len(references):
        raise DataError(
            f"{len(hypotheses):,} summaries were given for {len(references):,} lists of references."
        )
    if not hypotheses:
        raise DataError("there is nothing to measure: the test set has no summaries.")
    if not all(references):
        raise DataError("a summary cannot be measured without a reference.")
    scores_N3 = np.array(
        [
            np.max([_one(rouge_words(summary), rouge_words(reference)) for reference in several], axis=0)
            for summary, several in zip(hypotheses, references, strict=True)
        ]
    )
    return {
        name: Tally(
            np.stack([scores_N3[:, column], np.ones(len(scores_N3))], axis=1), _mean, f"{name}, {_SIGNATURE}"
        )
        for column, name in enumerate(("rouge1", "rouge2", "rougeL"))
    }


def _one(summary: list[str], reference: list[str]) -> tuple[float, float, float]:
    pairs, wanted = list(pairwise(summary)), list(pairwise(reference))
    return (
        _f1(_shared(summary, reference), len(summary), len(reference)),
        _f1(_shared(pairs, wanted), len(pairs), len(wanted)),
        _f1(longest_common_subsequence(summary, reference), len(summary), len(reference)),
    )


def _shared(one: Sequence[object], other: Sequence[object]) -> int:
    return (Counter(one) & Counter(other)).total()


def longest_common_subsequence(one: Sequence[str], other: Sequence[str]) -> int:
    """The length of the longest sequence that both have in order, gaps allowed.

    A row of the usual table grows by 0 or 1 from left to right: it is kept as the bits of one number, 0 where it grows,
    and a whole row is a few operations on it (Hyyrö, 2004).
    """
    places: dict[str, int] = {}
    for place, word in enumerate(other):
        places[word] = places.get(word, 0) | (1 << place)
    whole = (1 << len(other)) - 1
    row = whole
    for word in one:
        met = row & places.get(word, 0)
        row = ((row + met) | (row - met)) & whole
    return len(other) - row.bit_count()


def _f1(shared: int, given: int, wanted: int) -> float:
    return 200 * shared / (given + wanted) if given + wanted else 0.0


def _mean(sums_RK: Array) -> Array:
    return divide(sums_RK[:, 0], sums_RK[:, 1])
