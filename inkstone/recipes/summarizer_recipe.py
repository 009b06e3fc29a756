"""Everything that a summariser's training is made of, as one record; the run itself is `recipes.summarize`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from inkstone.corpus.rules import Settings
from inkstone.recipes.sequence_recipe import SequenceRecipe

LONGEST = 50_000  # characters of a document


@dataclass(frozen=True, slots=True)
class SummarizeRecipe(SequenceRecipe):
    """Everything a run is made of. `data`, `valid` and `test` take any format that `corpus.summaries` reads."""

    task: ClassVar[Literal["translate", "summarize"]] = "summarize"

    cleaning: Settings = field(default_factory=lambda: Settings(max_chars=LONGEST))
    max_length: int = (
        512  # tokens of a document and of a summary; pairs with a longer one are dropped and counted
    )
    language: str | None = None  # of all data, where it is known; None: told by the documents
