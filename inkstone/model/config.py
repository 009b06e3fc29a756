"""What a Transformer can be, as enumerated axes.

Families of models differ in these axes and never by name: there is no `if "llama" in name` anywhere. A preset is a
function from a vocabulary size to a configuration, found in `PRESETS`; `--size` chooses one, and every field can
still be overlaid. Shapes in comments follow the legend of the house: B batch, S source, T target, D model, H heads,
G key-value groups, K head size, F feed-forward, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from inkstone.ground.errors import ConfigError, not_known, raise_all

Shape = Literal["encoder", "decoder", "encoder-decoder"]
Positions = Literal["learned", "sinusoidal", "rotary"]
Norm = Literal["layer", "rms"]
NormPlace = Literal["before", "after"]
FeedForward = Literal["plain", "gated"]
Activation = Literal["relu", "gelu", "silu"]
Pooling = Literal["first", "mean"]

_CHOICES: dict[str, tuple[str, ...]] = {
    "shape": get_args(Shape),
    "positions": get_args(Positions),
    "norm": get_args(Norm),
    "norm_place": get_args(NormPlace),
    "feed_forward": get_args(FeedForward),
    "activation": get_args(Activation),
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
    num_encoder_layers: int
    num_decoder_layers: int
    max_positions: int = 512
    positions: Positions = "rotary"  # learned; sinusoidal (Vaswani et al., 2017); rotary (Su et al., 2021)
    rotary_base: float = 10_000.0
    norm: Norm = "layer"  # layer (Ba et al., 2016); rms (Zhang and Sennrich, 2019), thrice as slow on a CPU
    norm_place: NormPlace = "before"  # of each sub-layer (Xiong et al., 2020), or after the residual sum
    norm_epsilon: float = 1e-5
    feed_forward: FeedForward = "gated"  # gated: activation(gate) * up (Shazeer, 2020)
    activation: Activation = "silu"
    bias: bool = False  # in every linear layer of the blocks
    scale_embeddings: bool = False  # multiply by sqrt(D), as Vaswani et al. do
    tie_embeddings: bool = True  # source, target and output share one table (Press and Wolf, 2017)
    dropout: float = 0.1
    num_labels: int = 0  # classification head on the encoder when above 0
    pooling: Pooling = "mean"
    pad_id: int = 0
    bos_id: int = 2
    eos_id: int = 3

    def __post_init__(self) -> None:
        raise_all(ConfigError, "model configuration", _wrong_types(asdict(self)))
        problems = [
            not_known(name, getattr(self, name), valid)
            for name, valid in _CHOICES.items()
            if getattr(self, name) not in valid
        ]
        for name in (
            "vocab_size",
            "hidden_size",
            "num_heads",
            "num_kv_heads",
            "feed_forward_size",
            "max_positions",
        ):
            if getattr(self, name) < 1:
                problems.append(f"{name}={getattr(self, name)} must be at least 1")
        if not problems:
            problems += self._disagreements()
        raise_all(ConfigError, "model configuration", problems)

    def _disagreements(self) -> list[str]:
        problems = []
        if self.hidden_size % self.num_heads:
            problems.append(
                f"hidden_size={self.hidden_size} must be a multiple of num_heads={self.num_heads}"
            )
        elif self.positions == "rotary" and self.head_size % 2:
            problems.append(f"rotary positions need an even head size, not {self.head_size}")
        if self.num_heads % self.num_kv_heads:
            problems.append(
                f"num_heads={self.num_heads} must be a multiple of num_kv_heads={self.num_kv_heads}"
            )
        if self.has_encoder != (self.num_encoder_layers > 0):
            problems.append(
                f"num_encoder_layers={self.num_encoder_layers} does not go with shape={self.shape}"
            )
        if self.has_decoder != (self.num_decoder_layers > 0):
            problems.append(
                f"num_decoder_layers={self.num_decoder_layers} does not go with shape={self.shape}"
            )
        if self.positions == "sinusoidal" and (self.hidden_size % 2 or self.hidden_size < 4):
            problems.append(
                f"sinusoidal positions need an even hidden_size from 4 on, not {self.hidden_size}"
            )
        problems += [
            f"{name}={getattr(self, name)} must be at least 0 and below vocab_size={self.vocab_size}"
            for name in ("pad_id", "bos_id", "eos_id")
            if not 0 <= getattr(self, name) < self.vocab_size
        ]
        problems += [
            f"{name}={getattr(self, name)} must be above 0"
            for name in ("rotary_base", "norm_epsilon")
            if not getattr(self, name) > 0
        ]
        if self.num_labels < 0:
            problems.append(f"num_labels={self.num_labels} must be at least 0")
        if not 0 <= self.dropout < 1:
            problems.append(f"dropout={self.dropout} must be at least 0 and below 1")
        if self.num_labels and self.shape != "encoder":
            problems.append(f"num_labels={self.num_labels} needs shape=encoder, not {self.shape}")
        return problems

    @property
    def head_size(self) -> int:
        """K, the size of one attention head."""
        return self.hidden_size // self.num_heads

    @property
    def has_encoder(self) -> bool:
        """Whether there is an encoder."""
        return self.shape != "decoder"

    @property
    def has_decoder(self) -> bool:
        """Whether there is a decoder."""
        return self.shape != "encoder"

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain values, for config.json."""
        return {"model_type": "inkstone-transformer", **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """Read what `to_dict` wrote. Raises ConfigError listing every unknown, missing or wrong entry."""
        given = {name: value for name, value in values.items() if name != "model_type"}
        known = [field.name for field in fields(cls)]
        problems = [not_known("model configuration key", name, known) for name in given if name not in known]
        problems += _wrong_types(given)
        required = [field.name for field in fields(cls) if field.default is field.default_factory]
        problems += [f"{name} is missing" for name in required if name not in given]
        raise_all(ConfigError, "model configuration", problems)
        return cls(**given)


def _wrong_types(values: Mapping[str, Any]) -> list[str]:
    """What is wrong with the types of the fields that are given; True is no number here."""
    kinds: dict[str, type | tuple[type, ...]] = {"int": int, "float": (int, float), "bool": bool}
    problems = []
    for field in fields(ModelConfig):
        if field.name in values:
            value, kind = values[field.name], str(field.type)
            if not isinstance(value, kinds.get(kind, str)) or (isinstance(value, bool) and kind != "bool"):
                problems.append(f"{field.name}={value!r} must be of type {kind}")
    return problems


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
        "bias": True,
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


PRESETS: dict[str, Callable[..., ModelConfig]] = {"tiny": tiny, "small": small, "base": base}


def preset(size: str, vocab_size: int, shape: Shape, overlay: Mapping[str, Any] | None = None) -> ModelConfig:
    """The named preset with some fields overlaid. Raises ConfigError for an unknown size or field."""
    if size not in PRESETS:
        raise ConfigError(not_known("size", size, PRESETS))
    names = [field.name for field in fields(ModelConfig) if field.name not in ("vocab_size", "shape")]
    unknown = [not_known("model option", name, names) for name in overlay or {} if name not in names]
    raise_all(ConfigError, "model configuration", unknown)
    return PRESETS[size](vocab_size=vocab_size, shape=shape, **(overlay or {}))
