"""What a model is trained to do. An objective is a function (model, batch) -> Loss, found in `OBJECTIVES`."""

from __future__ import annotations

from inkstone.learn.objectives.causal import causal
from inkstone.learn.objectives.classification import classification
from inkstone.learn.objectives.contrastive import contrastive
from inkstone.learn.objectives.loss import Loss, Objective
from inkstone.learn.objectives.masked import masked
from inkstone.learn.objectives.sequence_to_sequence import sequence_to_sequence
from inkstone.learn.objectives.span_corruption import span_corruption

OBJECTIVES: dict[str, Objective] = {
    "sequence-to-sequence": sequence_to_sequence,
    "classification": classification,
    "causal": causal,
    "masked": masked,
    "span": span_corruption,
    "contrastive": contrastive,
}

__all__ = [
    "OBJECTIVES",
    "Loss",
    "Objective",
    "causal",
    "classification",
    "contrastive",
    "masked",
    "sequence_to_sequence",
    "span_corruption",
]
