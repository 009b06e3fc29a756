"""Prompts continued by a decoder in CTranslate2. No torch.

Three ways, of which the first that can do what is asked is taken:
  beam       its own beam search, for prompts of one length at a time
  by itself  its own greedy search and drawing, told of each token by a callback
  stepping   our own choice from its scores (`stepping`): seeds, min-p, repetition penalty, n-grams, likeliest tokens

Prompts of unlike lengths that run together, it reads as far as the shortest goes, and the rest of the others token by
token. So only prompts of nearly one length run together.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkstone.generate.batching import ROWS, close_lengths
from inkstone.generate.ctranslate2_model import opened
from inkstone.generate.ctranslate2_names import Names
from inkstone.generate.engine import (
    GenerationOptions,
    Hypothesis,
    Watch,
    check_prompts,
    check_watch,
    room_after,
)
from inkstone.generate.output import Output, begin, collected, detailed, following
from inkstone.generate.stepping import Run, step_through

Ids = Sequence[int]
TOKENS_PER_BATCH = 4096
SCORED_AT_ONCE = 1024  # tokens whose scores over the vocabulary stay near the caches
SPREAD = 32  # tokens by which prompts that run together may differ


def chooses_itself(options: GenerationOptions) -> bool:
    """Whether CTranslate2's own greedy search or drawing is what these options ask for."""
    ours = options.seed is not None or options.min_p or options.top_tokens
    return not (ours or options.no_repeat_ngram or options.repetition_penalty != 1)


def drawing(options: GenerationOptions) -> dict[str, Any]:
    """Its words for greedy search or drawing."""
    if not options.temperature:
        return {"beam_size": 1}
    return {
        "beam_size": 1,
        "sampling_topk": options.top_k,
        "sampling_topp": options.top_p,
        "sampling_temperature": options.temperature,
    }


def together(prompts: Sequence[Ids]) -> list[list[int]]:
    """The numbers of prompts that run together, the shortest of each group first."""
    # Beside a prompt of one token, it would give the rest of longer ones as output (CTranslate2 4.8.5).
    return close_lengths([len(prompt) if len(prompt) > 1 else -SPREAD for prompt in prompts], SPREAD, ROWS)


