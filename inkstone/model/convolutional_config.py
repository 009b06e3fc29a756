"""What the two convolutional models can be, as enumerated axes.

`TextCNNConfig` describes the classifier of Kim (2014), `ConvolutionalConfig` the encoder-decoder of Gehring et al.
(2017). They share little but the word: one takes the maximum of some filters over a text, the other stacks gated
convolutions with attention, position by position. So they are two records.
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

TEXTCNN_TYPE, CONVOLUTIONAL_TYPE = "inkstone-textcnn", "inkstone-convolutional"
Activation = Literal["relu", "tanh"]


@dataclass(frozen=True, slots=True)
class TextCNNConfig:
    """One TextCNN. widths: how many tokens each group of filters sees, as in "3,4,5"."""

    vocab_size: int
    embedding_size: int  # E
    num_channels: int  # filters of each width
    num_labels: int
    widths: str = "3,4,5"
    activation: Activation = "relu"
    dropout: float = 0.5  # before the last layer
    embedding_dropout: float = 0.0  # Kim has none; it helps where embeddings begin from nothing
    max_positions: int = 512  # no limit of the model, but of what is asked of it at once
    pad_id: int = 0
    bos_id: int = 2
    eos_id: int = 3

    def __post_init__(self) -> None:
        raise_all(ConfigError, "model configuration", wrong_types(type(self), asdict(self)))
        sizes = ("vocab_size", "embedding_size", "num_channels", "num_labels", "max_positions")
        problems = below(self, sizes, 1) + wrong_marks(self) + wrong_share(self)
        problems += wrong_share(self, "embedding_dropout")
        problems += wrong_choices(self, {"activation": get_args(Activation)})
        parts = self.widths.split(",")
        if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
            problems.append(f'widths={self.widths!r} must be whole numbers above 0, as in "3,4,5"')
        raise_all(ConfigError, "model configuration", problems)

    @property
    def filter_widths(self) -> tuple[int, ...]:
        """The widths as numbers."""
        return tuple(int(part) for part in self.widths.split(","))

    @property
    def position_limit(self) -> int:
        """The most tokens that can be told apart by their places; 0 is no limit."""
        return 0

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain values, for config.json."""
        return {"model_type": TEXTCNN_TYPE, **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TextCNNConfig:
        """Read what `to_dict` wrote. Raises ConfigError listing every unknown, missing or wrong entry."""
        return from_plain(cls, values)


@dataclass(frozen=True, slots=True)
class ConvolutionalConfig:
    """One convolutional encoder-decoder, fully described."""

    vocab_size: int
    embedding_size: int  # E: embeddings, memory and what is scored against the vocabulary
    hidden_size: int  # D: the states inside
    num_encoder_layers: int
    num_decoder_layers: int
    width: int = 3  # tokens that a convolution sees; odd, so that an encoder's is centred
    max_positions: int = 512
    tie_embeddings: bool = True  # source, target and output share one table (Press and Wolf, 2017)
    dropout: float = 0.2
    pad_id: int = 0
    bos_id: int = 2
    eos_id: int = 3

    def __post_init__(self) -> None:
        raise_all(ConfigError, "model configuration", wrong_types(type(self), asdict(self)))
        sizes = ("vocab_size", "embedding_size", "hidden_size", "num_encoder_layers", "num_decoder_layers")
        problems = below(self, (*sizes, "max_positions"), 1) + wrong_marks(self) + wrong_share(self)
        if self.width < 1 or self.width % 2 == 0:
            problems.append(f"width={self.width} must be odd and above 0")
        raise_all(ConfigError, "model configuration", problems)

    @property
    def position_limit(self) -> int:
        """The most tokens that can be told apart by their places; 0 is no limit."""
        return self.max_positions

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain values, for config.json."""
        return {"model_type": CONVOLUTIONAL_TYPE, **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ConvolutionalConfig:
        """Read what `to_dict` wrote. Raises ConfigError listing every unknown, missing or wrong entry."""
        return from_plain(cls, values)


def tiny_textcnn(**given: Any) -> TextCNNConfig:
    """128 wide embeddings, 64 filters of each width: seconds on a laptop."""
    return TextCNNConfig(**{"embedding_size": 128, "num_channels": 64, **given})


def small_textcnn(**given: Any) -> TextCNNConfig:
    """As in Kim (2014): 300 wide embeddings, 100 filters of each of the widths 3, 4 and 5."""
    return TextCNNConfig(**{"embedding_size": 300, "num_channels": 100, **given})


def tiny(vocab_size: int, **overlay: Any) -> ConvolutionalConfig:
    """128 wide embeddings, 192 wide states, 4 layers a side: about 3 million parameters."""
    return ConvolutionalConfig(vocab_size, **{"embedding_size": 128, **_sized(192, 4), **overlay})


def small(vocab_size: int, **overlay: Any) -> ConvolutionalConfig:
    """256 wide embeddings and states, 4 layers a side: about 6 million parameters."""
    return ConvolutionalConfig(vocab_size, **{"embedding_size": 256, **_sized(256, 4), **overlay})


def base(vocab_size: int, **overlay: Any) -> ConvolutionalConfig:
    """As Gehring et al. (2017) for WMT'16 English-Romanian: 512 wide, 20 layers a side, width 3."""
    return ConvolutionalConfig(vocab_size, **{"embedding_size": 512, **_sized(512, 20), **overlay})


def _sized(hidden_size: int, layers: int) -> dict[str, int]:
    return {"hidden_size": hidden_size, "num_encoder_layers": layers, "num_decoder_layers": layers}


TEXTCNN_PRESETS: dict[str, Callable[..., TextCNNConfig]] = {"tiny": tiny_textcnn, "small": small_textcnn}
PRESETS: dict[str, Callable[..., ConvolutionalConfig]] = {"tiny": tiny, "small": small, "base": base}


def textcnn_preset(size: str, vocab_size: int, overlay: Mapping[str, Any] | None = None) -> TextCNNConfig:
    """The named preset with some fields overlaid. Raises ConfigError for an unknown size or field."""
    return overlaid(TEXTCNN_PRESETS, TextCNNConfig, size, overlay, vocab_size=vocab_size)


def preset(size: str, vocab_size: int, overlay: Mapping[str, Any] | None = None) -> ConvolutionalConfig:
    """The named preset with some fields overlaid. Raises ConfigError for an unknown size or field."""
    return overlaid(PRESETS, ConvolutionalConfig, size, overlay, vocab_size=vocab_size)
