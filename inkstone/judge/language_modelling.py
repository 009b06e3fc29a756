"""How well a language model foresees texts: bits per byte, perplexity per character, nats per token.

Tokens of unlike vocabularies cannot be compared, bytes and characters can: the information of a whole text (all of its
tokens and its end) is divided by what the text holds. Fewer bits per byte is better; 8 is to know nothing of bytes.

Each text is an example of the bootstrap, since the tokens of a book are anything but independent of each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from inkstone.ground.errors import DataError
from inkstone.metrics.statistics import Array, Tally, divide, ratio

Floats = NDArray[np.float64]


def foresight_tallies(
    texts: Sequence[str], log_probabilities: Sequence[Sequence[float] | Floats]
) -> dict[str, Tally]:
    """The measures of a model from what it thinks of each token of each text, the end mark included, in nats."""
    if len(texts) != len(log_probabilities):
        raise DataError(f"{len(texts):,} texts, but {len(log_probabilities):,} were scored.")
    nats_N = np.array([-float(np.sum(one)) for one in log_probabilities])
    tokens_N = np.array([len(one) for one in log_probabilities])
    bytes_N = np.array([len(text.encode("utf-8", "surrogatepass")) for text in texts])
    characters_N = np.array([len(text) for text in texts])
    per_character = Tally(
        np.stack([nats_N, characters_N.astype(np.float64)], axis=1),
        _perplexity,
        "exp(nats of all tokens and the end / characters)",
        falling=True,
    )
    return {
        "bits_per_byte": falling_ratio(
            nats_N / math.log(2), bytes_N, "bits of all tokens and the end / bytes in UTF-8"
        ),
        "character_perplexity": per_character,
        "token_loss": falling_ratio(nats_N, tokens_N, "nats of all tokens and the end / tokens"),
    }


def filling_tallies(sums_N3: Floats) -> dict[str, Tally]:
    """The measures of a model that finds hidden tokens. sums_N3: of each text nats, tokens found, tokens asked for."""
    nats_N, right_N, asked_N = sums_N3.T
    return {
        "foreseen_loss": falling_ratio(nats_N, asked_N, "nats of the tokens asked for / tokens asked for"),
        "accuracy": ratio(right_N, asked_N),
    }


def falling_ratio(above_N: NDArray[np.generic], below_N: NDArray[np.generic], signature: str) -> Tally:
    """The tally of sum(above) / sum(below), of which less is better."""
    plain = ratio(above_N, below_N, signature)
    return Tally(plain.rows, plain.score, signature, falling=True)


def _perplexity(sums_RK: Array) -> Array:
    found: Array = np.exp(divide(sums_RK[:, 0], sums_RK[:, 1]))
    return found
