"""Tokenizers of other makes: the ids and texts of transformers and sentencepiece, back to the disk, bad folders."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import foreign_folders as made
import pytest
import sentencepiece
import tokenizers
import transformers
from foreign_folders import FAMILIES, HARD, OUTER, PLAIN, TRAINING, write_json
from tokenizers import models, pre_tokenizers, processors

from inkstone.ground.errors import ConfigError, DataError
from inkstone.text.foreign_tokenizer import ForeignTokenizer, vocabulary_problems
from inkstone.text.tokenizer import Tokenizer

MODEL_TYPES = {
    "bert": "bert",
    "gpt2": "gpt2",
    "roberta": "roberta",
    "bart": "bart",
    "qwen2": "qwen2",
    "llama": "llama",
    "t5": "t5",
    "xlm_roberta": "xlm-roberta",
    "marian": "marian",
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: make(tmp_path_factory.mktemp(name)) for name, make in FAMILIES.items()}


@pytest.fixture(scope="module")
def ours(folders: dict[str, Path]) -> dict[str, ForeignTokenizer]:
    return {name: ForeignTokenizer.load(folder) for name, folder in folders.items()}


def reference(folder: Path) -> Any:
    """The class of transformers that the folder names."""
    name = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))["tokenizer_class"]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
        return getattr(transformers, name).from_pretrained(folder)


def reopened(folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
        return transformers.AutoTokenizer.from_pretrained(folder)


def texts(family: str) -> list[str]:
    """Llama: transformers 5 leaves the prefix out before a space, SentencePiece and we do not (its own test below)."""
    return [*PLAIN, *HARD, *([] if family == "llama" else OUTER), "trailing  "]


@pytest.mark.parametrize("family", FAMILIES)
def test_ids_and_texts_equal_transformers(
    folders: dict[str, Path], ours: dict[str, ForeignTokenizer], family: str
) -> None:
    theirs, mine = reference(folders[family]), ours[family]
    assert mine.vocab_size == len(theirs)
    assert mine.encode_batch(texts(family)) == [mine.encode(text) for text in texts(family)]
    for text in texts(family):
        ids = theirs.encode(text)
        assert mine.encode(text) == ids, text
        assert mine.encode(text, add_special_tokens=False) == theirs.encode(text, add_special_tokens=False)
        if theirs.unk_token_id not in ids or family not in ("marian",):
            assert mine.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
        if family != "marian":
            assert mine.decode(ids, skip_special_tokens=False) == theirs.decode(ids)


@pytest.mark.parametrize("family", FAMILIES)
def test_pairs_equal_transformers(
    folders: dict[str, Path], ours: dict[str, ForeignTokenizer], family: str
) -> None:
    theirs = reference(folders[family])
    for text in PLAIN:
        together = theirs(text, "second 文字")
        assert ours[family].encode(text, "second 文字") == together["input_ids"]
        if "token_type_ids" in together:
            assert ours[family].pair_types(text, "second 文字") == together["token_type_ids"]


@pytest.mark.parametrize("family", FAMILIES)
def test_names_equal_transformers(
    folders: dict[str, Path], ours: dict[str, ForeignTokenizer], family: str
) -> None:
    theirs, mine = reference(folders[family]), ours[family]
    named = {name: token for name, token in theirs.special_tokens_map.items() if isinstance(token, str)}
    assert dict(mine.names) == named
    assert mine.named_ids == {name: theirs.convert_tokens_to_ids(token) for name, token in named.items()}
    assert (mine.bos_id, mine.eos_id, mine.pad_id) == (
        theirs.bos_token_id,
        theirs.eos_token_id,
        theirs.pad_token_id,
    )
    assert [mine.token_of(number) for number in range(len(theirs))] == theirs.convert_ids_to_tokens(
        range(len(theirs))
    )
    assert all(mine.id_of(mine.token_of(number)) == number for number in range(mine.vocab_size))


@pytest.mark.parametrize("with_config", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_saved_reopens_everywhere_with_equal_ids(
    ours: dict[str, ForeignTokenizer], tmp_path: Path, family: str, with_config: bool
) -> None:
    mine = ours[family]
    mine.save(tmp_path)
    if with_config:
        write_json(tmp_path, "config.json", {"model_type": MODEL_TYPES[family]})
    theirs, again = reopened(tmp_path), ForeignTokenizer.load(tmp_path)
    assert (
        again.names == mine.names == {k: v for k, v in theirs.special_tokens_map.items() if k in mine.names}
    )
    assert (again.marks, again.vocab_size, again.special_ids) == (
        mine.marks,
        mine.vocab_size,
        mine.special_ids,
    )
    for text in [*PLAIN, *HARD, *OUTER]:
        ids = mine.encode(text)
        assert theirs.encode(text) == ids == again.encode(text)
        assert again.decode(ids) == mine.decode(ids)
        if family != "marian":
            assert theirs.decode(ids, skip_special_tokens=True) == mine.decode(ids)
    assert theirs("a", "b")["input_ids"] == mine.encode("a", "b")
    assert ("token_type_ids" in theirs("a", "b")) == (family == "bert")


def test_llama_before_a_space_equals_sentencepiece(
    folders: dict[str, Path], ours: dict[str, ForeignTokenizer]
) -> None:
    original = sentencepiece.SentencePieceProcessor(model_file=str(folders["llama"] / "tokenizer.model"))
    for text in [*OUTER, *PLAIN, *HARD]:
        ids = ours["llama"].encode(text, add_special_tokens=False)
        assert ids == original.encode(text)
        assert ours["llama"].decode(ids) == original.decode(ids) == text


def test_marian_has_two_sides(folders: dict[str, Path], ours: dict[str, ForeignTokenizer]) -> None:
    theirs, mine = reference(folders["marian"]), ours["marian"]
    assert mine.target is not mine
    differs = 0
    for text in [*PLAIN, *HARD]:
        ids = theirs(text_target=text)["input_ids"]
        assert mine.target.encode(text) == ids
        differs += ids != mine.encode(text)
        if mine.unk_id not in ids:
            assert mine.target.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
    assert differs
    assert mine.encode(">>fra<< ink")[0] == mine.id_of(">>fra<<")
    assert mine.encode(">>fra<< ink") == theirs.encode(">>fra<< ink")
    assert ours["t5"].target is ours["t5"]


@pytest.mark.parametrize("family", FAMILIES)
def test_names_of_special_tokens_in_text_are_text(ours: dict[str, ForeignTokenizer], family: str) -> None:
    mine = ours[family]
    control = (
        mine.special_ids - {mine.unk_id}
        if mine.unk_id not in (mine.bos_id, mine.eos_id)
        else mine.special_ids
    )
    for name in mine.specials[:6]:
        for text in (name, f"ink {name} slate {name}{name}", f"{name[:-1]}{name}"):
            ids = mine.encode(text, add_special_tokens=False)
            assert control.isdisjoint(ids), text
            if family in ("gpt2", "roberta", "bart", "qwen2", "llama"):
                assert mine.decode(ids) == text
    ids = mine.encode(" ".join(mine.specials[:3]), add_special_tokens=False, parse_special=family != "marian")
    assert family == "marian" or {mine.id_of(name) for name in mine.specials[:3]} <= set(ids)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "marian"])
def test_parsed_specials_equal_transformers(
    folders: dict[str, Path], ours: dict[str, ForeignTokenizer], family: str
) -> None:
    theirs, mine = reference(folders[family]), ours[family]
    a, b = mine.specials[0], mine.specials[-1]
    for text in (f"{a}The ink{b}", f"The {b} ink{a}\n{b} slate.", f"{a}{b}"):
        if not (
            family == "llama" and text.startswith(a)
        ):  # there transformers 5 has its own idea of a prefix
            assert mine.encode(text, parse_special=True) == theirs.encode(text), text


def test_sentinels_of_t5(folders: dict[str, Path], ours: dict[str, ForeignTokenizer]) -> None:
    theirs, mine = reference(folders["t5"]), ours["t5"]
    text = "The <extra_id_0> was ground <extra_id_1>."
    assert mine.encode(text, parse_special=True) == theirs.encode(text)
    assert mine.id_of("<extra_id_0>") == mine.vocab_size - 1 == mine.id_of("<extra_id_99>") + 99


def test_bytes_cut_short_keep_the_good_characters(ours: dict[str, ForeignTokenizer]) -> None:
    ids = [ours["llama"].id_of(f"<0x{byte:02X}>") for byte in "你好".encode()[:5]]
    assert ours["llama"].decode(ids) == "你��"


def test_do_lower_case_and_its_like(tmp_path: Path) -> None:
    for at, config in enumerate(
        (
            {"do_lower_case": False},
            {"do_lower_case": True, "strip_accents": False},
            {"tokenize_chinese_chars": False},
        )
    ):
        folder = tmp_path / str(at)
        folder.mkdir()
        made.bert(folder, **config)
        theirs, mine = reference(folder), ForeignTokenizer.load(folder)
        assert [mine.encode(text) for text in PLAIN] == [theirs.encode(text) for text in PLAIN]
        assert config.get("do_lower_case", True) == (mine.encode("The") == mine.encode("the"))


def test_cleaning_up_spaces(tmp_path: Path) -> None:
    made.bert(tmp_path, clean_up_tokenization_spaces=True)
    theirs, mine = reference(tmp_path), ForeignTokenizer.load(tmp_path)
    for text in ["she doesn't know .", "ink , slate ! ' s 'm n't", *PLAIN]:
        ids = theirs.encode(text)
        assert mine.decode(ids) == theirs.decode(ids, skip_special_tokens=True)
        assert mine.decode(ids, skip_special_tokens=False) == theirs.decode(ids)


@pytest.mark.parametrize(("bos", "eos"), [(True, True), (False, True), (False, False)])
def test_bos_and_eos_as_asked(tmp_path: Path, bos: bool, eos: bool) -> None:
    made.llama(tmp_path, add_bos_token=bos, add_eos_token=eos)
    theirs, mine = reference(tmp_path), ForeignTokenizer.load(tmp_path)
    assert mine.encode("ink") == theirs.encode("ink")
    assert mine.encode("ink", "slate") == theirs.encode("ink", "slate")
    assert (mine.encode("ink")[0] == mine.bos_id, mine.encode("ink")[-1] == mine.eos_id) == (bos, eos)


def test_tokens_of_the_small_files(tmp_path: Path) -> None:
    """added_tokens.json numbers them, special_tokens_map.json names them, and one without a number gets the next."""
    made.gpt2(tmp_path)
    write_json(tmp_path, "added_tokens.json", {"<|user|>": 421, "<|pad|>": 420})
    write_json(
        tmp_path,
        "special_tokens_map.json",
        {
            "pad_token": {"content": "<|pad|>", "lstrip": True},
            "sep_token": "<|sep|>",
            "additional_special_tokens": ["<|more|>"],
        },
    )
    mine = ForeignTokenizer.load(tmp_path)
    assert mine.named_ids["pad_token"] == 420
    assert mine.named_ids["sep_token"] == 422
    assert mine.vocab_size == 424
    assert mine.encode("x <|user|>", parse_special=True)[-1] == 421
    theirs = reference(tmp_path)
    text = "ink <|sep|> ink<|more|> <|pad|>"
    assert mine.encode(text, parse_special=True) == theirs.encode(text)
    assert len(repr(mine)) < 500


def llama3(folder: Path, **config: Any) -> Path:
    """A tokenizer.json in the manner of Llama 3: byte-level, its own cuts, bos by template, many special tokens."""
    inner = tokenizers.Tokenizer(models.BPE(ignore_merges=True))
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(
                tokenizers.Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|\s+|[^\s\p{L}\p{N}]+"), "isolated"
            ),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    inner.decoder = tokenizers.decoders.ByteLevel()
    inner.train_from_iterator(
        TRAINING,
        tokenizers.trainers.BpeTrainer(
            vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
        ),
    )
    marks = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    inner.add_special_tokens(marks)
    first = inner.token_to_id(marks[0])
    inner.post_processor = processors.TemplateProcessing(
        single=[marks[0], "$A"],
        pair=[marks[0], "$A", f"{marks[0]}:1", "$B:1"],
        special_tokens=[(marks[0], first)],
    )
    inner.enable_truncation(8)
    inner.save(str(folder / "tokenizer.json"))
    write_json(
        folder,
        "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": marks[0],
            "eos_token": marks[-1],
            "clean_up_tokenization_spaces": True,
            **config,
        },
    )
    return folder


def test_tokenizer_json_comes_first_and_is_taken_as_it_is(tmp_path: Path) -> None:
    llama3(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(
        b"IQ== 0\nIg== 1\n"
    )  # Llama 3 has such a file, which is no SentencePiece
    mine, theirs = ForeignTokenizer.load(tmp_path), reopened(tmp_path)
    for text in [*PLAIN, *HARD, *OUTER]:
        ids = theirs.encode(text, truncation=False)
        assert mine.encode(text) == ids
        assert mine.decode(ids) == theirs.decode(ids, skip_special_tokens=True) == text
    assert mine.marks.before == (mine.bos_id,)
    assert len(mine.encode("ink " * 50)) > 50


def test_a_unigram_vocabulary_holds_its_marks_and_text_still_never_becomes_them(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    """T5's own tokenizer.json: the library finds "</s>" in ordinary text even when told not to."""
    reference(folders["t5"]).save_pretrained(tmp_path)
    mine = ForeignTokenizer.load(tmp_path)
    mine.inner.encode_special_tokens = True
    assert mine.eos_id in mine.inner.encode("ink</s>", add_special_tokens=False).ids
    mine.inner.encode_special_tokens = False
    assert mine.eos_id not in mine.encode("ink</s> </s></s>", add_special_tokens=False)


