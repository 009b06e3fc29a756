"""Token ids to text, all at once or as they come, never with half a character.

A model that streams gives a few ids at a time, and a character may be spread over several: in byte-level vocabularies
(GPT-2, Qwen) any character outside ASCII, in byte-fallback ones (Llama, our own) any rare one. Decoding each piece on
its own shows � in between; decoding everything again at each step is quadratic and still shows it. Here each token
becomes bytes by a table, and a character leaves as soon as its last byte is there:

    ids         E4 BD | A0 E5 | A5 BD       (你好 in six byte tokens, pushed in three steps)
    push gives     "" |   你  |   好

`whole` is one push and a flush, so that a stream equals whole decoding by construction. That this is also what the
`tokenizers` library gives for every text that is valid is for the tests to prove. For bytes that are no text (a model
stopped in the middle of a character) byte-fallback decoding follows SentencePiece, � for each stray byte, and keeps
the good characters beside it; the library would replace the whole run.

How tokens become bytes is read off the decoder of tokenizer.json: ByteLevel, WordPiece, Metaspace, or a sequence of
Replace, ByteFallback, Fuse and Strip. For any other decoder a stream keeps everything back until `flush`: right, if late.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import tokenizers

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
# What transformers calls cleaning up, in its order; made for English WordPiece vocabularies.
_CLEAN_UP = (
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
)
_WIDE = r"[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef]"
_WIDE_SPACE = re.compile(rf"(?<={_WIDE}) (?={_WIDE})")


def join_chinese(text: str) -> str:
    """Take out the spaces that BERT's cutting put between Chinese characters."""
    return _WIDE_SPACE.sub("", text)


