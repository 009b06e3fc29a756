"""How the probes of a decoder's certificate are gone on with: greedily, a few tokens. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from inkstone.generate.engine import GenerationOptions, StreamingEngine

LONGEST = 24  # tokens written after a prompt


def written(engine: StreamingEngine, prompt: Sequence[int]) -> list[int]:
    """The likeliest tokens after a prompt, end marks left out."""
    options = GenerationOptions(beam_size=1, max_length=LONGEST)
    return list(engine.generate([prompt], options)[0][0].ids)
