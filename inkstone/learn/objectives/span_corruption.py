"""Span corruption: write what is missing in the gaps of a text (Raffel et al., 2020).

To a model this is a pair like any other, of a text with gaps and of what goes into them; the work is in making these
pairs (`learn.data.corruption`).
"""

from __future__ import annotations

from torch import nn

from inkstone.learn.data.batches import Batch
from inkstone.learn.objectives.loss import Loss
from inkstone.learn.objectives.sequence_to_sequence import sequence_to_sequence


def span_corruption(model: nn.Module, batch: Batch, smoothing: float = 0.0) -> Loss:
    """Cross entropy per token of the gaps, sentinels and end mark included."""
    return sequence_to_sequence(model, batch, smoothing)
