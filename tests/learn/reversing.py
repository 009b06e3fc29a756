"""A toy task: say a short row of tokens backwards. A model learns it in a second, and a run of it is over in less."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inkstone.learn.data.batches import PairBatch, PairExample, pair_batch
from inkstone.learn.loop import Outcome, TrainingOptions, train
from inkstone.learn.objectives import sequence_to_sequence
from inkstone.model.config import tiny
from inkstone.model.transformer import Transformer

OPTIONS: dict[str, Any] = {
    "epochs": 2, "tokens_per_batch": 300, "learning_rate": 5e-3, "warmup_steps": 5, "precision": "float32",
    "save_every_s": 1e9, "validate_every": 7, "threads": 1,
}  # fmt: skip


def examples(count: int = 240, seed: int = 0) -> list[PairExample]:
    """Rows of three to six of eight tokens, and the same backwards."""
    random = np.random.default_rng(seed)
    rows = [random.integers(4, 12, random.integers(3, 7)).tolist() for _ in range(count)]
    return [PairExample([*row, 3], row[::-1]) for row in rows]


def small_model(seed: int = 1, **overlay: Any) -> Transformer:
    """One layer a side, 32 wide."""
    sizes = {"hidden_size": 32, "feed_forward_size": 64, "num_encoder_layers": 1, "num_decoder_layers": 1}
    return Transformer(tiny(12, **{**sizes, **overlay}), torch.Generator().manual_seed(seed))


def collate(rows: Sequence[Any]) -> PairBatch:
    return pair_batch(rows, pad_id=0, bos_id=2, eos_id=3)


def validate(model: torch.nn.Module) -> dict[str, float]:
    """Loss and accuracy on rows that are not trained on."""
    model.eval()
    with torch.no_grad():
        loss = sequence_to_sequence(model, collate(examples(40, seed=9)))
    return {"loss": float(loss.mean), "accuracy": loss.correct / loss.count}


def run(
    place: Path,
    *,
    model: Transformer | None = None,
    data: Sequence[PairExample] | None = None,
    validate: Callable[[torch.nn.Module], dict[str, float]] = validate,
    collate: Callable[[Sequence[Any]], PairBatch] = collate,
    objective: Any = sequence_to_sequence,
    fingerprint: str = "toy",
    **options: Any,
) -> tuple[Outcome, str]:
    """Train, and return the outcome and the sha256 of the weights."""
    model = small_model() if model is None else model
    chosen = TrainingOptions(**{**OPTIONS, **options})
    outcome = train(
        model, objective, examples() if data is None else data, collate, validate, chosen, place,
        fingerprint=fingerprint,
    )  # fmt: skip
    return outcome, sha256_of(model)


def sha256_of(model: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()
