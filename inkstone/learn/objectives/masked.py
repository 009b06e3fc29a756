"""Masked language modelling: find hidden tokens from what stands on both sides of them."""

from __future__ import annotations

from typing import cast

from torch import nn

from inkstone.learn.data.batches import Batch, TokenBatch
from inkstone.learn.objectives.loss import Loss, linear_cross_entropy
from inkstone.learn.objectives.sequence_to_sequence import as_product
from inkstone.model.transformer import Transformer


def masked(model: nn.Module, batch: Batch, smoothing: float = 0.0) -> Loss:
    """Cross entropy of the tokens asked for (Devlin et al., 2019); only these are scored over the vocabulary."""
    encoder, batch = cast(Transformer, model), cast(TokenBatch, batch)
    states_BTD = encoder.encode(batch.ids_BT)
    x_ND, weight_VD = as_product(encoder, states_BTD.flatten(0, 1)[batch.counted_N])
    return linear_cross_entropy(x_ND, weight_VD, batch.wanted_N, smoothing)
