"""What `--architecture` and `--size` stand for, by task. No torch: what is wrong is said before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from inkstone.ground.errors import ConfigError, not_known
from inkstone.model import config, convolutional_config, recurrent_config

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


def translator_config(architecture: str, size: str, vocab_size: int, overlay: Overlay) -> Any:
    """The configuration of a translator, with these fields laid over. Raises ConfigError."""
    if architecture not in TRANSLATORS:
        raise ConfigError(not_known("architecture", architecture, TRANSLATORS))
    return TRANSLATORS[architecture](size, vocab_size, overlay)


def classifier_config(
    architecture: str, size: str, vocab_size: int, num_labels: int, overlay: Overlay
) -> Any:
    """The configuration of a classifier that reads tokens, with these fields laid over. Raises ConfigError."""
    if architecture not in CLASSIFIERS:
        raise ConfigError(not_known("architecture", architecture, CLASSIFIERS))
    return CLASSIFIERS[architecture](size, vocab_size, {**overlay, "num_labels": num_labels})
