"""How close a text is to its reference: BLEU (Papineni et al., 2002) and chrF (Popović, 2015), by sacreBLEU
(Post, 2018).

sacreBLEU cuts and counts; its counts per sentence become a `Tally`, whose score function is sacreBLEU's
formula written for many samples at once (a test holds the two equal). BLEU depends on how the text is cut
into tokens, and the wrong cut is not a small error: "13a", right for English, splits on spaces, finds one
token in a Chinese sentence, and reports 0 for a good translation. So the tokenisation follows the target
language, is named in the signature beside every figure, and `tokenize="none"` (text that already is tokens)
is only ever somebody's explicit choice.

Scores run from 0 to 100. Not covered: several references per sentence, TER, learnt metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from inkstone.ground.errors import ConfigError, DataError, not_known, require
from inkstone.metrics.statistics import Array, Tally, divide

Tokenize = Literal["13a", "zh", "char", "intl", "none"]

# Languages written without spaces between words; the other tokenisers would see one token per sentence.
_UNSPACED: dict[str, Tokenize] = {
    "zh": "zh",
    "ja": "char",
    "th": "char",
    "km": "char",
    "lo": "char",
    "my": "char",
}
_BLEU_ORDER, _CHRF_ORDER, _BETA_SQUARED = 4, 6, 4.0
_LOG_ZERO = -9999999999.0  # sacreBLEU's logarithm of 0


def tokenize_for(language: str) -> Tokenize:
    """The BLEU tokenisation for a target language code.

    >>> tokenize_for("zh"), tokenize_for("en")
    ('zh', '13a')
    """
    return _UNSPACED.get(language.lower().split("-")[0].split("_")[0], "13a")


def bleu(hypotheses: Sequence[str], references: Sequence[str], *, tokenize: Tokenize) -> Tally:
    """Corpus BLEU, 0 to 100: n-grams up to four, exponential smoothing. See `tokenize_for` for the
    tokenisation.

    >>> bleu(["the cat sat on the mat"], ["the cat sat on the mat"], tokenize="13a").value
    100.00000000000004
    """
    if tokenize not in get_args(Tokenize):
        raise ConfigError(not_known("tokenize", tokenize, get_args(Tokenize)))
    require("sacrebleu", "measuring translations", "train")
    from sacrebleu.metrics import BLEU

    return _tally(BLEU(tokenize=tokenize, force=True), hypotheses, references, _bleu_score)


def chrf(hypotheses: Sequence[str], references: Sequence[str]) -> Tally:
    """chrF2, 0 to 100: F-score of character n-grams up to six, recall counting twice; no tokenisation."""
    require("sacrebleu", "measuring translations", "train")
    from sacrebleu.metrics import CHRF

    return _tally(CHRF(), hypotheses, references, _chrf_score)


def _tally(metric: Any, hypotheses: Sequence[str], references: Sequence[str], score: Any) -> Tally:
    if len(hypotheses) != len(references):
        raise DataError(f"{len(hypotheses):,} translations were given for {len(references):,} references.")
    if not hypotheses:
        raise DataError("there is nothing to measure: the test set has no sentences.")
    # Not public, but the very numbers that corpus_score sums; sacrebleu is pinned below 3 and a test
    # compares.
    rows = metric._extract_corpus_statistics(list(hypotheses), [list(references)])
    return Tally(np.asarray(rows, dtype=np.float64), score, str(metric.get_signature()))


def _bleu_score(sums_RK: Array) -> Array:
    """sums: hypothesis length, reference length, 4 counts of matched n-grams, 4 of all n-grams."""
    hypothesis_R, reference_R = sums_RK[:, 0], sums_RK[:, 1]
    matched_RO, total_RO = sums_RK[:, 2 : 2 + _BLEU_ORDER], sums_RK[:, 2 + _BLEU_ORDER :]
    # An order without a match counts as half a match, the next such order as a quarter, and so on.
    halvings_RO = np.cumsum((matched_RO == 0) & (total_RO > 0), axis=1)
    counted_RO = np.where(matched_RO == 0, 0.5**halvings_RO, matched_RO)
    precisions_RO = divide(100 * counted_RO, total_RO)
    logs_RO = np.log(precisions_RO, out=np.full_like(precisions_RO, _LOG_ZERO), where=precisions_RO > 0)
    shortfall_R = np.where(hypothesis_R < reference_R, 1 - divide(reference_R, hypothesis_R), 0.0)
    scores_R = np.exp(shortfall_R + logs_RO.mean(axis=1))
    return np.where(matched_RO.any(axis=1), scores_R, 0.0)


def _chrf_score(sums_RK: Array) -> Array:
    """sums: for each order the n-gram counts of hypothesis, reference and their overlap."""
    counts_RO3 = sums_RK.reshape(len(sums_RK), _CHRF_ORDER, 3)
    hypothesis_RO, reference_RO, matched_RO = (counts_RO3[..., part] for part in range(3))
    present_RO = (hypothesis_RO > 0) & (reference_RO > 0)
    orders_R = present_RO.sum(axis=1).astype(np.float64)
    precision_R = divide((divide(matched_RO, hypothesis_RO) * present_RO).sum(axis=1), orders_R)
    recall_R = divide((divide(matched_RO, reference_RO) * present_RO).sum(axis=1), orders_R)
    return 100 * divide((1 + _BETA_SQUARED) * precision_R * recall_R, _BETA_SQUARED * precision_R + recall_R)
