"""Foreign tokenizers: load, encode, decode and stream, against transformers and sentencepiece on the same files.

INKSTONE_DATA=… python benchmarks/foreign_tokenizers.py
The vocabularies (32,000 byte-level BPE, 16,000 unigram) are trained here on both sides of tatoeba_en_zh. One thread.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"

import sentencepiece
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from inkstone.corpus.read import read_pairs
from inkstone.text.foreign_tokenizer import ForeignTokenizer
from inkstone.text.template import DEFAULT_CHAT_TEMPLATE, ChatTemplate

RUNS = 5


def best(call: Callable[[], object]) -> float:
    """The shortest of a few runs, in seconds: other work on the machine only makes it longer."""
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def lines(data: Path) -> list[str]:
    """Both sides of the pairs, English and Chinese."""
    pairs = list(islice(read_pairs([data / "tatoeba_en_zh/train.jsonl.gz"]), 30_000))
    return [text for pair in pairs for text in (pair.source, pair.target)]


def byte_level(folder: Path, texts: list[str]) -> None:
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=32_000,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>"],
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    inner.model.save(str(folder))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}), "utf-8")


def unigram(folder: Path, texts: list[str]) -> None:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_prefix=str(folder / "spiece"),
        vocab_size=16_000,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer"}), "utf-8")


def compare(name: str, folder: Path, texts: list[str]) -> None:
    import transformers

    theirs_class = {"byte-level": transformers.GPT2Tokenizer, "unigram": transformers.T5Tokenizer}[name]
    mine, theirs = ForeignTokenizer.load(folder), theirs_class.from_pretrained(folder)
    ids = mine.encode_batch(texts)
    assert theirs(texts)["input_ids"] == ids
    rows: dict[str, dict[str, float]] = {
        "load, s": {
            "inkstone": best(lambda: ForeignTokenizer.load(folder)),
            "transformers": best(lambda: theirs_class.from_pretrained(folder)),
        },
        "encode, s": {
            "inkstone": best(lambda: mine.encode_batch(texts)),
            "transformers": best(lambda: theirs(texts)),
        },
        "decode, s": {
            "inkstone": best(lambda: mine.decode_batch(ids)),
            "transformers": best(lambda: theirs.batch_decode(ids, skip_special_tokens=True)),
        },
    }
    if name == "unigram":
        original = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
        rows["load, s"]["sentencepiece"] = best(
            lambda: sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
        )
        rows["encode, s"]["sentencepiece"] = best(lambda: original.encode(texts, num_threads=1))
        rows["decode, s"]["sentencepiece"] = best(lambda: original.decode(ids))
        equal = sum(a[:-1] == b for a, b in zip(ids, original.encode(texts, num_threads=1), strict=True))
        print(f"{name}: ids equal to sentencepiece for {equal:,} of {len(texts):,} texts")
    stream = mine.stream()
    flat = [number for row in ids[:5000] for number in row]

    def one_by_one() -> None:
        for number in flat:
            stream.push((number,))
        stream.flush()

    print(f"{name}: {len(texts):,} texts, {sum(map(len, ids)):,} tokens")
    for what, row in rows.items():
        print(f"  {what:10}", *(f"{who} {seconds:.3f}" for who, seconds in row.items()), sep="  ")
    print(f"  stream, microseconds a token  {best(one_by_one) / len(flat) * 1e6:.2f}")


def chat() -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    template = ChatTemplate(DEFAULT_CHAT_TEMPLATE, {}, ["<|im_start|>", "<|im_end|>"])
    talk = [{"role": ("user", "assistant")[at % 2], "content": f"turn {at}, 你好"} for at in range(20)]
    mine = best(lambda: [template.render(talk) for _ in range(100)]) / 100
    theirs = best(
        lambda: [render_jinja_template([talk], chat_template=DEFAULT_CHAT_TEMPLATE) for _ in range(100)]
    )
    print(f"chat of 20 turns, ms: inkstone {mine * 1e3:.2f}  transformers {theirs / 100 * 1e3:.2f}")


def main() -> None:
    if "INKSTONE_DATA" not in os.environ:
        sys.exit("Set INKSTONE_DATA to the folder of the data sets.")
    texts = lines(Path(os.environ["INKSTONE_DATA"]))
    for name, make in (("byte-level", byte_level), ("unigram", unigram)):
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder), texts)
            compare(name, Path(folder), texts)
    chat()


if __name__ == "__main__":
    main()
