"""GloVe: counts against a plain loop, tiles against rows against finite differences, and a loss that falls."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inkstone.vectors import cooccurrence, glove
from inkstone.vectors.cooccurrence import Cooccurrences, count_cooccurrences
from inkstone.vectors.parallel import DONE
from inkstone.vectors.vocabulary import EncodedCorpus


def random_corpus(length: int = 400, size: int = 12, units: int = 9) -> EncodedCorpus:
    rng = np.random.default_rng(length)
    ids_N = (size * rng.random(length) ** 2).astype(np.int32)
    return EncodedCorpus(ids_N, np.sort(rng.integers(0, units, length)).astype(np.int32))


def naive(corpus: EncodedCorpus, window: int) -> Counter[tuple[int, int]]:
    """The definition, as GloVe's own program has it: each earlier word of the window, in both directions."""
    found: Counter[tuple[int, int]] = Counter()
    ids, units = corpus.ids_N.tolist(), corpus.units_N.tolist()
    for place, word in enumerate(ids):
        for earlier in range(max(0, place - window), place):
            if units[earlier] == units[place]:
                found[word, ids[earlier]] += 1 / (place - earlier)  # type: ignore[assignment]
                found[ids[earlier], word] += 1 / (place - earlier)  # type: ignore[assignment]
    return found


def both_ways(counts: Cooccurrences) -> dict[tuple[int, int], float]:
    rows = zip(counts.rows_E.tolist(), counts.columns_E.tolist(), counts.values_E.tolist(), strict=True)
    return {pair: value for i, j, value in rows for pair in ((i, j), (j, i))}


@pytest.mark.parametrize("block", [1 << 20, 37, 5])
@pytest.mark.parametrize("window", [1, 4, 15])
def test_counts_equal_the_definition(window: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cooccurrence, "_BLOCK", block)
    corpus = random_corpus()
    counts, wanted = count_cooccurrences(corpus, 12, window), naive(corpus, window)
    assert (counts.rows_E <= counts.columns_E).all()
    assert both_ways(counts).keys() == wanted.keys()
    for pair, value in both_ways(counts).items():
        assert value == pytest.approx(wanted[pair], rel=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(1, 6))
def test_counts_of_short_texts(length: int, window: int) -> None:
    corpus = random_corpus(length, 3, 2)
    found = both_ways(count_cooccurrences(corpus, 3, window))
    assert found == pytest.approx(dict(naive(corpus, window)))


def prepared(filled: float, monkeypatch: pytest.MonkeyPatch, size: int = 150) -> dict[str, np.ndarray]:
    monkeypatch.setattr(glove, "_FILLED", filled)
    corpus = random_corpus(20_000, size)
    arrays = glove.arranged(count_cooccurrences(corpus, size, 8), 10.0)
    arrays |= glove.initial(size, glove.Glove(dimensions=6))
    rng = np.random.default_rng(0)
    for name in ("rows", "columns"):
        arrays[name][:, :6] = rng.standard_normal((size, 6))
    return arrays


def loss_of(arrays: dict[str, np.ndarray], rows: np.ndarray, columns: np.ndarray) -> float:
    """The paper's J, entry by entry, over X both ways round."""
    total = 0.0
    for one, other in ((0, 1), (1, 0)):
        ends = (arrays["entry_rows"], arrays["entry_columns"])
        i, j = ends[one], ends[other]
        chosen = (i != j) if one else np.ones(len(i), bool)
        w, c = rows[i].astype(np.float64), columns[j].astype(np.float64)
        errors = (w[:, :-2] * c[:, :-2]).sum(1) + w[:, -2] + c[:, -1] - arrays["entry_logs"]
        total += float((arrays["entry_weights"] * errors**2)[chosen].sum())
    return total


@pytest.mark.parametrize("filled", [0.0, 2.0], ids=["tiles", "loose"])
def test_the_steps_of_an_epoch_are_the_gradient(filled: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """With huge sums of squares beforehand AdaGrad's steps are tiny and alike, so an epoch of them is the gradient."""
    arrays = prepared(filled, monkeypatch)
    assert (arrays["tiles"][0] == 0) == (filled > 1)
    before = {name: arrays[name].astype(np.float64) for name in ("rows", "columns")}
    ones = {"rows": -1, "columns": -2}
    for name, values in before.items():
        squares = np.full(values.shape, 1e16)
        squares[:, ones[name]] = np.inf
        arrays |= {name: values.copy(), f"{name}_squares": squares}
    arrays |= {DONE: np.zeros(1, np.int64), "loss": np.zeros((1, 1))}
    glove.train_share(arrays, glove.Glove(dimensions=6, epochs=1, learning_rate=1.0), 0, 1)
    assert arrays["loss"][0, 0] == pytest.approx(loss_of(arrays, **before), rel=1e-4)
    assert arrays[DONE][0] == len(arrays["entry_rows"])
    rng = np.random.default_rng(2)
    for name, values in before.items():
        assert (arrays[name][:, ones[name]] == 1).all(), "the ones stay"
        direction = rng.standard_normal(values.shape)
        direction[:, ones[name]] = 0
        ends = [loss_of(arrays, **{**before, name: values + sign * 1e-5 * direction}) for sign in (1, -1)]
        gradient = (values - arrays[name]) * 1e8
        assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(2 * float((gradient * direction).sum()), rel=1e-3)


def test_the_loss_falls_with_one_worker_and_with_two() -> None:
    counts = count_cooccurrences(random_corpus(20_000, 150), 150, 8)
    for workers in (1, 2):
        chosen = glove.Glove(dimensions=8, epochs=12)
        matrix, losses = glove.train_glove(counts, chosen, workers=workers)
        assert matrix.shape == (150, 8)
        assert len(losses) == 12
        assert losses[-1] < 0.5 * max(losses)
        assert workers > 1 or losses == sorted(losses, reverse=True)


def test_one_worker_and_a_seed_give_the_same_vectors() -> None:
    counts = count_cooccurrences(random_corpus(3000, 40), 40, 5)
    runs = [
        glove.train_glove(counts, glove.Glove(dimensions=4, epochs=3, seed=seed))[0] for seed in (1, 1, 2)
    ]
    assert (runs[0] == runs[1]).all()
    assert (runs[0] != runs[2]).any()
