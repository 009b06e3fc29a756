"""What a recurrent model can be, as enumerated axes; the record that `model.recurrent` builds from.

A preset is a function from a vocabulary size to a configuration, found in `PRESETS`, as for the Transformer. Shapes:
E is the width of the embeddings, D that of the states (both directions of an encoder together).
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

Shape = Literal["encoder", "encoder-decoder"]
Cell = Literal["lstm", "gru"]
AttentionKind = Literal["bahdanau", "luong-dot", "luong-general", "none"]
Pooling = Literal["attention", "mean", "max"]
MODEL_TYPE = "inkstone-recurrent"

_CHOICES: dict[str, tuple[str, ...]] = {
    "shape": get_args(Shape),
    "cell": get_args(Cell),
    "attention": get_args(AttentionKind),
    "pooling": get_args(Pooling),
}
_SIZES = ("vocab_size", "embedding_size", "hidden_size", "num_encoder_layers", "max_positions")


@dataclass(frozen=True, slots=True)
class RecurrentConfig:
    """One recurrent model, fully described. Every combination that passes the checks can be built."""

    shape: Shape
    vocab_size: int
    embedding_size: int  # E
    hidden_size: int  # D; half of it for each direction of a bidirectional encoder
    num_encoder_layers: int
    num_decoder_layers: int
    cell: Cell = "lstm"  # lstm (Hochreiter and Schmidhuber, 1997); gru (Cho et al., 2014)
    bidirectional: bool = True  # the encoder (Schuster and Paliwal, 1997)
    attention: AttentionKind = (
        "luong-general"  # bahdanau (Bahdanau et al., 2015); luong-* (Luong et al., 2015)
    )
    tie_embeddings: bool = True  # source, target and output share one table (Press and Wolf, 2017)
    dropout: float = 0.3
    max_positions: int = 512  # no limit of the model, but of what is asked of it at once
    num_labels: int = 0  # classification head on the encoder when above 0
    pooling: Pooling = "attention"  # for the head: attention (Yang et al., 2016), mean or max over the states
    pad_id: int = 0
    bos_id: int = 2
    eos_id: int = 3

    def __post_init__(self) -> None:
        raise_all(ConfigError, "model configuration", wrong_types(type(self), asdict(self)))
        problems = wrong_choices(self, _CHOICES) + below(self, _SIZES, 1) + wrong_marks(self)
        problems += wrong_share(self) + below(self, ("num_labels",), 0)
        if self.has_decoder != (self.num_decoder_layers > 0):
            problems.append(
                f"num_decoder_layers={self.num_decoder_layers} does not go with shape={self.shape}"
            )
        if self.bidirectional and self.hidden_size % 2:
            problems.append(f"hidden_size={self.hidden_size} must be even: each direction has half of it")
        if self.num_labels > 0 and self.shape != "encoder":
            problems.append(f"num_labels={self.num_labels} needs shape=encoder, not {self.shape}")
        raise_all(ConfigError, "model configuration", problems)

    @property
    def has_decoder(self) -> bool:
        """Whether there is a decoder."""
        return self.shape != "encoder"

    @property
    def position_limit(self) -> int:
        """The most tokens that can be told apart by their places; 0 is no limit."""
        return 0

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain values, for config.json."""
        return {"model_type": MODEL_TYPE, **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RecurrentConfig:
        """Read what `to_dict` wrote. Raises ConfigError listing every unknown, missing or wrong entry."""
        return from_plain(cls, values)


def tiny(vocab_size: int, shape: Shape = "encoder-decoder", **overlay: Any) -> RecurrentConfig:
    """128 wide embeddings, 256 wide states, one layer a side: about 2 million parameters, minutes on a laptop."""
    return _sized(shape, 1, {"vocab_size": vocab_size, "embedding_size": 128, "hidden_size": 256, **overlay})


def small(vocab_size: int, shape: Shape = "encoder-decoder", **overlay: Any) -> RecurrentConfig:
    """256 wide embeddings, 512 wide states, one layer a side: about 6 million parameters, an hour on a laptop."""
    return _sized(shape, 1, {"vocab_size": vocab_size, "embedding_size": 256, "hidden_size": 512, **overlay})


def base(vocab_size: int = 30_000, shape: Shape = "encoder-decoder", **overlay: Any) -> RecurrentConfig:
    """RNNsearch (Bahdanau et al., 2015): gated recurrent units, 620 wide embeddings, 1,000 wide states, untied."""
    classic: dict[str, Any] = {
        "cell": "gru",
        "attention": "bahdanau",
        "tie_embeddings": False,
        "dropout": 0.2,
    }
    sizes = {"vocab_size": vocab_size, "embedding_size": 620, "hidden_size": 1000}
    return _sized(shape, 1, {**sizes, **classic, **overlay})


def _sized(shape: Shape, layers: int, values: Mapping[str, Any]) -> RecurrentConfig:
    counts = {"num_encoder_layers": layers, "num_decoder_layers": 0 if shape == "encoder" else layers}
    return RecurrentConfig(shape=shape, **{**counts, **values})


PRESETS: dict[str, Callable[..., RecurrentConfig]] = {"tiny": tiny, "small": small, "base": base}


def preset(
    size: str, vocab_size: int, shape: Shape, overlay: Mapping[str, Any] | None = None
) -> RecurrentConfig:
    """The named preset with some fields overlaid. Raises ConfigError for an unknown size or field."""
    return overlaid(PRESETS, RecurrentConfig, size, overlay, vocab_size=vocab_size, shape=shape)
