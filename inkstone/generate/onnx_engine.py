"""The onnxruntime engine of encoder-decoders, whatever their architecture. No torch; numpy does the search.

It knows two graphs (`ship.onnx`): the encoder gives, for a batch of sources, what decoding begins with, and the decoder
makes one step. Searching and drawing are those of every engine (`onnx_rows`, `output`), so the result is torch's
(tests/generate/test_onnx_engine.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkstone.generate.batching import in_batches
from inkstone.generate.engine import GenerationOptions, Hypothesis, Watch, check_watch
from inkstone.generate.onnx_rows import Arrays, OnnxRows, StepGraph, outputs_for, search
from inkstone.generate.onnx_session import DECODER, ENCODER, open_session, padded
from inkstone.generate.output import begin, collected, detailed, run, told_of_all
from inkstone.ground.errors import BundleError
from inkstone.text.tokenizer import Tokenizer

Ids = Sequence[int]


class OnnxEngine:
    """Runs the encoder and the decoder in a folder. threads: 0 takes all cores.

    tokenizer: where there is one, it must know as many tokens as the model.
    """

    def __init__(self, folder: Path, tokenizer: Tokenizer | None = None, *, threads: int = 0) -> None:
        self.name = folder.name
        self._encoder = open_session(folder / ENCODER, threads)
        self._decoder = StepGraph(folder / DECODER, threads)
        self.marks = self._decoder.marks
        if tokenizer is not None and self.marks.vocab_size != tokenizer.vocab_size:
            raise BundleError(
                f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, the model {self.marks.vocab_size}."
            )
        self._begins = [output.name for output in self._encoder.get_outputs()]

    def generate(
        self, sources: Sequence[Ids], options: GenerationOptions, watch: Watch | None = None
    ) -> list[list[Hypothesis]]:
        """See `StreamingEngine.generate`. Raises ConfigError for sources longer than the model reads."""
        check_watch(watch, options)
        options.refuse(("adapter",), "onnxruntime")
        if not self._decoder.has_logits:
            options.refuse(("repetition_penalty",), "onnxruntime with a graph without logits")
        self.marks.check_lengths(sources)
        numbered = list(enumerate(sources))
        made = self._drawn if options.beam_size == 1 else self._searched
        return in_batches(numbered, [len(s) for s in sources], lambda rows: made(rows, options, watch))

    def score(self, sources: Sequence[Ids], targets: Sequence[Ids]) -> list[float]:
        """See `Engine.score`."""
        self.marks.check_lengths(sources)
        pairs = list(zip(sources, targets, strict=True))
        return in_batches(pairs, [len(s) + len(t) for s, t in pairs], self._score)

    def _begin(self, sources: Sequence[Ids]) -> tuple[Arrays, Arrays]:
        """What decoding begins with, a row for each source: what changes with every step, and what does not."""
        found = self._encoder.run(None, {"ids": padded(sources, self.marks.pad_id)})
        begun = dict(zip(self._begins, found, strict=True))
        states = {name: array for name, array in begun.items() if name.startswith("state_")}
        return states, {name: array for name, array in begun.items() if name not in states}

    def _limits(self, rows: Sequence[tuple[int, Ids]], options: GenerationOptions) -> list[int]:
        limited = self.marks.max_positions
        most = limited - len(options.prefix) if limited else options.max_length
        return [min(options.limit(len(source)), most) for _, source in rows]

    def _ends(self, options: GenerationOptions) -> frozenset[int]:
        return frozenset(options.end_ids or (self.marks.eos_id,))

    def _drawn(
        self, rows: Sequence[tuple[int, Ids]], options: GenerationOptions, watch: Watch | None
    ) -> list[list[Hypothesis]]:
        wanted = "logits" if self._decoder.has_logits else "log_probabilities"
        begun = OnnxRows(self._decoder, *self._begin([source for _, source in rows]), (wanted,))
        begun.push([self.marks.bos_id] * len(rows))
        begun.keep(np.repeat(np.arange(len(rows)), options.alternatives))
        limits = self._limits(rows, options)
        outputs = begin([()] * len(rows), limits, options, self._ends(options), told_of_all(rows, watch))
        for token in options.prefix:
            for output, scores_V in zip(outputs, begun.scores(), strict=True):
                output.force(token, scores_V)
            begun.push([token] * len(outputs))
        run(begun, outputs)
        return collected(outputs, len(rows), options)

    def _searched(
        self, rows: Sequence[tuple[int, Ids]], options: GenerationOptions, _: Watch | None
    ) -> list[list[Hypothesis]]:
        sources, ends = [source for _, source in rows], self._ends(options)
        count = min((1 + len(ends)) * options.beam_size, self.marks.vocab_size)
        begun = OnnxRows(self._decoder, *self._begin(sources), outputs_for(options), count)
        begun.push([self.marks.bos_id] * len(rows))
        before_B = np.zeros(len(rows))
        for token in options.prefix:
            before_B += begun.scores()[:, token]
            begun.push([token] * len(rows))
        contexts = [options.prefix] * len(rows)
        found = search(begun, self._limits(rows, options), contexts, options, ends, self.marks.vocab_size)
        whole = [
            [Hypothesis((*options.prefix, *h.ids), float(log) + h.log_probability, h.finished) for h in each]
            for log, each in zip(before_B, found, strict=True)
        ]
        if options.top_tokens is None:
            return whole
        return [
            [self._detailed(source, one, options) for one in each]
            for source, each in zip(sources, whole, strict=True)
        ]

    def _detailed(self, source: Ids, one: Hypothesis, options: GenerationOptions) -> Hypothesis:
        given = np.array([[self.marks.bos_id, *one.ids]], np.int64)
        return detailed(one, np.concatenate(list(self._logs([source], given))), options)

    def _logs(self, sources: Sequence[Ids], given_NT: NDArray[np.int64]) -> Iterator[NDArray[Any]]:
        """The log-probabilities of the tokens after each of these: (N, V) at a time."""
        rows = OnnxRows(self._decoder, *self._begin(sources), ("log_probabilities",))
        for tokens_N in given_NT.T:
            rows.push(tokens_N)
            yield rows.scores()

    def _score(self, pairs: Sequence[tuple[Ids, Ids]]) -> list[float]:
        given = padded([[self.marks.bos_id, *target] for _, target in pairs], self.marks.pad_id)
        wanted = padded([[*target, self.marks.eos_id] for _, target in pairs], self.marks.pad_id)
        scores_BT = np.zeros(wanted.shape, np.float32)
        for place, logs_BV in enumerate(self._logs([source for source, _ in pairs], given)):
            scores_BT[:, place] = np.take_along_axis(logs_BV, wanted[:, place, None], axis=1)[:, 0]
        return [float(row[: len(t) + 1].sum()) for row, (_, t) in zip(scores_BT, pairs, strict=True)]
