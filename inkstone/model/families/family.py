"""What a foreign family is: a table of tensor names, and one function each way between its configuration and ours.

    config.json ─ read ─> ModelConfig ─ write ─> config.json
    their tensors  <── names: ours -> theirs ──>  our tensors

A name may stand for several of theirs, laid one under the other (our queries, keys and values are one matrix). `{n}` is
the number of a layer. Nothing is decided by a family's name: what differs between families is axes of `ModelConfig`.

Options are read through `Options`, which remembers what was looked at. What nobody looked at and what is not in
`HARMLESS` is refused: an option we do not know may change every number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from inkstone.ground.errors import not_known
from inkstone.model.config import ModelConfig

Theirs = str | tuple[str, ...]

# Options of transformers' configurations that do not change what a model computes: bookkeeping, initialisation, dropout
# in places where ours has one rate for all, and defaults of its generation (read from generation_config.json instead).
HARMLESS = frozenset({
    "_name_or_path", "_attn_implementation", "_attn_implementation_autoset", "attn_implementation", "architectures",
    "attention_dropout", "attention_probs_dropout_prob", "activation_dropout", "attn_pdrop",
    "bad_words_ids", "begin_suppress_tokens", "classif_dropout", "classifier_dropout", "chunk_size_feed_forward",
    "cross_attention_hidden_size", "decoder_layerdrop", "diversity_penalty", "do_sample", "dtype", "early_stopping",
    "embd_pdrop", "encoder_layerdrop", "encoder_no_repeat_ngram_size", "exponential_decay_length_penalty",
    "finetuning_task", "force_bos_token_to_be_generated", "forced_bos_token_id", "forced_eos_token_id",
    "gradient_checkpointing", "id2label", "init_std", "initializer_factor", "initializer_range", "is_encoder_decoder",
    "label2id", "length_penalty", "max_length", "min_length", "model_type", "no_repeat_ngram_size", "num_beam_groups",
    "num_beams", "num_hidden_layers", "num_labels", "num_return_sequences", "output_attentions", "output_hidden_states",
    "output_past", "output_scores", "prefix", "pretraining_tp", "problem_type", "remove_invalid_values",
    "repetition_penalty", "resid_pdrop", "return_dict", "return_dict_in_generate", "sep_token_id",
    "suppress_tokens", "task_specific_params", "temperature", "tf_legacy_loss", "tie_encoder_decoder", "tokenizer_class",
    "top_k", "top_p", "torch_dtype", "transformers_version", "typical_p", "use_bfloat16", "use_cache",
    "summary_type", "summary_use_proj", "summary_activation", "summary_proj_to_labels", "summary_first_dropout",
    "reorder_and_upcast_attn", "n_ctx",
})  # fmt: skip


# transformers' names of activations, and ours.
ACTIVATIONS = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_new": "gelu-tanh",
    "gelu_pytorch_tanh": "gelu-tanh",
    "silu": "silu",
    "swish": "silu",
}
_LAYER = re.compile(r"\.layers\.(\d+)\.")


def their_activation(config: ModelConfig, tanh: str = "gelu_new") -> str:
    """transformers' name of a model's activation. tanh: which of its names the family has for gelu-tanh."""
    return tanh if config.activation == "gelu-tanh" else config.activation


class Options:
    """The options of a config.json, which remember being read and collect what is wrong with them."""

    def __init__(self, values: Mapping[str, Any], stored: Collection[str] = ()) -> None:
        self.values = dict(values)
        self.stored = stored  # the names of the tensors beside them, for what the options do not say
        self.read: set[str] = set()
        self.problems: list[str] = []

    def take(self, name: str, kind: type, default: Any = None) -> Any:
        """The value of an option. Absent without a default, or of another type, it is a problem, and 1 stands for it."""
        self.read.add(name)
        value = self.values.get(name)
        value = default if value is None else value
        fits = isinstance(value, (int, float) if kind is float else kind)
        if fits and not (isinstance(value, bool) and kind is not bool):
            return value
        wrong = "is missing" if value is None else f"must be of type {kind.__name__}"
        self.problems.append(f"{name} {wrong}" if value is None else f"{name}={value!r} {wrong}")
        return kind() if kind in (list, dict) else kind(1)

    def choose(self, name: str, choices: Mapping[str, Any], default: str | None = None) -> Any:
        """What an option's value stands for among the choices."""
        value = self.take(name, str, default)
        if value in choices:
            return choices[value]
        if not (self.problems and self.problems[-1].startswith(f"{name} ")):
            self.problems.append(not_known(name, value, choices))
        return next(iter(choices.values()))

    def only(self, name: str, value: Any, why: str = "") -> None:
        """An option that may be absent or have this value, and no other."""
        self.read.add(name)
        found = self.values.get(name)
        if found is not None and found != value:
            reason = f" ({why})" if why else ""
            self.problems.append(f"{name}={found!r} is not supported, only {value!r}{reason}")

    def id(self, name: str, default: int) -> int:
        """The id of a mark; of several ids the first. A list is kept whole in generation_config.json."""
        self.read.add(name)
        value = self.values.get(name)
        if isinstance(value, list) and value:
            value = value[0]
        if value is None:
            return default
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        self.problems.append(f"{name}={value!r} must be the id of a token")
        return default

    def labels(self) -> int:
        """How many classes the classification head has."""
        named = self.values.get("id2label")
        return len(named) if isinstance(named, Mapping) else self.take("num_labels", int, 2)

    def left(self) -> list[str]:
        """Everything wrong: what was found so far, and the options nobody knows."""
        unknown = sorted(set(self.values) - self.read - HARMLESS)
        return self.problems + [
            f"option {name}={_short(self.values[name])} is not known here" for name in unknown
        ]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


