"""Rows of tokens that a torch model goes on with: what every search in torch needs of a model, whatever its kind.

    sources ─ encode ─ memory ─┐
    <s> prefix ────────────────┴─ decode ─> scores_NV of the next token ─ choose ─> keep(rows), push(tokens) ─> ...
    prompts, padded left ───────── decode ─┘

An encoder-decoder begins with <s> and the prefix for every source; a decoder continues prompts of unlike lengths,
padded on the left. Padding that no row needs any more is cut off, so that a long prompt costs others no positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from inkstone.generate.constraints import Scores
from inkstone.model.interface import SequenceModel
from inkstone.model.padding import pad
from inkstone.model.transformer import Transformer


class Continuation:
    """Make one with `of_sources` or `of_prompts`.

    scores_NV: of the token that comes next in each row. forced_NPV: of the tokens of the prefix, in their places.
    """

    def __init__(self, model: Any, cache: Any, logits_NTV: Tensor, memory: tuple[Tensor, ...] = ()) -> None:
        self._model, self._cache, self._memory = model, cache, memory
        self.scores_NV, self.forced_NPV = logits_NTV[:, -1], logits_NTV[:, :-1]

    @classmethod
    def of_sources(
        cls, model: SequenceModel, sources: Sequence[Sequence[int]], prefix: Sequence[int], copies: int
    ) -> Continuation:
        """`copies` rows for each source, with <s> and the prefix behind them."""
        device = model.output_weight.device
        source_BS = pad(sources, model.config.pad_id).to(device)
        memory_NSD = model.encode(source_BS).repeat_interleave(copies, 0)
        mask = model.visible(source_BS).repeat_interleave(copies, 0)
        begun = torch.tensor([[model.config.bos_id, *prefix]], device=device).repeat(len(memory_NSD), 1)
        cache = model.new_cache()
        logits_NTV = model.logits(model.decode(begun, memory_NSD, mask, cache)).float()
        return cls(model, cache, logits_NTV, (memory_NSD, mask))

    @classmethod
    def of_prompts(cls, model: Transformer, prompts: Sequence[Sequence[int]], copies: int) -> Continuation:
        """`copies` rows for each prompt. Each is read once."""
        device, longest = model.output_weight.device, max(len(prompt) for prompt in prompts)
        ids = np.full((len(prompts), longest), model.config.pad_id)
        padding = torch.tensor([longest - len(prompt) for prompt in prompts], device=device)
        for number, prompt in enumerate(prompts):
            ids[number, longest - len(prompt) :] = prompt
        cache = model.new_cache()
        states_BTD = model.decode(
            torch.from_numpy(ids).to(device), cache=cache, padding_B=padding if bool(padding.any()) else None
        )
        found = cls(model, cache, model.logits(states_BTD[:, -1:]).float())
        if copies > 1:
            found.keep(torch.arange(len(prompts), device=device).repeat_interleave(copies))
        return found

    def scores(self) -> Scores:
        """`scores_NV` for numpy."""
        scores_NV: Scores = self.scores_NV.cpu().numpy()
        return scores_NV

    def keep(self, rows: Tensor | Sequence[int]) -> None:
        """Go on with these rows, in this order."""
        rows_N = torch.as_tensor(rows, device=self.scores_NV.device)
        self._cache.reorder(rows_N)
        self._memory = tuple(one[rows_N] for one in self._memory)
        self.scores_NV = self.scores_NV[rows_N]
        padding_N = getattr(self._cache, "padding_B", None)
        if padding_N is not None and len(padding_N) and (idle := int(padding_N.min())):
            self._cache.own = [(k[:, :, idle:], v[:, :, idle:]) for k, v in self._cache.own]
            self._cache.length -= idle
            padding_N = padding_N - idle
            self._cache.padding_B = padding_N if bool(padding_N.any()) else None

    def push(self, tokens: Tensor | Sequence[int]) -> None:
        """Put the next token behind each row."""
        tokens_N = torch.as_tensor(tokens, device=self.scores_NV.device)
        states_N1D = self._model.decode(tokens_N[:, None], *self._memory, cache=self._cache)
        self.scores_NV = self._model.logits(states_N1D[:, -1]).float()
