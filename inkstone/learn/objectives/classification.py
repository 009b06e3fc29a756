"""Classification: the label of a text, or for multi-label data a yes or no for each label."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from inkstone.learn.data.batches import Batch, LabelBatch
from inkstone.learn.objectives.loss import Loss


def classification(model: nn.Module, batch: Batch, smoothing: float = 0.0) -> Loss:
    """Cross entropy of the class, or the mean binary cross entropy of all labels when `labels` is a (B, C) matrix."""
    batch = cast(LabelBatch, batch)
    return label_loss(model(batch.ids_BS).float(), batch.labels, smoothing)


def label_loss(logits_BC: Tensor, labels: Tensor, smoothing: float = 0.0) -> Loss:
    """The loss of these scores: labels are class numbers (B), or zeros and ones (B, C)."""
    if labels.dim() == 1:
        mean = F.cross_entropy(logits_BC, labels, label_smoothing=smoothing)
        correct = (logits_BC.argmax(1) == labels).sum()
    else:
        smooth = labels * (1 - smoothing) + 0.5 * smoothing
        mean = F.binary_cross_entropy_with_logits(logits_BC, smooth)
        correct = ((logits_BC > 0) == (labels > 0.5)).all(1).sum()
    return Loss(mean, len(labels), int(correct))
