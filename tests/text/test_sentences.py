"""Borders of sentences in Chinese, English and both; nothing is ever lost."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inkstone.ground.errors import ConfigError
from inkstone.text.segment import search_words, words
from inkstone.text.sentences import sentence_spans, split_sentences
from inkstone.text.stopwords import CHINESE, ENGLISH, stop_words

# Sentences apart from each other by │, which is not in the text.
CASES = [
    "“你好。”│他说。",
    "他说：“走！”│“不走！”│她答。",
    "「真的？」│『是的。』│（完。）│下一句。",
    "他（真的！）来了。│走了！",
    "我……我不知道。│他走了……",
    "怎么回事？！│没事。",
    "圆周率是3.14。│版本是v1.2.3。",
    'Mr. Smith paid 3.50 dollars. │"Really?" he asked. │He did.',
    "Dr. J. R. Lee met Mrs. Wu, e.g. at 5 p.m. in Paris. │They talked.",
    "She lives in the U.S. │He does not.",
    "The U.S. Senate met. │It voted.",
    'He said "Hi." │"Bye," she said.',
    "(All of it. │Really.) │Next one.",
    "This (see p. 3. It is long.) is fine. │OK.",
    "Wait... what? │He said... │Then he left.",
    "See Fig. 3 and No. 5. │No. │I will not.",
    "1. First thing. │2. Second thing.",
    "Visit www.example.com now! │Yes.",
    "Yahoo! is a company. │So?",
    "Python 3.14 is out!│是吗？│是的。",
    "标题\n│正文第一句。│第二句。\n\n│新段落",
    "A line that is\nwrapped here. │The end.\n│- item one\n│- Item two",
]


@pytest.mark.parametrize("case", CASES)
def test_borders(case: str) -> None:
    assert split_sentences(case.replace("│", "")) == case.split("│")


def test_german_ordinals() -> None:
    text = "Am 3. Oktober war frei. Dann nicht."
    assert split_sentences(text, "de") == ["Am 3. Oktober war frei. ", "Dann nicht."]


@given(st.text(st.sampled_from("ab A.。！?!…\"'“”（）()\n 你1,;"), max_size=60) | st.text(max_size=40))
@settings(max_examples=400, deadline=None)
def test_nothing_is_lost(text: str) -> None:
    pieces = split_sentences(text)
    assert "".join(pieces) == text
    assert all(piece.strip() for piece in pieces) or not text.strip()
    spans = [text[start:end] for start, end in sentence_spans(text)]
    assert spans == [piece.strip() for piece in pieces if piece.strip()]


def test_splitting_takes_linear_time() -> None:
    for text in ("（这是一句很长的话。", "a. ", "3.14 ", "5. a ", '"x.y ', "(x.y ", "……我", "\n a,", '."'):
        assert "".join(split_sentences(text * 20000)) == text * 20000


def test_words_of_both_languages() -> None:
    assert words("我爱北京天安门, don't you?") == ["我", "爱", "北京", "天安门", "don't", "you"]
    assert words("T恤 e-mail 3.14 café") == ["T恤", "e-mail", "3.14", "café"]
    assert words("好，是！", punctuation=True) == ["好", "，", "是", "！"]
    assert words("東京 です", "ja") == ["東", "京", "です"]
    assert {"北京", "大学", "北京大学"} <= set(search_words("北京大学"))
    assert words("") == []


@given(st.text(max_size=50))
@settings(max_examples=200, deadline=None)
def test_words_are_pieces_of_the_text_in_order(text: str) -> None:
    at = 0
    for word in words(text, punctuation=True):
        at = text.index(word, at) + len(word)


def test_stop_words() -> None:
    assert {"the", "not", "don't"} <= ENGLISH and {"的", "我们", "不"} <= CHINESE
    assert all(word == word.lower().strip() for word in ENGLISH | CHINESE)
    assert stop_words("zh") is CHINESE
    with pytest.raises(ConfigError, match="en, zh"):
        stop_words("fr")
