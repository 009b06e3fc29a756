"""Training speed beside the Trainer of transformers: the same texts, vocabulary, size of model and of batch, one run.

    INKSTONE_DATA=... python benchmarks/training.py                     # three tables, about fifteen minutes
    INKSTONE_DATA=... python benchmarks/training.py --only tiny --seconds 20

tiny      encoder-decoder, 128 wide, 4+4 layers, vocabulary 8,000, Multi30k en-de
base      encoder-decoder, 512 wide, 6+6 layers, vocabulary 10,000, Multi30k en-de
decoder   about ten million parameters, 256 wide, english_novels in blocks of 256

The peers are a MarianMTModel and a LlamaForCausalLM of the same widths (a feed-forward layer of the same number of
parameters) under Seq2SeqTrainer and Trainer, in float32 and in bfloat16, with batches by length, fused AdamW, label
smoothing and clipping as ours. Tokens are real ones, both sides. Each side runs in a process of its own with all cores;
what its first steps take is not counted. The ceiling is what large square matrix products reach in bfloat16; the work of
a token is counted by torch from the shapes of the products of one step, forward and backward, without the optimiser's.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

WARM = 10  # steps that are not counted
TOKENS = 4096  # of a batch, padding included
SMOOTHING, RATE = 0.1, 1e-3
BLOCK = 256


class Clock:
    """Notes the time and the tokens of each step, and says when it is enough."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.steps, self.tokens, self.started = seconds, 0, 0, 0.0

    def stepped(self, tokens: int) -> bool:
        """After a step of so many tokens. True when there has been enough of them."""
        self.steps += 1
        if self.steps == WARM:
            self.started = time.perf_counter()
        elif self.steps > WARM:
            self.tokens += tokens
        return self.steps > WARM and time.perf_counter() - self.started > self.seconds

    @property
    def per_second(self) -> float:
        """Tokens a second of the steps that count."""
        return self.tokens / (time.perf_counter() - self.started)


def data() -> Path:
    """The folder of data sets."""
    return Path(os.environ["INKSTONE_DATA"])


def pairs(vocab_size: int) -> tuple[list[list[int]], list[list[int]]]:
    """Multi30k's training captions as ids, English and German, without marks."""
    from inkstone.text.tokenizer import Tokenizer

    sides = []
    for code in ("en", "de"):
        with gzip.open(data() / "multi30k" / f"tok.train.{code}.gz", "rt", encoding="utf-8") as file:
            sides.append(file.read().splitlines())
    tokenizer = Tokenizer.train(sides[0] + sides[1], kind="bpe", vocab_size=vocab_size)
    english, german = (tokenizer.encode_batch(side) for side in sides)
    return [list(ids) for ids in english], [list(ids) for ids in german]


def blocks(vocab_size: int) -> list[list[int]]:
    """Some novels as ids, in blocks of one more token than a model reads."""
    from inkstone.text.tokenizer import Tokenizer

    with gzip.open(data() / "english_novels" / "train.jsonl.gz", "rt", encoding="utf-8") as file:
        texts = [json.loads(next(file))["text"] for _ in range(6)]
    paragraphs = [part for text in texts for part in text.split("\n\n")]
    tokenizer = Tokenizer.train(paragraphs, kind="bpe", vocab_size=vocab_size)
    flat = [token for text in texts for token in tokenizer.encode(text)]
    return [flat[start : start + BLOCK + 1] for start in range(0, len(flat) - BLOCK, BLOCK)]


# Each case: our configuration, and the peer's of the same size. --------------------------------------------------------


def our_config(case: str) -> Any:
    """Our model: the preset of this name; the decoder is `small` with more layers."""
    from inkstone.model.config import preset

    if case == "decoder":
        return preset("small", 8000, "decoder", {"num_decoder_layers": 9, "dropout": 0.0})
    return preset(case, 8000 if case == "tiny" else 10_000, "encoder-decoder", {"dropout": 0.1})


