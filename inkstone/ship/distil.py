"""Sequence-level distillation (Kim and Rush, 2016): the teacher's own outputs become the student's targets.

A translator's references say the same thing in many ways; what the teacher's beam search finds is the one way that it
thinks likeliest, which a small student can learn. The served engine makes them, so that it takes minutes, not hours.
"""

from __future__ import annotations

from collections.abc import Sequence

from inkstone.generate.engine import Engine, GenerationOptions
from inkstone.ground.errors import TrainingError
from inkstone.ground.progress import progress

AT_ONCE = 512  # sources between two looks at the clock
Ids = tuple[int, ...]


def teacher_targets(
    engine: Engine, sources: Sequence[Sequence[int]], *, beam_size: int = 4, most_tokens: int
) -> list[Ids]:
    """The teacher's best output for each source, as ids without marks; empty where it did not come to an end.

    sources: ids with their marks. most_tokens: an output with more has not come to an end either. Raises TrainingError
    when nothing is left: such a teacher teaches nothing.
    """
    options = GenerationOptions(beam_size=beam_size, max_length=most_tokens)
    found: list[Ids] = []
    with progress("the teacher writes", len(sources)) as bar:
        for start in range(0, len(sources), AT_ONCE):
            for hypotheses in engine.generate(sources[start : start + AT_ONCE], options):
                best = hypotheses[0]
                found.append(best.ids if best.finished else ())
            bar.advance(len(found))
    if not any(found):
        raise TrainingError(
            "the teacher brought no output to an end: there is nothing to learn from it. Evaluate it first."
        )
    return found
