"""The CTranslate2 engine: what serves translations. No torch; a few megabytes, loaded in milliseconds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from inkstone.generate.engine import GenerationOptions, Hypothesis
from inkstone.ground.errors import BundleError, require
from inkstone.text.tokenizer import EOS, Tokenizer

TOKENS_PER_BATCH = 4096  # hypotheses x tokens: with a beam of 8, 512 source tokens at once


class CTranslate2Engine:
    """Runs a CTranslate2 export of an encoder-decoder. threads: 0 takes all cores."""

    def __init__(self, folder: Path, tokenizer: Tokenizer, *, threads: int = 0) -> None:
        require("ctranslate2", "running this model", "serve")
        import ctranslate2

        ctranslate2.set_log_level(40)  # errors only: no notes about types this processor does not have
        self.name = folder.name
        self.tokens = [tokenizer.token_of(number) for number in range(tokenizer.vocab_size)]
        self.ids = {token: number for number, token in enumerate(self.tokens)}
        try:
            self._translator = ctranslate2.Translator(
                str(folder),
                device="cpu",
                compute_type="default",
                intra_threads=threads or os.cpu_count() or 1,
            )
        except (RuntimeError, ValueError) as error:
            raise BundleError(f"{folder} cannot be opened by CTranslate2: {error}") from error

    def generate(
        self, sources: Sequence[Sequence[int]], options: GenerationOptions
    ) -> list[list[Hypothesis]]:
        """See `Engine.generate`. Sources of one length limit run together."""
        results: list[list[Hypothesis]] = [[] for _ in sources]
        limits = [options.limit(len(source)) for source in sources]
        for limit in sorted(set(limits)):
            numbers = [number for number, own in enumerate(limits) if own == limit]
            found = self._translator.translate_batch(
                [self._named(sources[number]) for number in numbers],
                beam_size=options.beam_size,
                num_hypotheses=options.alternatives,
                length_penalty=options.length_penalty,
                min_decoding_length=0,  # 1, its default, would forbid an end that the model wants
                max_decoding_length=limit,
                max_input_length=0,
                max_batch_size=max(256, TOKENS_PER_BATCH // options.beam_size),
                batch_type="tokens",
                return_scores=True,
                return_end_token=True,
            )
            for number, result in zip(numbers, found, strict=True):
                results[number] = [
                    self._hypothesis(tokens, score, options.length_penalty)
                    for tokens, score in zip(result.hypotheses, result.scores, strict=True)
                ]
        return results

    def score(self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> list[float]:
        """See `Engine.score`."""
        found = self._translator.score_batch(
            [self._named(source) for source in sources],
            [self._named(target) for target in targets],
            max_batch_size=TOKENS_PER_BATCH,
            batch_type="tokens",
            max_input_length=0,
        )
        return [float(sum(result.log_probs)) for result in found]

    def _named(self, ids: Sequence[int]) -> list[str]:
        return [self.tokens[number] for number in ids]

    def _hypothesis(self, tokens: list[str], score: float, length_penalty: float) -> Hypothesis:
        """CTranslate2 gives log-probability / tokens ** length_penalty, the end mark among the tokens."""
        ids = [self.ids[token] for token in tokens]
        finished = bool(ids) and tokens[-1] == EOS
        return Hypothesis(tuple(ids[:-1] if finished else ids), score * len(ids) ** length_penalty, finished)
