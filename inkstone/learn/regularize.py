"""Regularisation: what keeps a model from learning its training texts by heart.

Each way wraps an objective into another, which the loop follows as it would the plain one:

    mixup             Guo et al., 2019, after Zhang et al., 2018: two texts' embeddings mixed, and their labels likewise
    r_drop            Liang et al., 2021: two passes with other dropout, held to say the same
    word_dropout      the vectors of whole tokens left out at random, after Iyyer et al., 2015
    stochastic_depth  Huang et al., 2016: what a sub-layer adds left out at random, the deeper the oftener

Label smoothing and dropout are options of the training and of the model; adversarial training is in `adversarial`, the
averages of weights in `averaging`. They go together, but for mixup and r_drop. Everything random is drawn from torch's
generator, as dropout is, so that a resumed run repeats it. Validation never sees any of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from typing import Any, cast

import torch
from torch import Tensor, nn

from inkstone.ground.errors import ConfigError, raise_all
from inkstone.learn.adversarial import AdversarialOptions, adversarial
from inkstone.learn.data.batches import Batch, LabelBatch
from inkstone.learn.embedded import embedded, embedding_of, real
from inkstone.learn.objectives.agreement import disagreement, linear_disagreement
from inkstone.learn.objectives.causal import causal, causal_product
from inkstone.learn.objectives.classification import classification, label_loss
from inkstone.learn.objectives.loss import Loss, Objective, linear_cross_entropy
from inkstone.learn.objectives.masked import masked, masked_product
from inkstone.learn.objectives.sequence_to_sequence import sequence_to_sequence, target_product
from inkstone.learn.objectives.span_corruption import span_corruption
from inkstone.model.transformer import Block, Side

Product = Callable[[nn.Module, Any], tuple[Tensor, Tensor]]  # x and W with x W^T the scores asked for
PRODUCTS: dict[Objective, Product] = {
    sequence_to_sequence: target_product,
    span_corruption: target_product,
    causal: causal_product,
    masked: masked_product,
}


@dataclass(frozen=True, slots=True)
class Regularization:
    """How much of each; 0 is none."""

    mixup: float = (
        0.0  # alpha of the Beta distribution that shares are drawn from: 0.2 mixes few, 1 all alike
    )
    r_drop: float = 0.0  # weight of the disagreement: 1 to 5
    word_dropout: float = 0.0  # the share of tokens left out
    stochastic_depth: float = 0.0  # how often the last layer is left out; those before it less and less

    def __post_init__(self) -> None:
        problems = [
            f"{one.name}={getattr(self, one.name)} must be at least 0 and finite"
            for one in fields(self)
            if not 0 <= getattr(self, one.name) < float("inf")
        ]
        problems += [
            f"{name}={getattr(self, name)} must be below 1"
            for name in ("word_dropout", "stochastic_depth")
            if getattr(self, name) >= 1
        ]
        if self.mixup and self.r_drop:
            problems.append("mixup and r_drop exclude each other: set one of them to 0")
        raise_all(ConfigError, "regularisation", problems)


def regularized(
    objective: Objective, model: nn.Module, options: Regularization, attack: AdversarialOptions
) -> Objective:
    """The objective with all that is asked for; itself when nothing is.

    Raises ConfigError for what does not go with this objective or model.
    """
    for name, wrapped in WRAPPERS.items():
        if strength := getattr(options, name):
            objective = wrapped(objective, model, strength)
    return objective if attack.kind == "none" else adversarial(objective, model, attack)


def mixup(objective: Objective, model: nn.Module, alpha: float) -> Objective:
    """Each text of a batch mixed with another: share * one + (1 - share) * other, of vectors and of losses.

    Where one text is longer, the other counts as zeros. One share is drawn for a batch, as Zhang et al. do.
    """
    if objective is not classification:
        raise ConfigError(
            "mixup mixes the labels of texts, so it goes with classification only. Set it to 0."
        )
    embedding_of(model)
    shares = torch.distributions.Beta(alpha, alpha)

    def mixed(model: nn.Module, batch: Batch, smoothing: float = 0.0) -> Loss:
        batch = cast(LabelBatch, batch)
        share = float(shares.sample())
        order_B = torch.randperm(len(batch.ids_BS)).to(batch.ids_BS.device)
        other_BS = batch.ids_BS[order_B]
        vectors_of = embedding_of(model).weight

        def together(vectors_BSE: Tensor, ids_BS: Tensor) -> Tensor:
            own, theirs = (
                nn.functional.embedding(ids, vectors_of) * real(model, ids)[:, :, None]
                for ids in (batch.ids_BS, other_BS)
            )
            return share * own + (1 - share) * theirs

        # The model sees a token wherever one of the two texts has one.
        ids_BS = torch.where(real(model, batch.ids_BS), batch.ids_BS, other_BS)
        with embedded(model, together):
            logits_BC = model(ids_BS).float()
        own = label_loss(logits_BC, batch.labels, smoothing)
        theirs = label_loss(logits_BC, batch.labels[order_B], smoothing)
        return Loss(share * own.mean + (1 - share) * theirs.mean, own.count, own.correct)

    return mixed


def r_drop(objective: Objective, model: nn.Module, weight: float) -> Objective:
    """Half of the paper's loss: the mean cross entropy of both passes + weight / 4 (KL one way + KL the other)."""
    if objective is classification:

        def twice(model: nn.Module, batch: Batch, smoothing: float = 0.0) -> Loss:
            batch = cast(LabelBatch, batch)
            one_BC, other_BC = (model(batch.ids_BS).float() for _ in range(2))
            unlike = disagreement(one_BC, other_BC, multi_label=batch.labels.dim() == 2)
            losses = [label_loss(scores, batch.labels, smoothing) for scores in (one_BC, other_BC)]
            return _agreeing(losses, unlike, weight)

        return twice
    if objective not in PRODUCTS:
        raise ConfigError(
            "r_drop compares the scores of two passes, which this objective does not show. It goes with "
            f"classification and {', '.join(one.__name__ for one in PRODUCTS)}. Set it to 0."  # type: ignore[attr-defined]
        )
    product = PRODUCTS[objective]

    def compared(model: nn.Module, batch: Batch, smoothing: float = 0.0) -> Loss:
        wanted_N: Tensor = batch.wanted_N  # type: ignore[union-attr]
        one_ND, weight_VD = product(model, batch)
        other_ND, _ = product(model, batch)
        unlike = linear_disagreement(one_ND, other_ND, weight_VD)
        losses = [linear_cross_entropy(x_ND, weight_VD, wanted_N, smoothing) for x_ND in (one_ND, other_ND)]
        return _agreeing(losses, unlike, weight)

    return compared


