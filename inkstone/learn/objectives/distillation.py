"""Distillation: a student learns what a teacher says, besides what the data says (Hinton et al., 2015).

    loss = (1 - share) cross entropy of the data + share T^2 KL(teacher at T || student at T) + hidden (unlike states)

T is the temperature at which both softmaxes are taken: above 1, what the teacher finds second and third likeliest
counts. The states are compared by their cosine where both models are as wide (as in DistilBERT, Sanh et al., 2019), else
by which tokens are alike (similarity-preserving distillation, Tung and Mori, 2019), for which no width matters and no
extra layer has to be learnt. Sequence-level distillation (Kim and Rush, 2016) needs no objective: the teacher's outputs
become the targets of the ordinary one (`ship.distil`).

These functions make objectives of the one loop: `distilled(teacher, options)` is a `(model, batch) -> Loss`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inkstone.ground.errors import ConfigError, raise_all
from inkstone.learn.data.batches import Batch, LabelBatch, PairBatch
from inkstone.learn.objectives.loss import CHUNK, Loss, Objective, linear_cross_entropy
from inkstone.learn.objectives.sequence_to_sequence import as_product
from inkstone.model.interface import SequenceModel

ALIKE = 512  # tokens of a batch whose likeness is compared when widths differ


@dataclass(frozen=True, slots=True)
class DistillationOptions:
    """How much the teacher counts."""

    share: float = 0.5  # of the loss that comes from the teacher's softmax
    temperature: float = 2.0
    hidden: float = 0.0  # weight of the states

    def __post_init__(self) -> None:
        problems = [] if 0 <= self.share <= 1 else [f"share={self.share} must be between 0 and 1"]
        problems += (
            []
            if 0 < self.temperature <= 100
            else [f"temperature={self.temperature} must be above 0, at most 100"]
        )
        problems += [] if 0 <= self.hidden <= 100 else [f"hidden={self.hidden} must be between 0 and 100"]
        raise_all(ConfigError, "distillation options", problems)


class _LinearDivergence(torch.autograd.Function):
    """T^2 KL of two softmaxes over x W^T / T, a few rows at a time, gradients made on the way (as in `loss`)."""

    @staticmethod
    def forward(
        ctx: Any, x_ND: Tensor, weight_VD: Tensor, taught_NE: Tensor, teacher_VE: Tensor, temperature: float
    ) -> Tensor:
        count = len(x_ND)
        x, weight = x_ND.detach(), weight_VD.detach().to(x_ND.dtype)
        teacher = teacher_VE.detach().to(taught_NE.dtype)
        x_gradient, weight_gradient = torch.empty_like(x), torch.zeros_like(weight_VD, dtype=torch.float32)
        total = torch.zeros((), device=x.device)
        for start in range(0, count, CHUNK):
            rows = x[start : start + CHUNK]
            wanted = ((taught_NE[start : start + CHUNK] @ teacher.t()).float() / temperature).log_softmax(1)
            found = ((rows @ weight.t()).float() / temperature).log_softmax(1)
            shares = wanted.exp()
            total += (shares * (wanted - found)).sum()
            slope = ((found.exp() - shares) * (temperature / count)).to(x.dtype)
            torch.mm(slope, weight, out=x_gradient[start : start + CHUNK])
            weight_gradient += slope.t() @ rows
        ctx.save_for_backward(x_gradient, weight_gradient.to(weight_VD.dtype))
        return total * (temperature**2 / count)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        x_gradient, weight_gradient = ctx.saved_tensors
        return x_gradient * gradients[0], weight_gradient * gradients[0], None, None, None


def linear_divergence(
    x_ND: Tensor, weight_VD: Tensor, taught_NE: Tensor, teacher_VE: Tensor, temperature: float
) -> Tensor:
    """T^2 KL(softmax(taught teacher^T / T) || softmax(x W^T / T)), the mean over N; no gradient for the teacher."""
    found: Tensor = _LinearDivergence.apply(x_ND, weight_VD, taught_NE, teacher_VE, temperature)  # type: ignore[no-untyped-call]
    return found


def unlike_states(own_ND: Tensor, taught_NE: Tensor) -> Tensor:
    """How unlike two models see the same tokens: 0 when alike.

    As wide: the mean of 1 - cosine. Else: the mean squared difference of which tokens are alike, of at most `ALIKE`.
    """
    own, taught = F.normalize(own_ND.float(), dim=1), F.normalize(taught_NE.float(), dim=1)
    if own.shape[1] == taught.shape[1]:
        return 1 - (own * taught).sum(1).mean()
    own, taught = own[:ALIKE], taught[:ALIKE]
    return (own @ own.t() - taught @ taught.t()).square().mean()


def distilled(teacher: nn.Module, options: DistillationOptions) -> Objective:
    """The objective of a translator's student: its batches are pairs. The teacher is only asked, never changed."""
    guide = cast(SequenceModel, _fixed(teacher))

    def objective(model: nn.Module, batch: Batch, smoothing: float = 0.0) -> Loss:
        student, batch = cast(SequenceModel, model), cast(PairBatch, batch)
        own_memory, own_ND = _states(student, batch)
        with torch.no_grad():
            memory, taught_NE = _states(guide, batch)
            wanted_NE, teacher_VE = as_product(guide, taught_NE)
        x_ND, weight_VD = as_product(student, own_ND)
        loss = linear_cross_entropy(x_ND, weight_VD, batch.wanted_N, smoothing)
        taught = linear_divergence(x_ND, weight_VD, wanted_NE, teacher_VE, options.temperature)
        mean = (1 - options.share) * loss.mean + options.share * taught
        if options.hidden:
            real_BS = batch.source_BS != student.config.pad_id
            unlike = unlike_states(own_memory[real_BS], memory[real_BS]) + unlike_states(own_ND, taught_NE)
            mean = mean + options.hidden * unlike
        return Loss(mean, loss.count, loss.correct)

    return objective


