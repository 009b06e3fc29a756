"""Rows of tokens that an ONNX decoder goes on with, and the search over them: numpy, no torch.

The graph makes one step (`ship.onnx`); what it remembers comes out and goes in again. All that is done to it here is to
choose rows: states follow their rows; what a source or prompt gave (the memory, the padding) is the same for all of its
hypotheses and is only touched when one is done. The search is `generate.beam` over again, and finds what that finds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkstone.generate.constraints import Scores, banned_by_ngrams
from inkstone.generate.engine import GenerationOptions, Hypothesis
from inkstone.generate.hypotheses import Sentence, advance
from inkstone.generate.onnx_session import Marks, open_session

Arrays = dict[str, NDArray[Any]]


class StepGraph:
    """The graph of a decoder's step. threads: 0 takes all cores."""

    def __init__(self, file: Path, threads: int) -> None:
        self._session = open_session(file, threads)
        self.marks = Marks.of(self._session, file)
        inputs = self._session.get_inputs()
        outputs = [output.name for output in self._session.get_outputs()]
        self.reads_one = "token" in [one.name for one in inputs]  # token a step; else any number
        self.has_logits = "logits" in outputs
        self._after = [name for name in outputs if name.startswith("next_state_")]
        self._sizes = {one.name: one.shape for one in inputs if one.name.startswith("state_")}
        self._options = _only_what_is_asked_for()

    def empty(self, rows: int) -> Arrays:
        """The states before the first token, of a graph whose states grow."""
        sizes = {name: (rows, shape[1], 0, shape[3]) for name, shape in self._sizes.items()}
        return {name: np.zeros(size, np.float32) for name, size in sizes.items()}

    def run(
        self,
        wanted: Sequence[str],
        ids_NT: NDArray[np.int64],
        states: Arrays,
        fixed: Arrays,
        *,
        count: int = 1,
        places: Sequence[int] = (-1,),
    ) -> tuple[Arrays, Arrays]:
        """These outputs after these tokens, and the states then.

        count: of likeliest tokens. places: of the tokens whose outputs are wanted, of a graph that reads several.
        """
        given = {**states, **fixed, "count": np.array([count], np.int64)}
        if self.reads_one:
            given["token"] = ids_NT[:, 0]
        else:
            given["ids"] = ids_NT
            given["wanted"] = np.array(places, np.int64) % ids_NT.shape[1]
        found = self._session.run([*wanted, *self._after], given, self._options)
        names = [name.removeprefix("next_") for name in self._after]
        return (
            dict(zip(wanted, found, strict=False)),
            dict(zip(names, found[len(wanted) :], strict=True)),
        )


def _only_what_is_asked_for() -> Any:
    """Outputs that nobody asked for are not computed."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.only_execute_path_to_fetches = True
    return options


class OnnxRows:
    """See `output.Rows`. wanted: outputs of every step. count: of likeliest tokens. said: the last step's outputs."""

    def __init__(
        self, graph: StepGraph, states: Arrays, fixed: Arrays, wanted: Sequence[str], count: int = 1
    ) -> None:
        self._graph, self._states, self._fixed = graph, states, fixed
        self._wanted, self.count = wanted, count
        self.said: Arrays = {}

    def scores(self) -> Scores:
        """Of the token that comes next in each row: (N, V)."""
        return self.said[self._wanted[0]]

    def push(self, tokens: Sequence[int] | NDArray[np.int64]) -> None:
        """Put the next token behind each row."""
        self.read(np.asarray(tokens, np.int64)[:, None])

    def read(self, ids_NT: NDArray[np.int64]) -> None:
        """Put tokens behind each row."""
        said, self._states = self._graph.run(
            self._wanted, ids_NT, self._states, self._fixed, count=self.count
        )
        self.said = {name: array.reshape(len(ids_NT), -1) for name, array in said.items()}

    def keep(self, rows: Sequence[int] | NDArray[np.int64], *, within_inputs: bool = False) -> None:
        """Go on with these rows, in this order. within_inputs: they stand where rows of the same input stood."""
        rows_N = np.asarray(rows, np.int64)
        if not within_inputs:
            self._fixed = _chosen(self._fixed, rows_N)
        if not np.array_equal(rows_N, np.arange(len(next(iter(self.said.values()))))):
            self._states = _chosen(self._states, rows_N)
            self.said = _chosen(self.said, rows_N)
        padding_N = self._fixed.get("padding")
        if padding_N is not None and len(padding_N) and (idle := int(padding_N.min())):
            self._fixed = {**self._fixed, "padding": padding_N - idle}
            self._states = {name: array[:, :, idle:] for name, array in self._states.items()}


