"""SentencePiece model files, read without the sentencepiece package and run by the `tokenizers` library.

A `.model` (or `.spm`) file is one protocol buffer message, `ModelProto` of sentencepiece_model.proto: the pieces with
their scores and kinds, how the text was normalised, and which algorithm learnt them. A protocol buffer is a list of
(field number, wire type, value); reading the twenty fields that matter takes a screen of code, so serving needs neither
protobuf nor sentencepiece, and nothing of the file is trusted: lengths, numbers and kinds are checked, and a file that
uses something this house cannot reproduce exactly is refused with all the reasons.

`inner_tokenizer` builds the equivalent pipeline:

  normalise   the file's own character map (nmt_nfkc and its like); then, if the file says so, no spaces at the ends and
              one between words; then a space becomes ▁
  prefix      one ▁ in front, so that a word is the same first or later (`add_dummy_prefix`)
  pieces      Unigram (Kudo, 2018): the most probable cut. BPE (Sennrich et al., 2016): a SentencePiece file has no list
              of merges, only scores; two neighbours may merge when their concatenation is a piece, best score first, so
              the merges are all cuts of all pieces in order of score
  bytes       with `byte_fallback` a character that is no piece is spelled <0xE7><0xA0><0x9A>

The prefix is where conversions usually go wrong. Where the file strips spaces (T5) every stretch of text between special
tokens gets a prefix, as its own text; where it keeps them (Llama, Mistral) only the beginning of the whole text does,
and a text that begins with a space gets it as well, as in SentencePiece. (`transformers` 5 leaves it out there.)

Known differences from the original, all in rare text: ties between two cuts of exactly equal score may fall otherwise;
the library applies the character map to what a reader sees as one character, the original to the longest match, which
differ in decomposed Hangul, in letters with three or more separate accents, and in "\\r\\n" where spaces are kept; a
text that spells a control piece out ("</s>") is cut behind its "<"; a user-defined symbol of a BPE model at the very
beginning of a text has no ▁ before it. Source: Kudo and Richardson (2018) and their repository.
"""

from __future__ import annotations

import math
import re
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from inkstone.ground.errors import DataError, raise_all

SPACE = "▁"
PieceKind = Literal["normal", "unknown", "control", "user-defined", "unused", "byte"]
_PIECE_KINDS: Mapping[int, PieceKind] = {
    1: "normal",
    2: "unknown",
    3: "control",
    4: "user-defined",
    5: "unused",
    6: "byte",
}
_ALGORITHMS = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


@dataclass(frozen=True, slots=True)
class Piece:
    """One entry of the vocabulary; its number is its place. score: log probability, or minus the rank of the merge."""

    text: str
    score: float
    kind: PieceKind


@dataclass(frozen=True, slots=True)
class SentencePieceModel:
    """What a SentencePiece file says, as far as it is needed to run it."""

    pieces: tuple[Piece, ...]
    algorithm: str
    byte_fallback: bool
    charsmap: bytes
    adds_prefix: bool
    strips_spaces: bool

    def unknown_id(self) -> int:
        """The number of the piece for what the vocabulary does not have."""
        return next(number for number, piece in enumerate(self.pieces) if piece.kind == "unknown")

    def names(self, kind: PieceKind) -> list[str]:
        """The pieces of one kind, in order."""
        return [piece.text for piece in self.pieces if piece.kind == kind]


def read_model(path: str | Path) -> SentencePieceModel:
    """Read a SentencePiece file. Raises DataError with everything that is wrong or cannot be reproduced."""
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror}. Give the path of a SentencePiece model."
        ) from error
    return parse_model(content, str(path))


def parse_model(content: bytes, origin: str) -> SentencePieceModel:
    """The same from bytes; `origin` names them in messages."""
    try:
        return _parsed(content, origin)
    except _Broken as error:
        raise DataError(
            f"{origin} is not a SentencePiece model, or it is damaged ({error}). Copy or download it again."
        ) from error


