"""Ids to text as they come: a stream equals whole decoding, that equals the library, no half character leaves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import foreign_folders as made
import pytest
import tokenizers
from foreign_folders import FAMILIES, HARD, PLAIN, TRAINING
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models

from inkstone.text.decoding import Decoding, join_chinese
from inkstone.text.foreign_tokenizer import ForeignTokenizer
from inkstone.text.tokenizer import KINDS, Tokenizer

TEXT = st.text(st.sampled_from("abc the.,'!？。 你好磨墨龘𠮷👩\u200d🙂é\n"), max_size=25)
BYTE_KINDS = ("gpt2", "roberta", "qwen2", "llama")
Source = Tokenizer | ForeignTokenizer


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Source]:
    foreign: dict[str, Source] = {
        name: ForeignTokenizer.load(make(tmp_path_factory.mktemp(name))) for name, make in FAMILIES.items()
    }
    cleaning = ForeignTokenizer.load(
        made.bert(tmp_path_factory.mktemp("cleaning"), clean_up_tokenization_spaces=True)
    )
    own = {kind: Tokenizer.train(TRAINING, kind=kind, vocab_size=420) for kind in KINDS}  # type: ignore[arg-type]
    return {**foreign, "cleaning bert": cleaning, **own}


NAMES = (*FAMILIES, "cleaning bert", *KINDS)


def split(ids: list[int], draw: Callable[[st.SearchStrategy[int]], int]) -> list[list[int]]:
    pieces = []
    while ids:
        size = draw(st.integers(0, len(ids)))
        pieces.append(ids[:size])
        ids = ids[max(size, 1) :] if size else ids
        if not size:
            pieces.append(ids[:1])
            ids = ids[1:]
    return pieces


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_stream_equals_the_whole(sources: dict[str, Source], name: str, data: st.DataObject) -> None:
    source = sources[name]
    ids = source.encode(data.draw(TEXT))
    stream = source.stream()
    pushed = [stream.push(piece) for piece in split(ids, data.draw)]
    rest = stream.flush()
    assert "".join(pushed) + rest == source.decode(ids)
    assert "�" not in "".join([*pushed, rest])
    assert stream.push(ids) + stream.flush() == source.decode(ids)  # as new after flush


@pytest.mark.parametrize("name", NAMES)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_so_it_does_for_ids_no_text_has(sources: dict[str, Source], name: str, data: st.DataObject) -> None:
    source = sources[name]
    ids = data.draw(st.lists(st.integers(0, source.vocab_size - 1), max_size=25))
    stream = source.stream()
    text = "".join(stream.push(piece) for piece in split(ids, data.draw)) + stream.flush()
    library = source.inner.decode(ids, skip_special_tokens=True)
    if name == "wordpiece":
        library = join_chinese(library)
    if name in ("gpt2", "roberta", "bart", "qwen2", "byte-bpe") or (
        "�" not in library and name != "cleaning bert"
    ):
        assert text == library
    if isinstance(source, ForeignTokenizer):
        assert text == source.decode(ids)


@pytest.mark.parametrize("name", BYTE_KINDS)
@pytest.mark.parametrize("text", [*HARD, *PLAIN])
def test_each_character_leaves_with_its_last_byte(sources: dict[str, Source], name: str, text: str) -> None:
    """After every id exactly the characters that are complete have been given, no more and no fewer."""
    source = sources[name]
    assert isinstance(source, ForeignTokenizer)
    ids = source.encode(text, add_special_tokens=False)
    stream, given = source.stream(), ""
    for at, number in enumerate(ids, start=1):
        given += stream.push([number])
        certain = source.decode(ids[:at]).rstrip("�")
        assert given == certain
    assert given + stream.flush() == source.decode(ids)


def test_half_a_character_at_the_end(sources: dict[str, Source]) -> None:
    for name in BYTE_KINDS:
        source = sources[name]
        ids = [
            number
            for number in source.encode("砚台龘")
            if number not in source.inner.get_added_tokens_decoder()
        ]
        stream = source.stream()
        early = stream.push(ids[:-1])
        assert early == "砚台"
        assert stream.flush().strip("�") == ""


def test_special_tokens_on_request(sources: dict[str, Source]) -> None:
    source = sources["qwen2"]
    ids = [source.id_of("<|im_start|>"), *source.encode("你"), source.id_of("<|im_end|>")]
    for skips in (True, False):
        stream = source.stream(skips)
        text = "".join(stream.push([number]) for number in ids) + stream.flush()
        assert text == source.decode(ids, not skips if isinstance(source, Tokenizer) else skips)
        assert text == ("你" if skips else "<|im_start|>你<|im_end|>")


def test_a_decoder_of_another_kind_waits_for_the_end() -> None:
    inner = tokenizers.Tokenizer(models.BPE({"a": 0, "b</w>": 1}, []))
    inner.decoder = decoders.BPEDecoder()
    stream = Decoding.of(inner, []).stream()
    assert stream.push([0, 1, 0]) == ""
    assert stream.flush() == inner.decode([0, 1, 0])


@pytest.mark.parametrize(
    "decoder",
    [
        None,
        decoders.Metaspace(),
        decoders.Metaspace(prepend_scheme="never"),
        decoders.WordPiece(cleanup=True),
        decoders.WordPiece(prefix="##", cleanup=False),
        decoders.Sequence([decoders.ByteLevel()]),
        decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]),
        decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 2, 0)]),
        decoders.Sequence([decoders.Replace("▁", " ")]),
    ],
    ids=str,
)
@given(ids=st.lists(st.integers(0, 13), max_size=12))
@settings(max_examples=60, deadline=None)
def test_every_decoder_as_the_library_runs_it(decoder: decoders.Decoder | None, ids: list[int]) -> None:
    tokens = ["▁", "a", "▁b", "c▁", "##d", ".", "'", "n't", "<0x41>", "é", "Ġx", "你", "▁▁", "do not"]
    inner = tokenizers.Tokenizer(
        models.WordLevel({token: at for at, token in enumerate(tokens)}, unk_token="a")
    )
    if decoder is not None:
        inner.decoder = decoder
    decoding = Decoding.of(inner, [])
    assert decoding.whole(ids) == inner.decode(ids, skip_special_tokens=False)
    stream = decoding.stream()
    assert "".join(stream.push([number]) for number in ids) + stream.flush() == decoding.whole(ids)


def test_an_unknown_number_is_said_at_once(sources: dict[str, Source], tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        sources["gpt2"].stream().push([999_999])
