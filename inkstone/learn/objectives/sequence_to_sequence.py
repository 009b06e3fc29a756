"""Sequence to sequence: predict each target token from the source and the target tokens before it."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inkstone.learn.data.batches import Batch, PairBatch
from inkstone.learn.objectives.loss import Loss, linear_cross_entropy
from inkstone.model.interface import SequenceModel
from inkstone.model.transformer import Transformer


def sequence_to_sequence(model: nn.Module, batch: Batch, smoothing: float = 0.0) -> Loss:
    """Cross entropy per real target token, end mark included (Sutskever et al., 2014); padding is never scored."""
    batch = cast(PairBatch, batch)
    return linear_cross_entropy(*target_product(model, batch), batch.wanted_N, smoothing)


def target_product(model: nn.Module, batch: PairBatch) -> tuple[Tensor, Tensor]:
    """x and W with x W^T the scores of the real target tokens."""
    translator = cast(SequenceModel, model)
    memory_BSD = translator.encode(batch.source_BS)
    states_BTD = translator.decode(batch.target_BT, memory_BSD, translator.visible(batch.source_BS))
    return as_product(translator, states_BTD.flatten(0, 1)[batch.counted_N])


def as_product(model: SequenceModel, states_ND: Tensor) -> tuple[Tensor, Tensor]:
    """x and W with x W^T the scores over the vocabulary of these states, whatever a model does to them besides.

    A bias is the weight of one more feature, which is always 1.
    """
    weight_VD = model.output_weight
    if isinstance(model, Transformer):
        states_ND = model.scored(states_ND)
        if model.output_bias is not None:
            states_ND = F.pad(states_ND, (0, 1), value=1.0)
            weight_VD = torch.cat([weight_VD, model.output_bias[:, None]], dim=1)
    return states_ND, weight_VD