class _Broken(ValueError):
    """Bytes that are no protocol buffer message of this kind."""


_Value = int | bytes


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, lowest first: (number, place after it)."""
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise _Broken("it ends in the middle of a number")
        number |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return number, at
    raise _Broken(f"a number longer than 64 bits at byte {at}")


def _fields(data: bytes) -> Iterator[tuple[int, int, _Value]]:
    """(field number, wire type, value) of one message. Groups (wire types 3 and 4) do not occur in these files."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        field, wire = key >> 3, key & 7
        if field == 0:
            raise _Broken(f"field number 0 at byte {at}")
        if wire == 0:
            number, at = _varint(data, at)
            yield field, wire, number
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise _Broken(f"wire type {wire} at byte {at}")
        if at + size > len(data):
            raise _Broken(f"it ends in the middle of a field: {at + size} bytes needed, {len(data)} there")
        yield field, wire, data[at : at + size]
        at += size


def _known(data: _Value, wires: Mapping[int, int]) -> dict[int, _Value]:
    """The fields listed in `wires` (field -> wire type); the last of each counts, as in every protobuf reader."""
    if not isinstance(data, bytes):
        raise _Broken("a number stands where a message should")
    found: dict[int, _Value] = {}
    for field, wire, value in _fields(data):
        if field in wires:
            if wire != wires[field]:
                raise _Broken(f"field {field} has wire type {wire} instead of {wires[field]}")
            found[field] = value
    return found


def _text(value: _Value) -> str:
    assert isinstance(value, bytes)
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _Broken(f"a text that is not UTF-8: {value[:20]!r}") from error


def _piece(data: _Value, number: int) -> Piece:
    fields = _known(data, {1: 2, 2: 5, 3: 0})
    raw = fields.get(2, b"\0\0\0\0")
    assert isinstance(raw, bytes)
    code = fields.get(3, 1)
    if code not in _PIECE_KINDS:
        raise _Broken(f"piece {number} is of the unknown kind {code!r}")
    return Piece(_text(fields.get(1, b"")), struct.unpack("<f", raw)[0], _PIECE_KINDS[int(code)])


def _parsed(content: bytes, origin: str) -> SentencePieceModel:
    pieces: list[Piece] = []
    trainer: dict[int, _Value] = {}
    normalizer: dict[int, _Value] = {}
    denormalizer: dict[int, _Value] = {}
    for field, wire, value in _fields(content):
        if field in (1, 2, 3, 5) and wire != 2:
            raise _Broken(f"field {field} has wire type {wire} instead of 2")
        if field == 1:
            pieces.append(_piece(value, len(pieces)))
        elif field == 2:
            trainer = _known(value, {3: 0, 24: 0, 35: 0})
        elif field == 3:
            normalizer = _known(value, {2: 2, 3: 0, 4: 0, 5: 0})
        elif field == 5:
            denormalizer = _known(value, {2: 2})
    if not pieces:
        raise _Broken("it has no pieces")
    code = trainer.get(3, 1)
    charsmap = normalizer.get(2, b"")
    assert isinstance(charsmap, bytes)
    model = SentencePieceModel(
        pieces=tuple(pieces),
        algorithm=_ALGORITHMS.get(int(code), str(code)),
        byte_fallback=bool(trainer.get(35, 0)),
        charsmap=charsmap,
        adds_prefix=bool(normalizer.get(3, 1)),
        strips_spaces=bool(normalizer.get(4, 1)),
    )
    problems = _problems(model)
    if trainer.get(24, 0):
        problems.append("it puts ▁ behind words (treat_whitespace_as_suffix), which is not supported")
    if not normalizer.get(5, 1):
        problems.append("it keeps spaces as they are (escape_whitespaces is off), which is not supported")
    if denormalizer.get(2):
        problems.append("it rewrites text after decoding (denormalizer_spec), which is not supported")
    raise_all(DataError, origin, problems)
    return model


