"""Summaries: documents in, what matters in them out, however long they are.

    text ─ parts (whole sentences, as many as the model is used to) ─ ids ─ engine ─ a summary of each part, in order

A document that fits is one part. Of a longer one every part is summarised, and nothing is cut off: the summary says how
much of it came from where.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from inkstone.apps.translate import SPACELESS, open_engine
from inkstone.generate.engine import Engine, GenerationOptions
from inkstone.ground.errors import ConfigError, DataError
from inkstone.ground.manifest import read_json
from inkstone.model.bundle import Bundle, open_bundle
from inkstone.text.language import detect, language_name
from inkstone.text.normalize import Script, normalize
from inkstone.text.pieces import packed
from inkstone.text.sentences import split_sentences
from inkstone.text.template import translation_sources
from inkstone.text.tokenizer import Tokenizer

SEARCH = GenerationOptions(no_repeat_ngram=3)  # what a summary says, it says once


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a document and its summary.

    score: the mean log-probability per token in nats. finished: False where the summary reached the limit of tokens
    before the model had ended it.
    """

    text: str
    summary: str
    score: float
    finished: bool


@dataclass(frozen=True, slots=True)
class Summary:
    """A document's summary: those of its parts, one after the other."""

    document: str
    language: str
    parts: tuple[Part, ...]

    @property
    def summary(self) -> str:
        """The whole summary."""
        joint = "" if self.language in SPACELESS else " "
        return joint.join(part.summary for part in self.parts if part.summary)

    @property
    def cut(self) -> bool:
        """Whether the summary of some part ends where the limit of tokens was, not where the model ended it."""
        return not all(part.finished for part in self.parts)

    def as_json(self) -> dict[str, Any]:
        """The fields of the JSON document: coverage tells which share of the summary each part of the document has."""
        whole = sum(len(part.summary) for part in self.parts)
        return {
            "summary": self.summary,
            "language": self.language,
            "sentences": [{"text": one.strip()} for one in split_sentences(self.summary) if one.strip()],
            "coverage": [
                {
                    "section": number,
                    "characters": len(part.text),
                    "share": round(len(part.summary) / whole, 4),
                }
                for number, part in enumerate(self.parts, 1)
                if whole
            ],
            "cut": self.cut,
        }


class Summarizer:
    """Summarises with a bundle.

    >>> Summarizer("models/ours").summarize([text])[0].summary     # doctest: +SKIP
    """

    def __init__(
        self,
        bundle: str | Path,
        *,
        engine: Literal["auto", "ctranslate2", "onnx", "torch"] = "auto",
        threads: int = 0,
    ) -> None:
        """bundle: the folder of a model that `inkstone train summarize` made. threads: 0 takes all cores."""
        self.bundle: Bundle = open_bundle(bundle, task="summarize")
        self.name = self.bundle.name
        self.languages = self.bundle.languages
        self.tokenizer = Tokenizer.load(self.bundle.path / "tokenizer.json")
        self.script: Script | None = self.bundle.description.get("script")  # as in training, so in use
        self.positions = int(read_json(self.bundle.path / "config.json").get("max_positions", 512))
        longest = int(self.bundle.description.get("max_tokens", self.positions))
        self.most = max(1, min(longest, self.positions) - 2)  # tokens of a part, beside its marks
        self.engine: Engine = open_engine(self.bundle.path, self.tokenizer, engine, threads)

    def __call__(self, text: str, *, language: str | None = None) -> str:
        """The summary of one document."""
        return self.summarize([text], language=language)[0].summary

    def summarize(
        self,
        texts: Sequence[str],
        *,
        language: str | Sequence[str] | None = None,
        options: GenerationOptions | None = None,
    ) -> list[Summary]:
        """Summarise documents, each by itself. language: of all, or of each; one that is not given is told by the text.

        Raises ConfigError for a language that the model does not write, DataError for a document without text.
        """
        if isinstance(texts, str):
            raise ConfigError("summarize takes a list of documents. Write summarize([text]) for one.")
        given = [language] * len(texts) if language is None or isinstance(language, str) else list(language)
        for code in given:
            if code is not None and code not in self.languages:
                raise ConfigError(f"{self.name} writes {', '.join(self.languages)}, not {code}.")
        options = options or SEARCH
        options = replace(options, max_length=min(options.max_length, self.positions))
        clean = [normalize(text, script=self.script).strip() for text in texts]
        for number, text in enumerate(clean, 1):
            if not text:
                raise DataError(f"document {number} of {len(clean)} has no text to summarise.")
        languages = [
            code or self._language(number, text)
            for number, (code, text) in enumerate(zip(given, clean, strict=True), 1)
        ]
        parts = [packed(text, self._length, self.most, self.most) for text in clean]
        sources = [
            source
            for several, code in zip(parts, languages, strict=True)
            for source in translation_sources(self.tokenizer, several, code)
        ]
        found = iter(self.engine.generate(sources, options))
        summaries = []
        for text, code, several in zip(texts, languages, parts, strict=True):
            best = [next(found)[0] for _ in several]
            written = self.tokenizer.decode_batch([one.ids for one in best])
            made = [
                Part(part, words.strip(), one.log_probability / (len(one.ids) + 1), one.finished)
                for part, words, one in zip(several, written, best, strict=True)
            ]
            summaries.append(Summary(text, code, tuple(made)))
        return summaries

    def _language(self, number: int, text: str) -> str:
        """The text's own. Raises ConfigError for one that a model of several languages does not write."""
        if len(self.languages) == 1:
            return self.languages[0]
        found = detect(text).language
        if found not in self.languages:
            raise ConfigError(
                f"{self.name} writes {', '.join(self.languages)}; document {number} looks like {language_name(found)}. "
                "Say the language (--to) to have it summarised all the same."
            )
        return found

    def _length(self, text: str) -> int:
        return len(self.tokenizer.encode(text))
