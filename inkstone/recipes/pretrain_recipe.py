"""Everything that a pre-training is made of, as one record; the run itself is `recipes.pretrain`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from inkstone.corpus.rules import Settings
from inkstone.learn.loop import TrainingOptions
from inkstone.model.lora import LoraConfig
from inkstone.text.normalize import Script
from inkstone.text.tokenizer import Kind

if TYPE_CHECKING:
    from inkstone.learn.pretraining import CourseOptions

ObjectiveName = Literal["causal", "masked", "span"]
RULES = ("length", "overlap", "duplicate")


def _training() -> TrainingOptions:
    """What suits a language model: no smoothing, since probabilities are what is measured."""
    return TrainingOptions(
        epochs=10.0, tokens_per_batch=4096, smoothing=0.0, metric="loss", patience=3, clip_norm=1.0
    )


@dataclass(frozen=True, slots=True)
class PretrainRecipe:
    """Everything a run is made of. `data`, `valid` and `test` take any documents that `corpus.read` reads."""

    name: str
    data: tuple[str, ...]
    valid: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    fields: dict[str, str] | None = None  # such as text=lines
    script: Script | None = None  # Chinese into one script
    languages: tuple[str, ...] = ()  # empty: told by the texts
    rules: tuple[str, ...] = RULES
    cleaning: Settings = field(default_factory=Settings)
    objective: ObjectiveName = "causal"
    tokenizer: Kind = "bpe"
    vocab_size: int = 8000
    alphabet_share: float | None = (
        None  # of the vocabulary, for single characters; None: what suits running text
    )
    size: str = "small"
    model: dict[str, Any] = field(default_factory=dict)  # fields of its configuration laid over the size
    family: str | None = None  # of public checkpoints that can hold the model, such as llama
    base: str | None = None  # a language model of this objective that reads on: it decides size and tokenizer
    lora: LoraConfig | None = None  # an adapter beside the base's weights learns, and nothing else
    block: int = 256  # tokens that the model reads at once; longer documents are cut into consecutive blocks
    hidden_share: float = 0.15  # of the tokens, for masked and span
    span_length: float = 3.0  # mean tokens of a hidden span
    whole_words: bool = True  # masked: words are hidden whole
    training: TrainingOptions = field(default_factory=_training)
    ngram_order: int = 5  # of the baseline
    weights: Literal["float32", "float16"] = "float32"
    int8_limit: float = 0.02  # nats a token that the int8 engine may lose
    licence: str = ""
    quotable: bool = False  # whether the card may show sentences of the data
    good_at: str = ""
    bad_at: str = ""

    def course_options(self) -> CourseOptions:
        """What is asked of the objective."""
        from inkstone.learn.pretraining import CourseOptions

        return CourseOptions(self.block, self.hidden_share, self.span_length, self.whole_words)
