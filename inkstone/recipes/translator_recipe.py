"""Everything that a translator's training is made of, as one record; the run itself is `recipes.translate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from inkstone.recipes.sequence_recipe import SequenceRecipe

RULES = ("length", "identical", "ratio", "overlap", "duplicate")


@dataclass(frozen=True, slots=True)
class TranslateRecipe(SequenceRecipe):
    """Everything a run is made of. `data`, `valid` and `test` take any format that `corpus.read` reads."""

    task: ClassVar[Literal["translate", "summarize"]] = "translate"

    rules: tuple[str, ...] = RULES
    source: str | None = None  # language codes; None: told by the data
    target: str | None = None
    both_directions: bool = False
    bleu: Literal["none", "13a", "zh"] | None = None  # how BLEU cuts; None: by the target language

    @property
    def turns(self) -> bool:
        """Whether every pair is read backwards too."""
        return self.both_directions