def _problems(model: SentencePieceModel) -> list[str]:
    problems = []
    if model.algorithm not in ("unigram", "bpe"):
        problems.append(f'its algorithm is "{model.algorithm}". Valid: unigram, bpe')
    unknown = model.names("unknown")
    if not model.names("normal"):
        problems.append("it has no ordinary pieces")
    if len(unknown) != 1:
        problems.append(f"it has {len(unknown)} unknown pieces where there must be one")
    repeated = [text for text, count in Counter(piece.text for piece in model.pieces).items() if count > 1]
    if repeated:
        problems.append(f"pieces occur twice: {', '.join(map(repr, repeated[:5]))}")
    if any(not piece.text for piece in model.pieces):
        problems.append("a piece is empty")
    if any(not math.isfinite(piece.score) for piece in model.pieces):
        problems.append("a score is not a finite number")
    if model.names("unused"):
        problems.append(f"{len(model.names('unused'))} pieces are marked unused, which is not supported")
    spelled = set(model.names("byte"))
    if model.byte_fallback and (len(spelled) != 256 or not all(_BYTE.fullmatch(name) for name in spelled)):
        problems.append(f"byte_fallback needs the 256 pieces <0x00> to <0xFF>; {len(spelled)} are there")
    if model.charsmap and not is_whole_charsmap(model.charsmap):
        problems.append("its table of character replacements is damaged")
    return problems


def is_whole_charsmap(charsmap: bytes) -> bool:
    """Whether a table of character replacements can be walked: the library reads it unchecked and would fall over.

    Size of the trie in bytes (32 bits), the trie, then the replacements in UTF-8, each closed by a zero byte. The trie is
    a double array (Yata et al., 2007) of 32-bit units: a unit at place i leads to i ^ offset ^ character for each of the
    256 characters, and to its replacement's place at i ^ offset; bit 31 marks a unit that holds such a place.
    """
    size = int.from_bytes(charsmap[:4], "little")
    texts = np.frombuffer(charsmap[4 + size :], dtype=np.uint8)
    if len(charsmap) < 4 or size == 0 or size % 4 or len(texts) == 0 or texts[-1] != 0:
        return False
    try:
        charsmap[4 + size :].decode("utf-8")
    except UnicodeDecodeError:
        return False
    units = np.frombuffer(charsmap[4 : 4 + size], dtype="<u4").astype(np.int64)
    is_place = units >> 31 == 1
    leads_to = np.arange(len(units)) ^ ((units >> 10) << ((units & 0x200) >> 6))
    if ((leads_to[~is_place] | 0xFF) >= len(units)).any():
        return False
    ends = units[leads_to[~is_place & (units >> 8 & 1 == 1)]]
    places = ends & 0x7FFFFFFF
    if not (ends >> 31 == 1).all() or (places >= len(texts)).any():
        return False
    return bool((texts[places] & 0xC0 != 0x80).all())  # the beginning of a character


def inner_tokenizer(model: SentencePieceModel) -> tokenizers.Tokenizer:
    """The pipeline of the `tokenizers` library that cuts text as the SentencePiece model does, ids equal to places.

    Control pieces become special tokens. No marks are added around a text.
    """
    inner = tokenizers.Tokenizer(_unigram(model) if model.algorithm == "unigram" else _bpe(model))
    inner.normalizer = normalizers.Sequence(_normalizers(model))
    cutters: list[pre_tokenizers.PreTokenizer] = []
    if model.adds_prefix and not _prefixes_stretches(model):
        # A prefix at the beginning of the whole text only, even before a space: Metaspace puts its own replacement in
        # front unless the text begins with that, and no text here begins with " ", for all of them are ▁ already.
        cutters += [
            pre_tokenizers.Metaspace(replacement=" ", prepend_scheme="first", split=False),
            pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="never", split=False),
        ]
    if model.algorithm == "unigram":
        cutters += _name_breakers(model)
    if cutters:
        inner.pre_tokenizer = pre_tokenizers.Sequence(cutters)
    steps: list[decoders.Decoder] = [decoders.Replace(SPACE, " ")]
    if model.byte_fallback:
        steps.append(decoders.ByteFallback())
    steps.append(decoders.Fuse())
    if model.strips_spaces or model.adds_prefix:
        steps.append(decoders.Strip(content=" ", left=1, right=0))
    inner.decoder = decoders.Sequence(steps)
    kinds = ("control", "user-defined") if model.algorithm == "bpe" else ("control",)
    inner.add_tokens(
        [
            AddedToken(piece.text, normalized=piece.kind == "user-defined", special=piece.kind == "control")
            for piece in model.pieces
            if piece.kind in kinds
        ]
    )
    return inner


