"""The pairs of a translation run: read, normalised, cleaned, held out, turned in every direction, encoded."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from inkstone.corpus.read import read_pairs
from inkstone.corpus.rules import Dropped, held_out_keys, judge, key_of, make_rules
from inkstone.ground.errors import Collected, DataError
from inkstone.ground.progress import say
from inkstone.ground.records import Pair
from inkstone.recipes.sources import SourceFile, read_files
from inkstone.text.normalize import normalize
from inkstone.text.template import translation_sources
from inkstone.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from inkstone.recipes.translator_recipe import TranslateRecipe

HELD_OUT_SHARE, FEWEST, MOST = 0.02, 20, 1000  # of the pairs, where no validation or test data is given


@dataclass(slots=True)
class Corpus:
    """The pairs of a run, in the forward direction, and what became of the others."""

    train: list[Pair]
    valid: list[Pair]
    tests: dict[str, list[Pair]]
    dropped: Counter[str]
    problems: int
    languages: tuple[str, str]
    files: list[SourceFile] = field(default_factory=list)


def read_corpus(recipe: TranslateRecipe) -> Corpus:
    """Read, normalise and clean; training pairs that stand in a validation or test set are dropped."""
    found = Collected("data")
    tests: dict[str, list[Pair]] = {}
    valid: list[Pair] = []
    pairs: list[Pair] = []
    files: list[SourceFile] = []
    for name, paths in recipe.test.items():
        with found.check():
            tests[name], _ = _whole(recipe, f"test {name}", paths, files)
    with found.check():
        valid = _whole(recipe, "valid", recipe.valid, files)[0] if recipe.valid else []
    with found.check():
        pairs, reading = _whole(recipe, "data", recipe.data, files)
    found.raise_all()
    for read in reading.sources:
        say(read.describe())
    if not pairs:
        raise DataError(f"{', '.join(recipe.data)}: there is no pair to train on.")
    languages = {(pair.source_language, pair.target_language) for pair in pairs}
    if len(languages) > 1:
        listed = ", ".join(sorted("-".join(one) for one in languages))
        raise DataError(
            f"the data mixes several directions ({listed}). Give --from and --to, or separate files."
        )
    pairs, dropped = _cleaned(pairs, recipe, frozenset())
    pairs, valid, tests = _split(pairs, valid, tests)
    held_out = held_out_keys([*valid, *(pair for test in tests.values() for pair in test)])
    pairs, overlapping = _cleaned(pairs, replace(recipe, rules=("overlap",)), held_out)
    dropped += overlapping
    if not pairs:
        worst = ", ".join(f"{rule} {count:,}" for rule, count in dropped.most_common(3) if count)
        raise DataError(
            f"{', '.join(recipe.data)}: no pair to train on is left after cleaning ({worst}). Loosen these rules,"
            " or give other data; training pairs that stand in the validation or test data do not count."
        )
    return Corpus(pairs, valid, tests, dropped, reading.problem_count, languages.pop(), files)


def _whole(
    recipe: TranslateRecipe, use: str, paths: Sequence[str], files: list[SourceFile]
) -> tuple[list[Pair], Any]:
    """The pairs of one use, and their reading; its files are added to the list."""
    reading = _read(recipe, paths)
    pairs = list(_normalised(reading, recipe))
    files += read_files(use, reading)
    return pairs, reading


def _read(recipe: TranslateRecipe, paths: Sequence[str]) -> Any:
    return read_pairs(
        list(paths), source_language=recipe.source, target_language=recipe.target, fields=recipe.fields
    )


def _normalised(pairs: Iterable[Pair], recipe: TranslateRecipe) -> Iterable[Pair]:
    for pair in pairs:
        source, target = (normalize(text, script=recipe.script) for text in (pair.source, pair.target))
        yield replace(pair, source=source, target=target)


def _cleaned(
    pairs: list[Pair], recipe: TranslateRecipe, held_out: frozenset[str]
) -> tuple[list[Pair], Counter[str]]:
    rules = make_rules(replace(recipe.cleaning, held_out=held_out), recipe.rules)
    kept: list[Pair] = []
    dropped: Counter[str] = Counter()
    for found in judge(pairs, rules):
        if isinstance(found, Dropped):
            dropped[found.rule] += 1
        elif isinstance(found, Pair):
            kept.append(found)
    return kept, dropped


def _split(
    pairs: list[Pair], valid: list[Pair], tests: dict[str, list[Pair]]
) -> tuple[list[Pair], list[Pair], dict[str, list[Pair]]]:
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


def both(pairs: Sequence[Pair], directions: Sequence[tuple[str, str]]) -> list[Pair]:
    """The pairs in every direction of the model, alternating."""
    if len(directions) == 1:
        return list(pairs)
    return [turned for pair in pairs for turned in (pair, pair.reversed())]


def turned(pairs: Sequence[Pair], target: str) -> list[Pair]:
    """The pairs so that they lead into this language."""
    return [pair if pair.target_language == target else pair.reversed() for pair in pairs]


def evenly(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many of the items, taken evenly from all over."""
    return [items[n * len(items) // most] for n in range(most)] if len(items) > most else list(items)


def encode(tokenizer: Tokenizer, pairs: Sequence[Pair], max_length: int) -> tuple[list[Any], int]:
    """Pairs as examples, and how many were left out because a side has more than `max_length` tokens."""
    from inkstone.learn.cluster import in_blocks
    from inkstone.learn.data.batches import PairExample

    examples = [
        PairExample(source, target)
        for source, target in in_blocks(partial(_tokenised, tokenizer), pairs)
        if len(source) <= max_length and len(target) < max_length
    ]
    return examples, len(pairs) - len(examples)


def _tokenised(tokenizer: Tokenizer, pairs: Sequence[Pair]) -> list[tuple[list[int], list[int]]]:
    """Each pair's source, with its marks, and target."""
    sources: list[list[int]] = [[] for _ in pairs]
    for language in {pair.target_language for pair in pairs}:
        numbers = [n for n, pair in enumerate(pairs) if pair.target_language == language]
        encoded = translation_sources(tokenizer, [pairs[n].source for n in numbers], language)
        for number, ids in zip(numbers, encoded, strict=True):
            sources[number] = ids
    return list(zip(sources, tokenizer.encode_batch([pair.target for pair in pairs]), strict=True))