def peer_model(case: str) -> Any:
    """A model of transformers with the same widths, layers and vocabulary."""
    import transformers

    ours = our_config(case)
    D, F = ours.hidden_size, ours.feed_forward_size
    if case == "decoder":
        config = transformers.LlamaConfig(
            vocab_size=ours.vocab_size, hidden_size=D, intermediate_size=F, tie_word_embeddings=True,
            num_hidden_layers=ours.num_decoder_layers, num_attention_heads=ours.num_heads,
            num_key_value_heads=ours.num_kv_heads, max_position_embeddings=512, use_cache=False,
            pad_token_id=0, bos_token_id=2, eos_token_id=3,
        )  # fmt: skip
        return transformers.LlamaForCausalLM(config)
    if ours.feed_forward == "gated":
        F = F * 3 // 2  # two matrices with as many parameters as our three
    layers, heads = ours.num_encoder_layers, ours.num_heads
    config = transformers.MarianConfig(
        vocab_size=ours.vocab_size, d_model=D, encoder_layers=layers, decoder_layers=layers, encoder_ffn_dim=F,
        decoder_ffn_dim=F, encoder_attention_heads=heads, decoder_attention_heads=heads, dropout=ours.dropout,
        attention_dropout=ours.dropout, activation_dropout=ours.dropout, max_position_embeddings=512,
        pad_token_id=0, bos_token_id=2, eos_token_id=3, decoder_start_token_id=2, use_cache=False,
    )  # fmt: skip
    return transformers.MarianMTModel(config)


def by_inkstone(case: str, seconds: float) -> dict[str, Any]:
    """The loop as every recipe uses it."""
    import torch

    from inkstone.learn.data.batches import PairExample, Plan, Planned, pair_batch
    from inkstone.learn.data.documents import causal_batch
    from inkstone.learn.loop import TrainingOptions, train_on
    from inkstone.learn.objectives import OBJECTIVES
    from inkstone.model.transformer import Transformer

    config = our_config(case)
    model = Transformer(config, torch.Generator().manual_seed(1))
    if case == "decoder":
        rows, count = blocks(config.vocab_size), TOKENS // BLOCK
        makers = [
            partial(causal_batch, [[row] for row in rows[start : start + count]], 0)
            for start in range(0, len(rows) - count, count)
        ]
        objective = OBJECTIVES["causal"]
    else:
        source, target = pairs(config.vocab_size)
        examples = [PairExample((*s, 3), tuple(t)) for s, t in zip(source, target, strict=True)]
        collate = partial(pair_batch, pad_id=0, bos_id=2, eos_id=3)
        makers = list(Planned(Plan(examples, tokens_per_batch=TOKENS, seed=1), examples, collate).epoch(0))
        objective = OBJECTIVES["sequence-to-sequence"]
    clock = Clock(seconds)

    class Enough(Exception):
        """The time is over."""

    class Feed:
        def epoch(self, number: int) -> Sequence[Callable[[], Any]]:
            return [partial(self.made, make) for make in makers]

        def made(self, make: Callable[[], Any]) -> Any:
            self.last, before = make(), getattr(self, "last", None)
            if before is not None and clock.stepped(before.tokens):
                raise Enough
            return self.last

    options = TrainingOptions(
        epochs=100, learning_rate=RATE, smoothing=SMOOTHING, validate_every=2**40, save_every_s=1e9
    )
    with tempfile.TemporaryDirectory(prefix="inkstone-bench-") as run, contextlib.suppress(Enough):
        train_on(model, objective, Feed(), lambda _: {"accuracy": 0.0}, options, Path(run))
    return {"per_second": clock.per_second, "flops": work(model, objective, makers[:8])}


def work(model: Any, objective: Any, makers: Sequence[Callable[[], Any]]) -> float:
    """Floating-point operations of the matrix products for each real token, forward and backward."""
    from torch.utils.flop_counter import FlopCounterMode

    tokens, operations = 0, 0
    for make in makers:
        batch = make()
        with FlopCounterMode(display=False) as counter:
            objective(model, batch, SMOOTHING).mean.backward()
        tokens, operations = tokens + batch.tokens, operations + counter.get_total_flops()
    return operations / tokens


