"""Engines give ids; here is the text of them, whole or as it comes, ended by stop strings.

    ids ─ StreamDecoder ─> whole characters ─ StopStrings ─> text that is certain

A character leaves when its last byte is there (`text.decoding`), and text that may be the beginning of a stop string
waits until it is one or is none. So the pieces of a stream put together are the whole text, whatever comes. A stop
string ends the production as soon as it is complete; it is not part of the text.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, Protocol

from inkstone.generate.engine import GenerationOptions, Hypothesis, Step, StreamingEngine
from inkstone.ground.errors import ConfigError
from inkstone.text.decoding import StreamDecoder

Reason = Literal["end", "stop", "length"]
Key = tuple[int, int]  # the number of the input, and of the alternative


class Decodes(Protocol):
    """A tokenizer, as far as it is needed here."""

    def stream(self) -> StreamDecoder:
        """A decoder for ids that come one after another."""
        ...


@dataclass(frozen=True, slots=True)
class Completion:
    """A text that was produced, and why it ends: an end mark, a stop string, or the most tokens allowed."""

    text: str
    reason: Reason
    hypothesis: Hypothesis


class StopStrings:
    """Text in, text out up to the first of the strings; what may be the beginning of one is kept back."""

    def __init__(self, strings: Sequence[str]) -> None:
        if not all(strings):
            raise ConfigError("a stop string is empty: it would end every text at its beginning.")
        self._strings, self._kept = tuple(strings), ""
        self.found = False

    def push(self, text: str) -> str:
        """Take more text; give what is certain now. Nothing comes after a string was found."""
        if self.found:
            return ""
        text = self._kept + text
        places = [place for string in self._strings if (place := text.find(string)) >= 0]
        if places:
            self.found, self._kept = True, ""
            return text[: min(places)]
        size = max((self._begun(text, string) for string in self._strings), default=0)
        self._kept = text[len(text) - size :]
        return text[: len(text) - size]

    def flush(self) -> str:
        """What was kept back, since no more comes."""
        rest, self._kept = self._kept, ""
        return rest

    @staticmethod
    def _begun(text: str, string: str) -> int:
        """How many characters at the end of the text begin the string."""
        longest = min(len(string) - 1, len(text))
        return next((n for n in range(longest, 0, -1) if text.endswith(string[:n])), 0)


class Reader:
    """The text of one output as its ids come."""

    def __init__(self, tokenizer: Decodes, stop: Sequence[str]) -> None:
        self._stream, self._stop = tokenizer.stream(), StopStrings(stop)
        self.text = ""

    def push(self, ids: Sequence[int]) -> str:
        """The text that is new and certain.

        Models may have more rows than their tokenizer has tokens (Qwen2 has 271): such an id stands for no text.
        """
        text = ""
        for number in ids:
            with suppress(KeyError):
                text += self._stream.push([number])
        return self._kept(self._stop.push(text))

    def flush(self) -> str:
        """The rest, half characters as �."""
        rest = self._stop.push(self._stream.flush())
        return self._kept(rest + self._stop.flush())

    @property
    def stopped(self) -> bool:
        """Whether a stop string was found."""
        return self._stop.found

    def _kept(self, text: str) -> str:
        self.text += text
        return text


def complete(
    engine: StreamingEngine,
    tokenizer: Decodes,
    sources: Sequence[Sequence[int]],
    options: GenerationOptions,
    stop: Sequence[str] = (),
) -> list[list[Completion]]:
    """For each source or prompt (ids), `alternatives` texts. A beam is searched to its end, then cut at a stop string."""
    readers: dict[Key, Reader] = {}
    StopStrings(stop)  # complains before any work

    def watch(step: Step) -> bool:
        reader = readers.setdefault((step.row, step.alternative), Reader(tokenizer, stop))
        reader.push([step.id])
        return reader.stopped

    watched = bool(stop) and options.beam_size == 1
    found = engine.generate(sources, options, watch) if watched else engine.generate(sources, options)
    return [[_completion(one, tokenizer, stop) for one in each] for each in found]


def _completion(one: Hypothesis, tokenizer: Decodes, stop: Sequence[str]) -> Completion:
    reader = Reader(tokenizer, stop)
    reader.push(one.ids)
    reader.flush()
    reason: Reason = "stop" if reader.stopped else "end" if one.finished else "length"
    return Completion(reader.text, reason, one)


def stream(
    engine: StreamingEngine,
    tokenizer: Decodes,
    source: Sequence[int],
    options: GenerationOptions,
    stop: Sequence[str] = (),
) -> Iterator[str | Completion]:
    """The text for one source or prompt in pieces as they come, and the `Completion` at last.

    The engine runs in a thread of its own; whoever stops listening (`close`) stops it at its next token. Raises what the
    engine raises, and ConfigError for a beam or for several alternatives.
    """
    if options.beam_size > 1 or options.alternatives > 1:
        raise ConfigError(
            "a stream is one text as it comes: it needs beam_size=1 and alternatives=1, "
            f"not {options.beam_size} and {options.alternatives}."
        )
    reader = Reader(tokenizer, stop)
    pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()  # None: no more come
    closed = threading.Event()

    def watch(step: Step) -> bool:
        if piece := reader.push([step.id]):
            pieces.put(piece)
        return reader.stopped or closed.is_set()

    threads = ThreadPoolExecutor(max_workers=1)
    try:
        found = threads.submit(engine.generate, [source], options, watch)
        found.add_done_callback(lambda _: pieces.put(None))
        while (piece := pieces.get()) is not None:
            yield piece
        one = found.result()[0][0]
        if rest := reader.flush():
            yield rest
        reason: Reason = "stop" if reader.stopped else "end" if one.finished else "length"
        yield Completion(reader.text, reason, one)
    finally:
        closed.set()
        threads.shutdown()
