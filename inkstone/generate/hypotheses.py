"""The bookkeeping of a beam search, apart from the arithmetic: which hypotheses are open, finished, given up.

Every sentence of the batch keeps `beam_size` open hypotheses. A step extends each by every token and keeps the best
2 x beam_size of a sentence: those that end are finished and leave the beam, the best of the others stay open. A
sentence is done when it has beam_size finished hypotheses, or reached its length limit (then its open ones count as
unfinished hypotheses). Hypotheses are ranked by log-probability / tokens ** length_penalty.

The searches in torch (`beam`) and over onnxruntime in numpy (`onnx_rows`) both go by it, so that they can only
differ in their numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

from inkstone.generate.engine import GenerationOptions, Hypothesis


class Sentence:
    """One source and its finished hypotheses."""

    def __init__(self, limit: int, options: GenerationOptions) -> None:
        self.limit, self.options = limit, options
        self.finished: list[Hypothesis] = []

    def add(self, ids: Sequence[int], log_probability: float, *, finished: bool) -> None:
        self.finished.append(Hypothesis(tuple(ids), log_probability, finished))

    def best(self) -> list[Hypothesis]:
        """The best hypotheses; complete ones come before those that were cut."""

        def rank(h: Hypothesis) -> tuple[bool, float]:
            tokens = len(h.ids) + int(h.finished)
            return h.finished, h.log_probability / max(1, tokens) ** self.options.length_penalty

        return sorted(self.finished, key=rank, reverse=True)[: self.options.alternatives]


def advance(
    top: Any,
    places: Any,
    ids: Any,
    sentences: list[Sentence],
    ends: frozenset[int] | int,
    vocab_size: int,
) -> tuple[list[int], list[int], list[float], list[int]]:
    """Sort each sentence's best extensions into finished and open ones.

    top, places: arrays (sentences, 2 x beam_size), of torch or numpy, best first: summed log-probabilities, and where
    they stand among (row of the beam, token). ids: (rows, tokens so far), with one before them that counts for nothing.
    Returns the rows to go on with, their next tokens and scores, beam_size for each sentence still open, and the places
    of those sentences.
    ends: the end mark, or several.
    """
    ends = frozenset((ends,)) if isinstance(ends, int) else ends
    rows: list[int] = []
    tokens: list[int] = []
    scores: list[float] = []
    still_open: list[int] = []
    produced = ids.shape[1]  # tokens each open hypothesis has after this step
    for place, sentence in enumerate(sentences):
        width = sentence.options.beam_size
        chosen: list[tuple[int, int, float]] = []
        for rank, (score, flat) in enumerate(zip(top[place].tolist(), places[place].tolist(), strict=True)):
            row, token = place * width + flat // vocab_size, flat % vocab_size
            if score == -inf or len(chosen) == width:
                break
            if token not in ends:
                chosen.append((row, token, score))
            elif rank < width:  # an end that others outrank is no serious candidate
                sentence.add(ids[row, 1:].tolist(), score, finished=True)
        if len(sentence.finished) >= width:
            continue
        if produced >= sentence.limit or not chosen:
            for row, token, score in chosen:
                sentence.add([*ids[row, 1:].tolist(), token], score, finished=False)
            continue
        still_open.append(place)
        chosen += [(chosen[0][0], chosen[0][1], -inf)] * (width - len(chosen))
        rows += [row for row, _, _ in chosen]
        tokens += [token for _, token, _ in chosen]
        scores += [score for _, _, score in chosen]
    return rows, tokens, scores, still_open
