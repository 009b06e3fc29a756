"""Classification: the label of a text, or for multi-label data a yes or no for each label."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import nn

from inkstone.learn.data.batches import Batch, LabelBatch
from inkstone.learn.objectives.loss import Loss


def classification(model: nn.Module, batch: Batch, smoothing: float = 0.0) -> Loss:
    """Cross entropy of the class, or the mean binary cross entropy of all labels when `labels` is a (B, C) matrix."""
    batch = cast(LabelBatch, batch)
    logits_BC = model(batch.ids_BS).float()
    if batch.labels.dim() == 1:
        mean = F.cross_entropy(logits_BC, batch.labels, label_smoothing=smoothing)
        correct = (logits_BC.argmax(1) == batch.labels).sum()
    else:
        smooth = batch.labels * (1 - smoothing) + 0.5 * smoothing
        mean = F.binary_cross_entropy_with_logits(logits_BC, smooth)
        correct = ((logits_BC > 0) == (batch.labels > 0.5)).all(1).sum()
    return Loss(mean, len(batch.labels), int(correct))