def by_transformers(case: str, seconds: float, *, bfloat16: bool) -> dict[str, Any]:
    """Seq2SeqTrainer or Trainer, with as many texts in a batch as fill it on average."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    model = peer_model(case)
    if case == "decoder":
        rows = [{"input_ids": row[:-1], "labels": row[:-1], "length": BLOCK} for row in blocks(8000)]
        count = TOKENS // BLOCK
    else:
        source, target = pairs(model.config.vocab_size)
        rows = [
            {"input_ids": [*s, 3], "labels": [*t, 3], "length": max(len(s), len(t)) + 1}
            for s, t in zip(source, target, strict=True)
        ]
        mean = sum(len(row["input_ids"]) + len(row["labels"]) for row in rows) / len(rows)
        count = round(TOKENS / mean)
    clock, of_step = Clock(seconds), [0]

    def collate(examples: list[dict[str, Any]]) -> dict[str, Any]:
        def padded(name: str, value: int) -> Any:
            wide = max(len(one[name]) for one in examples)
            return torch.tensor([one[name] + [value] * (wide - len(one[name])) for one in examples])

        sides = ("input_ids",) if case == "decoder" else ("input_ids", "labels")
        of_step[0] = sum(len(one[name]) for one in examples for name in sides)
        ids, labels = padded("input_ids", 0), padded("labels", -100)
        batch = {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": labels}
        if (
            case != "decoder"
        ):  # with label smoothing the Trainer takes the labels away before the model shifts them
            begun = torch.nn.functional.pad(labels[:, :-1].clamp(min=0), (1, 0), value=2)
            batch["decoder_input_ids"] = begun
        return batch

    class Stop(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            if clock.stepped(of_step[0]):
                control.should_training_stop = True

    trainer: Any = transformers.Trainer if case == "decoder" else transformers.Seq2SeqTrainer
    kind: Any = transformers.TrainingArguments if case == "decoder" else transformers.Seq2SeqTrainingArguments
    with tempfile.TemporaryDirectory(prefix="inkstone-bench-") as folder:
        arguments = kind(
            folder, use_cpu=True, bf16=bfloat16, num_train_epochs=100, per_device_train_batch_size=count,
            learning_rate=RATE, label_smoothing_factor=SMOOTHING, max_grad_norm=1.0, optim="adamw_torch_fused",
            train_sampling_strategy="group_by_length", length_column_name="length", remove_unused_columns=False,
            report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        trainer(
            model=model, args=arguments, train_dataset=rows, data_collator=collate, callbacks=[Stop()]
        ).train()
    return {"per_second": clock.per_second}


def ceiling() -> dict[str, Any]:
    """Operations a second of large matrix products."""
    import torch

    from inkstone.learn.profile import ceiling as measured

    return {"per_second": measured(torch.device("cpu"), torch.bfloat16)}


SIDES: dict[str, Callable[[str, float], dict[str, Any]]] = {
    "Inkstone": by_inkstone,
    "transformers float32": partial(by_transformers, bfloat16=False),
    "transformers bfloat16": partial(by_transformers, bfloat16=True),
    "ceiling": lambda case, seconds: ceiling(),
}


def alone(side: str, case: str, seconds: float) -> dict[str, Any]:
    """One side in a process of its own."""
    words = [sys.executable, __file__, "--side", side, "--only", case, "--seconds", str(seconds)]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=("tiny", "base", "decoder"))
    parser.add_argument("--seconds", type=float, default=60.0, help="of steps that count, for each side")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if "INKSTONE_DATA" not in os.environ:
        print("left out: set INKSTONE_DATA to the folder of data sets")
        return
    if asked.side:
        print(json.dumps(SIDES[asked.side](asked.only, asked.seconds)))
        return
    top = alone("ceiling", "tiny", 0)["per_second"]
    print(f"{os.cpu_count()} cores, bfloat16 ceiling {top / 1e9:,.0f} GFLOP/s")
    print(f"{'':10}{'':24}{'tokens/s':>10}{'Inkstone is':>14}{'of the ceiling':>16}")
    for case in (asked.only,) if asked.only else ("tiny", "base", "decoder"):
        found = {side: alone(side, case, asked.seconds) for side in SIDES if side != "ceiling"}
        ours = found["Inkstone"]
        for side, one in found.items():
            speed = one["per_second"]
            share = f"{speed * ours['flops'] / top:.1%}" if side == "Inkstone" else ""
            print(f"{case:10}{side:24}{speed:>10,.0f}{ours['per_second'] / speed:>13.2f}x{share:>16}")


if __name__ == "__main__":
    main()