@dataclass(frozen=True, slots=True)
class Architecture:
    """One class of a family: its head, whether its files leave out the prefix of the base model, and names of its own."""

    head: str = ""  # "", "language", "prediction" (masked tokens) or "labels"
    bare: bool = False
    names: Mapping[str, Theirs] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Family:
    """A family of foreign checkpoints.

    read: their options and the architecture to our axes. write: our axes to their options; what they cannot say is found
    by reading back (`misfits`). names: ours to theirs. transposed: ours that are stored the other way round. ignored:
    patterns of names that carry nothing of the model.
    """

    model_type: str
    architectures: Mapping[str, Architecture]
    read: Callable[[Options, Architecture], dict[str, Any]]
    write: Callable[[ModelConfig], dict[str, Any]]
    names: Mapping[str, Theirs]
    prefix: str  # of the base model's names
    gated: Mapping[str, Theirs] = field(default_factory=dict)  # names where the feed-forward is gated
    transposed: frozenset[str] = frozenset()
    ignored: tuple[str, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)  # axes that every model of the family shares

    def config(self, options: Options, architecture: Architecture) -> dict[str, Any]:
        """The axes of a model with these options."""
        options.only("is_decoder", False)
        options.only("add_cross_attention", False)
        return {**self.fixed, **self.read(options, architecture)}

    def architecture_of(self, config: ModelConfig) -> str | None:
        """The class that holds a model of this configuration, if one does."""
        head = "labels" if config.num_labels else "prediction" if config.prediction_head else ""
        head = "language" if config.has_decoder else head
        fitting = [name for name, one in self.architectures.items() if one.head == head]
        return fitting[0] if fitting and self.fixed["shape"] == config.shape else None

    def theirs(self, config: ModelConfig, architecture: Architecture, ours: str) -> tuple[str, ...]:
        """Their names for one tensor of ours, in the order in which they lie under each other; none where unknown."""
        number = _LAYER.search(ours)
        pattern = ours if number is None else ours.replace(number.group(), ".layers.{n}.")
        names = {**self.names, **(self.gated if config.feed_forward == "gated" else {}), **architecture.names}
        found = names.get(pattern, ())
        parts = (found,) if isinstance(found, str) else found
        if number is not None:
            parts = tuple(part.replace("{n}", number.group(1)) for part in parts)
        return tuple(part.removeprefix(self.prefix) for part in parts) if architecture.bare else parts

    def is_transposed(self, ours: str) -> bool:
        """Whether they store this tensor the other way round."""
        return _LAYER.sub(".layers.{n}.", ours) in self.transposed