def _chosen(arrays: Arrays, rows_N: NDArray[np.int64]) -> Arrays:
    return {name: array[rows_N] for name, array in arrays.items()}


def outputs_for(options: GenerationOptions) -> tuple[str, ...]:
    """What a beam search asks of every step: all log-probabilities only where the likeliest are not enough."""
    return (
        ("log_probabilities",) if options.prefix or options.no_repeat_ngram else ("top_scores", "top_tokens")
    )


def search(
    begun: OnnxRows,
    limits: Sequence[int],
    contexts: Sequence[Sequence[int]],
    options: GenerationOptions,
    ends: frozenset[int],
    vocab_size: int,
) -> list[list[Hypothesis]]:
    """As `beam.search`. begun: a row for each input. begun.count: (1 + ends) x beam_size, if there are so many tokens.

    The best of a sentence are among as many best of each of its rows.
    """
    width = options.beam_size
    sentences = [Sentence(limit, options) for limit in limits]
    open_sentences = list(range(len(sentences)))
    begun.keep(np.repeat(np.arange(len(sentences)), width))
    ids = np.zeros((len(sentences) * width, 1), np.int64)  # the first says nothing
    # Only the first hypothesis of each sentence is alive at the start: the others would be its copies.
    scores = np.full((len(sentences), width), -np.inf, np.float32)
    scores[:, 0] = 0.0
    while open_sentences:
        rows_of = [contexts[number] for number in open_sentences for _ in range(width)]
        logs_NC, tokens_NC = _likeliest(begun, rows_of, ids, options.no_repeat_ngram)
        total_BC = (scores.reshape(-1, 1) + logs_NC).reshape(len(open_sentences), -1)
        firsts_W1 = np.arange(width)[:, None] * vocab_size
        places_BC = (tokens_NC.reshape(-1, width, logs_NC.shape[1]) + firsts_W1).reshape(total_BC.shape)
        best_BC = np.argsort(-total_BC, axis=1, kind="stable")[:, : (1 + len(ends)) * width]
        top, places = (np.take_along_axis(of, best_BC, axis=1) for of in (total_BC, places_BC))
        rows, tokens, kept, still_open = advance(
            top, places, ids, [sentences[n] for n in open_sentences], ends, vocab_size
        )
        begun_all = len(still_open) == len(open_sentences)
        open_sentences = [open_sentences[place] for place in still_open]
        if not open_sentences:
            break
        begun.keep(rows, within_inputs=begun_all)
        begun.push(tokens)
        ids = np.concatenate([ids[rows], np.array(tokens, np.int64)[:, None]], axis=1)
        scores = np.array(kept, np.float32).reshape(-1, width)
    return [sentence.best() for sentence in sentences]


def _likeliest(
    begun: OnnxRows, contexts: Sequence[Sequence[int]], ids: NDArray[np.int64], ngram: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Log-probabilities and numbers of the likeliest tokens of each row, best first, without those that are banned."""
    if "top_scores" in begun.said:
        return begun.said["top_scores"], begun.said["top_tokens"]
    logs_NV = begun.said["log_probabilities"]
    if ngram:
        logs_NV = logs_NV.copy()
        for row, (context, made) in enumerate(zip(contexts, ids[:, 1:].tolist(), strict=True)):
            logs_NV[row, banned_by_ngrams([*context, *made], ngram)] = -np.inf
    some_NC = np.argpartition(-logs_NV, begun.count - 1, axis=1)[:, : begun.count]
    logs_NC = np.take_along_axis(logs_NV, some_NC, axis=1)
    order_NC = np.lexsort((some_NC, -logs_NC), axis=1)
    return np.take_along_axis(logs_NC, order_NC, axis=1), np.take_along_axis(some_NC, order_NC, axis=1)
