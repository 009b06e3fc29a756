"""Languages, told offline, and the short text on which models fail."""

from __future__ import annotations

import socket

import pytest

from inkstone.ground.errors import ConfigError
from inkstone.text.language import checked_code, detect, detect_batch, language_code, language_name

SENTENCES = {
    "zh": ["你好", "龙", "使用 print 函数打印结果", "今天天气很好，我们去公园吧。", "她喜歡喝咖啡"],
    "ja": ["これはペンです", "東京へ行きます", "カタカナ"],
    "ko": ["안녕하세요", "오늘 날씨가 좋아요"],
    "en": ["The cat sat on the mat and looked at the dog.", "I CAN'T BELIEVE THIS HAPPENED AGAIN TODAY"],
    "de": ["Das ist ein schönes altes Haus am See.", "Ein Mann geht mit seinem Hund spazieren."],
    "fr": ["Le petit chat dort sur la table de la cuisine."],
    "ru": ["Сегодня хорошая погода, пойдём в парк."],
}


@pytest.mark.parametrize("language", SENTENCES)
def test_sentences_are_told(language: str) -> None:
    assert [found.language for found in detect_batch(SENTENCES[language])] == [language] * len(
        SENTENCES[language]
    )


def test_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert detect("This sentence is written in English.").language == "en"


@pytest.mark.parametrize("text", ["", "   ", "12:30", "!!!", "👍"])
def test_text_without_letters_is_undetermined(text: str) -> None:
    assert detect(text).language == "und"
    assert detect(text).confidence == 0


def test_short_latin_text_is_not_sure_and_a_foreign_word_decides_nothing() -> None:
    assert detect("hello").confidence < 0.6
    assert detect("In Chinese the greeting 你好 simply means hello to you").language == "en"
    assert 0 < detect("你好").confidence < 1


def test_lines_and_long_texts() -> None:
    assert detect("The cat\nsat on\nthe mat and slept.\n" * 2000).language == "en"


def test_codes_and_names() -> None:
    codes = {"zh-CN": "zh", "ZH_Hans": "zh", "en": "en", "text": None, "question": None, "zh-": "zh"}
    assert {name: language_code(name) for name in codes} == codes
    assert language_name("zh") == "Chinese" and language_name("zh", in_chinese=True) == "中文"
    with pytest.raises(ConfigError, match="klingon"):
        checked_code("klingon")
