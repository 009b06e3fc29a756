"""Beam search in torch, the plain reference that the serving engines must agree with.

Which hypotheses stay open is decided in `hypotheses`. With beam_size 1 this is greedy search: the likeliest token each
time (tested against a plain greedy loop).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from inkstone.generate.engine import GenerationOptions, Hypothesis
from inkstone.generate.hypotheses import Sentence, advance
from inkstone.model.interface import SequenceModel
from inkstone.model.padding import pad


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
    sentences = [Sentence(options.limit(len(source)), options) for source in sources]
    open_sentences = list(range(len(sources)))
    cache = model.new_cache()
    ids = torch.full((len(sources) * width, 1), config.bos_id, device=device)
    # Only the first hypothesis of each sentence is alive at the start: the others would be its copies.
    scores = torch.full((len(sources), width), -torch.inf, device=device)
    scores[:, 0] = 0.0
    while open_sentences:
        states = model.decode(ids[:, -1:], memory_BSD, mask, cache)
        log_probabilities = model.logits(states[:, -1]).float().log_softmax(-1)
        total = (scores.flatten()[:, None] + log_probabilities).view(len(open_sentences), -1)
        top, places = total.topk(min(2 * width, total.shape[1]), dim=1)
        keep_rows, keep_tokens, keep_scores, still_open = advance(
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