def _normalizers(model: SentencePieceModel) -> list[normalizers.Normalizer]:
    steps: list[normalizers.Normalizer] = []
    if model.charsmap:
        steps.append(normalizers.Precompiled(model.charsmap))
    if model.strips_spaces:
        steps += [
            normalizers.Replace(Regex(r"\A +| +\z"), ""),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    steps.append(normalizers.Replace(" ", SPACE))
    if model.adds_prefix and _prefixes_stretches(model):
        steps.append(normalizers.Prepend(SPACE))
    return steps


def _prefixes_stretches(model: SentencePieceModel) -> bool:
    """Whether every stretch between added tokens gets a ▁ in front, or only the text. Not with symbols of BPE, which
    the library finds as added tokens in the middle of a text; Unigram finds them by itself."""
    return model.strips_spaces and (model.algorithm == "unigram" or not model.names("user-defined"))


def _unigram(model: SentencePieceModel) -> models.Unigram:
    lowest = min(piece.score for piece in model.pieces if piece.kind == "normal")
    highest = max(piece.score for piece in model.pieces if piece.kind == "normal")
    vocab = []
    for piece in model.pieces:
        score = piece.score
        if piece.kind == "user-defined":
            score = len(piece.text) * highest - 0.1  # as the original: always preferred to its parts
        elif piece.kind != "normal":
            score = max(
                score, lowest
            )  # the library takes its penalty for the unknown from the lowest of all scores
        vocab.append((piece.text, score))
    return models.Unigram(vocab, unk_id=model.unknown_id(), byte_fallback=model.byte_fallback)


def _name_breakers(model: SentencePieceModel) -> list[pre_tokenizers.PreTokenizer]:
    """Cut after the first character of "</s>", "<0x0A>" and the like in ordinary text: the library's Unigram would
    take the letters for the token itself. In BPE no merge leads there."""
    by_first: dict[str, list[str]] = {}
    for piece in model.pieces:
        if piece.kind in ("control", "unknown", "byte") and len(piece.text) > 1:
            by_first.setdefault(piece.text[0], []).append(re.escape(piece.text[1:]))
    pattern = "|".join(f"{re.escape(first)}(?={'|'.join(rests)})" for first, rests in by_first.items())
    return [pre_tokenizers.Split(Regex(pattern), "isolated")] if pattern else []


def _bpe(model: SentencePieceModel) -> models.BPE:
    vocab = {piece.text: number for number, piece in enumerate(model.pieces)}
    ordinary = {piece.text for piece in model.pieces if piece.kind == "normal"}
    ranked: list[tuple[float, int, int, str, str]] = []
    for number, piece in enumerate(model.pieces):
        if piece.kind != "normal":
            continue
        for cut in range(1, len(piece.text)):
            left, right = piece.text[:cut], piece.text[cut:]
            if left in ordinary and right in ordinary:
                ranked.append((-piece.score, number, cut, left, right))
    ranked.sort()
    return models.BPE(
        vocab=vocab,
        merges=[(left, right) for *_, left, right in ranked],
        unk_token=model.names("unknown")[0],
        fuse_unk=True,
        byte_fallback=model.byte_fallback,
    )
