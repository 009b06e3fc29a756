"""Contrastive learning of sentence vectors: of all targets of a batch, the source's own must lie nearest to it.

    scores_BP = cos(source, target) / temperature        loss = cross entropy of each row, its own target right
                                                                (symmetric: and of each column, its own source right)

This is InfoNCE (van den Oord et al., 2018) with the other pairs of the batch for negatives, as in "multiple negatives
ranking" (Henderson et al., 2017); negatives given with the data are further columns. What must not be told apart
(`RelatedBatch.rivals_BP`) is left out of the sum.

margin: the right cosine has to win by so much (Yang et al., 2019). dimensions: the loss is taken of the first so many
numbers of the vectors too, and averaged, so that a vector may be cut there and still be of use (Matryoshka, Kusupati et
al., 2022). Cosines are computed in float32 whatever the model computes in: divided by a small temperature, the rounding
of bfloat16 would be as large as what is to be learnt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inkstone.ground.errors import ConfigError, raise_all
from inkstone.learn.data.batches import Batch, RelatedBatch
from inkstone.learn.objectives.loss import Loss, Objective
from inkstone.model.transformer import Transformer


@dataclass(frozen=True, slots=True)
class ContrastiveOptions:
    """What counts as near. symmetric: sources must be found from their targets too."""

    temperature: float = 0.05
    symmetric: bool = True
    margin: float = 0.0  # of the cosine
    dimensions: tuple[int, ...] = ()  # widths at which vectors may be cut, besides the whole

    def __post_init__(self) -> None:
        problems = []
        if not 0 < self.temperature <= 10:
            problems.append(f"temperature={self.temperature} must be above 0, at most 10")
        if not 0 <= self.margin < 1:
            problems.append(f"margin={self.margin} must be at least 0 and below 1")
        problems += [f"dimensions: {size} must be at least 1" for size in self.dimensions if size < 1]
        raise_all(ConfigError, "contrastive options", problems)


def contrasted(options: ContrastiveOptions) -> Objective:
    """The objective with these options. Its batches are `RelatedBatch`es, its models encoders."""

    def objective(model: nn.Module, batch: Batch, smoothing: float = 0.0) -> Loss:
        encoder, batch = cast(Transformer, model), cast(RelatedBatch, batch)
        source_BD, target_PD = encoder.pooled(batch.source_BS), encoder.pooled(batch.target_PT)
        with torch.autocast(source_BD.device.type, enabled=False):
            return nearest(source_BD.float(), target_PD.float(), batch.rivals_BP, options, smoothing)

    return objective


def contrastive(model: nn.Module, batch: Batch, smoothing: float = 0.0) -> Loss:
    """The objective with the options as they stand."""
    return contrasted(ContrastiveOptions())(model, batch, smoothing)


def nearest(
    source_BD: Tensor,
    target_PD: Tensor,
    rivals_BP: Tensor,
    options: ContrastiveOptions,
    smoothing: float = 0.0,
) -> Loss:
    """The loss of vectors of any length; right: how many sources have no rival as near as their own target."""
    width = source_BD.shape[1]
    sizes = sorted({width, *(size for size in options.dimensions if size < width)}, reverse=True)
    losses, correct = [], 0
    for size in sizes:
        cosines_BP = F.normalize(source_BD[:, :size], dim=1) @ F.normalize(target_PD[:, :size], dim=1).t()
        loss, right = _ranked(cosines_BP, rivals_BP, options, smoothing)
        losses.append(loss)
        correct = right if size == width else correct
    return Loss(torch.stack(losses).mean(), len(source_BD), correct)


def _ranked(
    cosines_BP: Tensor, rivals_BP: Tensor, options: ContrastiveOptions, smoothing: float
) -> tuple[Tensor, int]:
    count = len(cosines_BP)
    own_B = cosines_BP.diagonal()
    beaten_B = (cosines_BP.masked_fill(~rivals_BP, -torch.inf) < own_B[:, None]).all(1)
    own_BP = torch.eye(*cosines_BP.shape, dtype=torch.bool, device=cosines_BP.device)
    scores_BP = (cosines_BP - options.margin * own_BP) / options.temperature
    scores_BP = scores_BP.masked_fill(~(rivals_BP | own_BP), -torch.inf)
    loss = _cross_entropy(scores_BP, smoothing)
    if options.symmetric:
        loss = (loss + _cross_entropy(scores_BP[:, :count].t(), smoothing)) / 2
    return loss, int(beaten_B.sum())


def _cross_entropy(scores_BP: Tensor, smoothing: float) -> Tensor:
    """The mean of -log softmax at the diagonal; with smoothing a share of it over all columns that count."""
    logs_BP = scores_BP.log_softmax(1)
    loss_B = -logs_BP.diagonal()
    if smoothing:
        counts_BP = scores_BP.isfinite()
        spread_B = -logs_BP.masked_fill(~counts_BP, 0.0).sum(1) / counts_BP.sum(1)
        loss_B = (1 - smoothing) * loss_B + smoothing * spread_B
    return loss_B.mean()
