"""Beam search in torch, the plain reference that the serving engines must agree with.

Which hypotheses stay open is decided in `hypotheses`. With beam_size 1 this is greedy search: the likeliest token each
time (tested against a plain greedy loop). Tokens that `no_repeat_ngram` forbids are taken out after the softmax, so that
the others stay as likely as the model says.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inkstone.generate.constraints import banned_by_ngrams
from inkstone.generate.continuation import Continuation
from inkstone.generate.engine import GenerationOptions, Hypothesis
from inkstone.generate.hypotheses import Sentence, advance
from inkstone.model.interface import SequenceModel
from inkstone.model.transformer import Transformer


@torch.inference_mode()
def beam_search(
    model: SequenceModel, sources: Sequence[Sequence[int]], options: GenerationOptions
) -> list[list[Hypothesis]]:
    """For each source (ids with their marks), its best hypotheses. The model must be in evaluation mode."""
    begun = Continuation.of_sources(model, sources, options.prefix, options.beam_size)
    limits = limits_of(model, sources, options)
    ends = frozenset(options.end_ids or (model.config.eos_id,))
    forced = torch.tensor(options.prefix, dtype=torch.long, device=begun.scores_NV.device)[None, :, None]
    logs_NP = begun.forced_NPV.log_softmax(-1).gather(2, forced.expand(len(begun.forced_NPV), -1, -1))
    before = logs_NP.sum((1, 2))[:: options.beam_size].tolist()
    found = search(begun, limits, [options.prefix] * len(sources), options, ends)
    return [
        [Hypothesis((*options.prefix, *h.ids), log + h.log_probability, h.finished) for h in each]
        for log, each in zip(before, found, strict=True)
    ]


def limits_of(
    model: SequenceModel, sources: Sequence[Sequence[int]], options: GenerationOptions
) -> list[int]:
    """The most tokens to produce for each source: a model whose positions are numbered has no more of them."""
    limit = model.config.position_limit
    most = limit - len(options.prefix) if limit else options.max_length
    return [min(options.limit(len(source)), most) for source in sources]


@torch.inference_mode()
def beam_continue(
    model: Transformer, prompts: Sequence[Sequence[int]], limits: Sequence[int], options: GenerationOptions
) -> list[list[Hypothesis]]:
    """For each prompt, the best of what a decoder finds to come after it, of at most so many tokens."""
    begun = Continuation.of_prompts(model, prompts, options.beam_size)
    return search(begun, limits, prompts, options, frozenset(options.end_ids or (model.config.eos_id,)))


def search(
    begun: Continuation,
    limits: Sequence[int],
    contexts: Sequence[Sequence[int]],
    options: GenerationOptions,
    ends: frozenset[int],
) -> list[list[Hypothesis]]:
    """The best hypotheses from where each input is begun. contexts: the tokens that count as there already."""
    width, device = options.beam_size, begun.scores_NV.device
    sentences = [Sentence(limit, options) for limit in limits]
    open_sentences = list(range(len(sentences)))
    ids = torch.zeros((len(sentences) * width, 1), dtype=torch.long, device=device)  # the first says nothing
    # Only the first hypothesis of each sentence is alive at the start: the others would be its copies.
    scores = torch.full((len(sentences), width), -torch.inf, device=device)
    scores[:, 0] = 0.0
    while open_sentences:
        logs_NV = begun.scores_NV.log_softmax(-1)
        vocab_size = logs_NV.shape[1]
        if options.no_repeat_ngram:
            rows_of = [contexts[number] for number in open_sentences for _ in range(width)]
            logs_NV = _without_ngrams(logs_NV, rows_of, ids, options.no_repeat_ngram)
        total = (scores.flatten()[:, None] + logs_NV).view(len(open_sentences), -1)
        top, places = total.topk(min((1 + len(ends)) * width, total.shape[1]), dim=1)
        keep_rows, keep_tokens, keep_scores, still_open = advance(
            top, places, ids, [sentences[number] for number in open_sentences], ends, vocab_size
        )
        open_sentences = [open_sentences[place] for place in still_open]
        if not open_sentences:
            break
        rows = torch.tensor(keep_rows, device=device, dtype=torch.long)
        tokens = torch.tensor(keep_tokens, device=device, dtype=torch.long)
        ids = torch.cat([ids[rows], tokens[:, None]], dim=1)
        scores = torch.tensor(keep_scores, device=device).view(-1, width)
        begun.keep(rows)
        begun.push(tokens)
    return [sentence.best() for sentence in sentences]


def _without_ngrams(logs_NV: Tensor, contexts: Sequence[Sequence[int]], ids: Tensor, size: int) -> Tensor:
    """-inf for tokens that would repeat a sequence of their row."""
    logs_NV = logs_NV.clone()
    for row, (context, made) in enumerate(zip(contexts, ids[:, 1:].tolist(), strict=True)):
        banned = banned_by_ngrams([*context, *made], size)
        logs_NV[row, torch.from_numpy(banned).to(logs_NV.device)] = -torch.inf
    return logs_NV
