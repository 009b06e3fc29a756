"""Sequence to sequence: predict each target token from the source and the target tokens before it."""

from __future__ import annotations

from typing import cast

from torch import nn

from inkstone.learn.data.batches import Batch, PairBatch
from inkstone.learn.objectives.loss import Loss, linear_cross_entropy
from inkstone.model.interface import SequenceModel


def sequence_to_sequence(model: nn.Module, batch: Batch, smoothing: float = 0.0) -> Loss:
    """Cross entropy per real target token, end mark included (Sutskever et al., 2014); padding is never scored."""
    translator, batch = cast(SequenceModel, model), cast(PairBatch, batch)
    memory_BSD = translator.encode(batch.source_BS)
    states_BTD = translator.decode(batch.target_BT, memory_BSD, translator.visible(batch.source_BS))
    states_ND = states_BTD.flatten(0, 1)[batch.counted_N]
    return linear_cross_entropy(states_ND, translator.output_weight, batch.wanted_N, smoothing)
