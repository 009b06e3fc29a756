"""Masked language modelling: find hidden tokens from what stands on both sides of them."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from inkstone.learn.data.batches import Batch, TokenBatch
from inkstone.learn.objectives.loss import Loss, linear_cross_entropy
from inkstone.learn.objectives.sequence_to_sequence import as_product
from inkstone.model.transformer import Transformer


def masked(model: nn.Module, batch: Batch, smoothing: float = 0.0) -> Loss:
    """Cross entropy of the tokens asked for (Devlin et al., 2019); only these are scored over the vocabulary."""
    batch = cast(TokenBatch, batch)
    return linear_cross_entropy(*masked_product(model, batch), batch.wanted_N, smoothing)


def masked_product(model: nn.Module, batch: TokenBatch) -> tuple[Tensor, Tensor]:
    """x and W with x W^T the scores of the tokens asked for."""
    encoder = cast(Transformer, model)
    return as_product(encoder, encoder.encode(batch.ids_BT).flatten(0, 1)[batch.counted_N])
