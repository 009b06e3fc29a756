"""SentencePiece files read without sentencepiece: the same ids and texts as the package itself, bad files refused."""

from __future__ import annotations

import io
from itertools import product
from random import Random
from typing import Any

import pytest
import sentencepiece
from foreign_folders import HARD, OUTER, PLAIN, TRAINING
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import normalizers

from inkstone.ground.errors import DataError
from inkstone.text.sentencepiece import inner_tokenizer, is_whole_charsmap, parse_model

CASES = list(
    product(("unigram", "bpe"), (True, False), ("nmt_nfkc", "identity"), (True, False), (True, False))
)


def trained(**options: Any) -> bytes:
    out = io.BytesIO()
    options = {"vocab_size": 420 if options.get("byte_fallback") else 220} | options
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TRAINING),
        model_writer=out,
        hard_vocab_limit=False,
        num_threads=1,
        minloglevel=2,
        **options,
    )
    return out.getvalue()


@pytest.fixture(scope="module")
def files() -> dict[tuple[str, bool, str, bool, bool], bytes]:
    return {
        case: trained(
            model_type=case[0],
            byte_fallback=case[1],
            normalization_rule_name=case[2],
            remove_extra_whitespaces=case[3],
            add_dummy_prefix=case[4],
        )
        for case in CASES
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_ids_and_texts_equal_the_package(files: dict[Any, bytes], case: Any) -> None:
    reference = sentencepiece.SentencePieceProcessor(model_proto=files[case])
    ours = inner_tokenizer(parse_model(files[case], "test"))
    for text in [*PLAIN, *HARD, *OUTER]:
        ids = reference.encode(text)
        assert ours.encode(text, add_special_tokens=False).ids == ids, text
        if reference.unk_id() not in ids:
            assert ours.decode(ids) == reference.decode(ids)


@given(st.text(st.sampled_from("abcdeh kltn  .,'3砚墨石头叫 好🙂é"), max_size=40))
@settings(max_examples=60, deadline=None)
def test_any_text_of_such_characters(files: dict[Any, bytes], text: str) -> None:
    for algorithm in ("unigram", "bpe"):
        content = files[algorithm, True, "identity", False, True]
        reference = sentencepiece.SentencePieceProcessor(model_proto=content)
        ours = inner_tokenizer(parse_model(content, "test"))
        ids = reference.encode(text)
        assert ours.encode(text, add_special_tokens=False).ids == ids
        assert ours.decode(ids) == reference.decode(ids) == text


@pytest.mark.parametrize("algorithm", ["unigram", "bpe"])
def test_control_pieces_spelled_out_are_letters(files: dict[Any, bytes], algorithm: str) -> None:
    content = files[algorithm, True, "identity", False, True]
    ours = inner_tokenizer(parse_model(content, "test"))
    ours.encode_special_tokens = True
    text = "</s> <s> <unk> <0x0A>"
    ids = ours.encode(text, add_special_tokens=False).ids
    assert {0, 1, 2}.isdisjoint(ids)
    assert ours.decode(ids) == text


@pytest.mark.parametrize("algorithm", ["unigram", "bpe"])
def test_user_defined_symbols_stay_whole(algorithm: str) -> None:
    content = trained(model_type=algorithm, user_defined_symbols=["<sep>", "砚台"])
    reference = sentencepiece.SentencePieceProcessor(model_proto=content)
    ours = inner_tokenizer(parse_model(content, "test"))
    for text in ["The slate<sep>was ground", "black <sep> ink", "磨砚台的砚台"]:
        assert ours.encode(text, add_special_tokens=False).ids == reference.encode(text), text


def test_what_the_file_says(files: dict[Any, bytes]) -> None:
    content = files["bpe", True, "nmt_nfkc", True, False]
    reference = sentencepiece.SentencePieceProcessor(model_proto=content)
    model = parse_model(content, "test")
    assert (model.algorithm, model.byte_fallback, model.adds_prefix, model.strips_spaces) == (
        "bpe",
        True,
        False,
        True,
    )
    assert model.charsmap
    assert [piece.text for piece in model.pieces] == [
        reference.id_to_piece(number) for number in range(reference.get_piece_size())
    ]
    assert [piece.score for piece in model.pieces] == [
        reference.get_score(number) for number in range(reference.get_piece_size())
    ]
    assert model.unknown_id() == reference.unk_id()
    assert len(model.names("byte")) == 256


# Bad files ---------------------------------------------------------------------------------------------------------


def varint(number: int) -> bytes:
    out = b""
    while number >= 0x80:
        out, number = out + bytes([number & 0x7F | 0x80]), number >> 7
    return out + bytes([number])


def message(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def piece(text: bytes, kind: int = 1, score: bytes = b"\0\0\0\0") -> bytes:
    return message(1, message(1, text) + varint(2 << 3 | 5) + score + varint(3 << 3) + varint(kind))


UNKNOWN = piece(b"<unk>", kind=2)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no pieces"),
        (b"\x0a\xff", "ends in the middle"),
        (b"\x0a\x05ab", "ends in the middle of a field"),
        (b"\x80" * 12, "longer than 64 bits"),
        (b"\x0b", "wire type 3"),
        (b"\x00\x01", "field number 0"),
        (b"\x08\x01", "wire type 0 instead of 2"),
        (b"version: 0.2\nthis is a text", "not a SentencePiece model"),
        (piece(b"\xff\xfe"), "not UTF-8"),
        (piece(b"a", kind=9), "unknown kind 9"),
        (UNKNOWN + piece(b"a") + piece(b"a"), "occur twice: 'a'"),
        (piece(b"a"), "0 unknown pieces"),
        (UNKNOWN + piece(b"a", score=b"\0\0\xc0\x7f"), "not a finite number"),
        (UNKNOWN + piece(b"a", kind=5), "marked unused"),
        (UNKNOWN + piece(b"a") + message(2, varint(3 << 3) + b"\x03"), 'algorithm is "word"'),
        (UNKNOWN + piece(b"a") + message(2, varint(35 << 3) + b"\x01"), "256 pieces"),
        (UNKNOWN + piece(b"a") + message(2, varint(24 << 3) + b"\x01"), "treat_whitespace_as_suffix"),
        (UNKNOWN + piece(b"a") + message(3, varint(5 << 3) + b"\x00"), "escape_whitespaces"),
        (
            UNKNOWN + piece(b"a") + message(3, message(2, b"\xff\xff\xff\xff")),
            "character replacements is damaged",
        ),
        (UNKNOWN + piece(b"a") + message(5, message(2, b"xxxx")), "denormalizer_spec"),
    ],
)
def test_bad_files_are_refused(content: bytes, words: str) -> None:
    with pytest.raises(DataError, match=r"here\.model") as error:
        parse_model(content, "here.model")
    assert words in str(error.value)


