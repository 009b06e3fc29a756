"""The pairs of a sentence encoder's run: read, normalised, cleaned, held out."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from inkstone.corpus.read import Reading
from inkstone.corpus.related import RelatedData, read_related
from inkstone.corpus.rules import Dropped, held_out_keys, judge, key_of, make_rules
from inkstone.ground.errors import DataError
from inkstone.ground.progress import say
from inkstone.ground.records import Related
from inkstone.recipes.documents import languages_of
from inkstone.text.normalize import Script, normalize

if TYPE_CHECKING:
    from inkstone.recipes.embed_recipe import EmbedRecipe

HELD_OUT_SHARE, FEWEST, MOST = 0.02, 20, 1000  # of the pairs, where no validation or test data is given


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
    pairs, dropped = _cleaned(pairs, recipe, frozenset())
    pairs, valid, tests = _split(pairs, valid, tests)
    held_out = held_out_keys([*valid, *(pair for test in tests.values() for pair in test)])
    pairs, overlapping = _cleaned(pairs, replace(recipe, rules=("overlap",)), held_out)
    dropped += overlapping
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
    return RelatedCorpus(pairs, valid, tests, dropped, languages)


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


def _cleaned(
    pairs: list[Related], recipe: EmbedRecipe, held_out: frozenset[str]
) -> tuple[list[Related], Counter[str]]:
    rules = make_rules(replace(recipe.cleaning, held_out=held_out), recipe.rules)
    kept: list[Related] = []
    dropped: Counter[str] = Counter()
    for found in judge(pairs, rules):
        if isinstance(found, Dropped):
            dropped[found.rule] += 1
        elif isinstance(found, Related):
            kept.append(found)
    return kept, dropped


def _split(
    pairs: list[Related], valid: list[Related], tests: dict[str, list[Related]]
) -> tuple[list[Related], list[Related], dict[str, list[Related]]]:
    """Hold out validation and test pairs where none were given: by a hash of the source, so always the same ones."""
    size = min(MOST, max(FEWEST, int(len(pairs) * HELD_OUT_SHARE)))
    wanted = (0 if valid else size) + (0 if tests else size)
    if not wanted:
        return pairs, valid, tests
    if len(pairs) < 5 * wanted:
        raise DataError(
            f"{len(pairs)} pairs (without duplicates and what cleaning drops) are too few to hold out {wanted}"
            " of them. Give --valid and --test, or more data."
        )
    ordered = sorted(pairs, key=lambda pair: hashlib.sha256(key_of(pair.source).encode()).digest())
    held, rest = ordered[:wanted], ordered[wanted:]
    if not tests:
        tests, held = {"held out": held[:size]}, held[size:]
    return rest, valid or held, tests
