"""Ranks and what is made of them, beside scikit-learn and beside counting by hand."""

from __future__ import annotations

import numpy as np
import pytest

from inkstone.ground.errors import DataError
from inkstone.ground.records import Related
from inkstone.judge.bm25 import BM25, terms
from inkstone.judge.retrieval import Retrieval
from inkstone.metrics.ranking import blended, first_ranks, fused, ranking_tallies


def test_the_rank_of_the_first_right_candidate() -> None:
    scores = np.array([[3, 1, 2, 0], [0, 5, 5, 1], [1, 1, 1, 1], [4, 3, 2, 1]], np.float32)
    ranks = first_ranks(scores, [[2], [2], [0], [3, 1]])
    assert ranks.tolist() == [2, 2, 4, 2], "equal scores stand before the right one"
    values = {name: tally.value for name, tally in ranking_tallies(ranks).items()}
    assert values == {"recall_at_1": 0.0, "recall_at_10": 1.0, "mrr": pytest.approx((3 / 2 + 1 / 4) / 4)}


def test_it_is_scikit_learn_s() -> None:
    """With one right candidate the mean reciprocal rank is label ranking average precision."""
    reference = pytest.importorskip("sklearn.metrics", reason="install the train extra")
    random = np.random.default_rng(1)
    scores = random.integers(0, 30, (50, 40)).astype(np.float32)
    right = random.integers(0, 40, 50)
    truth = np.zeros((50, 40))
    truth[np.arange(50), right] = 1
    found = ranking_tallies(first_ranks(scores, [[int(one)] for one in right]))
    wanted = reference.label_ranking_average_precision_score(truth, scores)
    assert found["mrr"].value == pytest.approx(wanted)
    distinct = scores + np.linspace(0, 0.5, 40, dtype=np.float32)
    for cut in (1, 10):
        wanted = reference.top_k_accuracy_score(right, distinct, k=cut, labels=range(40))
        ranks = first_ranks(distinct, [[int(one)] for one in right])
        assert ranking_tallies(ranks)[f"recall_at_{cut}"].value == pytest.approx(wanted)


def test_fusion_sums_reciprocal_ranks() -> None:
    one, other = np.array([[9, 5, 1]], np.float32), np.array([[0, 2, 1]], np.float32)
    expected = [1 / 61 + 1 / 63, 1 / 62 + 1 / 61, 1 / 63 + 1 / 62]
    np.testing.assert_allclose(fused([one, other])[0], expected, rtol=1e-6)
    assert fused([one]).argmax() == one.argmax()
    nothing = np.zeros((1, 3), np.float32)
    np.testing.assert_allclose(np.diff(fused([one, nothing])[0]), np.diff(fused([one])[0]), rtol=1e-4)


def test_bm25_is_its_formula() -> None:
    texts = ["a cat sat", "a cat a cat", "dogs bark at night and day", ""]
    k1, b = 1.2, 0.75
    mean_length = np.mean([3, 4, 6, 0])

    def score(query: list[str], text: str) -> float:
        words, total = text.split(), 0.0
        for word in query:
            holders, often = sum(word in one.split() for one in texts), words.count(word)
            idf = np.log(1 + (4 - holders + 0.5) / (holders + 0.5))
            total += idf * often * (k1 + 1) / (often + k1 * (1 - b + b * len(words) / mean_length))
        return total

    found = BM25(texts).scores(["Cat a cat", "night", "unknown"])
    wanted = [
        [score(query, text) for text in texts] for query in (["cat", "a", "cat"], ["night"], ["unknown"])
    ]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_chinese_is_found_by_two_characters() -> None:
    assert terms("高血压 Patients 吃A药") == ["高血", "血压", "patients", "吃", "a", "药"]
    found = BM25(["高血压患者能吃党参吗", "糖尿病怎么办", "今天天气很好"]).scores(["血压高的人"])
    assert found.argmax() == 0 and found[0, 0] > 0 and found[0, 2] == 0


def test_a_text_stands_once_whatever_pairs_repeat_it() -> None:
    pairs = [Related("a", "A"), Related("b", "B", ("N", "A")), Related("a", "C"), Related("c", "A")]
    sought = Retrieval.of(pairs, others=["O", "B"])
    assert sought == Retrieval(["a", "b", "c"], ["A", "B", "C", "N", "O"], [[0, 2], [1], [0]])
    scores = np.array([[0, 0, 1, 0, 0], [0, 0, 0, 1, 0], [0, 1, 0, 0, 0]], np.float32)
    assert sought.ranks(scores).tolist() == [1, 5, 5]
    assert sought.best(scores) == ["C", "N", "B"]
    with pytest.raises(DataError, match="no pairs"):
        Retrieval.of([])


def test_blended_scores_are_a_weighted_sum_and_know_nothing_of_words_where_there_are_none() -> None:
    cosines = np.array([[0.9, 0.1, 0.5], [0.2, 0.3, 0.4]], np.float32)
    words = np.array([[0.0, 8.0, 4.0], [0.0, 0.0, 0.0]], np.float32)
    found = blended(cosines, words, 0.75)
    np.testing.assert_allclose(found[0], [0.75 * 0.9, 0.75 * 0.1 + 0.25, 0.75 * 0.5 + 0.125], atol=1e-6)
    np.testing.assert_allclose(found[1], 0.75 * cosines[1], atol=1e-6)
    np.testing.assert_array_equal(blended(cosines, words, 1.0), cosines)
