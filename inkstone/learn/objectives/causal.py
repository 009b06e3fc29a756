"""Causal language modelling: predict each token from those before it in its text."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from inkstone.learn.data.batches import Batch, TokenBatch
from inkstone.learn.objectives.loss import Loss, linear_cross_entropy
from inkstone.learn.objectives.sequence_to_sequence import as_product
from inkstone.model.transformer import Transformer


def causal(model: nn.Module, batch: Batch, smoothing: float = 0.0) -> Loss:
    """Cross entropy per token of its text, the end mark included (Radford et al., 2018).

    Texts that share a row do not see each other: packed rows give the loss and the gradients of padded ones.
    """
    batch = cast(TokenBatch, batch)
    return linear_cross_entropy(*causal_product(model, batch), batch.wanted_N, smoothing)


def causal_product(model: nn.Module, batch: TokenBatch) -> tuple[Tensor, Tensor]:
    """x and W with x W^T the scores of the tokens asked for."""
    decoder = cast(Transformer, model)
    states_BTD = decoder.decode(batch.ids_BT, segments_BT=batch.segments_BT)
    return as_product(decoder, states_BTD.flatten(0, 1)[batch.counted_N])
