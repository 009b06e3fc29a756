"""Round trips, fixed marks, what users may type, and what is refused."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from itertools import combinations, pairwise
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from inkstone.ground.errors import ConfigError, DataError
from inkstone.text.tokenizer import BOS, EOS, KINDS, MARKS, PAD, UNK, Tokenizer
from inkstone.text.unigram import _without, learn_pieces

TEXTS = [
    "The old inkstone was ground from black slate.",
    "She doesn't know whether 3 or 4 people came in 2024.",
    "磨墨的石头叫做砚，砚台是文房四宝之一。",
    "“你好，世界！”他说。今天是2024年3月1日。",
    "Grind the ink slowly, then write. 慢慢磨墨，再写字。",
    "Le café est fermé; der Weg ist das Ziel.",
] * 20
HARD = [
    "你好，world! 👩‍👩‍👧‍👦 🏴󠁧󠁢󠁥󠁮󠁧󠁿 🇨🇳",
    "  two  spaces, \ttab\nand\r\nlines  ",
    "龘靐齉 𠮷野家 ｆｕｌｌ　ｗｉｄｔｈ",
    "bell\x07 escape\x1b[0m delete\x7f",
    "e\u0301 vs \u00e9, \u200b zero width, \ufeff mark",
    "नमस्ते สวัสดี مرحبا שלום",
    "x" * 500,
    "",
    " ",
]


@pytest.fixture(scope="module")
def trained() -> dict[str, Tokenizer]:
    return {
        kind: Tokenizer.train(TEXTS, kind=kind, vocab_size=700, specials=["<2en>", "<2zh>"]) for kind in KINDS
    }  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["bpe", "unigram", "byte-bpe"])
@pytest.mark.parametrize("text", [*TEXTS[:6], *HARD])
def test_text_comes_back_exactly(trained: dict[str, Tokenizer], kind: str, text: str) -> None:
    tokenizer = trained[kind]
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.unk_id not in ids


@given(st.text(st.characters(codec="utf-8"), max_size=60))
@settings(max_examples=150, deadline=None)
def test_any_text_comes_back(trained: dict[str, Tokenizer], text: str) -> None:
    assert trained["byte-bpe"].decode(trained["byte-bpe"].encode(text)) == text
    for kind in ("bpe", "unigram"):  # the one stated exception: ▁ stands for a space
        assert trained[kind].decode(trained[kind].encode(text)) == text.replace("▁", " ")


def test_wordpiece_gives_words_back_and_marks_the_unknown(trained: dict[str, Tokenizer]) -> None:
    tokenizer = trained["wordpiece"]
    assert tokenizer.decode(tokenizer.encode("the ink was ground")) == "the ink was ground"
    assert tokenizer.decode(tokenizer.encode("磨墨的石头，世界")) == "磨墨的石头，世界"
    assert tokenizer.encode("👍") == [tokenizer.unk_id]


@pytest.mark.parametrize("kind", KINDS)
def test_marks_have_their_numbers(trained: dict[str, Tokenizer], kind: str) -> None:
    tokenizer = trained[kind]
    assert [tokenizer.id_of(mark) for mark in (PAD, UNK, BOS, EOS, "<2en>", "<2zh>")] == [0, 1, 2, 3, 4, 5]
    assert (tokenizer.pad_id, tokenizer.unk_id, tokenizer.bos_id, tokenizer.eos_id) == (0, 1, 2, 3)
    assert tokenizer.specials == (*MARKS, "<2en>", "<2zh>")
    assert tokenizer.decode([2, 4, *tokenizer.encode("ink"), 3]) == "ink"
    assert "</s>" in tokenizer.decode([*tokenizer.encode("ink"), 3], keep_specials=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("typed", ["</s>", "<pad>", "<s>", "<2en>", "ink</s>ink", "<s> <2zh> </s>", "<unk>"])
def test_typed_marks_are_ordinary_characters(
    trained: dict[str, Tokenizer], kind: str, typed: str, tmp_path: Path
) -> None:
    trained[kind].save(tmp_path / "tokenizer.json")
    for tokenizer in (trained[kind], Tokenizer.load(tmp_path)):
        ids = tokenizer.encode(typed)
        assert not {0, 2, 3, 4, 5} & set(ids)
        if kind != "wordpiece":
            assert 1 not in ids
            assert tokenizer.decode(ids) == typed


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_typed_byte_names_are_ordinary_characters(trained: dict[str, Tokenizer], kind: str) -> None:
    for typed in ("<0x41>", "<0xFF>", "a<0x0A>b"):
        assert trained[kind].decode(trained[kind].encode(typed)) == typed


@pytest.mark.parametrize("kind", KINDS)
def test_saved_is_loaded_equal_and_says_its_kind(
    trained: dict[str, Tokenizer], kind: str, tmp_path: Path
) -> None:
    path = tmp_path / "tokenizer.json"
    trained[kind].save(path)
    loaded = Tokenizer.load(path)
    assert loaded.kind == kind
    assert loaded.vocab_size == trained[kind].vocab_size <= 700
    assert loaded.encode_batch(TEXTS + HARD) == trained[kind].encode_batch(TEXTS + HARD)
    plain = tokenizers.Tokenizer.from_file(str(path))  # the file is the library's own, nothing beside it
    assert plain.encode(TEXTS[3], add_special_tokens=False).ids == loaded.encode(TEXTS[3])


def test_batch_equals_single(trained: dict[str, Tokenizer]) -> None:
    for tokenizer in trained.values():
        batch = tokenizer.encode_batch(HARD)
        assert batch == [tokenizer.encode(text) for text in HARD]
        assert tokenizer.decode_batch(batch) == [tokenizer.decode(ids) for ids in batch]


def test_chinese_needs_no_spaces() -> None:
    texts = ["北京大学在北京", "我去北京大学", "北京大学很大"] * 50
    for kind in ("bpe", "unigram"):
        tokenizer = Tokenizer.train(texts, kind=kind, vocab_size=330)  # type: ignore[arg-type]
        assert any("北京大学" in piece for piece in tokenizer.pieces("他在北京大学"))


def test_no_token_crosses_a_border() -> None:
    tokenizer = Tokenizer.train(["是的。是的。好2024好2024 the cat. the cat."] * 50, vocab_size=400)
    for number in range(260, tokenizer.vocab_size):
        token = tokenizer.token_of(number).lstrip("▁")
        if len(token) > 1:
            assert token.isalpha() or not any(map(str.isalnum, token)), token


@pytest.mark.parametrize("kind", KINDS)
def test_training_is_the_same_in_every_process(kind: str) -> None:
    code = (
        "import hashlib\nfrom inkstone.text.tokenizer import Tokenizer\n"
        f"texts = {TEXTS[:6]!r} * 3\n"
        f"t = Tokenizer.train(texts, kind={kind!r}, vocab_size=420)\n"
        "print(hashlib.sha256(t.inner.to_str().encode()).hexdigest())"
    )
    runs = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert len(runs) == 1


def test_unknown_names_and_numbers_are_refused(trained: dict[str, Tokenizer]) -> None:
    tokenizer = trained["bpe"]
    with pytest.raises(ConfigError, match=r"<2fr>.*<2en>"):
        tokenizer.id_of("<2fr>")
    with pytest.raises(ConfigError, match="not known"):
        tokenizer.token_of(99999)
    with pytest.raises(ConfigError, match="do not belong together"):
        tokenizer.decode([5, 99999])
    with pytest.raises(DataError, match="surrogate"):
        tokenizer.encode("half \ud83d")


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(ConfigError, match=r'kind="bep".*Did you mean "bpe"'):
        Tokenizer.train(TEXTS, kind="bep")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="at least 261"):
        Tokenizer.train(TEXTS, vocab_size=200)
    with pytest.raises(DataError, match="no text"):
        Tokenizer.train(["", "  \n"])
    with pytest.raises(ConfigError, match="twice"):
        Tokenizer.train(TEXTS, specials=["<s>"])
    for name in ("sep", "", "界", "<0x41>"):
        with pytest.raises(ConfigError, match="cannot be a special token"):
            Tokenizer.train(TEXTS, specials=[name])


@pytest.mark.parametrize("content", [b"", b"\x00\x01", b"{}", b'{"model": {"type": "BPE"}}', b"[1]"])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(DataError, match=r"tokenizer\.json"):
        Tokenizer.load(tmp_path)


def test_a_cut_or_foreign_or_missing_file_is_refused(trained: dict[str, Tokenizer], tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    with pytest.raises(DataError, match="does not exist"):
        Tokenizer.load(path)
    trained["bpe"].save(path)
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole[: len(whole) // 2], encoding="utf-8")
    with pytest.raises(DataError, match="damaged"):
        Tokenizer.load(path)
    foreign = json.loads(whole.replace("<pad>", "[PAD]"))
    path.write_text(json.dumps(foreign), encoding="utf-8")
    with pytest.raises(DataError, match="<pad> 0"):
        Tokenizer.load(path)


def test_unigram_cuts_are_the_best_by_its_own_scores() -> None:
    words = Counter(
        {"北京大学": 30, "北京": 40, "大学": 40, "学京": 1, "undone": 20, "done": 30, "under": 20}
    )
    pieces = learn_pieces(words, "".join(words), 30)
    scores = dict(pieces)
    assert len(scores) <= 30 and set("".join(words)) <= set(scores)
    assert {"北京", "大学", "done"} <= set(scores)
    assert [score for _, score in pieces] == sorted(scores.values(), reverse=True)
    assert sum(math.exp(score) for score in scores.values()) == pytest.approx(1, abs=1e-3)
    for word in words:  # the alternative of a whole piece is never better than the best of all cuttings
        cuttings = [
            sum(scores.get(word[a:b], -math.inf) for a, b in pairwise([0, *borders, len(word)]))
            for n in range(1, len(word))
            for borders in combinations(range(1, len(word)), n)
        ]
        assert _without(word, scores) == pytest.approx(max(cuttings))


def test_the_share_of_the_alphabet() -> None:
    """More places for characters leave fewer of them to be spelled in bytes; the text comes back either way."""
    text = "".join(chr(0x4E00 + 7 * n) * (3 if n < 60 else 1) for n in range(400))
    spelled = []
    for share in (0.1, None, 0.9):
        tokenizer = Tokenizer.train([text], vocab_size=560, alphabet_share=share)
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        spelled.append(sum(4 <= number < 260 for number in ids))
    assert spelled[0] > spelled[1] > spelled[2]
    for kind, share, words in (
        ("bpe", 0.0, "alphabet_share=0.0"),
        ("byte-bpe", 0.5, "bytes for an alphabet"),
    ):
        with pytest.raises(ConfigError, match=words):
            Tokenizer.train([text], kind=kind, vocab_size=560, alphabet_share=share)  # type: ignore[arg-type]
