"""Who listens to a training run from outside: a search that gives up on a trial, a finder of learning rates.

The loop tells whoever `listening` put there what it is about to do and what it measured. A listener that raises ends the
run, which keeps what it has saved. It reaches the loop through a context variable, past recipes that know nothing of it:

    with listening(listener):
        train_translator(recipe, out)
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from torch import nn

from inkstone.learn.data.batches import Feed
from inkstone.learn.objectives.loss import Objective


class Listener:
    """Hears of a run and does nothing; what listens in earnest overrides some of this."""

    def begins(self, model: nn.Module, objective: Objective, feed: Feed, options: Any) -> None:
        """Before the first step (or the first after a resumption), with nothing written yet. options: TrainingOptions."""

    def validated(self, measures: dict[str, float], value: float) -> None:
        """After a validation. value: what decides which checkpoint is best; higher is better."""

    def ended(self, value: float) -> None:
        """After the last step, with the best weights in the model. value: theirs."""


_LISTENER: ContextVar[Listener] = ContextVar("listener", default=Listener())  # noqa: B039 - it has no state


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """While the block runs, training runs in it tell this listener."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def listener() -> Listener:
    """Who listens now."""
    return _LISTENER.get()
