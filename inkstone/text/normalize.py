"""One spelling for one text: what looks the same becomes the same, and nothing a reader sees is lost.

In this order: mojibake and terminal escapes are repaired (ftfy), half surrogates become U+FFFD, Unicode
is composed (NFC; NFKC on request, which also makes ① a 1 and ＡＢＣ an ABC), control and invisible
characters go, white space is tidied, and on request Chinese is written in one script (OpenCC, which knows
phrases: 头发 -> 頭髮, 皇后 stays).

ftfy's defaults are made for English: they turn ，。！into ,.! and “ ” into ". Both are switched off, so
Chinese punctuation survives. HTML entities are left alone unless asked for: a text about `&amp;` means
`&amp;`.

The joiners U+200C and U+200D stay, because Persian, Indic scripts and emoji families need them.
Indentation does not survive white-space tidying: normalise prose, not programs.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Any, Literal, get_args

from inkstone.ground.errors import ConfigError, not_known

Form = Literal["NFC", "NFKC"]
Script = Literal["simplified", "traditional"]
FORMS: tuple[str, ...] = get_args(Form)
SCRIPTS: tuple[str, ...] = get_args(Script)

# Text of these characters alone has nothing to repair, compose or remove: most Chinese and most English.
_PLAIN = re.compile(r"[\n\x20-\x7e、-】〔-〟ぁ-ゔァ-ヿ一-鿿！-～‘’“”…—·]*")
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x84\x86-\x9f"  # controls but tab, line feed and NEL
    "\u00ad\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb]"
)
_LINE_ENDS = re.compile("\r\n?|[\u0085\u2028\u2029\x0b\x0c]")
_SPACES = re.compile(r"[^\S\n]+")
_UNTIDY = re.compile(r"\A\s|\s\Z|[^\S\n ]|  | \n|\n |\n\n\n")


def normalize(
    text: str,
    *,
    form: Form = "NFC",
    script: Script | None = None,
    entities: bool = False,
) -> str:
    """The text in its one spelling. Normalising twice changes nothing more.

    script: write Chinese in "simplified" or "traditional" characters. entities: resolve HTML entities
    (&lt;).

    >>> normalize("cafe\\u0301，ｏｋ！\\u200b  \\r\\n")
    'café，ｏｋ！'
    """
    if form not in FORMS:
        raise ConfigError(not_known("form", form, FORMS))
    if _PLAIN.fullmatch(text) is None:
        text = _repair(text, form)
    elif form == "NFKC":
        text = unicodedata.normalize("NFKC", text)
    if entities and "&" in text:
        text = _resolve(text)
    if _UNTIDY.search(text):
        text = _tidy(text)
    return to_script(text, script) if script is not None else text


def to_script(text: str, script: Script) -> str:
    """Chinese in simplified or traditional characters; everything else as it is."""
    if script not in SCRIPTS:
        raise ConfigError(not_known("script", script, SCRIPTS))
    if text.isascii():
        return text
    converted: str = _converter(script).convert(text)
    return converted


def _repair(text: str, form: Form) -> str:
    for _ in range(
        4
    ):  # a repair may uncover another: mojibake of mojibake, a control or a space inside a sequence
        before = text
        text = _without_half_surrogates(text)
        text = _LINE_ENDS.sub("\n", text)
        text = _ftfy()(text)
        text = _INVISIBLE.sub("", text)
        text = _tidy(unicodedata.normalize(form, text))
        if text == before:
            break
    return text


def _without_half_surrogates(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _resolve(text: str) -> str:
    import html

    return normalize(html.unescape(text))


def _tidy(text: str) -> str:
    """One space where there was white space, at most one empty line, none at the ends."""
    text = _SPACES.sub(" ", text)
    text = text.replace(" \n", "\n").replace("\n ", "\n")
    return re.sub(r"\n{3,}", "\n\n", text).strip()


@cache
def _ftfy() -> Any:
    import ftfy

    settings = ftfy.TextFixerConfig(
        unescape_html=False,
        fix_character_width=False,  # the default makes ，。！ into ,.!
        uncurl_quotes=False,  # the default makes “ ” into "
        fix_line_breaks=False,
        normalization=None,
        explain=False,
    )
    return lambda text: ftfy.fix_text(text, settings)


@cache
def _converter(script: Script) -> Any:
    import opencc

    return opencc.OpenCC("t2s" if script == "simplified" else "s2t")