def distilled_labels(teacher: nn.Module, options: DistillationOptions) -> Objective:
    """The objective of a classifier's student. Of multi-label data each label is a yes or no of its own."""
    guide = _fixed(teacher)
    pad_id = int(getattr(teacher.config, "pad_id", 0))

    def objective(model: nn.Module, batch: Batch, smoothing: float = 0.0) -> Loss:
        from inkstone.learn.objectives.classification import classification

        batch = cast(LabelBatch, batch)
        loss = classification(model, batch, smoothing)
        own_BC = model(batch.ids_BS).float() / options.temperature
        with torch.no_grad():
            taught_BC = guide(batch.ids_BS).float() / options.temperature
        if batch.labels.dim() == 1:
            taught = F.kl_div(
                own_BC.log_softmax(1), taught_BC.log_softmax(1), log_target=True, reduction="batchmean"
            )
        else:
            wanted = taught_BC.sigmoid()
            floor = F.binary_cross_entropy_with_logits(taught_BC, wanted)
            taught = F.binary_cross_entropy_with_logits(own_BC, wanted) - floor
        mean = (1 - options.share) * loss.mean + options.share * options.temperature**2 * taught
        if options.hidden:
            real_BS = batch.ids_BS != pad_id
            with torch.no_grad():
                memory = cast(SequenceModel, guide).encode(batch.ids_BS)
            own_memory = cast(SequenceModel, model).encode(batch.ids_BS)
            mean = mean + options.hidden * unlike_states(own_memory[real_BS], memory[real_BS])
        return Loss(mean, loss.count, loss.correct)

    return objective


def _fixed(teacher: nn.Module) -> nn.Module:
    teacher.eval()
    for parameter in teacher.parameters():
        parameter.requires_grad_(False)
    return teacher


def _states(model: SequenceModel, batch: PairBatch) -> tuple[Tensor, Tensor]:
    """The memory, and the states of the target tokens that count: (B, S, D), (N, D)."""
    memory_BSD = model.encode(batch.source_BS)
    states_BTD = model.decode(batch.target_BT, memory_BSD, model.visible(batch.source_BS))
    return memory_BSD, states_BTD.flatten(0, 1)[batch.counted_N]
