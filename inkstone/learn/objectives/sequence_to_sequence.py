"""Sequence to sequence: predict each target token from the source and the target tokens before it."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from inkstone.learn.data.batches import Batch, PairBatch
from inkstone.learn.objectives.loss import Loss, linear_cross_entropy
from inkstone.model.interface import SequenceModel
from inkstone.model.transformer import Transformer


def sequence_to_sequence(model: nn.Module, batch: Batch, smoothing: float = 0.0) -> Loss:
    """Cross entropy per real target token, end mark included (Sutskever et al., 2014); padding is never scored."""
    translator, batch = cast(SequenceModel, model), cast(PairBatch, batch)
    memory_BSD = translator.encode(batch.source_BS)
    states_BTD = translator.decode(batch.target_BT, memory_BSD, translator.visible(batch.source_BS))
    states_ND = states_BTD.flatten(0, 1)[batch.counted_N]
    weight_VD = translator.output_weight
    if isinstance(translator, Transformer):
        states_ND = translator.scored(states_ND)
        if translator.output_bias is not None:  # the weight of one more feature, which is always 1
            states_ND = F.pad(states_ND, (0, 1), value=1.0)
            weight_VD = torch.cat([weight_VD, translator.output_bias[:, None]], dim=1)
    return linear_cross_entropy(states_ND, weight_VD, batch.wanted_N, smoothing)