def test_one_of_ours_for_transformers(tmp_path: Path) -> None:
    for kind in ("bpe", "unigram", "byte-bpe"):
        own = Tokenizer.train(TRAINING, kind=kind, vocab_size=420, specials=["<2en>"])  # type: ignore[arg-type]
        folder = tmp_path / kind
        folder.mkdir()
        foreign = ForeignTokenizer.of(own)
        foreign.save(folder)
        theirs = reopened(folder)
        for text in [*PLAIN, *HARD]:
            assert foreign.encode(text) == own.encode(text) == theirs.encode(text)
            assert theirs.decode(theirs.encode(text), skip_special_tokens=True) == own.decode(
                own.encode(text)
            )
        assert (theirs.pad_token_id, theirs.unk_token_id, theirs.bos_token_id, theirs.eos_token_id) == (
            0,
            1,
            2,
            3,
        )
        assert Tokenizer.load(folder).encode("The ink") == own.encode("The ink")


def test_vocabulary_and_model_disagree(ours: dict[str, ForeignTokenizer]) -> None:
    mine = ours["qwen2"]
    assert vocabulary_problems(mine, mine.vocab_size) == []
    assert vocabulary_problems(mine, mine.vocab_size + 271) == []  # padded rows, as in the real checkpoints
    (problem,) = vocabulary_problems(mine, mine.vocab_size - 2)
    assert "423 tokens" in problem and "421" in problem and "'<|im_start|>', '<|im_end|>'" in problem
    assert len(vocabulary_problems(ours["marian"], 10)) == 2
    own = Tokenizer.train(TRAINING, vocab_size=300)
    assert vocabulary_problems(own, 300) == []
    assert vocabulary_problems(own, 299)


