"""What a report card says of a training, whatever was trained: what it took, and its curve."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inkstone.judge.facts import CurvePoint, TrainingFacts
    from inkstone.learn.loop import Outcome


def training_facts(
    model: Any, outcome: Outcome, per_epoch: int, *, begun_with: str = "", learnt: int | None = None
) -> TrainingFacts:
    """What it took. per_epoch: steps of a pass. learnt: how many parameters learnt, where that is told."""
    from inkstone.judge.facts import TrainingFacts
    from inkstone.learn.loop import pick_device

    return TrainingFacts(
        seconds=round(outcome.seconds, 1),
        steps=outcome.steps,
        epochs=round(outcome.steps / per_epoch, 2),
        parameters=sum(one.numel() for one in model.parameters()),
        tokens_per_second=round(outcome.tokens_per_second, 1),
        peak_memory_bytes=outcome.peak_memory_bytes,
        device=f"{platform.machine()}, {pick_device().type}",
        begun_with=begun_with,
        learnt_parameters=learnt,
    )


def curve_points(outcome: Outcome, *names: str) -> tuple[CurvePoint, ...]:
    """The learning curve with these figures of each validation."""
    from inkstone.judge.facts import CurvePoint

    return tuple(
        CurvePoint(
            int(point["step"]),
            point["seconds"],
            point["train_loss"],
            {name: point[f"valid_{name}"] for name in names},
        )
        for point in outcome.curve
    )
