"""BLEU and chrF against sacreBLEU, on the whole test set and on resamples of it; the Chinese trap."""

from __future__ import annotations

import numpy as np
import pytest
import sacrebleu
from sacrebleu.metrics import BLEU, CHRF

from inkstone.ground.errors import ConfigError, DataError
from inkstone.metrics.text import Tokenize, bleu, chrf, tokenize_for

REFERENCES = [
    "The cat sat on the mat, and it did not move.",
    "A man in a blue shirt is standing on a ladder.",
    "Two dogs run across the wide green field.",
    "Nobody knows why.",
    "Please close the door when you leave the room.",
]
HYPOTHESES = [
    "The cat sat on a mat and did not move.",
    "A man in a blue shirt stands on a ladder.",
    "Dogs are running.",
    "",
    "Please close the door when you leave the room.",
]
CHINESE = ["今天天气很好，我们去公园散步吧。", "这本书比那本书更有意思。"]
CHINESE_HYPOTHESES = ["今天天气很好，我们去公园走走吧。", "这本书比那本更有意思。"]


@pytest.mark.parametrize("tokenize", ["13a", "intl", "char", "none"])
def test_bleu_is_sacrebleu(tokenize: Tokenize) -> None:
    expected = sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES], tokenize=tokenize).score
    assert bleu(HYPOTHESES, REFERENCES, tokenize=tokenize).value == pytest.approx(expected, rel=1e-12)


def test_chrf_is_sacrebleu() -> None:
    assert chrf(HYPOTHESES, REFERENCES).value == pytest.approx(
        sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES]).score, rel=1e-12
    )


def test_every_resample_is_scored_as_sacrebleu_would() -> None:
    """Small samples with missing n-gram orders, empty output and no match: the smoothing must agree."""
    rng = np.random.default_rng(0)
    for drawn in [rng.integers(0, 5, rng.integers(1, 6)) for _ in range(60)]:
        hypotheses, references = [HYPOTHESES[i] for i in drawn], [REFERENCES[i] for i in drawn]
        times = np.bincount(drawn, minlength=5).astype(float)[None, :]
        ours, theirs = bleu(HYPOTHESES, REFERENCES, tokenize="13a"), BLEU()
        expected = theirs.corpus_score(hypotheses, [references]).score
        assert ours.score(times @ ours.rows)[0] == pytest.approx(expected, abs=1e-9)
        ours = chrf(HYPOTHESES, REFERENCES)
        expected = CHRF().corpus_score(hypotheses, [references]).score
        assert ours.score(times @ ours.rows)[0] == pytest.approx(expected, abs=1e-9)


def test_the_chinese_trap() -> None:
    """With the English tokenisation good Chinese scores 0; with the one for its language it does not."""
    assert bleu(CHINESE_HYPOTHESES, CHINESE, tokenize="13a").value < 1e-9
    found = bleu(CHINESE_HYPOTHESES, CHINESE, tokenize=tokenize_for("zh")).value
    assert found == pytest.approx(sacrebleu.corpus_bleu(CHINESE_HYPOTHESES, [CHINESE], tokenize="zh").score)
    assert found > 50
    assert chrf(CHINESE_HYPOTHESES, CHINESE).value > 50


@pytest.mark.parametrize(
    ("language", "expected"),
    [("zh", "zh"), ("zh-Hant", "zh"), ("ZH_tw", "zh"), ("en", "13a"), ("ja", "char")],
)
def test_the_tokenisation_follows_the_target_language(language: str, expected: str) -> None:
    assert tokenize_for(language) == expected


def test_the_signature_names_the_tokenisation() -> None:
    assert "tok:zh" in bleu(CHINESE, CHINESE, tokenize="zh").signature
    assert "tok:none" in bleu(CHINESE, CHINESE, tokenize="none").signature
    assert "version:" in chrf(CHINESE, CHINESE).signature


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ConfigError, match='tokenize="13b" is not known'):
        bleu(["a"], ["a"], tokenize="13b")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="1 translations were given for 2 references"):
        chrf(["a"], ["a", "b"])
    with pytest.raises(DataError, match="no sentences"):
        chrf([], [])
