"""A language model that goes on with a text, and says how likely a text is. No torch.

    prompt ─ <s> ids ─ engine ─ ids as they come ─ text, joined to the prompt as if both had been written at once

A model was trained on blocks of so many tokens and knows no places beyond; a prompt and what comes after it have to fit.
How likely a longer text is, is asked in windows that overlap by half, so that every token has at least half a block
before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkstone.generate.ctranslate2_decoder import CTranslate2Decoder
from inkstone.generate.engine import GenerationOptions
from inkstone.generate.foreign_options import FILE as GENERATION
from inkstone.generate.foreign_options import options_of
from inkstone.generate.foresight import scored_in_windows
from inkstone.generate.streaming import Completion, complete, stream
from inkstone.ground.errors import BundleError, ConfigError
from inkstone.model.bundle import Bundle, open_bundle
from inkstone.text.decoding import StreamDecoder
from inkstone.text.foreign_tokenizer import ForeignTokenizer
from inkstone.text.normalize import normalize
from inkstone.text.reader import TextReader
from inkstone.text.template import ChatTemplate, encode_chat
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


def chat_ids(
    name: str, tokenizer: Tokenizer | ForeignTokenizer, messages: Sequence[Mapping[str, Any]]
) -> list[int]:
    """A conversation by the tokenizer's chat template, up to where the assistant begins to speak.

    Raises ConfigError where it has none.
    """
    if isinstance(tokenizer, Tokenizer) or not tokenizer.chat_templates:
        raise ConfigError(f"{name} has no chat template: it knows no conversations. Leave --chat out.")
    said = ChatTemplate.of(tokenizer).render(messages, add_generation_prompt=True)
    return encode_chat(tokenizer, said).ids


class LanguageModel:
    """Goes on with texts.

    >>> model = LanguageModel("models/novels")
    >>> model("It was a dark").text
    ' and stormy night'

    bundle: the folder of a model that `inkstone pretrain` made with the objective "causal", or `inkstone train
    chat`. threads: 0 takes all cores.
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
        self.reader = TextReader.load(self.bundle.path)
        self.tokenizer = self.reader.tokenizer
        engines = sorted(self.bundle.path.glob(ENGINE))
        if not engines:
            raise BundleError(f"{self.bundle.path} has no engine. Train it again.")
        self.engine = CTranslate2Decoder(engines[0], threads=threads)

    @property
    def eos_id(self) -> int:
        """The mark of the end, which also begins a text where the tokenizer has no mark for that."""
        found = self.tokenizer.eos_id
        if found is None:
            raise BundleError(f"{self.bundle.path}: its tokenizer has no end mark. Train it again.")
        return found

    def options(self, **asked: Any) -> GenerationOptions:
        """How to generate: what was asked for, over what its base asks for, or a draw from likely tokens."""
        if (self.bundle.path / GENERATION).is_file():
            if asked.get("temperature") == 0:
                asked = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, **asked}
            return options_of(self.bundle.path, **({"beam_size": 1} | asked))
        drawn = {} if asked.get("temperature") == 0 else {"temperature": TEMPERATURE, "top_p": TOP_P}
        return GenerationOptions(**{"beam_size": 1, **drawn, **asked})

    def ids(self, text: str, *, chat: bool = False) -> list[int]:
        """A text as a model reads it, behind the mark of the beginning. chat: as a user's words, to be answered.

        Raises ConfigError where the model knows no conversations, or a text without a token comes to nothing.
        """
        if chat:
            return self.chat_ids([{"role": "user", "content": text}])
        ids = [*self.reader.before, *self.reader.bare([text])[0]]
        if not ids:
            raise ConfigError(f"{self.name} begins with no mark of its own: give it a text to go on with.")
        return ids

    def chat_ids(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """A conversation as the model reads it, up to where it begins to answer. Raises ConfigError, DataError."""
        return chat_ids(self.name, self.tokenizer, messages)

    def __call__(
        self, prompt: str, options: GenerationOptions | None = None, stop: Sequence[str] = ()
    ) -> Completion:
        """The likeliest continuation of a text, or the one that the options ask for."""
        return self.generate(prompt, options, stop)[0]

    def reply(
        self,
        messages: Sequence[Mapping[str, Any]],
        options: GenerationOptions | None = None,
        stop: Sequence[str] = (),
    ) -> Completion:
        """What the assistant says next in a conversation (role and content of each message)."""
        ids = self.chat_ids(messages)
        return complete(self.engine, self.tokenizer, [ids], options or self._greedy(), stop)[0][0]

    def generate(
        self,
        prompt: str,
        options: GenerationOptions | None = None,
        stop: Sequence[str] = (),
        *,
        chat: bool = False,
    ) -> list[Completion]:
        """`options.alternatives` continuations of a text, best first; without what stands before them."""
        ids = self.ids(prompt, chat=chat)
        decodes = self.tokenizer if chat else After(self.tokenizer, ids)
        return complete(self.engine, decodes, [ids], options or self._greedy(), stop)[0]

    def stream(
        self,
        prompt: str,
        options: GenerationOptions | None = None,
        stop: Sequence[str] = (),
        *,
        chat: bool = False,
    ) -> Iterator[str | Completion]:
        """One continuation in pieces as they come, and the `Completion` at last."""
        ids = self.ids(prompt, chat=chat)
        decodes = self.tokenizer if chat else After(self.tokenizer, ids)
        return stream(self.engine, decodes, ids, options or self._greedy(), stop)

    def _greedy(self) -> GenerationOptions:
        return self.options(temperature=0)

    def log_probabilities(self, texts: Sequence[str], *, at_once: int = 64) -> list[Floats]:
        """How likely each token of each text is after those before it, and its end, in nats; texts are normalised."""
        script = self.bundle.description.get("script")
        found: list[Floats] = []
        for start in range(0, len(texts), at_once):
            ids = self.reader.bare(
                [normalize(text, script=script) for text in texts[start : start + at_once]]
            )
            end = self.eos_id
            rows = [[*(self.reader.before or (end,)), *one, end] for one in ids]
            found += scored_in_windows(self.engine, rows, int(self.bundle.description["block"]))
        return found
