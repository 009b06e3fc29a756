"""Adversarial training: the texts that a model gets wrong next, made by moving its embeddings uphill.

    fgm       Miyato et al., 2017    one step of length epsilon along the gradient
    pgd       Madry et al., 2018     several smaller steps, each put back into the ball of radius epsilon
    freelb    Zhu et al., 2020       as pgd from a random start, and the weights learn from every step on the way

What is moved is the output of the embedding and not its table: each text has a perturbation of its own, with a norm over
all its tokens, as in the papers, and the tied output layer is left alone. (The widespread shortcut of moving the table
moves a word in all texts at once.) An encoder-decoder's source and target are moved each by itself.

fgm and pgd follow the mean of the loss of the texts as they are and as they were moved; freelb follows the mean of its
steps. So learning rates and the clipping of gradients keep their meaning, and with epsilon 0 all three are the plain
step. Dropout draws the same numbers in all passes of a step: what is climbed is one function.

The gradients of each pass are taken on the way and its graph forgotten (as in `objectives.loss`): the memory of one pass
is enough, and a step of freelb costs no more than its passes, which is what is free about it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from inkstone.ground.errors import ConfigError, not_known, raise_all
from inkstone.learn.data.batches import Batch
from inkstone.learn.embedded import embedded, embedding_of, real
from inkstone.learn.objectives.loss import Loss, Objective

Kind = Literal["none", "fgm", "pgd", "freelb"]


@dataclass(frozen=True, slots=True)
class AdversarialOptions:
    """Which attack, and how far it may go. Lengths are of all vectors of a text; one token's is about 1."""

    kind: Kind = "none"
    epsilon: float = 1.0  # the longest perturbation
    step_size: float = 0.3  # of pgd and freelb
    steps: int = 3  # of pgd and freelb

    def __post_init__(self) -> None:
        problems = []
        if self.kind not in ("none", *ATTACKS):
            problems.append(not_known("kind", self.kind, ("none", *ATTACKS)))
        problems += [
            f"{name}={getattr(self, name)} must be at least 0 and finite"
            for name in ("epsilon", "step_size")
            if not 0 <= getattr(self, name) < float("inf")
        ]
        if self.steps < 1:
            problems.append(f"steps={self.steps} must be at least 1")
        raise_all(ConfigError, "adversarial training", problems)


def adversarial(objective: Objective, model: nn.Module, options: AdversarialOptions) -> Objective:
    """The objective under this attack. Raises ConfigError for a model without an embedding of tokens."""
    embedding_of(model)
    attack = ATTACKS[options.kind]

    def attacked(model: nn.Module, batch: Batch, smoothing: float = 0.0) -> Loss:
        attempts = _Attempts(objective, model, batch, smoothing)
        attack(attempts, options)
        return attempts.loss()

    return attacked


