"""Everything that a sentence encoder's training is made of, as one record; the run itself is `recipes.embed`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from inkstone.corpus.related import RelatedData
from inkstone.corpus.rules import Settings
from inkstone.learn.loop import TrainingOptions
from inkstone.learn.objectives.contrastive import ContrastiveOptions
from inkstone.model.lora import LoraConfig
from inkstone.text.normalize import Script
from inkstone.text.tokenizer import Kind

RULES = ("length", "identical", "overlap", "duplicate")
Files = tuple[str | RelatedData, ...]


def _training() -> TrainingOptions:
    """What suits an encoder: no smoothing, since near is near; the best is what finds the most."""
    return TrainingOptions(
        epochs=10.0, learning_rate=1e-3, warmup_steps=100, smoothing=0.0, metric="mrr", patience=5
    )


@dataclass(frozen=True, slots=True)
class EmbedRecipe:
    """Everything a run is made of. `data`, `valid` and `test` take any pairs that `corpus.related` reads.

    The size of a batch is `pairs_per_batch`; `training.tokens_per_batch` is not asked.
    """

    name: str
    data: Files
    valid: Files = ()
    test: dict[str, Files] = field(default_factory=dict)  # name: files
    fields: dict[str, str] | None = None  # of files that do not say their own
    script: Script | None = None  # Chinese into one script
    languages: tuple[str, ...] = ()  # empty: told by the texts
    rules: tuple[str, ...] = RULES
    cleaning: Settings = field(default_factory=Settings)
    tokenizer: Kind = "bpe"
    vocab_size: int = 16_000
    alphabet_share: float | None = (
        None  # of the vocabulary, for single characters; None: what suits running text
    )
    size: str = "small"
    model: dict[str, Any] = field(default_factory=dict)  # fields of its configuration laid over the size
    family: str | None = None  # of public checkpoints that can hold the model, such as bert
    base: str | None = None  # a masked language model or an encoder to begin with, or "minilm" (English)
    lora: LoraConfig | None = None  # an adapter beside the base's weights learns, and nothing else
    max_length: int = 128  # tokens; of longer texts the first so many are learnt from
    pairs_per_batch: int = 128
    hard_negatives: int = 0  # of each pair: targets of others that share words with its source, found by BM25
    objective: ContrastiveOptions = field(default_factory=ContrastiveOptions)
    training: TrainingOptions = field(default_factory=_training)
    both_ways: bool = False  # the tests look for sources of targets too
    weights: Literal["float32", "float16"] = "float32"
    int8_limit: float = 0.01  # of the mean reciprocal rank that the int8 engine may lose
    licence: str = ""
    quotable: bool = False  # whether the card may show texts of the data
    good_at: str = ""
    bad_at: str = ""
