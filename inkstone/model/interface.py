"""What the models of all architectures have in common, as protocols: what objectives, searches and engines rely on.

    source ids ── encode ──> memory ──┐                      ┌── logits ──> scores over the vocabulary
                                      ├── decode ──> states ─┤
    target ids ───────────────────────┘                      └── output_weight, for a cross entropy in chunks

Transformer, recurrent and convolutional models differ in everything between these arrows and in nothing outside. The
memory is one tensor with the batch first; what it means is the model's own affair. Sources and targets are padded on
the right. A mask has the batch first too and is True where a token may be looked at; its other dimensions are the
model's affair.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from inkstone.ground.errors import ConfigError


class Cache(Protocol):
    """What decoding remembers between calls, of each row of the batch."""

    def reorder(self, rows_B: Tensor) -> None:
        """Keep these rows of the batch, in this order; beam search moves hypotheses about with it."""
        ...


@dataclass(slots=True)
class StepCache:
    """The cache of models that remember as much after a thousand tokens as after one; the batch comes first."""

    length: int = 0
    states: list[Tensor] = field(default_factory=list)  # new after every token
    memory: list[Tensor] = field(default_factory=list)  # the same for all tokens; empty before the first call

    def reorder(self, rows_B: Tensor) -> None:
        """See `Cache.reorder`."""
        self.states = [one[rows_B] for one in self.states]
        self.memory = [one[rows_B] for one in self.memory]


class SequenceConfig(Protocol):
    """What is asked of every configuration."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def max_positions(self) -> int: ...
    @property
    def position_limit(self) -> int:
        """The most tokens that can be told apart by their places; 0 is no limit."""
        ...

    @property
    def pad_id(self) -> int: ...
    @property
    def bos_id(self) -> int: ...
    @property
    def eos_id(self) -> int: ...
    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain values, with its model_type, for config.json."""
        ...


class SequenceModel(Protocol):
    """An encoder-decoder. The decoder begins with `config.bos_id`."""

    @property
    def config(self) -> SequenceConfig: ...

    @property
    def output_weight(self) -> Tensor:
        """The matrix that turns states of the decoder into scores: (V, width of the states)."""
        ...

    def encode(self, ids_BS: Tensor) -> Tensor:
        """The memory of a batch of sources: (B, S, ...)."""
        ...

    def visible(self, ids_BS: Tensor) -> Tensor:
        """True where a source token is not padding: (B, ..., S)."""
        ...

    def new_cache(self) -> Cache:
        """An empty cache for `decode`, of the model's own kind."""
        ...

    def decode(
        self,
        ids_BT: Tensor,
        memory_BSD: Tensor | None = None,
        memory_mask: Tensor | None = None,
        cache: Any = None,
    ) -> Tensor:
        """The states of the target tokens: (B, T, width). With a cache (`new_cache`), of those after the tokens in it."""
        ...

    def logits(self, x_BTD: Tensor) -> Tensor:
        """Scores over the vocabulary for states of the decoder: (..., V)."""
        ...

    def __call__(self, source_BS: Tensor, target_BT: Tensor) -> Tensor:
        """The logits of the target given the source: (B, T, V)."""
        ...


def put_embeddings(model: nn.Module, vectors_VE: NDArray[np.floating[Any]]) -> None:
    """Begin a model's embedding with these vectors, a row for each id; rows that are not finite keep what they had.

    Raises ConfigError when their shape is not that of the model's embedding.
    """
    embeddings: Mapping[str, nn.Parameter] = {
        name: parameter for name, parameter in model.named_parameters() if name == "embedding.weight"
    }
    assert embeddings, "this model has no embedding"
    weight = embeddings["embedding.weight"]
    if tuple(vectors_VE.shape) != tuple(weight.shape):
        raise ConfigError(
            f"the word vectors have shape {tuple(vectors_VE.shape)}, the model's embedding {tuple(weight.shape)}. "
            "Train vectors of the model's width, or a model of theirs."
        )
    known_V = torch.from_numpy(np.isfinite(vectors_VE).all(axis=1))
    with torch.no_grad():
        weight[known_V] = torch.from_numpy(np.ascontiguousarray(vectors_VE, dtype=np.float32))[known_V].to(
            weight
        )
