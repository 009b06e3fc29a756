"""One output in the making, token by token: greedy or drawn. Searches with a beam keep their books in `hypotheses`.

The engines differ in how they come by the scores of the next token; what is done with them is here, once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from inkstone.generate.constraints import Scores
from inkstone.generate.engine import GenerationOptions, Hypothesis, Step, Watch
from inkstone.generate.sampling import Draw, highest, log_softmax


class Output:
    """What is produced for one input.

    row: the number of the input. alternative: the number of this output among those of the input. context: tokens that
    rules against repetition count as there already. limit: the most tokens to produce. ends: what ends an output.
    """

    def __init__(
        self,
        row: int,
        alternative: int,
        context: Sequence[int],
        limit: int,
        options: GenerationOptions,
        ends: frozenset[int],
        watch: Watch | None = None,
    ) -> None:
        self.row, self.alternative, self.limit = row, alternative, limit
        self.ids: list[int] = []
        self.done, self.finished = limit < 1, False
        self._options, self._ends, self._watch = options, ends, watch
        self._there, self._draw = list(context), Draw(options, alternative)
        self._logs: list[float] = []
        self._top: list[tuple[tuple[int, float], ...]] = []
        self._forced = 0

    def force(self, token: int, scores_V: Scores) -> None:
        """Take a token of the prefix, of which there is no choice."""
        self._forced += 1
        self._record(token, scores_V)

    def take(self, scores_V: Scores) -> int:
        """Choose the next token by the model's scores, and say which."""
        token = self._draw.token(scores_V, self._there)
        self._record(token, scores_V)
        return token

    def _record(self, token: int, scores_V: Scores) -> None:
        logs_V = log_softmax(scores_V)
        if self._options.top_tokens:
            self._top.append(likeliest(logs_V, self._options.top_tokens))
        self.add(token, float(logs_V[token]))

    def add(self, token: int, log_probability: float) -> None:
        """Take a token that was chosen elsewhere."""
        self._logs.append(log_probability)
        if token in self._ends and len(self.ids) >= self._forced:
            self.done = self.finished = True
            return
        self.ids.append(token)
        self._there.append(token)
        step = Step(self.row, self.alternative, token, log_probability)
        enough = self._watch is not None and self._watch(step)
        self.done = enough or len(self.ids) >= self.limit + self._forced

    def hypothesis(self) -> Hypothesis:
        """What was produced."""
        shown = self._options.top_tokens is not None
        tokens, top = (tuple(self._logs), tuple(self._top)) if shown else ((), ())
        return Hypothesis(tuple(self.ids), sum(self._logs), self.finished, tokens, top)


def likeliest(logs_V: Scores, count: int) -> tuple[tuple[int, float], ...]:
    """The most likely tokens and their log-probabilities."""
    return tuple((int(number), float(logs_V[number])) for number in highest(logs_V, count))


def detailed(one: Hypothesis, scores_TV: Scores, options: GenerationOptions) -> Hypothesis:
    """A hypothesis with the log-probability of each token, and the likeliest tokens in their places.

    scores_TV: the model's, of the first token of the hypothesis and on.
    """
    logs = [log_softmax(scores_V) for scores_V in scores_TV[: len(one.ids) + one.finished]]
    tokens = [float(logs_V[number]) for logs_V, number in zip(logs, one.ids, strict=False)]
    if one.finished:  # with whatever end mark it was
        tokens.append(one.log_probability - sum(tokens))
    count = options.top_tokens
    top = tuple(likeliest(logs_V, count) for logs_V in logs) if count else ()
    return replace(one, tokens=tuple(tokens), top=top)


def begin(
    contexts: Sequence[Sequence[int]],
    limits: Sequence[int],
    options: GenerationOptions,
    ends: frozenset[int],
    watch: Watch | None = None,
) -> list[Output]:
    """The outputs for these inputs, all alternatives of one input after each other."""
    return [
        Output(row, alternative, context, limit, options, ends, watch)
        for row, (context, limit) in enumerate(zip(contexts, limits, strict=True))
        for alternative in range(options.alternatives)
    ]


def collected(outputs: Sequence[Output], rows: int, options: GenerationOptions) -> list[list[Hypothesis]]:
    """The hypotheses of each input, the likeliest first."""
    found: list[list[Hypothesis]] = [[] for _ in range(rows)]
    for output in outputs:
        found[output.row].append(output.hypothesis())
    return [sorted(each, key=lambda one: one.score, reverse=True) for each in found]


def following(outputs: Sequence[Output]) -> Callable[[Any], bool]:
    """A callback for CTranslate2: each token it chose goes to its output, and it is told whether that one is done."""

    def told(step: Any) -> bool:
        output: Output = outputs[step.batch_id]
        if not output.done:
            output.add(step.token_id, step.log_prob)
        return output.done

    return told


class Rows(Protocol):
    """Rows of tokens that a model goes on with, one for each output."""

    def scores(self) -> Scores:
        """Those of the token that comes next in each row: (N, V)."""
        ...

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows, in this order."""
        ...

    def push(self, tokens: Sequence[int]) -> None:
        """Put the next token behind each row."""
        ...


def run(begun: Rows, outputs: Sequence[Output]) -> None:
    """Go on with all outputs, a row each, until each is done."""
    live = list(outputs)
    while True:
        tokens = [
            0 if output.done else output.take(scores_V)
            for output, scores_V in zip(live, begun.scores(), strict=True)
        ]
        rows = [row for row, output in enumerate(live) if not output.done]
        if not rows:
            return
        if len(rows) < len(live):
            live = [live[row] for row in rows]
            begun.keep(rows)
        begun.push([tokens[row] for row in rows])


def told_of_all(rows: Sequence[tuple[int, Sequence[int]]], watch: Watch | None) -> Watch | None:
    """A watch over a batch, (number, ids) of each of its inputs, as one over all inputs."""
    if watch is None:
        return None
    return lambda step: watch(replace(step, row=rows[step.row][0]))
