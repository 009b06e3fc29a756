"""The pairs of a sentence encoder's run: read, normalised, cleaned, held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from inkstone.corpus.read import Reading
from inkstone.corpus.related import RelatedData, read_related
from inkstone.corpus.rules import key_of
from inkstone.ground.errors import DataError
from inkstone.ground.progress import progress, say
from inkstone.ground.records import Related
from inkstone.judge.bm25 import BM25
from inkstone.recipes.cleaned import parted
from inkstone.recipes.documents import languages_of
from inkstone.text.normalize import Script, normalize

if TYPE_CHECKING:
    from inkstone.recipes.embed_recipe import EmbedRecipe


SCORES = 1 << 24  # of sources and targets that are held at once: 64 MB


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
    if recipe.hard_negatives:
        pairs = with_hard_negatives(pairs, recipe.hard_negatives)
    return RelatedCorpus(pairs, parts.valid, parts.tests, dropped, languages)


def with_hard_negatives(pairs: Sequence[Related], count: int) -> list[Related]:
    """The pairs, each with as many more negatives: the targets of others that share the most words with its source.

    BM25 finds them (as for dense passage retrieval, Karpukhin et al., 2020); between languages, where no words are
    shared, it finds none. What some pair has beside the same text, on either side, is none of its negatives; case, space
    and punctuation make no other text.
    """
    targets = list(dict.fromkeys(pair.target for pair in pairs))
    keys = [key_of(target) for target in targets]
    right: dict[
        str, set[str]
    ] = {}  # of each text, whichever side it stands on: itself, and what belongs to it
    for pair in pairs:
        one, other = key_of(pair.source), key_of(pair.target)
        right.setdefault(one, {one}).add(other)
        right.setdefault(other, {other}).add(one)
    index, most = BM25(targets), max(len(own) for own in right.values())
    at_once = max(1, SCORES // len(targets))
    found: list[Related] = []
    with progress("hard negatives", len(pairs)) as bar:
        for start in range(0, len(pairs), at_once):
            some = pairs[start : start + at_once]
            scores_QN = index.scores([pair.source for pair in some])
            kept = min(count + most, len(targets))
            best_QK = np.argpartition(-scores_QN, kept - 1, axis=1)[:, :kept]
            for pair, row_N, best_K in zip(some, scores_QN, best_QK, strict=True):
                ranked = sorted((int(n) for n in best_K if row_N[n] > 0), key=lambda n: (-row_N[n], n))
                own = right[key_of(pair.source)]
                hard = [targets[n] for n in ranked if keys[n] not in own][:count]
                found.append(replace(pair, negatives=(*pair.negatives, *hard)))
            bar.advance(len(found))
    return found


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
