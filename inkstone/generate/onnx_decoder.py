"""Prompts continued by a decoder in onnxruntime. No torch; everything the torch engine offers but adapters.

Prompts of unlike lengths run together, padded on the left, and each is read once. Their keys and values go through
numpy with every step; what is chosen, and how, is said where every engine has it (`onnx_rows`, `output`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkstone.generate.batching import in_batches
from inkstone.generate.engine import (
    GenerationOptions,
    Hypothesis,
    Watch,
    check_prompts,
    check_watch,
    room_after,
)
from inkstone.generate.onnx_rows import OnnxRows, StepGraph, outputs_for, search
from inkstone.generate.onnx_session import DECODER, padded
from inkstone.generate.output import begin, collected, detailed, run, told_of_all
from inkstone.ground.errors import BundleError

Ids = Sequence[int]


class OnnxDecoder:
    """Continues prompts with the decoder exported to a folder. threads: 0 takes all cores."""

    def __init__(self, folder: Path, *, threads: int = 0) -> None:
        self.name = folder.name
        self._graph = StepGraph(folder / DECODER, threads)
        if self._graph.reads_one:
            raise BundleError(
                f"{folder / DECODER} is the decoder of an encoder-decoder: it continues no prompts."
            )
        self.marks = self._graph.marks
        self.max_positions = self.marks.max_positions

    def generate(
        self, sources: Sequence[Ids], options: GenerationOptions, watch: Watch | None = None
    ) -> list[list[Hypothesis]]:
        """See `StreamingEngine.generate`. Raises ConfigError for prompts that are empty or fill all positions."""
        check_watch(watch, options)
        options.refuse(("prefix",), "a decoder, whose prompt is its prefix,")
        options.refuse(("adapter",), "onnxruntime")
        check_prompts(sources, self.max_positions)
        numbered = list(enumerate(sources))
        made = self._drawn if options.beam_size == 1 else self._searched
        return in_batches(numbered, [len(s) for s in sources], lambda rows: made(rows, options, watch))

    def score(self, sources: Sequence[Ids], targets: Sequence[Ids]) -> list[float]:
        """See `Engine.score`; sources are prompts."""
        check_prompts(sources, 0)
        pairs = list(zip(sources, targets, strict=True))
        self.marks.check_lengths([[*prompt, *target] for prompt, target in pairs])
        return in_batches(pairs, [len(p) + len(t) for p, t in pairs], self._score)

    def logits(self, ids: Ids) -> NDArray[Any]:
        """What the model says of the token after each of these: (T, V)."""
        logits_TV: NDArray[Any] = self._said("logits", np.array([list(ids)], np.int64), range(len(ids)))[0]
        return logits_TV

    def _begin(self, prompts: Sequence[Ids], wanted: Sequence[str], count: int = 1) -> OnnxRows:
        """A row for each prompt, which is read."""
        longest = max(len(prompt) for prompt in prompts)
        padding_N = np.array([longest - len(prompt) for prompt in prompts], np.int64)
        begun = OnnxRows(self._graph, self._graph.empty(len(prompts)), {"padding": padding_N}, wanted, count)
        begun.read(padded(prompts, self.marks.pad_id, left=True))
        return begun

    def _limits(self, prompts: Sequence[Ids], options: GenerationOptions) -> list[int]:
        return [room_after(len(prompt), options, self.max_positions) for prompt in prompts]

    def _ends(self, options: GenerationOptions) -> frozenset[int]:
        return frozenset(options.end_ids or (self.marks.eos_id,))

    def _drawn(
        self, rows: Sequence[tuple[int, Ids]], options: GenerationOptions, watch: Watch | None
    ) -> list[list[Hypothesis]]:
        prompts = [prompt for _, prompt in rows]
        begun = self._begin(prompts, ("logits",))
        begun.keep(np.repeat(np.arange(len(rows)), options.alternatives))
        limits = self._limits(prompts, options)
        outputs = begin(prompts, limits, options, self._ends(options), told_of_all(rows, watch))
        run(begun, outputs)
        return collected(outputs, len(rows), options)

    def _searched(
        self, rows: Sequence[tuple[int, Ids]], options: GenerationOptions, _: Watch | None
    ) -> list[list[Hypothesis]]:
        prompts, ends = [prompt for _, prompt in rows], self._ends(options)
        count = min((1 + len(ends)) * options.beam_size, self.marks.vocab_size)
        begun = self._begin(prompts, outputs_for(options), count)
        found = search(begun, self._limits(prompts, options), prompts, options, ends, self.marks.vocab_size)
        if options.top_tokens is None:
            return found
        return [
            [detailed(one, self.logits([*prompt, *one.ids])[len(prompt) - 1 :], options) for one in each]
            for prompt, each in zip(prompts, found, strict=True)
        ]

    def _said(self, what: str, ids_NT: NDArray[np.int64], places: Sequence[int]) -> NDArray[Any]:
        """An output for these places of tokens that are read from the beginning, padded on the right."""
        nowhere = {"padding": np.zeros(len(ids_NT), np.int64)}
        said, _ = self._graph.run([what], ids_NT, self._graph.empty(len(ids_NT)), nowhere, places=places)
        return said[what]

    def _score(self, pairs: Sequence[tuple[Ids, Ids]]) -> list[float]:
        ids_NT = padded([[*prompt, *target] for prompt, target in pairs], self.marks.pad_id)
        wanted_NT = padded([[*p[1:], *t, self.marks.eos_id] for p, t in pairs], self.marks.pad_id)
        logs_NTV = self._said("log_probabilities", ids_NT, range(ids_NT.shape[1]))
        scores_NT = np.take_along_axis(logs_NTV, wanted_NT[:, :, None], axis=2)[:, :, 0]
        return [
            float(row[len(p) - 1 : len(p) + len(t)].sum())
            for row, (p, t) in zip(scores_NT, pairs, strict=True)
        ]