def test_wrong_requests_are_refused(ours: dict[str, ForeignTokenizer]) -> None:
    mine = ours["gpt2"]
    with pytest.raises(ConfigError, match="not in this vocabulary of 420"):
        mine.decode([1, 420])
    with pytest.raises(ConfigError, match="not known"):
        mine.id_of("<|user|>")
    with pytest.raises(ConfigError, match="Valid: 0 to 419"):
        mine.token_of(420)
    with pytest.raises(DataError, match="surrogate"):
        mine.encode("half \ud83d")
    with pytest.raises(TypeError):
        mine.encode(3)  # type: ignore[arg-type]


# Bad folders -------------------------------------------------------------------------------------------------------


@pytest.fixture
def spoiled(folders: dict[str, Path], tmp_path: Path) -> Iterator[Any]:
    def copy(family: str) -> Path:
        return Path(shutil.copytree(folders[family], tmp_path / family))

    yield copy


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(DataError) as error:
        ForeignTokenizer.load(folder)
    for word in (str(folder), *words):
        assert word in str(error.value), str(error.value)


def test_no_tokenizer_at_all(tmp_path: Path) -> None:
    refused(tmp_path, "holds no tokenizer", "tokenizer.json", "vocab.txt", "spiece.model")
    refused(tmp_path / "nowhere", "not a folder")


