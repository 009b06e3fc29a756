"""What training records of any kind go through before anything learns from them.

    records ─ rules, each drop with its reason ─ some held out where none were given ─ those that stand there too, dropped

Held out are always the same ones, by a hash of the text: a run that is begun again, or given more data, does not learn
from what it was measured on.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar, cast

from inkstone.corpus.rules import Dropped, Settings, held_out_keys, judge, key_of, make_rules, sides
from inkstone.ground.errors import DataError
from inkstone.ground.records import Document, Pair, Record, Related

R = TypeVar("R", Document, Pair, Related)
HELD_OUT_SHARE, MOST = 0.02, 1000  # of the records, where no validation or test data is given


@dataclass(slots=True)
class Parts(Generic[R]):
    """What a model learns from, what it is chosen by, what it is measured on; and how many records each rule dropped."""

    train: list[R]
    valid: list[R]
    tests: dict[str, list[R]]
    dropped: Counter[str]


def parted(
    records: Iterable[R],
    valid: list[R],
    tests: dict[str, list[R]],
    *,
    rules: Sequence[str],
    cleaning: Settings,
    fewest: int = 20,
    times: int = 5,
    called: str = "pairs",
) -> Parts[R]:
    """Clean the records, hold some out where none are given, and drop those that stand in what is held out.

    fewest: to be held out for each use. times: as many records as are held out are needed at least. called: what people
    call them. Raises DataError where they are too few.
    """
    kept, dropped = _cleaned(records, rules, cleaning)
    train, valid, tests = _split(kept, valid, tests, fewest, times, called)
    seen = held_out_keys([*valid, *(one for test in tests.values() for one in test)])
    train, overlapping = _cleaned(train, ("overlap",), replace(cleaning, held_out=seen))
    return Parts(train, valid, tests, dropped + overlapping)


def _cleaned(records: Iterable[R], rules: Sequence[str], cleaning: Settings) -> tuple[list[R], Counter[str]]:
    kept: list[R] = []
    dropped: Counter[str] = Counter()
    for found in judge(cast(Iterable[Record], records), make_rules(cleaning, rules)):
        if isinstance(found, Dropped):
            dropped[found.rule] += 1
        else:
            kept.append(cast(R, found))
    return kept, dropped


def _split(
    records: list[R], valid: list[R], tests: dict[str, list[R]], fewest: int, times: int, called: str
) -> tuple[list[R], list[R], dict[str, list[R]]]:
    size = min(MOST, max(fewest, int(len(records) * HELD_OUT_SHARE)))
    wanted = (0 if valid else size) + (0 if tests else size)
    if not wanted:
        return records, valid, tests
    if len(records) < times * wanted:
        raise DataError(
            f"{len(records)} {called} (without duplicates and what cleaning drops) are too few to hold out {wanted}"
            " of them. Give --valid and --test, or more data."
        )
    keyed = sorted((_place(one), number) for number, one in enumerate(records))
    ordered = [records[number] for _, number in keyed]

    def border(least: int) -> int:
        """The first place from there on that parts no records of the same text."""
        return next((n for n in range(least, len(keyed)) if keyed[n][0] != keyed[n - 1][0]), len(keyed))

    first = 0 if tests else border(size)
    second = first if valid else border(first + size)
    if second == len(keyed):
        different = len({place for place, _ in keyed})
        raise DataError(
            f"{len(records)} {called} with {different} different texts are too few to hold some out: those of one text "
            "stay together. Give --valid and --test, or more data."
        )
    return ordered[second:], valid or ordered[first:second], tests or {"held out": ordered[:first]}


def _place(record: Document | Pair | Related) -> bytes:
    """Where a record stands among others: those with the same (first) text stand together, and are held out together."""
    return hashlib.sha256(key_of(sides(record)[0]).encode()).digest()
