"""Drawing from a model that cannot be asked for one token at a time, only to run on by itself.

CTranslate2 draws with a random generator of its own that knows no seeds for single requests, and knows neither min-p
nor our rules against repetition. So it runs on greedily for some tokens and shows the scores it had at each place. These
are the model's, right for our own choice at every place up to the first one where that choice is another token; from
there it starts anew. With one draw per place this is exact, whatever the options (the idea of speculative decoding,
Leviathan et al., 2023, with the model as its own draft):

    it runs on   the cat sat on the
    we choose    the cat lay            <- three tokens accepted; the next run begins behind "lay"

A run reads all tokens so far again. Surer models cost fewer runs; what CTranslate2 can do by itself should not go
through here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from inkstone.generate.constraints import Scores
from inkstone.generate.engine import GenerationOptions
from inkstone.generate.output import Output

MOST, FEWEST = 64, 4  # tokens of a run
Run = tuple[Sequence[int], Sequence[Scores]]  # greedy tokens, and the scores at their places
Ahead = Callable[[Sequence[Output], int], Sequence[Run]]


def step_through(outputs: Sequence[Output], ahead: Ahead, options: GenerationOptions) -> None:
    """Produce all outputs. ahead: runs the model on, behind the tokens of each output, for so many tokens.

    Of an output that has no tokens yet, a run begins with the prefix.
    """
    steady = not options.temperature and options.repetition_penalty == 1 and not options.no_repeat_ngram
    count = MOST if steady else FEWEST
    live = [output for output in outputs if not output.done]
    while live:
        accepted = 0
        for output, run in zip(live, ahead(live, count), strict=True):
            accepted += _follow(output, run, options.prefix)
        mean = accepted / len(live)
        count = min(MOST, max(FEWEST, 2 * count if mean >= 0.75 * count else round(2 * mean)))
        live = [output for output in live if not output.done]


def _follow(output: Output, run: Run, prefix: Sequence[int]) -> int:
    """Choose tokens along a run until the choice is another; how many were chosen."""
    chosen = 0
    for token, scores_V in zip(*run, strict=False):
        chosen += 1
        if len(output.ids) < len(prefix):
            output.force(prefix[len(output.ids)], scores_V)
            continue
        taken = output.take(scores_V)
        if output.done or taken != token:
            break
    assert chosen, ("a run of no tokens", run, output.ids)
    return chosen
