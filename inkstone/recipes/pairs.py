"""The pairs of a run that learns to turn one text into another: read, normalised, cleaned, held out, turned, encoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from inkstone.corpus.read import read_pairs
from inkstone.corpus.summaries import as_pairs, read_summaries
from inkstone.ground.errors import Collected, DataError, raise_all
from inkstone.ground.progress import say
from inkstone.ground.records import Pair, Summarized
from inkstone.recipes.cleaned import parted
from inkstone.recipes.sources import SourceFile, read_files
from inkstone.recipes.summarizer_recipe import SummarizeRecipe
from inkstone.recipes.translator_recipe import TranslateRecipe
from inkstone.text.normalize import normalize
from inkstone.text.template import translation_sources
from inkstone.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from inkstone.learn.data.recut import Cuts, WordsExample
    from inkstone.recipes.sequence_recipe import SequenceRecipe


Direction = tuple[str, str]


@dataclass(slots=True)
class Corpus:
    """The pairs of a run, as the data has them, and what became of the others."""

    train: list[Pair]
    valid: list[Pair]
    tests: dict[str, list[Pair]]
    dropped: Counter[str]
    problems: int
    directions: list[Direction]  # of the data, in its order
    files: list[SourceFile] = field(default_factory=list)


def read_corpus(recipe: SequenceRecipe) -> Corpus:
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
    directions = directions_of(pairs)
    _refuse_unlearnt(directions, {"valid": valid, **{f"test {name}": some for name, some in tests.items()}})
    parts = parted(pairs, valid, tests, rules=recipe.rules, cleaning=recipe.cleaning)
    if not parts.train:
        worst = ", ".join(f"{rule} {count:,}" for rule, count in parts.dropped.most_common(3) if count)
        raise DataError(
            f"{', '.join(recipe.data)}: no pair to train on is left after cleaning ({worst}). Loosen these rules,"
            " or give other data; training pairs that stand in the validation or test data do not count."
        )
    problems = reading.problem_count
    return Corpus(parts.train, parts.valid, parts.tests, parts.dropped, problems, directions, files)


def directions_of(pairs: Iterable[Pair]) -> list[Direction]:
    """From which language into which the pairs lead, in the order in which that is first met."""
    return list(dict.fromkeys((pair.source_language, pair.target_language) for pair in pairs))


def _refuse_unlearnt(directions: Sequence[Direction], held: Mapping[str, Sequence[Pair]]) -> None:
    """Raise DataError for validation and test pairs between languages that no training pair is between."""
    known = {frozenset(direction) for direction in directions}
    problems = [
        f"{use} holds {source}-{target}, which no training pair teaches"
        for use, pairs in held.items()
        for source, target in directions_of(pairs)
        if frozenset((source, target)) not in known
    ]
    listed = ", ".join("-".join(direction) for direction in directions)
    raise_all(DataError, f"the data teaches {listed}", problems)


def _whole(
    recipe: SequenceRecipe, use: str, paths: Sequence[str], files: list[SourceFile]
) -> tuple[list[Pair], Any]:
    """The pairs of one use, and their reading; its files are added to the list."""
    reading = _read(recipe, paths)
    pairs = list(_normalised(reading, recipe))
    files += read_files(use, reading)
    return pairs, reading


def _read(recipe: SequenceRecipe, paths: Sequence[str]) -> Any:
    if isinstance(recipe, SummarizeRecipe):
        return read_summaries(paths, language=recipe.language, fields=recipe.fields)
    assert isinstance(recipe, TranslateRecipe), recipe
    return read_pairs(
        list(paths), source_language=recipe.source, target_language=recipe.target, fields=recipe.fields
    )


def _normalised(records: Iterable[Pair | Summarized], recipe: SequenceRecipe) -> Iterable[Pair]:
    for pair in (pair for record in records for pair in as_pairs(record)):
        source, target = (normalize(text, script=recipe.script) for text in (pair.source, pair.target))
        yield replace(pair, source=source, target=target)


def both(pairs: Sequence[Pair], directions: Sequence[Direction]) -> list[Pair]:
    """The pairs in every direction of the model that they can be read in, the two ways of each one after the other.

    A pair in one language, a document and its summary, is read one way only.
    """
    return [way for pair in pairs for way in _ways(pair) if _leads(way) in directions]


def _ways(pair: Pair) -> tuple[Pair, ...]:
    return (pair,) if pair.source_language == pair.target_language else (pair, pair.reversed())


def turned(pairs: Sequence[Pair], direction: Direction) -> list[Pair]:
    """The pairs between these two languages, so that they lead in this direction."""
    return both(pairs, [direction])


def spread(pairs: Sequence[Pair], directions: Sequence[Direction], most: int) -> list[Pair]:
    """At most so many of the pairs in all, as many in each direction, taken evenly from all over."""
    ways = [way for direction in directions if (way := turned(pairs, direction))]
    return [pair for way in ways for pair in evenly(way, max(1, most // len(ways)))]


def _leads(pair: Pair) -> Direction:
    return pair.source_language, pair.target_language


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


def as_words(cuts: Cuts, tokenizer: Tokenizer, pairs: Sequence[Pair], max_length: int) -> list[WordsExample]:
    """The pairs that `encode` keeps, as words to be cut in many ways; words not met before enter the table."""
    from inkstone.learn.data.recut import WordsExample

    examples = []
    for pair in pairs:
        *before, end = translation_sources(tokenizer, [""], pair.target_language)[0]
        source = [*map(cuts.mark, before), *cuts.words(pair.source), cuts.mark(end)]
        target = cuts.words(pair.target)
        if max(cuts.usual_length(source), cuts.usual_length(target) + 1) <= max_length:
            sizes = min(cuts.mean_length(source), max_length), min(cuts.mean_length(target) + 1, max_length)
            examples.append(WordsExample(np.array(source, np.int32), np.array(target, np.int32), sizes))
    return examples