class CTranslate2Decoder:
    """Continues prompts with a CTranslate2 export of a decoder. threads: 0 takes all cores."""

    def __init__(self, folder: Path, *, threads: int = 0) -> None:
        self.name = folder.name
        self._generator = opened("Generator", folder, threads)
        self._names = Names.of(folder)
        self.max_positions = self._names.max_positions

    def generate(
        self, sources: Sequence[Ids], options: GenerationOptions, watch: Watch | None = None
    ) -> list[list[Hypothesis]]:
        """See `StreamingEngine.generate`. Raises ConfigError for prompts that are empty or fill all positions."""
        check_watch(watch, options)
        options.refuse(("prefix",), "a decoder, whose prompt is its prefix,")
        options.refuse(("adapter",), "CTranslate2")
        check_prompts(sources, self.max_positions)
        if options.beam_size > 1:
            options.refuse(("no_repeat_ngram",), "CTranslate2 with a beam")
            return self._searched(sources, options)
        limits = [room_after(len(prompt), options, self.max_positions) for prompt in sources]
        outputs = begin(sources, limits, options, self._ends(options), watch)
        prompts = [sources[output.row] for output in outputs]
        if chooses_itself(options):
            for group in together(prompts):
                self._by_itself([prompts[n] for n in group], [outputs[n] for n in group], options)
        else:
            for start in range(0, len(outputs), ROWS):
                step_through(outputs[start : start + ROWS], self._ahead_of(sources, options), options)
        return collected(outputs, len(sources), options)

    def score(self, sources: Sequence[Ids], targets: Sequence[Ids]) -> list[float]:
        """See `Engine.score`; sources are prompts."""
        check_prompts(sources, 0)
        whole = [
            [*prompt, *target, self._names.eos_id] for prompt, target in zip(sources, targets, strict=True)
        ]
        found = self._generator.score_batch(
            [self._names.spell(ids) for ids in whole],
            max_batch_size=TOKENS_PER_BATCH,
            batch_type="tokens",
            max_input_length=0,
        )
        return [
            float(sum(one.log_probs[len(prompt) - 1 :])) for one, prompt in zip(found, sources, strict=True)
        ]

    def log_probabilities(self, rows: Sequence[Ids]) -> list[NDArray[np.float64]]:
        """Of each token of each row but the first, given those before it, in nats. A row has two tokens or more."""
        found = self._generator.score_batch(
            [self._names.spell(row) for row in rows],
            max_batch_size=SCORED_AT_ONCE,
            batch_type="tokens",
            max_input_length=0,
        )
        return [np.array(one.log_probs, dtype=np.float64) for one in found]

    def _scores(self, ids: Ids) -> Any:
        return np.array(self._generator.forward_batch([list(ids)]))[0]

    def _ends(self, options: GenerationOptions) -> frozenset[int]:
        return frozenset(options.end_ids or (self._names.eos_id,))

    def _run(self, prompts: Sequence[Ids], options: GenerationOptions, length: int, **more: Any) -> Any:
        return self._generator.generate_batch(
            [self._names.spell(prompt) for prompt in prompts],
            max_length=length,
            end_token=self._names.spell(sorted(self._ends(options))),
            include_prompt_in_result=False,
            return_end_token=True,
            return_scores=True,
            **more,
        )

    def _by_itself(
        self, prompts: Sequence[Ids], outputs: Sequence[Output], options: GenerationOptions
    ) -> None:
        length = max(output.limit for output in outputs)
        self._run(prompts, options, length, callback=following(outputs), **drawing(options))

    def _ahead_of(self, sources: Sequence[Ids], options: GenerationOptions) -> Any:
        def ahead(outputs: Sequence[Output], count: int) -> list[Run]:
            prompts = [[*sources[output.row], *output.ids] for output in outputs]
            runs: list[Run] = [((), ())] * len(outputs)
            for group in together(prompts):
                shortest, longest = len(prompts[group[0]]), len(prompts[group[-1]])
                length = min(count, self.max_positions - longest) if self.max_positions else count
                found = self._run(
                    [prompts[n] for n in group], options, length, beam_size=1, return_logits_vocab=True
                )
                for number, one in zip(group, found, strict=True):
                    (ids,), (logits,) = one.sequences_ids, one.logits
                    shown = logits[len(prompts[number]) - shortest :]  # of the rest of its prompt too
                    runs[number] = ids, [np.array(scores_V).ravel() for scores_V in shown]
            return runs

        return ahead

    def _searched(self, prompts: Sequence[Ids], options: GenerationOptions) -> list[list[Hypothesis]]:
        results: list[list[Hypothesis]] = [[] for _ in prompts]
        ends = self._ends(options)
        for group in close_lengths([len(prompt) for prompt in prompts], 0, ROWS):
            found = self._run(
                [prompts[number] for number in group],
                options,
                room_after(len(prompts[group[0]]), options, self.max_positions),
                beam_size=options.beam_size,
                num_hypotheses=options.beam_size,
                length_penalty=options.length_penalty,
            )
            for number, one in zip(group, found, strict=True):
                made = sorted(  # what ended before what was cut, else in its order
                    zip(one.sequences_ids, one.scores, strict=True), key=lambda h: ends.isdisjoint(h[0][-1:])
                )
                results[number] = [
                    self._hypothesis(prompts[number], ids, score, options)
                    for ids, score in made[: options.alternatives]
                ]
        return results

    def _hypothesis(self, prompt: Ids, ids: Ids, score: float, options: GenerationOptions) -> Hypothesis:
        """It gives log-probability / tokens ** length_penalty, the end mark among the tokens."""
        finished = bool(ids) and ids[-1] in self._ends(options)
        log_probability = score * len(ids) ** options.length_penalty
        one = Hypothesis(tuple(ids[:-1] if finished else ids), log_probability, finished)
        if options.top_tokens is None:
            return one
        return detailed(one, self._scores([*prompt, *one.ids])[len(prompt) - 1 :], options)