class _KnownGradients(torch.autograd.Function):
    """A value whose gradients were made on the way."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: Sequence[Tensor], *parameters: Tensor) -> Tensor:
        ctx.known = gradients
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, *(one * gradients[0] for one in ctx.known))


@dataclass(slots=True)
class _Attempts:
    """The passes of one step: the same batch and the same draws of dropout, the embeddings moved in other ways."""

    objective: Objective
    model: nn.Module
    batch: Batch
    smoothing: float
    parameters: list[nn.Parameter] = field(init=False)
    gradients: list[Tensor | None] = field(
        init=False
    )  # of the parameters, the weighted sum over the passes so far
    value: Tensor | None = None  # likewise
    first: Loss | None = None
    draws: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        self.parameters = [one for one in self.model.parameters() if one.requires_grad]
        self.gradients = [None] * len(self.parameters)
        self.draws = [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if _on_gpu(self.model) else ())]

    def run(
        self, moves: list[Tensor], weight: float, start: Callable[[Tensor, Tensor], Tensor]
    ) -> list[Tensor]:
        """One pass; the gradients of what the embeddings were moved by, a tensor for each call of the embedding.

        moves: what to add to each; where there are none yet, `start` makes them of the vectors and which tokens are real.
        weight: of this pass in the loss; with 0 it costs no gradients of weights.
        """
        torch.set_rng_state(self.draws[0])
        if _on_gpu(self.model):
            torch.cuda.set_rng_state_all(self.draws[1:])
        used = 0

        def moved(vectors_BSE: Tensor, ids_BS: Tensor) -> Tensor:
            nonlocal used
            if used == len(moves):
                moves.append(start(vectors_BSE.detach(), real(self.model, ids_BS)))
            used += 1
            return vectors_BSE + moves[used - 1].requires_grad_()

        with embedded(self.model, moved):
            loss = self.objective(self.model, self.batch, self.smoothing)
        learning: Sequence[Tensor] = self.parameters if weight else ()
        found = torch.autograd.grad(loss.mean, [*learning, *moves], allow_unused=True)
        if weight:
            self._add(loss, found[: len(learning)], weight)
        return [
            torch.zeros_like(move) if one is None else one
            for move, one in zip(moves, found[len(learning) :], strict=True)
        ]

    def _add(self, loss: Loss, found: Sequence[Tensor | None], weight: float) -> None:
        self.first = self.first or loss
        value = weight * loss.mean.detach()
        self.value = value if self.value is None else self.value + value
        for place, one in enumerate(found):
            before = self.gradients[place]
            if one is not None:
                self.gradients[place] = one * weight if before is None else before.add_(one, alpha=weight)

    def loss(self) -> Loss:
        """The loss of all passes, whose gradients are known."""
        assert self.value is not None and self.first is not None, "no pass had a weight"
        reached = [(p, g) for p, g in zip(self.parameters, self.gradients, strict=True) if g is not None]
        parameters, gradients = zip(*reached, strict=True)
        mean: Tensor = _KnownGradients.apply(self.value, gradients, *parameters)  # type: ignore[no-untyped-call]
        return Loss(mean, self.first.count, self.first.correct)


def _fgm(attempts: _Attempts, options: AdversarialOptions) -> None:
    slopes = attempts.run([], 0.5, _nothing)
    attempts.run([_of_length(one, options.epsilon) for one in slopes], 0.5, _nothing)


def _pgd(attempts: _Attempts, options: AdversarialOptions) -> None:
    moves: list[Tensor] = []
    slopes = attempts.run(moves, 0.5, _nothing)
    for step in range(options.steps):
        moves = _climbed(moves, slopes, options)
        slopes = attempts.run(moves, 0.5 if step == options.steps - 1 else 0.0, _nothing)


def _freelb(attempts: _Attempts, options: AdversarialOptions) -> None:
    random = torch.Generator().manual_seed(
        torch.initial_seed() & (2**62 - 1)
    )  # of the step; dropout's draws stay

    def somewhere(vectors_BSE: Tensor, real_BS: Tensor) -> Tensor:
        drawn = torch.rand(vectors_BSE.shape, generator=random, dtype=torch.float32) * 2 - 1
        drawn = drawn.to(vectors_BSE) * real_BS[:, :, None]
        cells_B = (real_BS.sum(1) * vectors_BSE.shape[2]).clamp(min=1)
        return drawn * (options.epsilon * cells_B.to(drawn) ** -0.5)[:, None, None]

    moves: list[Tensor] = []
    for step in range(options.steps):
        slopes = attempts.run(moves, 1 / options.steps, somewhere)
        if step < options.steps - 1:
            moves = _climbed(moves, slopes, options)


ATTACKS: dict[str, Callable[[_Attempts, AdversarialOptions], None]] = {
    "fgm": _fgm,
    "pgd": _pgd,
    "freelb": _freelb,
}


def _nothing(vectors_BSE: Tensor, real_BS: Tensor) -> Tensor:
    return torch.zeros_like(vectors_BSE)


def _climbed(moves: Sequence[Tensor], slopes: Sequence[Tensor], options: AdversarialOptions) -> list[Tensor]:
    """A step uphill each, put back into the ball."""
    climbed = [m.detach() + _of_length(s, options.step_size) for m, s in zip(moves, slopes, strict=True)]
    return [one * (options.epsilon / _lengths(one)).clamp(max=1.0) for one in climbed]


def _of_length(x_BSE: Tensor, length: float) -> Tensor:
    """Each text's vectors as they point, of this length in all; zeros stay."""
    return x_BSE * (length / _lengths(x_BSE))


def _lengths(x_BSE: Tensor) -> Tensor:
    """The length of each text's vectors taken as one: (B, 1, 1), never zero."""
    lengths_B: Tensor = torch.linalg.vector_norm(x_BSE.flatten(1), dim=1)
    return lengths_B.clamp(min=torch.finfo(x_BSE.dtype).tiny)[:, None, None]


def _on_gpu(model: nn.Module) -> bool:
    return next(model.parameters()).is_cuda
