"""The pairs of a sentence encoder's run: read, normalised, cleaned, held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from inkstone.corpus.read import Reading
from inkstone.corpus.related import RelatedData, read_related
from inkstone.ground.errors import DataError
from inkstone.ground.progress import say
from inkstone.ground.records import Related
from inkstone.recipes.cleaned import parted
from inkstone.recipes.documents import languages_of
from inkstone.text.normalize import Script, normalize

if TYPE_CHECKING:
    from inkstone.recipes.embed_recipe import EmbedRecipe


@dataclass(frozen=True, slots=True)
class RelatedCorpus:
    """The pairs of a run, and what became of the others."""

    train: list[Related]
    valid: list[Related]
    tests: dict[str, list[Related]]
    dropped: Counter[str]
    languages: tuple[str, ...]


def read_pairs_of(recipe: EmbedRecipe) -> RelatedCorpus:
    """Read, normalise and clean; training pairs of which a side stands in a validation or test set are dropped.

    Raises DataError where nothing is left to train on, or too little to hold some out.
    """
    tests = {name: _normalised(_read(recipe, files), recipe.script) for name, files in recipe.test.items()}
    valid = _normalised(_read(recipe, recipe.valid), recipe.script) if recipe.valid else []
    reading = _read(recipe, recipe.data)
    pairs = _normalised(reading, recipe.script)
    for source in reading.sources:
        say(source.describe())
    parts = parted(pairs, valid, tests, rules=recipe.rules, cleaning=recipe.cleaning)
    pairs, dropped = parts.train, parts.dropped
    if reading.problem_count:
        dropped["unreadable record"] = reading.problem_count
    if len(pairs) < 2:
        worst = ", ".join(f"{rule} {count:,}" for rule, count in dropped.most_common(3) if count)
        raise DataError(
            f"{', '.join(map(str, recipe.data))}: fewer than two pairs to train on are left after cleaning ({worst}). "
            "Loosen these rules, or give other data; training pairs that stand in the validation or test data do not "
            "count."
        )
    languages = recipe.languages or languages_of(sides_of(pairs))
    return RelatedCorpus(pairs, parts.valid, parts.tests, dropped, languages)


def sides_of(pairs: Sequence[Related]) -> list[str]:
    """Both texts of every pair, in order."""
    return [text for pair in pairs for text in (pair.source, pair.target)]


def normalised(pair: Related, script: Script | None) -> Related:
    """A pair as a model reads it."""
    source, target, *negatives = (
        normalize(text, script=script) for text in (pair.source, pair.target, *pair.negatives)
    )
    return replace(pair, source=source, target=target, negatives=tuple(negatives))


def _read(recipe: EmbedRecipe, files: Sequence[str | RelatedData]) -> Reading[Related]:
    return read_related(files, fields=recipe.fields)


def _normalised(reading: Reading[Related], script: Script | None) -> list[Related]:
    found = (normalised(pair, script) for pair in reading)
    return [pair for pair in found if pair.source and pair.target]
