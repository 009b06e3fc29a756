"""The torch engine: the trained model itself. The reference for every other engine, and what runs on a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import nn

from inkstone.generate.beam import beam_search
from inkstone.generate.engine import GenerationOptions, Hypothesis, in_batches
from inkstone.model.checkpoint import load_model
from inkstone.model.interface import SequenceModel
from inkstone.model.padding import pad


class TorchEngine:
    """Runs a model with an encoder and a decoder, whatever its architecture, in the precision of its weights."""

    name = "torch"

    def __init__(self, model: nn.Module) -> None:
        self.model = cast(SequenceModel, model.eval())

    @classmethod
    def load(cls, folder: Path) -> TorchEngine:
        """The engine of a bundle's checkpoint."""
        return cls(load_model(folder))

    def generate(
        self, sources: Sequence[Sequence[int]], options: GenerationOptions
    ) -> list[list[Hypothesis]]:
        """See `Engine.generate`."""
        return in_batches(
            sources, [len(s) for s in sources], lambda rows: beam_search(self.model, rows, options)
        )

    def score(self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> list[float]:
        """See `Engine.score`."""
        pairs = list(zip(sources, targets, strict=True))
        return in_batches(pairs, [len(s) + len(t) for s, t in pairs], self._score)

    @torch.inference_mode()
    def _score(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[float]:
        config = self.model.config
        device = self.model.output_weight.device
        source_BS = pad([source for source, _ in pairs], config.pad_id).to(device)
        target_BT = pad([[config.bos_id, *target] for _, target in pairs], config.pad_id).to(device)
        wanted_BT = pad([[*target, config.eos_id] for _, target in pairs], config.pad_id).to(device)
        log_probabilities = self.model(source_BS, target_BT).float().log_softmax(-1)
        scores_BT = log_probabilities.gather(2, wanted_BT[:, :, None])[:, :, 0]
        return [float(row[: len(t) + 1].sum()) for row, (_, t) in zip(scores_BT, pairs, strict=True)]
