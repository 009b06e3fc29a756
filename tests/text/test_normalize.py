"""What normalisation repairs and, above all, what it leaves alone."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from inkstone.ground.errors import ConfigError
from inkstone.text.normalize import normalize, to_script


@pytest.mark.parametrize(
    "text",
    [
        "“你好，世界！”他问：（是吗？）……",  # ftfy's defaults would make this ASCII
        "ＡＢＣ１２３",
        "It’s “fine” — really…",
        "👩‍👩‍👧‍👦 🏴󠁧󠁢󠁥󠁮󠁧󠁿",
        "می‌خواهم",  # the non-joiner is spelling, not dirt
        "a &amp; b &lt;br&gt;",
        "один два; ένα δύο",
    ],
)
def test_good_text_is_left_alone(text: str) -> None:
    assert normalize(text) == text


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("schÃ¶n", "schön"),
        ("â€œquoteâ€\x9d", "“quote”"),
        ("cafe\u0301", "café"),
        ("a\x00b\x07c", "abc"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("zero\u200bwidth\ufeff \u2060x\u00ad", "zerowidth x"),
        ("\u202eevil\u202c", "evil"),
        ("  a \t b\u00a0c\u3000d  ", "a b c d"),
        ("a\r\nb\rc\u2028d", "a\nb\nc\nd"),
        ("a  \n\n\n\n  b", "a\n\nb"),
        ("half \ud83d", "half \ufffd"),
        ("\ud83d\ude00", "😀"),
    ],
)
def test_dirt_goes(dirty: str, clean: str) -> None:
    assert normalize(dirty) == clean


def test_forms_entities_and_scripts() -> None:
    assert normalize("ＡＢＣ①，", form="NFKC") == "ABC1,"
    assert normalize("a &amp; b", entities=True) == "a & b"
    assert normalize("头发和皇后", script="traditional") == "頭髮和皇后"
    assert to_script("頭髮", "simplified") == "头发"
    with pytest.raises(ConfigError, match="NFKC"):
        normalize("x", form="NFD")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="simplified"):
        normalize("x", script="cantonese")  # type: ignore[arg-type]


@given(st.text(max_size=40))
@example("\xa0Â\x91")  # a space in the way of a repair
@settings(max_examples=200, deadline=None)
def test_twice_is_once(text: str) -> None:
    once = normalize(text)
    assert normalize(once) == once
    once.encode("utf-8")
