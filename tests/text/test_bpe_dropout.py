"""BPE-dropout: without dropout it is the tokenizer, with it it is the `tokenizers` library's own in the mean."""

from __future__ import annotations

from random import Random

import pytest

from inkstone.ground.errors import ConfigError
from inkstone.text.bpe_dropout import BpeDropout
from inkstone.text.tokenizer import Tokenizer

TEXTS = [
    "a man in an orange hat starring at something .",
    "an elderly woman watches unbelievable fireworks , isn't it ?",
    "我昨天在图书馆借了一本关于人工智能的书，但是还没有时间阅读。",
    "3.14 dollars  twice\ttabbed\nand a new line",
    "😀 über naïve 龘 ▁ <s> </s>",
    "",
    " ",
]


def tokenizer(kind: str = "bpe", size: int = 700) -> Tokenizer:
    return Tokenizer.train(TEXTS[:4] * 3, kind=kind, vocab_size=size, specials=("<2en>",))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["bpe", "byte-bpe"])
@pytest.mark.parametrize("text", TEXTS)
def test_without_dropout_words_are_cut_as_the_tokenizer_cuts(kind: str, text: str) -> None:
    made = tokenizer(kind)
    dropout = BpeDropout(made)
    cut = [number for word in dropout.words(text) for number in dropout.cut(word, 0, Random(0))]
    assert cut == made.encode(text)


@pytest.mark.parametrize("kind", ["bpe", "byte-bpe"])
@pytest.mark.parametrize("text", TEXTS)
def test_any_cut_reads_as_the_same_text(kind: str, text: str) -> None:
    made = tokenizer(kind)
    dropout, chance = BpeDropout(made), Random(1)
    for share in (0.1, 0.5, 1.0):
        ids = [number for word in dropout.words(text) for number in dropout.cut(word, share, chance)]
        assert made.decode(ids) == made.decode(made.encode(text))


def test_with_everything_left_out_characters_are_left() -> None:
    made = tokenizer()
    dropout = BpeDropout(made)
    (word, *_) = dropout.words("fireworks")
    assert [made.token_of(n) for n in dropout.cut(word, 1.0, Random(0))] == list("▁fireworks")


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_cuts_are_as_long_as_those_of_the_library(share: float) -> None:
    """Its own draws cannot be seeded, so means are compared: within 2 %, some ten standard errors."""
    made = tokenizer()
    dropout, chance = BpeDropout(made), Random(2)
    text = " ".join(TEXTS[:2])
    rounds = 400
    ours = sum(len(dropout.cut(word, share, chance)) for _ in range(rounds) for word in dropout.words(text))
    made.inner.model.dropout = share
    theirs = sum(len(ids) for ids in made.encode_batch([text] * rounds))
    plain = rounds * len(tokenizer().encode(text))
    assert ours > 1.05 * plain
    assert ours == pytest.approx(theirs, rel=0.02)


@pytest.mark.parametrize("kind", ["unigram", "wordpiece"])
def test_kinds_without_merges_are_refused(kind: str) -> None:
    with pytest.raises(ConfigError, match=r"bpe_dropout.*Valid: bpe, byte-bpe"):
        BpeDropout(tokenizer(kind))
