"""What a model's embedding gives, changed on its way into the model.

Mix-up, word dropout and adversarial training all change the vectors that a model reads. They do it with a hook on its
embedding, the same for every architecture, so that models need not know of them:

    ids ── embedding ── change, change, ... ── the rest of the model

The change of the block entered last comes first. A tied output layer scores with the table itself and is not changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from inkstone.ground.errors import ConfigError

Change = Callable[[Tensor, Tensor], Tensor]  # vectors (B, S, E) and their ids (B, S) -> vectors


def embedding_of(model: nn.Module) -> nn.Embedding:
    """The table of a model's tokens. Raises ConfigError where there is none."""
    table = getattr(model, "embedding", None)
    if not isinstance(table, nn.Embedding):
        raise ConfigError(
            f"{type(model).__name__} has no embedding of tokens that its vectors could be changed in. "
            "Leave out word_dropout, mixup and adversarial, or train another architecture."
        )
    return table


@contextmanager
def embedded(model: nn.Module, change: Change) -> Iterator[None]:
    """While the block runs, what the embedding gives goes through `change`."""

    def hook(table: nn.Module, given: tuple[Any, ...], vectors_BSE: Tensor) -> Tensor:
        return change(vectors_BSE, given[0])

    handle = embedding_of(model).register_forward_hook(hook, prepend=True)
    try:
        yield
    finally:
        handle.remove()


def real(model: nn.Module, ids_BS: Tensor) -> Tensor:
    """True where a token is not padding: (B, S)."""
    return ids_BS != int(getattr(getattr(model, "config", None), "pad_id", 0))
