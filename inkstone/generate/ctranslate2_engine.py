"""The CTranslate2 engine: what serves translations. No torch; a few megabytes, loaded in milliseconds.

Greedy search and beams are CTranslate2's own, and so is drawing without a seed. What it does not have is chosen here
from its scores (`stepping`), or refused by name. Where it reckons otherwise than we do - it leaves a prefix out of a
hypothesis' probability, and what `no_repeat_ngram` forbids makes the rest more likely - hypotheses are scored again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from inkstone.generate.batching import ROWS, close_lengths
from inkstone.generate.ctranslate2_decoder import chooses_itself, drawing
from inkstone.generate.ctranslate2_model import opened
from inkstone.generate.ctranslate2_names import Names
from inkstone.generate.engine import GenerationOptions, Hypothesis, Watch, check_watch
from inkstone.generate.output import Output, begin, collected, following
from inkstone.generate.stepping import Run, step_through
from inkstone.ground.errors import BundleError
from inkstone.text.tokenizer import Tokenizer

TOKENS_PER_BATCH = 4096  # hypotheses x tokens: with a beam of 8, 512 source tokens at once
Ids = Sequence[int]
Made = list[tuple[list[str], float]]  # names, and the score it ranks by


class CTranslate2Engine:
    """Runs a CTranslate2 export of an encoder-decoder. threads: 0 takes all cores.

    tokenizer: where there is one, it must not know more tokens than the model.
    """

    def __init__(self, folder: Path, tokenizer: Tokenizer | None = None, *, threads: int = 0) -> None:
        self.name = folder.name
        self._translator = opened("Translator", folder, threads)
        self._names = Names.of(folder)
        if tokenizer is not None and tokenizer.vocab_size > len(self._names.names):
            raise BundleError(
                f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, the model {len(self._names.names)}."
            )

    def generate(
        self, sources: Sequence[Ids], options: GenerationOptions, watch: Watch | None = None
    ) -> list[list[Hypothesis]]:
        """See `StreamingEngine.generate`. Sources of one length limit run together."""
        check_watch(watch, options)
        options.refuse(("adapter",), "CTranslate2")
        if options.beam_size > 1 and options.top_tokens:
            options.refuse(("top_tokens",), "CTranslate2 with a beam over a source")
        plain = not options.temperature and chooses_itself(replace(options, no_repeat_ngram=0))
        if options.beam_size > 1 or (plain and not options.no_repeat_ngram and watch is None):
            return self._searched(sources, options)
        limits = self._limits(sources, options)
        outputs = begin([()] * len(sources), limits, options, self._ends(options), watch)
        if chooses_itself(options) and not options.prefix:
            for start in range(0, len(outputs), ROWS):
                self._by_itself(sources, outputs[start : start + ROWS], options)
        else:
            for start in range(0, len(outputs), ROWS):
                step_through(outputs[start : start + ROWS], self._ahead_of(sources, options), options)
        return collected(outputs, len(sources), options)

    def score(self, sources: Sequence[Ids], targets: Sequence[Ids]) -> list[float]:
        """See `Engine.score`."""
        return [sum(logs) for logs in self._logs(sources, targets)]

    def _logs(self, sources: Sequence[Ids], targets: Sequence[Ids]) -> list[list[float]]:
        """The log-probability of each token of each target, and of the end mark behind it."""
        found = self._translator.score_batch(
            [self._names.spell(source) for source in sources],
            [self._names.spell(target) for target in targets],
            max_batch_size=TOKENS_PER_BATCH,
            batch_type="tokens",
            max_input_length=0,
        )
        return [[float(one) for one in result.log_probs] for result in found]

    def _ends(self, options: GenerationOptions) -> frozenset[int]:
        return frozenset(options.end_ids or (self._names.eos_id,))

    def _limits(self, sources: Sequence[Ids], options: GenerationOptions) -> list[int]:
        most = self._names.max_positions - len(options.prefix) if self._names.max_positions else None
        return [min(options.limit(len(source)), most or options.max_length) for source in sources]

    def _run(self, sources: Sequence[Ids], options: GenerationOptions, length: int, **more: Any) -> Any:
        return self._translator.translate_batch(
            [self._names.spell(source) for source in sources],
            min_decoding_length=0,  # 1, its default, would forbid an end that the model wants
            max_decoding_length=length,
            max_input_length=0,
            end_token=self._names.spell(sorted(self._ends(options))),
            return_scores=True,
            return_end_token=True,
            **more,
        )

    def _searched(self, sources: Sequence[Ids], options: GenerationOptions) -> list[list[Hypothesis]]:
        made: list[Made] = [[] for _ in sources]
        limits = self._limits(sources, options)
        more: dict[str, Any] = {}
        for limit in sorted(set(limits)):
            numbers = [number for number, own in enumerate(limits) if own == limit]
            if options.prefix:
                more["target_prefix"] = [self._names.spell(options.prefix)] * len(numbers)
            found = self._run(
                [sources[number] for number in numbers],
                options,
                limit + len(options.prefix),
                beam_size=options.beam_size,
                num_hypotheses=options.beam_size,
                length_penalty=options.length_penalty,
                no_repeat_ngram_size=options.no_repeat_ngram,
                max_batch_size=self._tokens_per_batch(
                    sum(len(sources[number]) for number in numbers), options
                ),
                batch_type="tokens",
                **more,
            )
            for number, one in zip(numbers, found, strict=True):
                made[number] = list(zip(one.hypotheses, one.scores, strict=True))
        if options.prefix or options.no_repeat_ngram or options.top_tokens is not None:
            return self._scored_again(sources, made, options)
        return [self._hypotheses(each, options) for each in made]

    def _tokens_per_batch(self, tokens: int, options: GenerationOptions) -> int:
        """As much as runs well together, or less, so that none of the workers is idle."""
        most = max(256, TOKENS_PER_BATCH // options.beam_size)
        workers: int = self._translator.num_translators
        share = -(-tokens // workers)
        return max(64, min(most, share))

    def _hypotheses(self, made: Made, options: GenerationOptions) -> list[Hypothesis]:
        """What it made of a source. It gives log-probability / tokens ** length_penalty, the end mark among them."""
        ends = set(self._names.spell(sorted(self._ends(options))))
        made = sorted(made, key=lambda one: ends.isdisjoint(one[0][-1:]))  # what was cut comes last
        found = []
        for names, score in made[: options.alternatives]:
            finished = not ends.isdisjoint(names[-1:])
            ids = tuple(self._names.number(names[:-1] if finished else names))
            found.append(Hypothesis(ids, score * len(names) ** options.length_penalty, finished))
        return found

    def _scored_again(
        self, sources: Sequence[Ids], made: Sequence[Made], options: GenerationOptions
    ) -> list[list[Hypothesis]]:
        """The same, where what it gives is not the model's own probability of the whole."""
        flat = [(row, self._names.number(names)) for row, each in enumerate(made) for names, _ in each]
        logs = self._logs([sources[row] for row, _ in flat], [ids for _, ids in flat])
        ends, first = self._ends(options), len(options.prefix)
        found: list[list[tuple[bool, float, Hypothesis]]] = [[] for _ in sources]
        for (row, ids), all_logs in zip(flat, logs, strict=True):
            own = all_logs[: len(ids)]
            finished = not ends.isdisjoint(ids[-1:])
            rank = sum(own[first:]) / max(1, len(ids) - first) ** options.length_penalty
            tokens = () if options.top_tokens is None else tuple(own)
            one = Hypothesis(tuple(ids[:-1] if finished else ids), sum(own), finished, tokens)
            # A prefix counts for the length there, and does not here.
            found[row].append((finished, rank if options.prefix else 0.0, one))
        for each in found:
            each.sort(key=lambda one: one[:2], reverse=True)
        return [[one for _, _, one in each[: options.alternatives]] for each in found]

    def _by_itself(
        self, sources: Sequence[Ids], outputs: Sequence[Output], options: GenerationOptions
    ) -> None:
        length = max(output.limit for output in outputs)
        self._run(
            [sources[one.row] for one in outputs],
            options,
            length,
            callback=following(outputs),
            **drawing(options),
        )

    def _ahead_of(self, sources: Sequence[Ids], options: GenerationOptions) -> Any:
        def ahead(outputs: Sequence[Output], count: int) -> list[Run]:
            begun = [output.ids or options.prefix for output in outputs]
            runs: list[Run] = [((), ())] * len(outputs)
            for group in close_lengths([len(ids) for ids in begun], count, ROWS):
                length = count + len(begun[group[-1]])
                found = self._run(
                    [sources[outputs[n].row] for n in group],
                    options,
                    min(length, self._names.max_positions or length),
                    target_prefix=[self._names.spell(begun[n]) for n in group],
                    beam_size=1,
                    return_logits_vocab=True,
                )
                for number, one in zip(group, found, strict=True):
                    there = len(outputs[number].ids)
                    scores = [np.array(scores_V).ravel() for scores_V in one.logits[0][there:]]
                    runs[number] = self._names.number(one.hypotheses[0])[there:], scores
            return runs

        return ahead
