"""Several translators of one vocabulary as one model: at every token the mean of their log-probabilities counts.

It is itself a `SequenceModel`, so that beam search, drawing and scoring take it for any other:

    encode    the members' memories side by side            (B, S, D1 + D2 + ...)
    decode    their states side by side                     (B, T, W1 + W2 + ...)
    logits    the mean of log_softmax over the members      (..., V)

The mean of log-probabilities favours what no member finds absurd; that of probabilities would favour what one is sure of.
Members may differ in architecture and size. Each costs its own passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from inkstone.ground.errors import ConfigError
from inkstone.model.interface import Cache, SequenceConfig, SequenceModel

_ONE_VOCABULARY = ("vocab_size", "pad_id", "bos_id", "eos_id")


@dataclass(slots=True)
class EnsembleCache:
    """The members' caches."""

    members: list[Cache]

    def reorder(self, rows_B: Tensor) -> None:
        """See `Cache.reorder`."""
        for member in self.members:
            member.reorder(rows_B)


@dataclass(frozen=True, slots=True)
class EnsembleConfig:
    """What is asked of a configuration: the first member's, with the fewest positions of any."""

    first: SequenceConfig
    max_positions: int
    position_limit: int
    vocab_size: int
    pad_id: int
    bos_id: int
    eos_id: int

    @classmethod
    def of(cls, configs: Sequence[SequenceConfig]) -> EnsembleConfig:
        """Raises ConfigError where vocabularies differ."""
        first = configs[0]
        for name in _ONE_VOCABULARY:
            found = [getattr(one, name) for one in configs]
            if len(set(found)) > 1:
                raise ConfigError(
                    f"models with {name}={', '.join(map(str, found))} have no vocabulary in common, and an ensemble "
                    "averages token by token. Give models trained with the same tokenizer."
                )
        limits = [one.position_limit for one in configs if one.position_limit]
        most = min(one.max_positions for one in configs)
        return cls(first, most, min(limits, default=0), *(getattr(first, name) for name in _ONE_VOCABULARY))

    def to_dict(self) -> dict[str, Any]:
        """The first member's: an ensemble is not saved."""
        return self.first.to_dict()


class Ensemble(nn.Module):
    """Translators with one vocabulary as one `SequenceModel`."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(models)
        self.config = EnsembleConfig.of([one.config for one in self._models])
        self.eval()
        with torch.inference_mode():
            device = self.output_weight.device
            blank = torch.full((1, 1), self.config.eos_id, device=device)
            self.memory_widths = [one.encode(blank).shape[2] for one in self._models]
            self.state_widths = [one.output_weight.shape[1] for one in self._models]

    @property
    def _models(self) -> list[SequenceModel]:
        return [cast(SequenceModel, one) for one in self.members]

    @property
    def output_weight(self) -> Tensor:
        """The first member's, for its device; states of an ensemble are scored by `logits` alone."""
        return self._models[0].output_weight

    def encode(self, ids_BS: Tensor) -> Tensor:
        """The members' memories side by side: (B, S, ...)."""
        return torch.cat([one.encode(ids_BS) for one in self._models], dim=-1)

    def visible(self, ids_BS: Tensor) -> Tensor:
        """True where a source token is not padding: (B, S)."""
        return ids_BS != self.config.pad_id

    def new_cache(self) -> EnsembleCache:
        """An empty cache of each member."""
        return EnsembleCache([one.new_cache() for one in self._models])

    def decode(
        self,
        ids_BT: Tensor,
        memory_BSD: Tensor | None = None,
        memory_mask: Tensor | None = None,
        cache: EnsembleCache | None = None,
    ) -> Tensor:
        """The members' states side by side: (B, T, ...). See `SequenceModel.decode`."""
        models = self._models
        caches: Sequence[Cache | None] = cache.members if cache is not None else [None] * len(models)
        memories: Sequence[Tensor | None] = [None] * len(models)
        masks: Sequence[Tensor | None] = [None] * len(models)
        if memory_BSD is not None:
            memories = torch.split(memory_BSD, self.memory_widths, dim=-1)
        if memory_mask is not None:  # each member sees it in a shape of its own
            stands_for_BS = torch.where(memory_mask, self.config.eos_id, self.config.pad_id)
            masks = [one.visible(stands_for_BS) for one in models]
        states = [
            one.decode(ids_BT, memory, mask, own)
            for one, memory, mask, own in zip(models, memories, masks, caches, strict=True)
        ]
        return torch.cat(states, dim=-1)

    def logits(self, x_BTD: Tensor) -> Tensor:
        """The mean of the members' log-probabilities: (..., V). They add up to one only after another softmax."""
        states = torch.split(x_BTD, self.state_widths, dim=-1)
        logs = [one.logits(x).float().log_softmax(-1) for one, x in zip(self._models, states, strict=True)]
        return torch.stack(logs).mean(0)

    def forward(self, source_BS: Tensor, target_BT: Tensor) -> Tensor:
        """The logits of the target given the source: (B, T, V)."""
        return self.logits(self.decode(target_BT, self.encode(source_BS), self.visible(source_BS)))
