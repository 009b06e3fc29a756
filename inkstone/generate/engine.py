"""The engine: what runs a trained sequence model. Applications and the server see only this protocol.

An engine speaks in token ids, so that text handling (templates, language tags, tokenisation) lives once, above it,
and the engines - torch for training and reference, CTranslate2 for serving - can be compared id by id.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from inkstone.ground.errors import ConfigError

T = TypeVar("T")
ROWS = 64  # sentences run together


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """How to search for an output.

    beam_size: 1 is greedy search. alternatives: how many hypotheses to return, at most beam_size.
    length_penalty: a hypothesis of n tokens (end mark included) is ranked by its log-probability / n ** length_penalty.
    max_length: the most tokens to produce; with max_ratio, an input of S tokens gets min(max_length,
    about max_ratio * S + 16), so that a loop on a short input ends early.
    """

    beam_size: int = 4
    alternatives: int = 1
    length_penalty: float = 1.0
    max_length: int = 256
    max_ratio: float = 3.0

    def __post_init__(self) -> None:
        problems = [
            f"{name}={value} must be between {low} and {high}"
            for name, value, low, high in (
                ("beam_size", self.beam_size, 1, 64),
                ("alternatives", self.alternatives, 1, max(1, self.beam_size)),
                ("length_penalty", self.length_penalty, 0, 10),
                ("max_length", self.max_length, 1, 4096),
                ("max_ratio", self.max_ratio, 0, 100),
            )
            if not low <= value <= high
        ]
        if problems:
            raise ConfigError("generation options: " + "; ".join(problems) + ".")

    def limit(self, source_length: int) -> int:
        """The most tokens to produce for an input of this many tokens: steps of 16, so that neighbours share a batch."""
        return min(self.max_length, (int(self.max_ratio * source_length) // 16 + 2) * 16)


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One output: its token ids without begin and end marks, and the sum of its log-probabilities, end mark included."""

    ids: tuple[int, ...]
    log_probability: float
    finished: bool = True  # False: cut at max_length before the end mark

    @property
    def score(self) -> float:
        """Mean log-probability per token, in nats; 0 is certainty."""
        return self.log_probability / (len(self.ids) + 1)


class Engine(Protocol):
    """Runs a sequence-to-sequence model over batches of any size, in any order of lengths."""

    name: str

    def generate(
        self, sources: Sequence[Sequence[int]], options: GenerationOptions
    ) -> list[list[Hypothesis]]:
        """For each source (token ids, complete with its marks), `alternatives` hypotheses, best first."""
        ...

    def score(self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> list[float]:
        """The log-probability of each target (ids without marks; the end mark is scored too) given its source."""
        ...


def in_batches(items: Sequence[T], lengths: Sequence[int], run: Callable[[list[T]], list]) -> list:  # type: ignore[type-arg]
    """Run items in batches of similar length, and give the results back in their own order."""
    order = sorted(range(len(items)), key=lambda number: lengths[number])
    results: list = [None] * len(items)  # type: ignore[type-arg]
    for start in range(0, len(order), ROWS):
        numbers = order[start : start + ROWS]
        for number, result in zip(numbers, run([items[n] for n in numbers]), strict=True):
            results[number] = result
    return results
