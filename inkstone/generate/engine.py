"""The engine: what runs a trained sequence model. Applications and the server see only this protocol.

An engine speaks in token ids, so that text handling (templates, language tags, tokenisation) lives once, above it,
and the engines - torch for training and reference, CTranslate2 for serving - can be compared id by id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Protocol

from inkstone.ground.errors import ConfigError, raise_all


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """How to find an output: by search (temperature 0) or by drawing from what the model thinks likely.

    beam_size: 1 is greedy search. alternatives: how many hypotheses to return: of a beam, at most beam_size; of greedy
    search one; when drawing, so many independent draws.
    length_penalty: a hypothesis of n tokens (end mark included) is ranked by its log-probability / n ** length_penalty.
    max_length: the most tokens to produce; with max_ratio, an input of S tokens gets min(max_length,
    about max_ratio * S + 16), so that a loop on a short input ends early. Prompts that are continued know no max_ratio.
    prefix: ids that every output of an encoder-decoder begins with. end_ids: what ends an output; empty stands for the
    model's own end mark.
    no_repeat_ngram: no sequence of so many tokens twice, the prompt included; 0 allows all.
    temperature: above 0, tokens are drawn from softmax(scores / temperature), cut to the top_k likeliest (0: all), to
    the likeliest that have top_p together (Holtzman et al., 2020), and to those at least min_p times as likely as the
    likeliest (Nguyen et al., 2024). repetition_penalty: scores of tokens that were there are divided by it when
    positive, else multiplied (Keskar et al., 2019).
    seed: the same gives the same text, whatever else is in the batch; None draws anew each time.
    top_tokens: None says only how likely the whole is; n says it of each token, and the n likeliest at each place.
    adapter: the name of the adapter (LoRA) that this call goes through; None is the model as it is.
    """

    beam_size: int = 4
    alternatives: int = 1
    length_penalty: float = 1.0
    max_length: int = 256
    max_ratio: float = 3.0
    prefix: tuple[int, ...] = ()
    end_ids: tuple[int, ...] = ()
    no_repeat_ngram: int = 0
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    top_tokens: int | None = None
    adapter: str | None = None

    def __post_init__(self) -> None:
        most = 64 if self.temperature else self.beam_size
        problems = [
            f"{name}={value} must be between {low} and {high}"
            for name, value, low, high in (
                ("beam_size", self.beam_size, 1, 64),
                ("alternatives", self.alternatives, 1, max(1, most)),
                ("length_penalty", self.length_penalty, 0, 10),
                ("max_length", self.max_length, 1, 4096),
                ("max_ratio", self.max_ratio, 0, 100),
                ("no_repeat_ngram", self.no_repeat_ngram, 0, 4096),
                ("temperature", self.temperature, 0, 100),
                ("top_k", self.top_k, 0, 1 << 31),
                ("top_p", self.top_p, 1e-9, 1),
                ("min_p", self.min_p, 0, 1),
                ("repetition_penalty", self.repetition_penalty, 0.01, 100),
                ("seed", self.seed or 0, 0, (1 << 63) - 1),
                ("top_tokens", self.top_tokens or 0, 0, 100),
            )
            if not low <= value <= high
        ]
        problems += [
            f"{name}={list(ids)} must be ids of tokens"
            for name, ids in (("prefix", self.prefix), ("end_ids", self.end_ids))
            if not all(isinstance(number, int) and number >= 0 for number in ids)
        ]
        if self.temperature and self.beam_size > 1:
            problems.append(
                f"temperature={self.temperature} draws, which needs beam_size=1, not {self.beam_size}"
            )
        if self.beam_size > 1 and self.repetition_penalty != 1:
            problems.append(
                f"repetition_penalty={self.repetition_penalty} needs beam_size=1, not {self.beam_size}"
            )
        drawing = ("top_k", "top_p", "min_p", "seed")
        given = [
            f"{name}={getattr(self, name)}" for name in drawing if getattr(self, name) != _DEFAULTS[name]
        ]
        if given and not self.temperature:
            problems.append(f"{', '.join(given)} without a temperature above 0: nothing is drawn")
        if problems:
            raise ConfigError("generation options: " + "; ".join(problems) + ".")

    def limit(self, source_length: int) -> int:
        """The most tokens to produce for an input of this many tokens: steps of 16, so that neighbours share a batch."""
        return min(self.max_length, (int(self.max_ratio * source_length) // 16 + 2) * 16)

    def refuse(self, names: Iterable[str], engine: str) -> None:
        """Raise ConfigError for those of the named options that were asked for: this engine does not have them."""
        asked = [f"{name}={getattr(self, name)}" for name in names if getattr(self, name) != _DEFAULTS[name]]
        if asked:
            raise ConfigError(
                f"{engine} does not offer {', '.join(asked)} here. Leave it out, or use another engine."
            )


_DEFAULTS = {one.name: one.default for one in fields(GenerationOptions)}


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One output: its token ids without begin and end marks, and the sum of its log-probabilities, end mark included.

    Probabilities are the model's own: before temperature, penalties and whatever else the options cut off. Of `prefix`
    they are included, of a prompt not. tokens: how likely each token was, and the end mark where there is one, and the
    likeliest tokens in its place, (id, log-probability), best first; both empty unless top_tokens asked for them.
    """

    ids: tuple[int, ...]
    log_probability: float
    finished: bool = True  # False: cut at max_length before the end mark
    tokens: tuple[float, ...] = ()
    top: tuple[tuple[tuple[int, float], ...], ...] = ()

    @property
    def score(self) -> float:
        """Mean log-probability per token, in nats; 0 is certainty."""
        return self.log_probability / (len(self.ids) + 1)


@dataclass(frozen=True, slots=True)
class Step:
    """One more token of one output, as it is produced: of which input, of which of its alternatives.

    End marks are not among them. log_probability: as in `Hypothesis`.
    """

    row: int
    alternative: int
    id: int
    log_probability: float


Watch = Callable[[Step], bool]  # sees every token at once; True: this output is long enough


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


class StreamingEngine(Protocol):
    """An engine that can be watched: encoder-decoders with sources, decoders with prompts that are continued.

    The output for a prompt is what comes after it.
    """

    name: str

    def generate(
        self, sources: Sequence[Sequence[int]], options: GenerationOptions, watch: Watch | None = None
    ) -> list[list[Hypothesis]]:
        """As `Engine.generate`. watch: called with each token as it is produced; it needs beam_size=1."""
        ...

    def score(self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> list[float]:
        """As `Engine.score`."""
        ...


def check_watch(watch: Watch | None, options: GenerationOptions) -> None:
    """Raise ConfigError where there is nothing to watch: a beam knows its first token only at the end."""
    if watch is not None and options.beam_size > 1:
        raise ConfigError(f"tokens as they come need beam_size=1, not {options.beam_size}.")


def check_prompts(prompts: Sequence[Sequence[int]], max_positions: int) -> None:
    """Raise ConfigError listing the prompts that are empty or leave no position to go on at (0: there is no limit)."""
    problems = [
        f"prompt {number} is empty: begin it with a mark of the beginning"
        if not prompt
        else f"prompt {number} has {len(prompt)} tokens, the model {max_positions} positions: shorten it"
        for number, prompt in enumerate(prompts)
        if not prompt or 0 < max_positions <= len(prompt)
    ]
    raise_all(ConfigError, "prompts that cannot be continued", problems)


def room_after(length: int, options: GenerationOptions, max_positions: int) -> int:
    """The most tokens to produce after a prompt of this many."""
    return min(options.max_length, max_positions - length) if max_positions else options.max_length
