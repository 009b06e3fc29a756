"""Classifiers that read tokens, trained through the one loop: a Transformer encoder, a recurrent one, a TextCNN.

texts ─ tokenizer, trained on them ─ examples ─ loop, the best by the validation texts ─ model
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from inkstone.ground.progress import say
from inkstone.learn.data.batches import LabelExample, Plan, Planned, label_batch
from inkstone.learn.data.shares import steps_of
from inkstone.learn.first_embeddings import FirstEmbeddings
from inkstone.learn.labelled import LabelSpace, Texts, Trained, batch_logits, examples_of
from inkstone.learn.loop import TrainingOptions, train_on
from inkstone.learn.objectives import classification
from inkstone.learn.preflight import preflight
from inkstone.model.checkpoint import build_model
from inkstone.model.presets import classifier_config
from inkstone.text.reader import TextReader
from inkstone.text.tokenizer import Kind, Tokenizer

# Of an epoch: with fewer, batches are smaller than asked for, or a model of few texts takes few steps.
LEAST_BATCHES = 32


@dataclass(frozen=True, slots=True)
class TokenOptions:
    """How to make and train a model that reads tokens; as it stands, a Transformer encoder.

    Settings chosen on validation texts of TREC (docs/journal.md); models of this kind like small batches.
    """

    size: str = "tiny"
    family: str | None = None  # of public checkpoints that can hold the model (a Transformer)
    model: dict[str, Any] = field(
        default_factory=lambda: {"dropout": 0.3}
    )  # of its configuration, over the size
    tokenizer: Kind = "bpe"
    vocab_size: int = 8000
    max_length: int = 256  # tokens; training texts are cut there, and that is counted
    training: TrainingOptions = field(
        default_factory=lambda: TrainingOptions(
            epochs=20,
            tokens_per_batch=512,
            learning_rate=2e-3,
            warmup_steps=100,
            weight_decay=0.05,
            patience=5,
        )
    )


def recurrent_options() -> TokenOptions:
    """A bidirectional LSTM with attention; chosen as the above."""
    training = TrainingOptions(
        epochs=20,
        tokens_per_batch=512,
        learning_rate=2e-3,
        warmup_steps=50,
        weight_decay=0.1,
        patience=4,
    )
    return TokenOptions(model={"dropout": 0.4, "embedding_size": 256}, training=training)


def textcnn_options() -> TokenOptions:
    """Kim's sizes and, nearly, his batches of fifty texts; the rest chosen as the above."""
    training = TrainingOptions(
        epochs=20,
        tokens_per_batch=1024,
        learning_rate=1e-3,
        warmup_steps=50,
        weight_decay=0.01,
        patience=4,
    )
    return TokenOptions(size="small", model={"embedding_dropout": 0.5}, training=training)


def train_on_tokens(
    data: Texts,
    valid: Texts,
    space: LabelSpace,
    architecture: str,
    own: TokenOptions,
    run: Path,
    *,
    seed: int,
    vectors: FirstEmbeddings | None = None,
) -> Trained:
    """Train a model of this architecture that reads tokens: "transformer", "rnn" or "cnn". Its state is kept in `run`."""
    file = run / "tokenizer.json"
    if not (file.exists() and (run / "checkpoints").exists()):  # left-overs of a finished run do not count
        run.mkdir(parents=True, exist_ok=True)
        Tokenizer.train(data.texts, kind=own.tokenizer, vocab_size=own.vocab_size).save(file)
    reader = TextReader.load(run)
    overlay = {"max_positions": own.max_length, **own.model}
    config = classifier_config(
        architecture, own.size, reader.vocab_size, len(space.names), overlay, own.family
    )
    longest = min(own.max_length, config.position_limit or own.max_length)
    rows, cut = reader.cut(data.texts, longest)
    if cut:
        said = f"{cut:,} training texts have more than {longest} tokens; only those are learnt from"
        say(f"{architecture}: {said}")
    examples = examples_of(rows, data, space)
    model = build_model(config, torch.Generator().manual_seed(seed))
    if vectors is not None:
        assert isinstance(reader.tokenizer, Tokenizer)  # trained here, above
        vectors.put(model, reader.tokenizer)
    lengths = [len(example.ids) for example in examples]
    budget = max(*lengths, min(own.training.tokens_per_batch, sum(lengths) // LEAST_BATCHES))
    training = replace(own.training, tokens_per_batch=budget, metric="measure", seed=seed)
    if valid is data:  # nothing unseen to stop by
        training = replace(training, patience=0, validate_every=2**62)
    begun = "" if vectors is None else vectors.digest
    trained = trained_by_loop(
        architecture, model, reader, examples, valid, longest, space, training, run, begun, cut
    )
    trained.cut = cut
    return trained


def trained_by_loop(
    architecture: str,
    model: torch.nn.Module,
    reader: TextReader,
    examples: list[LabelExample],
    valid: Texts,
    longest: int,
    space: LabelSpace,
    training: TrainingOptions,
    run: Path,
    begun: str,
    cut: int = 0,
) -> Trained:
    """Train a model that reads tokens on these examples, and keep the best by the validation texts.

    begun: what the model was before, for the run's fingerprint. cut: how many texts had more than `longest` tokens.
    """
    valid_rows, _ = reader.cut(valid.texts, longest)
    pad_id: int = model.config.pad_id  # type: ignore[assignment, union-attr]

    def collate(rows: Any) -> Any:
        return label_batch(rows, pad_id=pad_id, num_labels=len(space.names), multi_label=space.multi_label)

    def validate(current: torch.nn.Module) -> dict[str, float]:
        return {"measure": space.measure(valid.labels, batch_logits(current, valid_rows))}

    plan = Plan(examples, tokens_per_batch=training.tokens_per_batch, seed=training.seed)
    feed = Planned(plan, examples, collate)
    share = f"{cut:,} of {len(examples):,} training texts ({cut / len(examples):.1%})"
    findings = (
        [f"truncated: {share} have more than {longest} tokens; the rest of them is not read"] if cut else []
    )
    foreseen = preflight(model, classification, feed, validate, training, run, findings)
    outcome = train_on(
        model,
        classification,
        feed,
        validate,
        training,
        run,
        fingerprint=_fingerprint(examples, training, model, begun),
        title=architecture,
    )
    best = max((point["valid_measure"] for point in outcome.curve), default=0.0)
    return Trained(
        architecture,
        model.cpu(),
        reader,
        outcome,
        best,
        len(examples),
        per_epoch=steps_of(len(plan.epoch(0)), training.accumulate),
        preflight=foreseen,
    )


def _fingerprint(
    examples: Sequence[LabelExample], training: TrainingOptions, model: torch.nn.Module, begun: str
) -> str:
    """Of everything that decides the weights: data, options, sizes, word vectors."""
    digest = hashlib.sha256(repr((training, getattr(model, "config", None))).encode() + begun.encode())
    for example in examples:
        digest.update(repr((example.ids, example.labels)).encode())
    return digest.hexdigest()
