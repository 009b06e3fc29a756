"""What a corpus is cleaned by. A rule looks at one record and says nothing, or why the record must go.

Each rule has a name, and a dropped record carries the name and the reason, so a person can look at what
went and disagree. Rules come from `RULES`, in the order of cheap to dear: the first that objects is the
one recorded. A rule that remembers (duplicates) is made anew for each run by its maker,
`RULES[name](settings)`.

The defaults are mild. A corpus is easier to spoil by dropping than by keeping: lengths in characters are
wide, the language rule only speaks when it is sure, and short texts are spared where short texts mislead.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from inkstone.corpus.near_duplicates import NearDuplicates
from inkstone.ground.errors import ConfigError, not_known
from inkstone.ground.records import Document, Labelled, Pair, Record, Related
from inkstone.text.language import HAN, KANA, UNDETERMINED, detect

_LONGEST = 5000  # characters of a side or a labelled text
Rule = Callable[[Record], str | None]


@dataclass(frozen=True, slots=True)
class Settings:
    """How strict the rules are. Lengths are in characters; tokens are words; a Han character is one."""

    min_chars: int = 1
    max_chars: int | None = None  # None: 5,000 for pairs and labelled texts, no limit for others
    min_tokens: int = 0
    max_tokens: int = 0  # 0: no limit
    max_ratio: float = 4.0  # longer side / shorter side, a Han character counted as three letters
    language_confidence: float = 0.9
    max_tags: int = 0  # HTML tags in one text
    near_similarity: float = 0.85
    near_shortest: int = 60
    held_out: frozenset[str] = frozenset()  # keys of the test set: see `held_out_keys`

    def __post_init__(self) -> None:
        for name in ("min_chars", "min_tokens", "max_tokens"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}={getattr(self, name)} is below 0. Give 0 or more.")
        if self.max_chars is not None and self.min_chars > self.max_chars:
            raise ConfigError(
                f"min_chars={self.min_chars}, max_chars={self.max_chars} leave nothing between."
            )
        if self.max_tokens and self.min_tokens > self.max_tokens:
            raise ConfigError(f"min_tokens={self.min_tokens} is more than max_tokens={self.max_tokens}.")
        if not self.max_ratio >= 1:  # nan is not
            raise ConfigError(f"max_ratio={self.max_ratio} is not 1 or more. Give at least 1.")
        for name in ("language_confidence", "near_similarity"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(
                    f"{name}={getattr(self, name)} is not a share. Give a number above 0, at most 1."
                )


@lru_cache(maxsize=16)  # several rules ask for the same record in turn
def key_of(text: str) -> str:
    """What makes two texts the same: letters and digits, without case, space or punctuation."""
    return _NO_KEY.sub("", text.casefold()) or text.strip()


def sides(record: Record) -> tuple[str, ...]:
    """The texts of a record: both sides of a pair, the text of anything else."""
    return (record.source, record.target) if isinstance(record, Pair | Related) else (record.text,)


def held_out_keys(records: Iterable[Record]) -> frozenset[str]:
    """The keys of test records, of both sides of pairs."""
    return frozenset(key_of(side) for record in records for side in sides(record))


def make_rules(settings: Settings | None = None, names: Iterable[str] | None = None) -> dict[str, Rule]:
    """The rules of these names (all by default), fresh, in the order of `RULES`."""
    wanted = list(RULES) if names is None else list(names)
    for name in wanted:
        if name not in RULES:
            raise ConfigError(not_known("rule", name, RULES))
    return {name: make(settings or Settings()) for name, make in RULES.items() if name in wanted}


_NO_KEY = re.compile(r"[\W_]+")
_TOKEN = re.compile(rf"[{HAN}{KANA}]|(?:(?![{HAN}{KANA}])\w)+")
_TAG = re.compile(
    r"</?(?:a|abbr|b|big|blockquote|body|br|center|code|dd|div|dl|dt|em|font|form|h[1-6]|head|hr|html|i|iframe|img|"
    r"input|li|link|meta|nav|ol|option|p|pre|script|select|small|span|strong|style|sub|sup|table|tbody|td|th|thead|"
    r"title|tr|u|ul)(?:\s[^<>]*)?/?>|<!--|<!DOCTYPE|&(?:nbsp|amp|lt|gt|quot|#\d{1,6}|#x[0-9a-f]{1,6});",
    re.IGNORECASE,
)
_ENGLISH_WORDS = (
    "the of and to in is that for it with as was be this are on by you not or an from have he his we they"
)
_ENGLISH = frozenset(_ENGLISH_WORDS.split())
_EAST_ASIAN = ("zh", "ja", "ko")
_FEW_WORDS = 6  # Latin text of fewer words misleads the model, and names and code do too


def length(settings: Settings) -> Rule:
    """Too short or too long, in characters or tokens."""

    def rule(record: Record) -> str | None:
        most = settings.max_chars
        if most is None and not isinstance(record, Document | Related):
            most = _LONGEST
        for text in sides(record):
            if len(text) < settings.min_chars:
                return f"{len(text)} characters, at least {settings.min_chars} wanted"
            if most is not None and len(text) > most:
                return f"{len(text):,} characters, at most {most:,} wanted"
            if settings.min_tokens or settings.max_tokens:
                tokens = sum(1 for _ in _TOKEN.finditer(text))
                if tokens < settings.min_tokens:
                    return f"{tokens} tokens, at least {settings.min_tokens} wanted"
                if settings.max_tokens and tokens > settings.max_tokens:
                    return f"{tokens:,} tokens, at most {settings.max_tokens:,} wanted"
        return None

    return rule


def markup(settings: Settings) -> Rule:
    """HTML left in the text: tags, comments, entities."""

    def rule(record: Record) -> str | None:
        for text in sides(record):
            if "<" in text or "&" in text:
                tags = _TAG.findall(text)
                if len(tags) > settings.max_tags:
                    return f"{len(tags)} HTML tags or entities, first {tags[0][:40]}"
        return None

    return rule


def identical(settings: Settings) -> Rule:
    """A pair whose sides are the same: not translated, or nothing to find."""

    def rule(record: Record) -> str | None:
        if isinstance(record, Pair | Related) and key_of(record.source) == key_of(record.target):
            return "both sides are the same"
        return None

    return rule


def ratio(settings: Settings) -> Rule:
    """A pair with one side far longer than the other. Ten are added to both, for short pairs."""

    def rule(record: Record) -> str | None:
        if not isinstance(record, Pair):
            return None
        one = _width(record.source, record.source_language) + 10
        other = _width(record.target, record.target_language) + 10
        found = max(one, other) / min(one, other)
        return f"one side is {found:.1f} times as long" if found > settings.max_ratio else None

    return rule


def _width(text: str, language: str) -> int:
    """Length in letters; UTF-8 spends three bytes on what says as much as three letters."""
    return len(text.encode("utf-8", "replace")) if language in _EAST_ASIAN else len(text)


def language(settings: Settings) -> Rule:
    """A side of a pair that is surely in another language than it claims."""

    def rule(record: Record) -> str | None:
        if not isinstance(record, Pair):
            return None
        for text, claimed in (
            (record.source, record.source_language),
            (record.target, record.target_language),
        ):
            if _plainly(text, claimed) or (text.isascii() and text.count(" ") < _FEW_WORDS - 1):
                continue
            found = detect(text)
            if (
                found.language not in (claimed, UNDETERMINED)
                and found.confidence >= settings.language_confidence
            ):
                if claimed in _EAST_ASIAN and found.language in _EAST_ASIAN and len(text) < 10:
                    continue  # 東京 is both
                if not _long_enough(text, found.language):
                    continue
                return f"{found.language} ({found.confidence:.2f}) where {claimed} is claimed"
        return None

    return rule


def _plainly(text: str, claimed: str) -> bool:
    """A cheap yes, which spares most texts the model: two small English words, or enough Han."""
    if claimed == "en" and text.isascii():
        return sum(map(_ENGLISH.__contains__, text.lower().split())) >= 2
    if claimed == "zh" and not text.isascii():
        extra = len(text.encode("utf-8", "replace")) - len(text)  # two for each Han character
        return extra > 0.1 * len(text) and _HAN_RE.search(text) is not None and _KANA_RE.search(text) is None
    return False


_HAN_RE, _KANA_RE = re.compile(f"[{HAN}]"), re.compile(f"[{KANA}]")


def _long_enough(text: str, found: str) -> bool:
    """Whether there is enough text for the model to be believed."""
    return found in _EAST_ASIAN or len(re.findall(r"[^\W\d_]{2,}", text)) >= _FEW_WORDS


def overlap(settings: Settings) -> Rule:
    """A record of which a side stands in the test set: training on it would be cheating."""

    def rule(record: Record) -> str | None:
        if settings.held_out:
            for text in sides(record):
                if key_of(text) in settings.held_out:
                    return "stands in the held-out set"
        return None

    return rule


def duplicate(settings: Settings) -> Rule:
    """A record that came before, but for case, space and punctuation."""
    seen: dict[int, str] = {}  # 64-bit hashes: a false hit among 100 million records has probability 0.0003

    def rule(record: Record) -> str | None:
        key = hash((*map(key_of, sides(record)), record.labels if isinstance(record, Labelled) else ()))
        if key in seen:
            return f"the same as {seen[key]}"
        seen[key] = record.origin or "an earlier record"
        return None

    return rule


def near_duplicate(settings: Settings) -> Rule:
    """A record that is almost an earlier one."""
    found = NearDuplicates(settings.near_similarity, settings.near_shortest)

    def rule(record: Record) -> str | None:
        hit = found.find("".join(map(key_of, sides(record))), record.origin or "an earlier record")
        return f"{hit[1]:.2f} like {hit[0]}" if hit else None

    return rule


RULES: dict[str, Callable[[Settings], Rule]] = {
    "length": length,
    "markup": markup,
    "identical": identical,
    "ratio": ratio,
    "overlap": overlap,
    "duplicate": duplicate,
    "language": language,
    "near-duplicate": near_duplicate,
}


@dataclass(frozen=True, slots=True)
class Dropped:
    """A record that went: which rule, and why."""

    record: Record
    rule: str
    reason: str


def judge(records: Iterable[Record], rules: dict[str, Rule]) -> Iterator[Record | Dropped]:
    """Each record as it is, or as Dropped by the first rule that objects."""
    listed = list(rules.items())
    for record in records:
        for name, rule in listed:
            reason = rule(record)
            if reason is not None:
                yield Dropped(record, name, reason)
                break
        else:
            yield record
