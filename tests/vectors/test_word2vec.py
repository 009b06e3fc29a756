"""Word2Vec: gradients against finite differences and pair by pair, chunks against windows, and that it learns."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inkstone.ground.errors import ConfigError, DataError
from inkstone.vectors import word2vec as w2v
from inkstone.vectors.rows import add_rows, clip_rows
from inkstone.vectors.vocabulary import encode, units_of

PAIRS: dict[str, tuple[Callable[..., tuple[np.ndarray, np.ndarray]], Callable[..., float]]] = {
    "skip-gram": (w2v.skip_gram, w2v.skip_gram_loss),
    "cbow": (w2v.cbow, w2v.cbow_loss),
}


def small_step(window: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places, targets and pairs of one step over a small random text in units."""
    rng = np.random.default_rng(0)
    ids, units = rng.integers(0, 20, 40).astype(np.int32), np.sort(rng.integers(0, 6, 40)).astype(np.int32)
    ((_, chunks),) = w2v.chunks_of(ids, units, np.arange(20, dtype=np.int32), window, rng)
    words = rng.standard_normal((20, 6)).astype(np.float32)
    places = w2v.windows(words[chunks.places_M], window)
    return places, rng.standard_normal((*chunks.targets_NP.shape, 6)).astype(np.float32), chunks.pairs_NJT


@pytest.mark.parametrize("name", PAIRS)
def test_gradients_equal_finite_differences(name: str) -> None:
    gradients, loss = PAIRS[name]
    places, targets, pairs = small_step()
    down_places, down_targets = gradients(places, targets, pairs, 5)
    rng = np.random.default_rng(1)
    for which, down in ((0, down_places), (1, down_targets)):
        for _ in range(5):
            direction = rng.standard_normal(down.shape)
            values = []
            for sign in (1, -1):
                moved = [places.astype(np.float64), targets.astype(np.float64)]
                moved[which] = moved[which] + sign * 1e-4 * direction
                values.append(loss(*moved, pairs, 5))
            measured = (values[0] - values[1]) / 2e-4
            assert measured == pytest.approx(float((down * direction).sum()), rel=1e-3, abs=1e-3)


def test_skip_gram_is_word2vec_pair_by_pair() -> None:
    """The matrix products are the update of word2vec.c, summed over pairs, each negative weighed by its share."""
    places, targets, pairs = small_step()
    down_places, down_targets = w2v.skip_gram(places, targets, pairs, 5)
    wanted_places, wanted_targets = np.zeros_like(places), np.zeros_like(targets)
    drawn = targets.shape[1] - w2v.CENTRES
    for n, j, t in np.argwhere(pairs).tolist():
        pulls = [(t, 1.0, 1.0)] + [(w2v.CENTRES + k, 0.0, 5 / drawn) for k in range(drawn)]
        for p, label, weight in pulls:
            error = weight * (1 / (1 + np.exp(-float(places[n, j] @ targets[n, p]))) - label)
            wanted_places[n, j] += error * targets[n, p]
            wanted_targets[n, p] += error * places[n, j]
    np.testing.assert_allclose(down_places, wanted_places, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(down_targets, wanted_targets, rtol=1e-3, atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 1200), st.integers(1, 9))
def test_chunks_hold_every_pair_of_the_windows_once(window: int, length: int, units: int) -> None:
    """Against the definition: all pairs of a centre and a place in its reach, in one unit, across all steps."""
    rng = np.random.default_rng(window * 7919 + length)
    ids_N = np.arange(length, dtype=np.int32)
    units_N = np.sort(rng.integers(0, units, length)).astype(np.int32)
    found: dict[int, set[int]] = {}
    for _, chunks in w2v.chunks_of(ids_N, units_N, np.zeros(1, np.int32), window, rng):
        seen_NJ = w2v.windows(chunks.places_M, window)
        for n, j, t in np.argwhere(chunks.pairs_NJT).tolist():
            contexts = found.setdefault(int(chunks.targets_NP[n, t]), set())
            assert int(seen_NJ[n, j]) not in contexts
            contexts.add(int(seen_NJ[n, j]))
    for centre in range(length):
        contexts = found.get(centre, set())
        reach = max((abs(centre - place) for place in contexts), default=0)
        assert reach <= window
        inside = range(max(0, centre - reach), min(length, centre + reach + 1))
        assert contexts == {p for p in inside if p != centre and units_N[p] == units_N[centre]}
        neighbours = [
            p for p in (centre - 1, centre + 1) if 0 <= p < length and units_N[p] == units_N[centre]
        ]
        assert set(neighbours) <= contexts, "a reach of one at least"


def test_windows_and_their_sum_are_adjoint() -> None:
    """<windows(x), y> = <x, sum_windows(y)>: what is read several times is added up as often."""
    rng = np.random.default_rng(0)
    for window in (1, 5, 8, 20):
        x = rng.standard_normal((3 * w2v.CENTRES + 2 * window, 4)).astype(np.float32)
        y = rng.standard_normal((3, w2v.CENTRES + 2 * window, 4)).astype(np.float32)
        assert float((w2v.windows(x, window) * y).sum()) == pytest.approx(
            float((x * w2v.sum_windows(y, window)).sum()), rel=1e-4
        )


@pytest.mark.parametrize("width", [4, 5])
def test_add_rows_adds_repeated_rows(width: int) -> None:
    rng = np.random.default_rng(0)
    matrix, rows = rng.standard_normal((6, width)).astype(np.float32), rng.integers(0, 6, 50)
    values = rng.standard_normal((50, width)).astype(np.float32)
    wanted = matrix.copy()
    np.add.at(wanted, rows, values)
    add_rows(matrix, rows, values)
    np.testing.assert_allclose(matrix, wanted, rtol=1e-5, atol=1e-5)


