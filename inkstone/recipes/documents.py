"""The documents of a pre-training: read, normalised, cleaned, held out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from inkstone.corpus.read import read_documents
from inkstone.ground.errors import Collected, DataError
from inkstone.ground.progress import say
from inkstone.ground.records import Document
from inkstone.recipes.cleaned import parted
from inkstone.recipes.sources import SourceFile, read_files
from inkstone.text.language import UNDETERMINED, detect
from inkstone.text.normalize import normalize

if TYPE_CHECKING:
    from inkstone.recipes.pretrain_recipe import PretrainRecipe

ASKED = 50  # documents by which the languages are told
VALIDATED = 65_536  # characters or so that every validation reads, from all over the documents
PASSAGE = 2_000  # characters of a document that it reads at once
RARE = 0.05  # a language of fewer documents is none of the model's


@dataclass(frozen=True, slots=True)
class Documents:
    """The texts of a run, and what became of the others."""

    train: list[str]
    valid: list[str]
    test: list[str]
    languages: tuple[str, ...]
    dropped: Counter[str]
    files: tuple[SourceFile, ...] = ()


def read_texts(recipe: PretrainRecipe) -> Documents:
    """Read, normalise and clean; training documents that stand in the validation or test set are dropped.

    Raises DataError where nothing is left to train on, or too little to hold some out.
    """
    found = Collected("data")
    files: list[SourceFile] = []
    sides: dict[str, tuple[list[Document], int]] = {}
    for use in ("test", "valid", "data"):
        with found.check():
            sides[use] = _read(recipe, use, files)
    found.raise_all()
    (test, _), (valid, _), (documents, unreadable) = sides.values()
    if not documents:
        raise DataError(f"{', '.join(recipe.data)}: there is no document to train on.")
    parts = parted(
        documents,
        valid,
        {"test": test} if test else {},
        rules=recipe.rules,
        cleaning=recipe.cleaning,
        fewest=1,
        times=2,
        called="documents",
    )
    documents, dropped = parts.train, parts.dropped
    if unreadable:
        dropped["unreadable record"] = unreadable
    if not documents:
        worst = ", ".join(f"{rule} {count:,}" for rule, count in dropped.most_common(3) if count)
        raise DataError(
            f"{', '.join(recipe.data)}: no document to train on is left after cleaning ({worst}). Loosen these rules,"
            " or give other data; documents that stand in the validation or test data do not count."
        )
    (test,) = parts.tests.values()
    train, valid_texts, test_texts = ([one.text for one in side] for side in (documents, parts.valid, test))
    languages = recipe.languages or languages_of(train)
    return Documents(train, valid_texts, test_texts, languages, dropped, tuple(files))


def _read(recipe: PretrainRecipe, use: str, files: list[SourceFile]) -> tuple[list[Document], int]:
    """The documents of one use, and how many records could not be read; its files are added to the list."""
    paths: Sequence[str] = getattr(recipe, use)
    if not paths:
        return [], 0
    reading = read_documents(list(paths), fields=recipe.fields)
    found = [replace(one, text=normalize(one.text, script=recipe.script)) for one in reading]
    for source in reading.sources:
        say(source.describe())
    files += read_files(use, reading)
    return [one for one in found if one.text], reading.problem_count


def languages_of(texts: Sequence[str]) -> tuple[str, ...]:
    """The languages of some of the texts, the most frequent first; "und" where none can be told."""
    some = [texts[n * len(texts) // ASKED] for n in range(ASKED)] if len(texts) > ASKED else list(texts)
    found = Counter(detect(text).language for text in some)
    found.pop(UNDETERMINED, None)
    often = tuple(code for code, count in found.most_common() if count >= RARE * len(some))
    return often or (UNDETERMINED,)


def passages(texts: Sequence[str]) -> list[str]:
    """Texts of at most `PASSAGE` characters from all over some longer ones, `VALIDATED` characters together."""
    found = [
        text[start : start + PASSAGE] for text in texts for start in range(0, max(1, len(text)), PASSAGE)
    ]
    wanted = max(1, VALIDATED * len(found) // max(1, sum(map(len, found))))
    return [found[n * len(found) // wanted] for n in range(wanted)] if wanted < len(found) else found
