"""Sequence to sequence: predict each target token from the source and the target tokens before it."""

from __future__ import annotations

from typing import cast

from torch import nn

from inkstone.learn.data.batches import Batch, PairBatch
from inkstone.learn.objectives.loss import Loss, linear_cross_entropy
from inkstone.model.transformer import Transformer


def sequence_to_sequence(model: nn.Module, batch: Batch, smoothing: float = 0.0) -> Loss:
    """Cross entropy per real target token, end mark included (Sutskever et al., 2014); padding is never scored."""
    model, batch = cast(Transformer, model), cast(PairBatch, batch)
    memory_BSD = model.encode(batch.source_BS)
    states_BTD = model.decode(batch.target_BT, memory_BSD, model.visible(batch.source_BS))
    states_ND = states_BTD.flatten(0, 1)[batch.counted_N]
    return linear_cross_entropy(states_ND, model.output_weight, batch.wanted_N, smoothing)
