"""The records that cross the doors between rooms: one kind per task, frozen, and each knows where it came from.

`origin` is "file:line" of the input, so that every later complaint can name the place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Pair:
    """A sentence and its translation; languages are ISO 639-1 codes ("zh", "en")."""

    source: str
    target: str
    source_language: str
    target_language: str
    origin: str = ""

    def reversed(self) -> Pair:
        """The same pair in the other direction."""
        return Pair(self.target, self.source, self.target_language, self.source_language, self.origin)


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text and its labels: exactly one for multi-class data, any number for multi-label data."""

    text: str
    labels: tuple[str, ...]
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """A piece of running text: one line of a plain file, one `text` field of a table."""

    text: str
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Related:
    """Two texts that belong together, such as a question and its answer; and texts that do not belong to the first."""

    source: str
    target: str
    negatives: tuple[str, ...] = ()
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Summarized:
    """A document and summaries of it, each as good as the others; language is that of all."""

    document: str
    summaries: tuple[str, ...]
    language: str
    origin: str = ""


@dataclass(frozen=True, slots=True)
class Conversation:
    """What was said in turn, in the OpenAI form: role and content (or tool_calls) of each message."""

    messages: tuple[Mapping[str, Any], ...]
    origin: str = ""


Record = Pair | Labelled | Document | Related
