"""Beam search in torch, the plain reference that the serving engines must agree with.

Every sentence of the batch keeps `beam_size` open hypotheses. A step extends each by every token and keeps the best
2 x beam_size of a sentence: those that end are finished and leave the beam, the best of the others stay open. A
sentence is done when it has beam_size finished hypotheses, or reached its length limit (then its open ones count as
unfinished hypotheses). Hypotheses are ranked by log-probability / tokens ** length_penalty. With beam_size 1 this is
greedy search: the likeliest token each time (tested against a plain greedy loop).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inkstone.generate.engine import GenerationOptions, Hypothesis
from inkstone.model.interface import SequenceModel
from inkstone.model.padding import pad
from inkstone.model.transformer import Cache


class _Sentence:
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


@torch.inference_mode()
def beam_search(
    model: SequenceModel, sources: Sequence[Sequence[int]], options: GenerationOptions
) -> list[list[Hypothesis]]:
    """For each source (ids with their marks), its best hypotheses. The model must be in evaluation mode."""
    config, width = model.config, options.beam_size
    device = model.output_weight.device
    source_BS = pad(sources, config.pad_id).to(device)
    memory_BSD = model.encode(source_BS).repeat_interleave(width, 0)
    mask = model.visible(source_BS).repeat_interleave(width, 0)
    sentences = [_Sentence(options.limit(len(source)), options) for source in sources]
    open_sentences = list(range(len(sources)))
    cache = Cache()
    ids = torch.full((len(sources) * width, 1), config.bos_id, device=device)
    # Only the first hypothesis of each sentence is alive at the start: the others would be its copies.
    scores = torch.full((len(sources), width), -torch.inf, device=device)
    scores[:, 0] = 0.0
    while open_sentences:
        states = model.decode(ids[:, -1:], memory_BSD, mask, cache)
        log_probabilities = model.logits(states[:, -1]).float().log_softmax(-1)
        total = (scores.flatten()[:, None] + log_probabilities).view(len(open_sentences), -1)
        top, places = total.topk(min(2 * width, total.shape[1]), dim=1)
        keep_rows, keep_tokens, keep_scores, still_open = _advance(
            top,
            places,
            ids,
            [sentences[number] for number in open_sentences],
            config.eos_id,
            config.vocab_size,
        )
        open_sentences = [open_sentences[place] for place in still_open]
        rows = torch.tensor(keep_rows, device=device, dtype=torch.long)
        ids = torch.cat(
            [ids[rows], torch.tensor(keep_tokens, device=device, dtype=torch.long)[:, None]], dim=1
        )
        scores = torch.tensor(keep_scores, device=device).view(-1, width)
        cache.reorder(rows)
        memory_BSD, mask = memory_BSD[rows], mask[rows]
    return [sentence.best() for sentence in sentences]


def _advance(
    top: Tensor, places: Tensor, ids: Tensor, sentences: list[_Sentence], eos_id: int, vocab_size: int
) -> tuple[list[int], list[int], list[float], list[int]]:
    """Sort each sentence's best extensions into finished and open ones: rows, tokens and scores to go on with."""
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
            if score == -torch.inf or len(chosen) == width:
                break
            if token != eos_id:
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
        chosen += [(chosen[0][0], chosen[0][1], float("-inf"))] * (width - len(chosen))
        rows += [row for row, _, _ in chosen]
        tokens += [token for _, token, _ in chosen]
        scores += [score for _, _, score in chosen]
    return rows, tokens, scores, still_open
