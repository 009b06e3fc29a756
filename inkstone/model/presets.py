"""What `--architecture` and `--size` stand for, by task. No torch: what is wrong is said before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from inkstone.ground.errors import ConfigError, not_known
from inkstone.model import config, convolutional_config, recurrent_config
from inkstone.model.config import ModelConfig

Overlay = Mapping[str, Any]

TRANSLATORS: dict[str, Callable[[str, int, Overlay], Any]] = {
    "transformer": lambda size, vocab, over: config.preset(size, vocab, "encoder-decoder", over),
    "rnn": lambda size, vocab, over: recurrent_config.preset(size, vocab, "encoder-decoder", over),
    "cnn": lambda size, vocab, over: convolutional_config.preset(size, vocab, over),
}
CLASSIFIERS: dict[str, Callable[[str, int, Overlay], Any]] = {
    "transformer": lambda size, vocab, over: config.preset(size, vocab, "encoder", over),
    "rnn": lambda size, vocab, over: recurrent_config.preset(size, vocab, "encoder", over),
    "cnn": lambda size, vocab, over: convolutional_config.textcnn_preset(size, vocab, over),
}


def in_family(config: Any, family: str | None) -> Any:
    """The nearest configuration that a family of public checkpoints can hold; None leaves it as it is.

    Raises ConfigError.
    """
    if family is None:
        return config
    from inkstone.model.families.folder import fitted
    from inkstone.model.families.registry import FAMILIES

    if family not in FAMILIES:
        raise ConfigError(not_known("family", family, FAMILIES))
    if not isinstance(config, ModelConfig):
        raise ConfigError(f"family={family} is for Transformers. Leave --family or --architecture out.")
    return fitted(FAMILIES[family], config)


def translator_config(
    architecture: str, size: str, vocab_size: int, overlay: Overlay, family: str | None = None
) -> Any:
    """The configuration of a translator, with these fields laid over, as a family has it. Raises ConfigError."""
    if architecture not in TRANSLATORS:
        raise ConfigError(not_known("architecture", architecture, TRANSLATORS))
    return in_family(TRANSLATORS[architecture](size, vocab_size, overlay), family)


def classifier_config(
    architecture: str,
    size: str,
    vocab_size: int,
    num_labels: int,
    overlay: Overlay,
    family: str | None = None,
) -> Any:
    """The configuration of a classifier that reads tokens, with these fields laid over, as a family has it.

    Raises ConfigError.
    """
    if architecture not in CLASSIFIERS:
        raise ConfigError(not_known("architecture", architecture, CLASSIFIERS))
    return in_family(
        CLASSIFIERS[architecture](size, vocab_size, {**overlay, "num_labels": num_labels}), family
    )