def test_clip_rows_shortens_only_the_long() -> None:
    values = np.array([[3, 4], [0.3, 0.4], [0, 0]], np.float32)
    clip_rows(values, 1.0)
    np.testing.assert_allclose(values, [[0.6, 0.8], [0.3, 0.4], [0, 0]], rtol=1e-6)


def test_subsampling_and_negatives_follow_the_counts() -> None:
    counts = np.array([10_000, 100, 10, 1])
    keep = w2v.keep_probabilities(counts, 1e-3)
    shares = counts / counts.sum()
    assert keep[0] == pytest.approx(np.sqrt(1e-3 / shares[0]) + 1e-3 / shares[0], rel=1e-5)
    assert keep.tolist() == sorted(keep.tolist())
    assert keep[-1] == 1
    assert w2v.keep_probabilities(counts, 0).tolist() == [1] * 4
    drawn = np.bincount(w2v.negative_table(counts)) / len(w2v.negative_table(counts))
    np.testing.assert_allclose(drawn, counts**0.75 / (counts**0.75).sum(), rtol=1e-3)


TOPICS = (
    ["cat", "dog", "horse", "cow", "sheep", "goat", "pig", "hen"],
    ["tea", "milk", "water", "juice", "wine", "beer", "coffee", "soup"],
    ["北京", "上海", "广州", "天津", "重庆", "南京", "武汉", "成都"],
)


def topical(units: int = 1500) -> list[list[str]]:
    """Units whose words come from one topic each, with a few words of all."""
    rng = np.random.default_rng(0)
    made = []
    for n in range(units):
        topic = TOPICS[n % len(TOPICS)]
        made.append([*rng.choice(topic, 6).tolist(), *rng.choice(["the", "a", "of"], 2).tolist()])
    return made


@pytest.mark.parametrize("name", PAIRS)
def test_words_of_a_topic_come_together(name: str) -> None:
    vocabulary, corpus = encode(topical())
    chosen = w2v.Word2Vec(name, 16, subsample=0, learning_rate=0.025)  # type: ignore[arg-type]
    matrix = w2v.train_word2vec(vocabulary, corpus, chosen)
    unit = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    rows = [[vocabulary.number_of[word] for word in topic] for topic in TOPICS]
    for topic in rows:
        others = [n for other in rows if other is not topic for n in other]
        own, apart = unit[topic] @ unit[topic].T, unit[topic] @ unit[others].T
        np.fill_diagonal(own, np.nan)
        assert (np.nanmax(own, axis=1) > apart.max(axis=1)).all()  # every word's nearest is of its topic
        assert np.nanmean(own) > apart.mean() + 0.5


@pytest.mark.parametrize("name", PAIRS)
def test_one_worker_and_a_seed_give_the_same_vectors(name: str) -> None:
    vocabulary, corpus = encode(topical(200))
    runs = [
        w2v.train_word2vec(vocabulary, corpus, w2v.Word2Vec(name, 8, epochs=2, seed=seed))  # type: ignore[arg-type]
        for seed in (3, 3, 4)
    ]
    assert (runs[0] == runs[1]).all()
    assert (runs[0] != runs[2]).any()


def test_two_workers_learn_the_whole_text() -> None:
    vocabulary, corpus = encode(topical())
    told: list[int] = []
    chosen = w2v.Word2Vec("skip-gram", dimensions=16, epochs=8, subsample=0)
    matrix = w2v.train_word2vec(vocabulary, corpus, chosen, workers=2, advance=told.append)
    assert told[-1] == 8 * len(corpus)
    assert told == sorted(told)
    unit = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    rows = np.array([[vocabulary.number_of[word] for word in topic] for topic in TOPICS])
    near = unit[rows.ravel()] @ unit[rows.ravel()].T
    same = np.kron(np.eye(len(rows)), np.ones((rows.shape[1], rows.shape[1]))) > 0
    own, apart = near[same & ~np.eye(len(near), dtype=bool)].mean(), near[~same].mean()
    # Workers write over each other (Recht et al., 2011): single pairs vary, means were 0.29 to 0.62 apart.
    assert own > apart + 0.1


def test_encoding_is_frequent_first_and_forgets_the_rare() -> None:
    vocabulary, corpus = encode([["b", "a", "a", "rare"], ["b", "c", "c", "c"]], min_count=2)
    assert vocabulary.words == ("c", "a", "b")
    assert vocabulary.counts_V.tolist() == [3, 2, 2]
    assert [vocabulary.words[n] for n in corpus.ids_N] == ["b", "a", "a", "b", "c", "c", "c"]
    assert corpus.units_N.tolist() == [0, 0, 0, 1, 1, 1, 1]
    assert encode([["b", "a", "a"], ["b", "c", "c", "c"]], max_words=2, min_count=1)[0].words == ("c", "a")


def test_units_are_paragraphs_of_either_language() -> None:
    assert list(units_of(["The cat\nsat.\n\n他来到北京大学。"])) == [
        ["the", "cat", "sat"],
        ["他", "来到", "北京大学"],
    ]
    assert list(units_of(["The Cat"], lowercase=False)) == [["The", "Cat"]]


def test_what_cannot_be_trained_is_refused() -> None:
    for units in ([], [["one", "one"]], [["a", "b"]]):
        with pytest.raises(DataError, match="where two are needed"):
            encode(units, min_count=2)
    with pytest.raises(ConfigError, match=r"dimensions=0 is below 1[\s\S]*learning_rate=7"):
        w2v.Word2Vec(dimensions=0, learning_rate=7).check()
