"""A share of labelled texts held out, every label in proportion."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np


def stratified(labels: Sequence[tuple[str, ...]], share: float, seed: int) -> tuple[list[int], list[int]]:
    """The numbers of the texts that stay, and of those held out, both in order.

    Of each label set at least one text stays. Sets too small for the share lend a text by lot, in proportion.
    """
    rng = np.random.default_rng(seed)
    places: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for number, row in enumerate(labels):
        places[tuple(sorted(row))].append(number)
    held: list[int] = []
    for row in sorted(places):
        numbers = places[row]
        wanted = len(numbers) * share
        count = min(len(numbers) - 1, int(wanted) + int(rng.random() < wanted - int(wanted)))
        held += [numbers[place] for place in rng.permutation(len(numbers))[:count]]
    chosen = set(held)
    return [number for number in range(len(labels)) if number not in chosen], sorted(held)
