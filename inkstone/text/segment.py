"""Text to words. English has spaces; Chinese does not, so there a dictionary and a model decide (rjieba,
the jieba of Rust).

Words are what carries meaning: letters, digits, and what joins them inside a word (don't, 3.14, e-mail).
Punctuation comes along only when asked for. Runs of Han characters, with the Latin letters and digits
that touch them (T恤, 3月), go to rjieba; all else is cut by Unicode's word characters. Japanese, Thai and
other scripts written without spaces have no segmenter here: a run of their letters is one word (kana),
and Han under language="ja" is cut into single characters rather than by a Chinese dictionary.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from inkstone.text.language import HAN, KANA

_WORD = r"[^\W_]+(?:[\u0300-\u036f]+[^\W_]*)*"
_TOKEN = re.compile(
    rf"(?P<chinese>[A-Za-z0-9]*[{HAN}][{HAN}A-Za-z0-9]*)"
    rf"|(?P<kana>[{KANA}]+)"
    rf"|(?P<word>(?:(?![{HAN}{KANA}])[^\W_]|[\u0300-\u036f\u0900-\u0dff\u0e31-\u0e4e])+"
    rf"(?:(?:['’·\-]|(?<=\d)[.,:](?=\d))(?:(?![{HAN}{KANA}])[^\W_]|[\u0300-\u036f])+)*)"
    r"|(?P<mark>[^\w\s]+|_+)"
)


def words(text: str, language: str | None = None, *, punctuation: bool = False) -> list[str]:
    """The words of a text in order, as written (case is kept).

    >>> words("我爱北京天安门, don't you?")
    ['我', '爱', '北京', '天安门', "don't", 'you']
    """
    found: list[str] = []
    for match in _TOKEN.finditer(text):
        kind, token = match.lastgroup, match.group()
        if kind == "chinese":
            if language == "ja":
                found.extend(re.findall(rf"[{HAN}]|[^{HAN}]+", token))
            else:
                found.extend(_segmenter().cut(token))
        elif kind != "mark" or punctuation:
            found.append(token)
    return found


def search_words(text: str, language: str | None = None) -> list[str]:
    """Like `words`, but long Chinese words bring their parts along, for an index.

    >>> search_words("北京大学")
    ['北京', '大学', '北京大学']
    """
    found: list[str] = []
    for word in words(text, language):
        if language != "ja" and len(word) > 2 and re.search(f"[{HAN}]", word):
            found.extend(_segmenter().cut_for_search(word))
        else:
            found.append(word)
    return found


@cache
def _segmenter() -> Any:
    import rjieba

    return rjieba.Jieba()
