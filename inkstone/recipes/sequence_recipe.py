"""What a recipe has from which a model learns to turn one text into another: a translator's, a summariser's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from inkstone.corpus.rules import Settings
from inkstone.learn.loop import TrainingOptions
from inkstone.model.lora import LoraConfig
from inkstone.text.normalize import Script
from inkstone.text.tokenizer import Kind


@dataclass(frozen=True, slots=True)
class SequenceRecipe:
    """Everything that such a run is made of, but for what is peculiar to its task."""

    task: ClassVar[Literal["translate", "summarize"]]

    name: str
    data: tuple[str, ...]
    valid: tuple[str, ...] = ()
    test: dict[str, tuple[str, ...]] = field(default_factory=dict)  # name: files
    fields: dict[str, str] | None = None
    script: Script | None = None  # Chinese into one script
    rules: tuple[str, ...] = ("length", "identical", "overlap", "duplicate")
    cleaning: Settings = field(default_factory=Settings)
    tokenizer: Kind = "bpe"
    vocab_size: int = 8000
    bpe_dropout: float = 0.0  # the share of merges left out where words are cut for training, such as 0.1
    architecture: Literal["transformer", "rnn", "cnn"] = "transformer"
    size: str = "small"
    model: dict[str, Any] = field(default_factory=dict)  # fields of its configuration laid over the size
    family: str | None = None  # of public checkpoints that can hold the model, so that other programs open it
    base: str | None = (
        None  # a model of this task to begin with: it decides architecture, size, tokenizer and script
    )
    lora: LoraConfig | None = None  # an adapter beside the base's weights learns, and nothing else
    vectors: str | None = None  # a file of word vectors that a new model's embedding begins with
    max_length: int = 128  # tokens a side; longer pairs are dropped and counted
    training: TrainingOptions = field(default_factory=TrainingOptions)
    weights: Literal["float32", "float16"] = "float32"
    int8_limit: float = 1.0  # of chrF
    beam_size: int = 4  # of the test
    licence: str = ""
    quotable: bool = False  # whether the card may show sentences of the data
    good_at: str = ""
    bad_at: str = ""

    @property
    def turns(self) -> bool:
        """Whether every pair is read backwards too."""
        return False
