"""Averages of weights, which are often better than the last ones: they lie in the middle of where a run wanders.

    ema             an exponentially moving average, which is what is validated, kept as best and exported
                    (Polyak and Juditsky, 1992; as in Vaswani's successors, with a decay that grows over the first steps)
    average_last    the mean of the last validated weights (Vaswani et al., 2017), kept when it is better by the metric

The training itself goes on with its own weights. A checkpoint holds both, and a resumed run ends with the same averages.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from inkstone.ground.progress import say
from inkstone.learn.distributed import Team, Validate
from inkstone.learn.state import Checkpoints, State, value_of


class Averages:
    """The moving average of the parameters of a model that learn, in float32. With decay 0 there is none."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        learning = {name: one for name, one in model.named_parameters() if one.requires_grad and decay}
        self.parameters = learning
        self.tensors = {name: one.detach().to(torch.float32, copy=True) for name, one in learning.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the weights after so many steps; the first ones, still far off, are soon forgotten."""
        if self.decay:
            share = 1 - min(self.decay, (1 + step) / (10 + step))
            current = [one.detach().float() for one in self.parameters.values()]
            torch._foreach_lerp_(list(self.tensors.values()), current, share)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """While the block runs, the model has the averaged weights."""
        own = {name: one.detach().clone() for name, one in self.parameters.items()}
        self._put(self.tensors)
        try:
            yield
        finally:
            self._put(own)

    @torch.no_grad()
    def _put(self, tensors: Mapping[str, Tensor]) -> None:
        for name, one in self.parameters.items():
            one.copy_(tensors[name])


def mean_of(places: Sequence[Path]) -> dict[str, Tensor]:
    """The mean of the weights of some checkpoints; what is not a floating-point number is as in the last of them."""
    total: dict[str, Tensor] = {}
    last: dict[str, Tensor] = {}
    for place in places:
        last = load_file(place / "model.safetensors")
        for name, tensor in last.items():
            if tensor.is_floating_point():
                total[name] = total[name] + tensor.double() if name in total else tensor.double()
    return {n: (total[n] / len(places)).to(t.dtype) if n in total else t for n, t in last.items()}


def better_mean(
    team: Team, checkpoints: Checkpoints, state: State, validate: Validate, metric: str
) -> list[dict[str, float]]:
    """Where the mean of the last validated weights beats the best: the model gets it, and the curve this point.

    The model comes with the best weights, and else keeps them. Nothing is written: a run that is resumed after its end
    comes to the same again.
    """
    places = checkpoints.all_of("recent")[-checkpoints.recent :] if checkpoints.recent else []
    if len(places) < 2:
        return []
    assert state.best_value is not None, "weights that were validated have a value"
    own = {name: tensor.clone() for name, tensor in team.model.state_dict().items()}
    team.model.load_state_dict(mean_of(places))
    team.total(0.0)  # all have read them: the leader may take them away
    measures = team.measured(validate)
    if value_of(measures, metric) > state.best_value:
        say(f"the mean of the last {len(places)} validated weights is better, and kept")
        return [state.point(measures)]
    team.model.load_state_dict(own)
    return []
