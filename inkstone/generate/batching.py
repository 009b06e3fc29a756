"""Which inputs run together: those of similar length, so that little of a batch is padding; long ones in windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")
ROWS = 64  # sentences run together


def in_batches(items: Sequence[T], lengths: Sequence[int], run: Callable[[list[T]], list]) -> list:  # type: ignore[type-arg]
    """Run items in batches of similar length, and give the results back in their own order."""
    order = sorted(range(len(items)), key=lambda number: lengths[number])
    results: list = [None] * len(items)  # type: ignore[type-arg]
    for start in range(0, len(order), ROWS):
        numbers = order[start : start + ROWS]
        for number, result in zip(numbers, run([items[n] for n in numbers]), strict=True):
            results[number] = result
    return results


def close_lengths(lengths: Sequence[int], spread: int, rows: int) -> list[list[int]]:
    """The numbers of inputs in groups of at most `rows`, in which no length is more than `spread` above another."""
    groups: list[list[int]] = []
    for number in sorted(range(len(lengths)), key=lambda one: lengths[one]):
        group = groups[-1] if groups else []
        if group and len(group) < rows and lengths[number] - lengths[group[0]] <= spread:
            group.append(number)
        else:
            groups.append([number])
    return groups


def within_budget(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """The numbers of inputs in batches of at most so many tokens, padding included; a longer input runs by itself."""
    batch: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda one: lengths[one]):
        if batch and (len(batch) + 1) * lengths[number] > tokens:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def windows(
    ids: Sequence[int], longest: int, before: Sequence[int] = (), after: Sequence[int] = ()
) -> list[list[int]]:
    """A text in parts of at most `longest` tokens (0: any number), each with the marks around it; one at least."""
    room = longest - len(before) - len(after) if longest else len(ids) or 1
    return [[*before, *ids[start : start + room], *after] for start in range(0, max(1, len(ids)), room)]