def test_vocab_and_merges_with_all_their_problems(spoiled: Any) -> None:
    folder = spoiled("gpt2")
    (folder / "merges.txt").write_text("#version: 0.2\na b c\nzzz qqq\n", encoding="utf-8")
    write_json(folder, "special_tokens_map.json", {"pad_token": 3})
    refused(
        folder, "3 problems", "line 2 is not two tokens", "line 3 joins tokens", "pad_token=3 is no token"
    )
    (folder / "merges.txt").unlink()
    write_json(folder, "vocab.json", {"a": 0, "b": 0})
    refused(folder, "merges.txt is missing", "numbers occur twice: 0")
    write_json(folder, "vocab.json", {"a": "first"})
    refused(folder, "no number for 'a'")
    write_json(folder, "vocab.json", [])
    refused(folder, "vocab.json holds no JSON object")


def test_a_make_that_is_not_known(spoiled: Any) -> None:
    folder = spoiled("gpt2")
    write_json(folder, "tokenizer_config.json", {"tokenizer_class": "GTP2Tokenizer"})
    refused(folder, 'tokenizer_class="GTP2Tokenizer" is not known', 'Did you mean "GPT2Tokenizer"?')
    (folder / "tokenizer_config.json").unlink()
    refused(folder, "give tokenizer_class")
    write_json(folder, "config.json", {"model_type": "gpt2"})
    assert ForeignTokenizer.load(folder).eos_id == 0


