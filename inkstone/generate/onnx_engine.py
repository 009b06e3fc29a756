"""The onnxruntime engine: serves recurrent and convolutional translators. No torch; numpy does the search.

It knows two graphs (`ship.onnx`): the encoder gives, for a batch of sources, what decoding begins with, and the decoder
makes one step. All the search does to what the decoder remembers is to choose rows of it. States follow their
hypotheses; the memory of a source is the same for all of its hypotheses and is only touched when a sentence is done.
The result is that of `generate.beam` (tests/generate/test_onnx_engine.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkstone.generate.batching import in_batches
from inkstone.generate.engine import BEYOND_BEAM_SEARCH, GenerationOptions, Hypothesis
from inkstone.generate.hypotheses import Sentence, advance
from inkstone.generate.onnx_session import DECODER, ENCODER, open_session, padded
from inkstone.ground.errors import BundleError
from inkstone.text.tokenizer import Tokenizer

Arrays = dict[str, NDArray[Any]]


class OnnxEngine:
    """Runs the encoder and the decoder in a folder. threads: 0 takes all cores."""

    def __init__(self, folder: Path, tokenizer: Tokenizer, *, threads: int = 0) -> None:
        self.name = folder.name
        self._encoder, self._decoder = (open_session(folder / name, threads) for name in (ENCODER, DECODER))
        marks = self._decoder.get_modelmeta().custom_metadata_map
        try:
            self.pad_id, self.bos_id, self.eos_id, self.vocab_size = (
                int(marks[name]) for name in ("pad_id", "bos_id", "eos_id", "vocab_size")
            )
        except (KeyError, ValueError) as error:
            raise BundleError(f"{folder / DECODER} does not say its marks. Train the model again.") from error
        if self.vocab_size != tokenizer.vocab_size:
            raise BundleError(
                f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, the model {self.vocab_size}."
            )
        self._begins = [output.name for output in self._encoder.get_outputs()]
        gives = [output.name for output in self._decoder.get_outputs()]
        self._after = [name for name in gives if name.startswith("next_state_")]

    def generate(
        self, sources: Sequence[Sequence[int]], options: GenerationOptions
    ) -> list[list[Hypothesis]]:
        """See `Engine.generate`. Raises ConfigError for options beyond a plain beam search."""
        options.refuse(BEYOND_BEAM_SEARCH, "onnxruntime")
        return in_batches(sources, [len(s) for s in sources], lambda rows: self._search(rows, options))

    def score(self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> list[float]:
        """See `Engine.score`."""
        pairs = list(zip(sources, targets, strict=True))
        return in_batches(pairs, [len(s) + len(t) for s, t in pairs], self._score)

    def _begin(self, sources: Sequence[Sequence[int]]) -> tuple[Arrays, Arrays]:
        """What decoding begins with, a row for each source: what changes with every step, and what does not."""
        found = self._encoder.run(None, {"ids": padded(sources, self.pad_id)})
        begun = dict(zip(self._begins, found, strict=True))
        states = {name: array for name, array in begun.items() if name.startswith("state_")}
        return states, {name: array for name, array in begun.items() if name not in states}

    def _step(
        self, wanted: list[str], token_N: NDArray[Any], states: Arrays, fixed: Arrays, count: int = 1
    ) -> tuple[list[NDArray[Any]], Arrays]:
        """These outputs of the decoder after these tokens, and the states then. count: of likeliest tokens."""
        given = {"token": token_N, "count": np.array([count], np.int64), **states, **fixed}
        found = self._decoder.run([*wanted, *self._after], given)
        names = [name.removeprefix("next_") for name in self._after]
        return found[: len(wanted)], dict(zip(names, found[len(wanted) :], strict=True))

    def _search(self, sources: Sequence[Sequence[int]], options: GenerationOptions) -> list[list[Hypothesis]]:
        """As `generate.beam.beam_search`, in numpy.

        The best 2 x beam_size of a sentence are among the best 2 x beam_size of each of its rows.
        """
        width, likeliest = options.beam_size, ["top_scores", "top_tokens"]
        count = min(2 * width, self.vocab_size)
        states, fixed = (
            _rows(one, np.repeat(np.arange(len(sources)), width)) for one in self._begin(sources)
        )
        sentences = [Sentence(options.limit(len(source)), options) for source in sources]
        open_sentences = list(range(len(sources)))
        ids = np.full((len(sources) * width, 1), self.bos_id, np.int64)
        # Only the first hypothesis of each sentence is alive at the start: the others would be its copies.
        scores = np.full((len(sources), width), -np.inf, np.float32)
        scores[:, 0] = 0.0
        while open_sentences:
            (top, tokens_NC), states = self._step(likeliest, ids[:, -1], states, fixed, count)
            total_BC = (scores.reshape(-1, 1) + top).reshape(len(open_sentences), -1)
            rows_W1 = np.arange(width)[:, None]
            places_BC = (tokens_NC.reshape(-1, width, count) + rows_W1 * self.vocab_size).reshape(
                total_BC.shape
            )
            best_BC = np.argsort(-total_BC, axis=1, kind="stable")[:, : 2 * width]
            top, places = (np.take_along_axis(of, best_BC, axis=1) for of in (total_BC, places_BC))
            rows, tokens, kept, still_open = advance(
                top, places, ids, [sentences[n] for n in open_sentences], self.eos_id, self.vocab_size
            )
            if len(still_open) < len(open_sentences):
                fixed = _rows(fixed, np.array(rows, np.int64))
            open_sentences = [open_sentences[place] for place in still_open]
            states = _rows(states, np.array(rows, np.int64))
            ids = np.concatenate([ids[rows], np.array(tokens, np.int64)[:, None]], axis=1)
            scores = np.array(kept, np.float32).reshape(-1, width)
        return [sentence.best() for sentence in sentences]

    def _score(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[float]:
        states, fixed = self._begin([source for source, _ in pairs])
        given = padded([[self.bos_id, *target] for _, target in pairs], self.pad_id)
        wanted = padded([[*target, self.eos_id] for _, target in pairs], self.pad_id)
        scores_BT = np.zeros(wanted.shape, np.float32)
        for place in range(wanted.shape[1]):
            (given_BV,), states = self._step(["log_probabilities"], given[:, place], states, fixed)
            scores_BT[:, place] = np.take_along_axis(given_BV, wanted[:, place, None], axis=1)[:, 0]
        return [float(row[: len(t) + 1].sum()) for row, (_, t) in zip(scores_BT, pairs, strict=True)]


def _rows(arrays: Arrays, rows: NDArray[np.int64]) -> Arrays:
    return {name: array[rows] for name, array in arrays.items()}
