"""Folders of tiny tokenizers as each family publishes them, trained here from a few sentences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

TRAINING = [
    "The old inkstone was ground from black slate.",
    "She doesn't know whether 3 or 4 people came in 2024.",
    "磨墨的石头叫做砚，砚台是文房四宝之一。",
    "“你好，世界！”他说。今天是2024年3月1日。",
    "Grind the ink slowly, then write. 慢慢磨墨，再写字。",
    "Le café est fermé; der Weg ist das Ziel.",
] * 20
PLAIN = [
    *TRAINING[:6],
    "Unheard words: quixotic zephyrs.",
    "two  spaces and   three",
    "你好，world！3.14159",
    "line one\nline two\n\n  indented\ttab",
    "UPPER Case and don't",
]
HARD = [
    "👩‍👩‍👧‍👦 family, 🇨🇳 flag 🙂",
    "龘靐齉 𠮷野家 ｆｕｌｌ　ｗｉｄｔｈ",
    "e\u0301 vs \u00e9, \u200b zero width",
    "नमस्ते สวัสดี مرحبا",
    "",
]
OUTER = [" leading", "  two leading", "trailing  ", " ", "   "]


def write_json(folder: Path, name: str, value: Any) -> None:
    (folder / name).write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def sentencepiece_file(path: Path, **options: Any) -> Path:
    """Train a SentencePiece model; the options are those of its trainer."""
    options = {"vocab_size": 420 if options.get("byte_fallback") else 220, "model_type": "unigram"} | options
    with path.open("wb") as out:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TRAINING),
            model_writer=out,
            hard_vocab_limit=False,
            num_threads=1,
            minloglevel=2,
            **options,
        )
    return path


def bert(folder: Path, **config: Any) -> Path:
    """vocab.txt, as BERT: characters, ends of words and a few words."""
    letters = sorted({character for text in TRAINING for character in text if not character.isspace()})
    words = sorted(
        {word.strip(".;,'").lower() for text in TRAINING[:6] for word in text.split() if word.isascii()}
    )
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    lower = [letter.lower() for letter in letters]
    tokens = list(
        dict.fromkeys([*marks, *letters, *lower, *(f"##{one}" for one in lower), *words, "ing", "##ed"])
    )
    (folder / "vocab.txt").write_text("\n".join(tokens) + "\n", encoding="utf-8")
    write_json(folder, "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", **config})
    return folder


def byte_level(folder: Path, specials: list[str], config: dict[str, Any], places: int = 420) -> Path:
    """vocab.json and merges.txt, as GPT-2, RoBERTa and Qwen2 have them."""
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=places,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(TRAINING, trainer)
    model = json.loads(inner.to_str())["model"]
    write_json(folder, "vocab.json", model["vocab"])
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    write_json(folder, "tokenizer_config.json", config)
    return folder


def gpt2(folder: Path) -> Path:
    return byte_level(folder, ["<|endoftext|>"], {"tokenizer_class": "GPT2Tokenizer"})


def roberta(folder: Path) -> Path:
    marks = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    return byte_level(folder, marks, {"tokenizer_class": "RobertaTokenizer"})


def bart(folder: Path) -> Path:
    marks = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    return byte_level(folder, marks, {"tokenizer_class": "BartTokenizer"})


def qwen2(folder: Path) -> Path:
    """Qwen2: the chat marks stand behind the vocabulary, described in tokenizer_config.json."""
    byte_level(folder, [], {})
    size = len(json.loads((folder / "vocab.json").read_text("utf-8")))
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    described = {
        str(size + at): {
            "content": mark,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
        for at, mark in enumerate(marks)
    }
    write_json(
        folder,
        "tokenizer_config.json",
        {
            "tokenizer_class": "Qwen2Tokenizer",
            "add_bos_token": False,
            "added_tokens_decoder": described,
            "additional_special_tokens": marks[1:],
            "bos_token": None,
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "unk_token": None,
        },
    )
    return folder


def llama(folder: Path, **config: Any) -> Path:
    sentencepiece_file(
        folder / "tokenizer.model",
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
    )
    write_json(
        folder,
        "tokenizer_config.json",
        {
            "tokenizer_class": "LlamaTokenizer",
            "add_bos_token": True,
            "add_eos_token": False,
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            **config,
        },
    )
    return folder


def t5(folder: Path) -> Path:
    sentencepiece_file(folder / "spiece.model", pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    write_json(folder, "tokenizer_config.json", {"tokenizer_class": "T5Tokenizer"})
    return folder


def xlm_roberta(folder: Path) -> Path:
    sentencepiece_file(folder / "sentencepiece.bpe.model")
    write_json(folder, "tokenizer_config.json", {"tokenizer_class": "XLMRobertaTokenizer"})
    return folder


def marian(folder: Path) -> Path:
    """Two SentencePiece models, and one vocabulary in an order of its own that lacks some of their pieces."""
    source = sentencepiece_file(folder / "source.spm", vocab_size=110)
    target = sentencepiece_file(folder / "target.spm", vocab_size=80)
    pieces: list[str] = []
    for file in (target, source):
        model = sentencepiece.SentencePieceProcessor(model_file=str(file))
        pieces += [model.id_to_piece(number) for number in range(3, model.get_piece_size())]
    tokens = ["</s>", "<unk>", ">>fra<<", *sorted(set(pieces))[::-1][7:], "龘", "<pad>"]
    write_json(folder, "vocab.json", {token: number for number, token in enumerate(tokens)})
    write_json(folder, "tokenizer_config.json", {"tokenizer_class": "MarianTokenizer", "source_lang": "en"})
    return folder


FAMILIES = {
    "bert": bert,
    "gpt2": gpt2,
    "roberta": roberta,
    "bart": bart,
    "qwen2": qwen2,
    "llama": llama,
    "t5": t5,
    "xlm_roberta": xlm_roberta,
    "marian": marian,
}