def test_code_is_never_run(spoiled: Any) -> None:
    folder = spoiled("gpt2")
    config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    write_json(folder, "tokenizer_config.json", {**config, "auto_map": {"AutoTokenizer": ["x.Y", None]}})
    refused(folder, "auto_map", "never run")


def test_damaged_files(spoiled: Any, tmp_path: Path) -> None:
    folder = spoiled("llama")
    model = folder / "tokenizer.model"
    model.write_bytes(model.read_bytes()[:1000])
    refused(folder, "tokenizer.model is not a SentencePiece model")
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    refused(folder, "tokenizer.json cannot be read")
    (folder / "tokenizer.json").write_text("[", encoding="utf-8")
    refused(folder, "tokenizer.json is not JSON")
    steps = {
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
        "decoder": {"type": "Strip", "stop": 1},
    }
    write_json(folder, "tokenizer.json", {**steps, "model": {}})
    refused(folder, "damaged table of character replacements", "strips the end of a text")
    folder = spoiled("bert")
    (folder / "vocab.txt").write_text("a\na\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text("{", encoding="utf-8")
    write_json(folder, "config.json", {"model_type": "bert"})
    refused(folder, "tokenizer_config.json is not JSON", "tokens occur twice: 'a'", "unknown token [UNK]")
    folder = spoiled("marian")
    (folder / "target.spm").unlink()
    write_json(folder, "vocab.json", {"</s>": 0})
    refused(folder, "target.spm is missing", "does not have the unknown token <unk>")


def test_a_token_at_another_number_than_promised(spoiled: Any) -> None:
    folder = spoiled("gpt2")
    write_json(folder, "added_tokens.json", {"<|user|>": 500})
    refused(folder, "'<|user|>' should be token 500, but the vocabulary makes it 420")


def test_a_mark_that_is_not_there(spoiled: Any) -> None:
    folder = spoiled("bert")
    words = (folder / "vocab.txt").read_text("utf-8").replace("[CLS]\n", "").replace("[SEP]\n", "")
    (folder / "vocab.txt").write_text(words, encoding="utf-8")
    refused(folder, "the vocabulary has no cls_token", "no sep_token")