@dataclass(frozen=True, slots=True)
class Decoding:
    """How the ids of one vocabulary become text. Make one with `of`.

    skipped: ids that leave no text (special tokens), used when a call skips them.
    clean_up: take out the spaces before punctuation, as `transformers` does for WordPiece.
    """

    inner: tokenizers.Tokenizer
    skipped: frozenset[int]
    clean_up: bool = False
    joins_chinese: bool = False
    plan: _Plan | None = None

    @classmethod
    def of(
        cls,
        inner: tokenizers.Tokenizer,
        skipped: Iterable[int],
        *,
        clean_up: bool = False,
        joins_chinese: bool = False,
    ) -> Decoding:
        """Read the way of decoding off the tokenizer's own decoder."""
        raw = None if inner.decoder is None else json.loads(inner.decoder.__getstate__())
        return cls(inner, frozenset(skipped), clean_up, joins_chinese, _plan(raw))

    def whole(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of all the ids."""
        stream = self.stream(skip_special_tokens)
        return stream.push(ids) + stream.flush()

    def stream(self, skip_special_tokens: bool = True) -> StreamDecoder:
        """A decoder for ids that come one after another."""
        return StreamDecoder(self, skip_special_tokens)


class StreamDecoder:
    """Ids in, text out, as early as it is certain: `push` gives what is new, `flush` the rest.

    >>> stream = tokenizer.stream()
    >>> "".join([*(stream.push([number]) for number in ids), stream.flush()]) == tokenizer.decode(ids)
    True
    """

    def __init__(self, decoding: Decoding, skip_special_tokens: bool = True) -> None:
        self._decoding = decoding
        self._skipped = decoding.skipped if skip_special_tokens else frozenset()
        self._begin()

    def _begin(self) -> None:
        decoding = self._decoding
        self._kept: list[int] = []  # only where there is no plan
        self._bytes = b""
        self._first = True
        self._to_strip = decoding.plan.strip if decoding.plan else 0
        self._steps: list[_Replacing | _JoiningChinese] = []
        if decoding.clean_up:
            self._steps += [_Replacing(old, new) for old, new in _CLEAN_UP]
        if decoding.joins_chinese:
            self._steps.append(_JoiningChinese())

    def push(self, ids: Iterable[int]) -> str:
        """Take more ids; give the text that is complete now and was not given before.

        Raises KeyError for a number that is not in the vocabulary.
        """
        wanted = [number for number in ids if number not in self._skipped]
        plan = self._decoding.plan
        if plan is None:
            self._kept += wanted
            return ""
        pieces = []
        for number in wanted:
            pieces.append(plan.bytes_of(self._decoding.inner, number, self._first))
            self._first = False
        text, self._bytes = _characters(self._bytes + b"".join(pieces), plan.each_byte, last=False)
        return self._passed(text, last=False)

    def flush(self) -> str:
        """The rest: half characters become �. The decoder is at its beginning again afterwards."""
        plan = self._decoding.plan
        if plan is None:
            text = self._decoding.inner.decode(self._kept, skip_special_tokens=False)
        else:
            text, _ = _characters(self._bytes, plan.each_byte, last=True)
        rest = self._passed(text, last=True)
        self._begin()
        return rest

    def _passed(self, text: str, last: bool) -> str:
        while self._to_strip and text:
            if text[0] != " ":
                self._to_strip = 0
            else:
                text, self._to_strip = text[1:], self._to_strip - 1
        for step in self._steps:
            text = step.push(text, last)
        return text


def _characters(data: bytes, each_byte: bool, last: bool) -> tuple[str, bytes]:
    """The complete characters at the beginning of the bytes, and the bytes of one that may still be completed.

    Bytes that can never become a character give �: one for each of them (SentencePiece), or one for each beginning of
    a character (byte-level decoding, as Rust and Python do it).
    """
    out: list[str] = []
    while data:
        try:
            out.append(data.decode("utf-8"))
            return "".join(out), b""
        except UnicodeDecodeError as error:
            out.append(data[: error.start].decode("utf-8"))
            if error.reason == "unexpected end of data" and not last:
                return "".join(out), data[error.start :]
            out.append("�" * (error.end - error.start if each_byte else 1))
            data = data[error.end :]
    return "".join(out), b""


class _Replacing:
    """`str.replace` on text that comes in pieces: only what may still begin a match is kept back."""

    def __init__(self, old: str, new: str) -> None:
        self.old, self.new, self.kept = old, new, ""

    def push(self, text: str, last: bool) -> str:
        text = self.kept + text
        *done, rest = text.split(self.old)
        size = 0
        if not last:
            longest = min(len(self.old) - 1, len(rest))
            size = next((n for n in range(longest, 0, -1) if self.old.startswith(rest[-n:])), 0)
        self.kept = rest[len(rest) - size :]
        return "".join(part + self.new for part in done) + rest[: len(rest) - size]


class _JoiningChinese:
    """`join_chinese` on text that comes in pieces: a space waits for what follows it."""

    def __init__(self) -> None:
        self.before, self.kept = "", ""

    def push(self, text: str, last: bool) -> str:
        text = self.kept + text
        self.kept = ""
        if text.endswith(" ") and not last:
            text, self.kept = text[:-1], " "
        if not text:
            return ""
        joined = join_chinese(self.before + text)[len(self.before) :]
        self.before = text[-1]
        return joined


@dataclass(frozen=True, slots=True)
class _Plan:
    """Token -> bytes, where the first token of a text may differ from the others; spaces stripped at the beginning."""

    first: Callable[[str], bytes]
    later: Callable[[str], bytes]
    strip: int = 0
    each_byte: bool = False
    table: dict[int, bytes] = field(default_factory=dict)

    def bytes_of(self, inner: tokenizers.Tokenizer, number: int, is_first: bool) -> bytes:
        if is_first:
            return self.first(_token(inner, number))
        found = self.table.get(number)
        if found is None:
            found = self.table[number] = self.later(_token(inner, number))
        return found


def _token(inner: tokenizers.Tokenizer, number: int) -> str:
    token: str | None = inner.id_to_token(number)
    if token is None:
        raise KeyError(number)
    return token


def _plan(decoder: dict[str, Any] | None) -> _Plan | None:
    """The plan of a decoder as tokenizer.json describes it; None where there is no way to go token by token."""
    if decoder is None:
        return _Plan(str.encode, lambda token: b" " + token.encode())
    kind = decoder["type"]
    if kind == "ByteLevel":
        return _Plan(_byte_level, _byte_level)
    if kind == "WordPiece":
        return _word_piece(decoder["prefix"], decoder["cleanup"])
    if kind == "Metaspace":
        mark, takes_off = decoder["replacement"], decoder["prepend_scheme"] != "never"
        return _Plan(
            lambda token: token.replace(mark, "" if takes_off else " ").encode(),
            lambda token: token.replace(mark, " ").encode(),
        )
    return _sequence(decoder["decoders"]) if kind == "Sequence" else None


def _sequence(steps: list[dict[str, Any]]) -> _Plan | None:
    """Replace…, perhaps ByteFallback, Fuse, perhaps Strip on the left: what SentencePiece vocabularies have."""
    steps = [dict(step) for step in steps]
    if len(steps) == 1 and steps[0]["type"] != "Replace":
        return _plan(steps[0])
    replaced: list[tuple[str, str]] = []
    while steps and steps[0]["type"] == "Replace" and "String" in steps[0]["pattern"]:
        step = steps.pop(0)
        replaced.append((step["pattern"]["String"], step["content"]))
    has_bytes = bool(steps) and steps[0]["type"] == "ByteFallback"
    steps = steps[1:] if has_bytes else steps
    strip = 0
    if [step["type"] for step in steps] == ["Fuse", "Strip"]:
        content, strip = steps[1]["content"], int(steps[1]["start"])
        if content != " " or steps[1]["stop"]:
            return None
    elif [step["type"] for step in steps] not in ([], ["Fuse"]):
        return None

    def encoded(token: str) -> bytes:
        for old, new in replaced:
            token = token.replace(old, new)
        found = _BYTE.fullmatch(token) if has_bytes else None
        return bytes([int(found[1], 16)]) if found else token.encode()

    return _Plan(encoded, encoded, strip, each_byte=True)


def _word_piece(prefix: str, cleans: bool) -> _Plan:
    def cleaned(token: str) -> bytes:
        if cleans:
            for old, new in _WORD_PIECE_CLEAN_UP:
                token = token.replace(old, new)
        return token.encode()

    return _Plan(
        cleaned,
        lambda token: cleaned(token.removeprefix(prefix) if token.startswith(prefix) else f" {token}"),
    )


# As the library's WordPiece decoder has them, token by token.
_WORD_PIECE_CLEAN_UP = (
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" do not", " don't"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
)


def _byte_characters() -> dict[str, int]:
    """GPT-2's printable stand-ins for the 256 bytes (Radford et al., 2019): most Latin-1 letters stand for themselves,
    the rest follow from U+0100 on."""
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(own)]
    return {chr(byte): byte for byte in own} | {chr(0x100 + n): byte for n, byte in enumerate(others)}


_BYTE_OF = _byte_characters()


def _byte_level(token: str) -> bytes:
    try:
        return bytes([_BYTE_OF[character] for character in token])
    except KeyError:  # an added token is written as it is
        return token.encode()
