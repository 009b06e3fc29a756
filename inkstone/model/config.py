"""What a Transformer can be, as enumerated axes.

Families of models differ in these axes and never by name: there is no `if "llama" in name` anywhere. Each axis is there
because a checkpoint needs it (docs/families.md says which). A preset is a function from a vocabulary size to a
configuration, found in `PRESETS`; `--size` chooses one, and every field can still be overlaid. Shapes in comments follow
the legend of the house: B batch, S source, T target, D model, H heads, G key-value groups, K head size, F feed-forward,
V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from inkstone.ground.errors import ConfigError, raise_all
from inkstone.model.axes import (
    below,
    from_plain,
    overlaid,
    wrong_choices,
    wrong_marks,
    wrong_share,
    wrong_types,
)

Shape = Literal["encoder", "decoder", "encoder-decoder"]
Positions = Literal["learned", "sinusoidal", "rotary", "relative"]
RotaryScaling = Literal["none", "linear", "llama3", "yarn"]
Norm = Literal["layer", "rms"]
NormPlace = Literal["before", "after"]
FeedForward = Literal["plain", "gated"]
Activation = Literal["relu", "gelu", "gelu-tanh", "silu"]
Bias = Literal["none", "query-key-value", "attention", "all"]
Pooling = Literal["first", "mean", "layers"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "shape": get_args(Shape),
    "positions": get_args(Positions),
    "rotary_scaling": get_args(RotaryScaling),
    "norm": get_args(Norm),
    "norm_place": get_args(NormPlace),
    "feed_forward": get_args(FeedForward),
    "activation": get_args(Activation),
    "bias": get_args(Bias),
    "pooling": get_args(Pooling),
}


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One Transformer, fully described. Every combination that passes the checks can be built."""

    shape: Shape
    vocab_size: int
    hidden_size: int  # D
    num_heads: int  # H
    num_kv_heads: int  # G: fewer than heads = grouped-query attention (Ainslie et al., 2023)
    feed_forward_size: int  # F
    num_encoder_layers: int  # an encoder alone may have none: then its states are the vectors of its tokens
    num_decoder_layers: int
    head_size: int = 0  # K; 0 stands for D / H
    max_positions: int = 512
    positions: Positions = "rotary"  # learned; sinusoidal (Vaswani et al., 2017); rotary (Su et al., 2021);
    #                                  relative: a bias for each distance (Raffel et al., 2020)
    position_offset: int = 0  # of the learned table: its first rows stand for no position
    rotary_base: float = 10_000.0
    rotary_scaling: RotaryScaling = (
        "none"  # to read further than the pre-training did: all angles divided (Chen et
    )
    #                                         al., 2023), or only the slow ones (Llama 3; YaRN: Peng et al., 2023)
    rotary_factor: float = 1.0  # how many times further
    rotary_trained: int = 0  # positions of the pre-training; 0 stands for max_positions
    rotary_slow: float = (
        1.0  # features that turn fewer times than this over those positions are slowed down in full,
    )
    rotary_fast: float = 4.0  # and those that turn more often than this not at all
    rotary_magnitude: float = 1.0  # of what is rotated (YaRN raises it)
    relative_buckets: int = 32
    relative_distance: int = 128  # from which on all distances share one bucket
    token_types: int = (
        0  # rows of a table added to the embeddings, such as first and second text (Devlin et al., 2019)
    )
    norm: Norm = "layer"  # layer (Ba et al., 2016); rms (Zhang and Sennrich, 2019), thrice as slow on a CPU
    norm_place: NormPlace = "before"  # of each sub-layer (Xiong et al., 2020), or after the residual sum
    norm_epsilon: float = 1e-5
    embedding_norm: bool = False  # of the embeddings, before the first layer
    feed_forward: FeedForward = "gated"  # gated: activation(gate) * up (Shazeer, 2020)
    activation: Activation = "silu"
    bias: Bias = "none"  # which linear layers of the blocks have one
    query_key_norm: bool = False  # of each head's queries and keys (Henry et al., 2020)
    scale_scores: bool = True  # divide queries times keys by sqrt(K)
    window: int = 0  # tokens that a token of the decoder sees, itself included; 0 = all before it
    scale_embeddings: bool = False  # multiply by sqrt(D), as Vaswani et al. do
    scale_output: bool = False  # divide the last states by sqrt(D)
    tie_embeddings: bool = True  # source, target and output share one table (Press and Wolf, 2017)
    output_bias: bool = False  # of the scores over the vocabulary
    dropout: float = 0.1
    num_labels: int = 0  # classification head on the encoder when above 0
    pooling: Pooling = (
        "mean"  # for that head: the first state, their mean, or the means of all layers side by side
    )
    pooler: bool = False  # a linear layer and tanh over the pooled state
    prediction_head: bool = False  # scores over the vocabulary from an encoder, for masked language modelling
    pad_id: int = 0
    bos_id: int = 2  # what a decoder begins with
    eos_id: int = 3

    def __post_init__(self) -> None:
        raise_all(ConfigError, "model configuration", wrong_types(ModelConfig, asdict(self)))
        sizes = (
            "vocab_size",
            "hidden_size",
            "num_heads",
            "num_kv_heads",
            "feed_forward_size",
            "max_positions",
        )
        problems = wrong_choices(self, _CHOICES) + below(self, sizes, 1)
        problems += below(
            self, ("head_size", "position_offset", "rotary_trained", "token_types", "window"), 0
        )
        if not problems:
            if not self.head_size and not self.hidden_size % self.num_heads:
                object.__setattr__(self, "head_size", self.hidden_size // self.num_heads)
            if not self.rotary_trained:
                object.__setattr__(self, "rotary_trained", self.max_positions)
            problems += self._disagreements() + self._wrong_positions()
        raise_all(ConfigError, "model configuration", problems)

    def _disagreements(self) -> list[str]:
        problems = []
        if not self.head_size:
            problems.append(
                f"hidden_size={self.hidden_size} must be a multiple of num_heads={self.num_heads}"
            )
        if self.num_heads % self.num_kv_heads:
            problems.append(
                f"num_heads={self.num_heads} must be a multiple of num_kv_heads={self.num_kv_heads}"
            )
        for side, has in (("encoder", self.has_encoder), ("decoder", self.has_decoder)):
            layers = getattr(self, f"num_{side}_layers")
            if has != (layers > 0) and not self._is_bag:
                problems.append(f"num_{side}_layers={layers} does not go with shape={self.shape}")
        problems += wrong_marks(self)
        problems += [
            f"{name}={getattr(self, name)} must be above 0"
            for name in ("rotary_base", "rotary_factor", "rotary_magnitude", "norm_epsilon")
            if not getattr(self, name) > 0
        ]
        problems += below(self, ("num_labels",), 0) + wrong_share(self)
        for name in ("num_labels", "pooler", "prediction_head", "token_types"):
            if getattr(self, name) and self.shape != "encoder":
                problems.append(f"{name}={getattr(self, name)} needs shape=encoder, not {self.shape}")
        if self.num_labels and self.prediction_head:
            problems.append("num_labels and prediction_head are two heads; a model has one")
        if self.pooling == "layers" and (self.pooler or not self.num_labels):
            problems.append("pooling=layers goes with num_labels, and with no pooler")
        if self.window and not self.has_decoder:
            problems.append(f"window={self.window} needs a decoder")
        return problems

    def _wrong_positions(self) -> list[str]:
        problems = []
        if self.positions == "rotary" and self.head_size % 2:
            problems.append(f"rotary positions need an even head size, not {self.head_size}")
        if self.positions == "sinusoidal" and (self.hidden_size % 2 or self.hidden_size < 4):
            problems.append(
                f"sinusoidal positions need an even hidden_size from 4 on, not {self.hidden_size}"
            )
        if self.positions == "relative":
            problems += below(self, ("relative_buckets",), 4)
            problems += below(self, ("relative_distance",), self.relative_buckets // 2 + 1)
        if self.rotary_scaling != "none" and not self.rotary_fast > self.rotary_slow:
            problems.append(f"rotary_fast={self.rotary_fast} must be above rotary_slow={self.rotary_slow}")
        if self.position_offset and self.positions != "learned":
            problems.append(f"position_offset={self.position_offset} needs positions=learned")
        return problems

    @property
    def _is_bag(self) -> bool:
        """An encoder of no layers: nothing predicts from the vectors of single tokens."""
        return self.shape == "encoder" and not (
            self.num_encoder_layers or self.num_labels or self.prediction_head
        )

    @property
    def has_encoder(self) -> bool:
        """Whether there is an encoder."""
        return self.shape != "decoder"

    @property
    def has_decoder(self) -> bool:
        """Whether there is a decoder."""
        return self.shape != "encoder"

    @property
    def pooled_size(self) -> int:
        """The width of the one state per text that the classification head reads."""
        return self.hidden_size * (self.num_encoder_layers if self.pooling == "layers" else 1)

    @property
    def position_limit(self) -> int:
        """The most tokens that can be told apart by their places; 0 is no limit."""
        return 0 if self.positions == "relative" else self.max_positions

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain values, for config.json."""
        return {"model_type": "inkstone-transformer", **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """Read what `to_dict` wrote. Raises ConfigError listing every unknown, missing or wrong entry."""
        return from_plain(cls, values)


def bag(vocab_size: int, shape: Shape = "encoder", **overlay: Any) -> ModelConfig:
    """256 wide and no layers, so that a text is the mean of its tokens' vectors: a minute on a laptop. Encoders only."""
    sizes = {"vocab_size": vocab_size, "hidden_size": 256, "num_heads": 4, "feed_forward_size": 256}
    return _sized(shape, 0, {**sizes, "norm_place": "after", "dropout": 0.0, **overlay})


def tiny(vocab_size: int, shape: Shape = "encoder-decoder", **overlay: Any) -> ModelConfig:
    """128 wide, 4 layers a side, 2-3 million parameters: minutes on a laptop."""
    sizes = {"vocab_size": vocab_size, "hidden_size": 128, "num_heads": 4, "feed_forward_size": 256}
    return _sized(shape, 4, {**sizes, **overlay})


def small(vocab_size: int, shape: Shape = "encoder-decoder", **overlay: Any) -> ModelConfig:
    """256 wide, 4 layers a side, about 9 million parameters: an hour or a night on a laptop."""
    sizes = {"vocab_size": vocab_size, "hidden_size": 256, "num_heads": 4, "feed_forward_size": 768}
    return _sized(shape, 4, {**sizes, **overlay})


def base(vocab_size: int = 10_000, shape: Shape = "encoder-decoder", **overlay: Any) -> ModelConfig:
    """The base model of "Attention Is All You Need" (Vaswani et al., 2017): 512 wide, 8 heads, 2048, 6+6 layers."""
    classic: dict[str, Any] = {
        "positions": "sinusoidal",
        "norm": "layer",
        "norm_place": "after",
        "norm_epsilon": 1e-5,
        "feed_forward": "plain",
        "activation": "relu",
        "bias": "all",
        "scale_embeddings": True,
    }
    sizes = {"vocab_size": vocab_size, "hidden_size": 512, "num_heads": 8, "feed_forward_size": 2048}
    return _sized(shape, 6, {**sizes, **classic, **overlay})


def _sized(shape: Shape, layers: int, values: Mapping[str, Any]) -> ModelConfig:
    defaults = {
        "num_kv_heads": values["num_heads"],
        "num_encoder_layers": 0 if shape == "decoder" else layers,
        "num_decoder_layers": 0 if shape == "encoder" else layers,
    }
    return ModelConfig(shape=shape, **{**defaults, **values})


PRESETS: dict[str, Callable[..., ModelConfig]] = {"bag": bag, "tiny": tiny, "small": small, "base": base}


def preset(size: str, vocab_size: int, shape: Shape, overlay: Mapping[str, Any] | None = None) -> ModelConfig:
    """The named preset with some fields overlaid. Raises ConfigError for an unknown size or field."""
    return overlaid(PRESETS, ModelConfig, size, overlay, vocab_size=vocab_size, shape=shape)
