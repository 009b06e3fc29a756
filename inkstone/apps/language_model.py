"""A language model that goes on with a text, and says how likely a text is. No torch.

    prompt ─ <s> ids ─ engine ─ ids as they come ─ text, joined to the prompt as if both had been written at once

A model was trained on blocks of so many tokens and knows no places beyond; a prompt and what comes after it have to fit.
How likely a longer text is, is asked in windows that overlap by half, so that every token has at least half a block
before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkstone.generate.ctranslate2_decoder import CTranslate2Decoder
from inkstone.generate.engine import GenerationOptions
from inkstone.generate.foresight import scored_in_windows
from inkstone.generate.streaming import Completion, complete, stream
from inkstone.ground.errors import BundleError
from inkstone.model.bundle import Bundle, open_bundle
from inkstone.text.decoding import StreamDecoder
from inkstone.text.foreign_tokenizer import ForeignTokenizer
from inkstone.text.normalize import normalize
from inkstone.text.tokenizer import Tokenizer

Floats = NDArray[np.float64]
ENGINE = "ctranslate2-*"
TEMPERATURE, TOP_P = 0.8, 0.95  # where nothing is said


class After:
    """Decodes what comes after a prompt: a space that begins a word stays, unless nothing stands before it."""

    def __init__(self, tokenizer: Tokenizer | ForeignTokenizer, prompt: Sequence[int]) -> None:
        self._tokenizer, self._prompt = tokenizer, prompt

    def stream(self) -> StreamDecoder:
        """A decoder that has seen the prompt."""
        decoder = self._tokenizer.stream()
        decoder.push(self._prompt)
        return decoder


class LanguageModel:
    """Goes on with texts.

    >>> model = LanguageModel("models/novels")
    >>> model("It was a dark").text
    ' and stormy night'

    bundle: the folder of a model that `inkstone pretrain` made with the objective "causal". threads: 0 takes all cores.
    Raises BundleError for any other.
    """

    def __init__(self, bundle: str | Path, *, threads: int = 0) -> None:
        self.bundle: Bundle = open_bundle(bundle, task="language-model")
        objective = self.bundle.description["objective"]
        if objective != "causal":
            raise BundleError(
                f"{self.bundle.path} was trained with objective={objective}: it fills gaps and cannot go on with a text. "
                "Give a model of objective=causal."
            )
        self.name = self.bundle.name
        self.tokenizer = Tokenizer.load(self.bundle.path)
        engines = sorted(self.bundle.path.glob(ENGINE))
        if not engines:
            raise BundleError(f"{self.bundle.path} has no engine. Train it again.")
        self.engine = CTranslate2Decoder(engines[0], threads=threads)

    def options(self, **asked: Any) -> GenerationOptions:
        """How to generate: what was asked for, over a draw that leaves out the least likely tokens."""
        drawn = {} if asked.get("temperature") == 0 else {"temperature": TEMPERATURE, "top_p": TOP_P}
        return GenerationOptions(**{"beam_size": 1, **drawn, **asked})

    def ids(self, text: str) -> list[int]:
        """A text as a model reads it: the mark of the beginning, then its tokens."""
        return [self.tokenizer.bos_id, *self.tokenizer.encode(text)]

    def __call__(
        self, prompt: str, options: GenerationOptions | None = None, stop: Sequence[str] = ()
    ) -> Completion:
        """The likeliest continuation of a text, or the one that the options ask for."""
        return self.generate(prompt, options, stop)[0]

    def generate(
        self, prompt: str, options: GenerationOptions | None = None, stop: Sequence[str] = ()
    ) -> list[Completion]:
        """`options.alternatives` continuations of a text, best first; without what stands before them."""
        ids = self.ids(prompt)
        return complete(self.engine, After(self.tokenizer, ids), [ids], options or _greedy(), stop)[0]

    def stream(
        self, prompt: str, options: GenerationOptions | None = None, stop: Sequence[str] = ()
    ) -> Iterator[str | Completion]:
        """One continuation in pieces as they come, and the `Completion` at last."""
        ids = self.ids(prompt)
        return stream(self.engine, After(self.tokenizer, ids), ids, options or _greedy(), stop)

    def log_probabilities(self, texts: Sequence[str], *, at_once: int = 64) -> list[Floats]:
        """How likely each token of each text is after those before it, and its end, in nats; texts are normalised."""
        script = self.bundle.description.get("script")
        found: list[Floats] = []
        for start in range(0, len(texts), at_once):
            ids = self.tokenizer.encode_batch(
                [normalize(text, script=script) for text in texts[start : start + at_once]]
            )
            rows = [[self.tokenizer.bos_id, *one, self.tokenizer.eos_id] for one in ids]
            found += scored_in_windows(self.engine, rows, int(self.bundle.description["block"]))
        return found


def _greedy() -> GenerationOptions:
    return GenerationOptions(beam_size=1)
