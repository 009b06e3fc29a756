"""Activation checkpointing (Chen et al., 2016): keep what enters a block, and compute what happens in it twice.

    plain          forward keeps every intermediate result of every block for the backward pass
    recomputed     forward keeps the states between blocks; the backward pass runs each block's forward once more

A third more arithmetic, for a fraction of the memory (docs/scaling.md has the numbers). Dropout draws the same numbers
the second time, so the gradients are the very same (tests/learn/test_recompute.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from inkstone.ground.errors import ConfigError
from inkstone.model.transformer import Block


@contextmanager
def recomputed(model: nn.Module, wanted: bool) -> Iterator[None]:
    """While the block runs, the model's layers keep only what enters them. Raises ConfigError for one without layers."""
    blocks = [module for module in model.modules() if isinstance(module, Block)] if wanted else []
    if wanted and not blocks:
        raise ConfigError(
            f"checkpoint_activations needs the layers of a Transformer, and a {type(model).__name__} has none. "
            "Leave it out."
        )
    for block in blocks:
        block.forward = partial(_twice, block.forward)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for block in blocks:
            del block.forward  # that of the class is there again


def _twice(forward: Callable[..., Any], *inputs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*inputs)
    return checkpoint(forward, *inputs, use_reentrant=False)