def test_all_problems_at_once() -> None:
    content = piece(b"a") + piece(b"a") + message(2, varint(3 << 3) + b"\x04" + varint(24 << 3) + b"\x01")
    with pytest.raises(DataError) as error:
        parse_model(content, "x")
    for words in ("4 problems", "unknown pieces", "occur twice", 'algorithm is "char"', "treat_whitespace"):
        assert words in str(error.value)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_files_give_a_data_error_or_a_model_that_runs(
    files: dict[Any, bytes], data: st.DataObject
) -> None:
    content = bytearray(files["unigram", False, "identity", True, True])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    try:
        model = parse_model(bytes(content[:cut]), "x")
    except DataError:
        return
    inner_tokenizer(model).encode("The 砚 was ground.")


def test_damaged_character_maps_are_found(files: dict[Any, bytes]) -> None:
    """What is not found runs: the library walks the table unchecked and panics where it leads nowhere."""
    charsmap = parse_model(files["unigram", True, "nmt_nfkc", True, True], "test").charsmap
    assert is_whole_charsmap(charsmap)
    random = Random(3)
    runs = 0
    for changes in [1] * 60 + [300] * 10:
        damaged = bytearray(charsmap)
        for _ in range(changes):
            damaged[random.randrange(len(damaged))] = random.randrange(256)
        if is_whole_charsmap(bytes(damaged)):
            runs += 1
            normalizers.Precompiled(bytes(damaged)).normalize_str("héllo ｆｕｌｌ ½ ㍿ e\u0301 한 Ⅳ ﬁ 砚")
    assert 0 < runs < 70
    for broken in (
        b"",
        charsmap[:3],
        charsmap[:1000],
        charsmap[:-1],
        charsmap + b"\xff\0",
        b"\xff" + charsmap[1:],
    ):
        assert not is_whole_charsmap(broken)
