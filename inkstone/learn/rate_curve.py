"""Finding a learning rate: the loss while the rate rises from far too low to far too high (Smith, 2017).

    loss │‾‾‾‾‾‾╲
         │       ╲            ╱
         │        ╲___     __╱
         │            ‾‾‾‾‾
         └───────────────────────  rate, on a logarithmic axis
               suggestion ^    ^ lowest

Below, nothing is learnt; above, it falls apart. What is suggested as the peak of a schedule is a tenth of the rate at
which the loss was lowest: there the run was already on its way to falling apart. The curve is one of a few dozen steps
from one beginning, so it gives the order of magnitude and no more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from inkstone.ground.errors import ConfigError, TrainingError
from inkstone.learn.data.batches import Batch, Feed, to_device
from inkstone.learn.objectives.loss import Objective
from inkstone.learn.optim import OPTIMIZERS

SMOOTHED = 0.9  # of the running loss that stays at each step
TOO_HIGH = 1.3  # times the first loss, at which it has fallen apart


@dataclass(frozen=True, slots=True)
class RateCurve:
    """Learning rates tried in turn, and the smoothed loss at each."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def lowest(self) -> float:
        """The rate at which the loss was lowest."""
        return self.rates[min(range(len(self.losses)), key=self.losses.__getitem__)]

    @property
    def suggestion(self) -> float:
        """A learning rate to train with, of one significant digit."""
        return float(f"{self.lowest / 10:.0e}")


def find_rate(
    model: nn.Module,
    objective: Objective,
    feed: Feed,
    options: Any,
    *,
    low: float = 1e-6,
    high: float = 1.0,
    steps: int = 100,
    bfloat16: bool = False,
) -> RateCurve:
    """Train for some steps while the rate rises evenly on a logarithmic scale; the model ends as it began.

    options: TrainingOptions, of which the optimiser, clipping, smoothing and seed count. Random numbers drawn elsewhere
    stay as they would have been. Raises ConfigError for rates that do not rise, TrainingError when not even the first
    losses are finite.
    """
    if not 0 < low < high < math.inf or steps < 10:
        raise ConfigError(
            f"rates rise from low={low} to high={high} in steps={steps}: give 0 < low < high, 10 steps."
        )
    own = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    device = next(model.parameters()).device
    optimizer = OPTIMIZERS[options.optimizer](
        model, learning_rate=low, weight_decay=options.weight_decay, beta2=options.beta2
    )
    was_training = model.training
    rates: list[float] = []
    losses: list[float] = []
    running = 0.0
    try:
        with torch.random.fork_rng():
            for step, batch in zip(range(steps), _endless(feed), strict=False):
                torch.manual_seed((options.seed << 32) + step)
                model.train()
                with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                    loss = objective(model, to_device(batch, device), options.smoothing).mean
                value = float(loss.detach())
                running = SMOOTHED * running + (1 - SMOOTHED) * value
                smoothed = running / (1 - SMOOTHED ** (step + 1))
                if not math.isfinite(value) or (losses and smoothed > TOO_HIGH * losses[0]):
                    break
                rates.append(low * (high / low) ** (step / (steps - 1)))
                losses.append(smoothed)
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(model.parameters(), options.clip_norm)
                for group in optimizer.param_groups:
                    group["lr"] = rates[-1]
                optimizer.step()
                optimizer.zero_grad()
    finally:
        model.load_state_dict(own)
        model.train(was_training)
        optimizer.zero_grad()
    if len(losses) < 2:
        raise TrainingError(
            "the loss is not finite before anything was learnt. Look at the data, or train in float32."
        )
    return RateCurve(tuple(rates), tuple(losses))


def _endless(feed: Feed) -> Iterator[Batch]:
    epoch = 0
    while True:
        for made in feed.epoch(epoch):
            yield made()
        epoch += 1