def _agreeing(losses: list[Loss], unlike: Tensor, weight: float) -> Loss:
    one, other = losses
    return Loss(0.5 * (one.mean + other.mean) + 0.25 * weight * unlike, one.count, one.correct)


def word_dropout(objective: Objective, model: nn.Module, share: float) -> Objective:
    """This share of tokens with a vector of zeros; the others scaled up to keep the mean."""
    embedding_of(model)

    def thinned(vectors_BSE: Tensor, ids_BS: Tensor) -> Tensor:
        kept_BS = (torch.rand(ids_BS.shape) >= share).to(vectors_BSE.device)
        return vectors_BSE * (kept_BS / (1 - share)).to(vectors_BSE.dtype)[:, :, None]

    def with_gaps(model: nn.Module, batch: Batch, smoothing: float = 0.0) -> Loss:
        with embedded(model, thinned):
            return objective(model, batch, smoothing)

    return with_gaps


def stochastic_depth(objective: Objective, model: nn.Module, share: float) -> Objective:
    """What sub-layers add to their input left out, for each text of the batch by itself, and else scaled up.

    Layer l of L is left out with probability share * l / L, as in the paper.
    """
    if not any(isinstance(module, Block) for module in model.modules()):
        raise ConfigError(
            f"stochastic_depth leaves out layers of a Transformer, and {type(model).__name__} is none. Set it to 0."
        )

    def shallow(model: nn.Module, batch: Batch, smoothing: float = 0.0) -> Loss:
        with _left_out(model, share):
            return objective(model, batch, smoothing)

    return shallow


@contextmanager
def _left_out(model: nn.Module, share: float) -> Iterator[None]:
    """While the block runs, sub-layers of each side of the model are left out at random."""
    with ExitStack() as stack:
        for side in model.modules():
            if isinstance(side, Side):
                for number, block in enumerate(side.layers, start=1):
                    change = _leaving_out(share * number / len(side.layers))
                    handle = cast(Block, block).dropout.register_forward_pre_hook(
                        change
                    )  # a sub-layer's last step
                    stack.callback(handle.remove)
        yield


def _leaving_out(share: float) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    """A change of what a sub-layer gives to its dropout, before that is added to the sub-layer's input."""

    def hook(module: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        change_BTD, *others = given
        kept_B = (torch.rand(len(change_BTD)) >= share).to(change_BTD.device)
        return change_BTD * (kept_B / (1 - share)).to(change_BTD.dtype)[:, None, None], *others

    return hook


# Each (objective, model, strength) -> objective; the innermost first.
WRAPPERS: dict[str, Callable[[Objective, nn.Module, float], Objective]] = {
    "mixup": mixup,
    "r_drop": r_drop,
    "word_dropout": word_dropout,
    "stochastic_depth": stochastic_depth,
}
