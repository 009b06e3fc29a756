"""Similarity and analogy figures against gensim and scipy; neighbours against the definition; unknown words."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inkstone.ground.errors import DataError
from inkstone.metrics.correlation import pearson, spearman
from inkstone.vectors.evaluation import evaluate, read_word_set, solve, word_set, word_set_files
from inkstone.vectors.store import WordVectors


@pytest.fixture(scope="module")
def vectors() -> WordVectors:
    """Words w0 to w59, some written otherwise, on a few directions so that analogies have answers."""
    rng = np.random.default_rng(0)
    bases, shifts = rng.standard_normal((12, 8)), rng.standard_normal((5, 8))
    matrix = (bases[:, None] + shifts[None] + 0.25 * rng.standard_normal((12, 5, 8))).reshape(60, 8)
    words = [f"w{n}" if n % 3 else f"W{n}" for n in range(60)]
    words[59] = "W1"  # another w1, less frequent
    return WordVectors(tuple(words), matrix.astype(np.float32))


def theirs(vectors: WordVectors) -> object:
    models = pytest.importorskip("gensim.models", reason="compares with gensim")
    keyed = models.KeyedVectors(vectors.dimensions)
    keyed.add_vectors(list(vectors.words), vectors.matrix_VD)
    return keyed


def test_similarity_equals_gensim(vectors: WordVectors, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    drawn = zip(*rng.integers(0, 70, (2, 150)).tolist(), rng.random(150).tolist(), strict=True)
    rows = [(f"w{a}", f"W{b}", round(9 * score, 1)) for a, b, score in drawn if a != b]
    file = tmp_path / "sim.tsv"
    file.write_text("".join(f"{a}\t{b}\t{s}\n" for a, b, s in rows), "utf-8")
    folded = WordVectors(tuple(w.upper() for w in vectors.words[:59]), vectors.matrix_VD[:59])
    found = evaluate(folded, read_word_set(file))
    (pearson_, *_), (spearman_, *_), unknown = theirs(folded).evaluate_word_pairs(str(file))  # type: ignore[attr-defined]
    assert found.metrics["pearson"].value == pytest.approx(float(pearson_), abs=1e-6)
    assert found.metrics["spearman"].value == pytest.approx(float(spearman_), abs=1e-6)
    assert 100 * (1 - found.coverage) == pytest.approx(unknown)
    assert found.coverage < 1
    measured = found.metrics["spearman"]
    assert measured.low < measured.value < measured.high


def test_analogies_equal_gensim(vectors: WordVectors, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    lines = []
    for category in ("one", "two"):
        lines.append(f": {category}")
        for _ in range(80):
            (x, y), (s, t) = rng.choice(13, 2, replace=False), rng.choice(5, 2, replace=False)
            lines.append(" ".join(f"w{5 * base + shift}" for base, shift in ((x, s), (x, t), (y, s), (y, t))))
    file = tmp_path / "analogy.txt"
    file.write_text("\n".join(lines) + "\n", "utf-8")
    found = evaluate(vectors, read_word_set(file))
    folded = WordVectors(tuple(w.upper() for w in vectors.words[:59]), vectors.matrix_VD[:59])
    ours = evaluate(folded, read_word_set(file))
    accuracy, sections = theirs(folded).evaluate_word_analogies(str(file))  # type: ignore[attr-defined]
    assert ours.metrics["accuracy"].value == pytest.approx(accuracy)
    assert 0.1 < accuracy < 0.95
    for section in sections[:-1]:
        right, wrong = len(section["correct"]), len(section["incorrect"])
        assert ours.categories[section["section"]] == (right, right + wrong)
    assert found.used == ours.used
    assert found.used < found.rows


def test_neighbours_equal_gensim(vectors: WordVectors) -> None:
    for positive, negative in ((["w1"], []), (["w2", "w4"], ["w5"])):
        wanted = theirs(vectors).most_similar(positive=positive, negative=negative, topn=7)  # type: ignore[attr-defined]
        found = vectors.neighbours(*positive, negative=negative, k=7)
        assert [one.word for one in found] == [word for word, _ in wanted]
        assert [one.similarity for one in found] == pytest.approx([s for _, s in wanted], abs=1e-5)
    assert len(vectors.neighbours("w1", k=1000)) == 59
    assert vectors.similarity("w1", "w2") == pytest.approx(
        float(theirs(vectors).similarity("w1", "w2")), abs=1e-6
    )  # type: ignore[attr-defined]


def test_solve_is_the_nearest_but_the_asked(vectors: WordVectors) -> None:
    rows = np.random.default_rng(0).integers(0, 60, (300, 3))
    unit = vectors.unit_VD
    for (a, b, c), answer in zip(rows.tolist(), solve(vectors, rows).tolist(), strict=True):
        scores = unit @ (unit[b] - unit[a] + unit[c])
        assert answer not in (a, b, c)
        assert scores[answer] >= max(s for n, s in enumerate(scores) if n not in (a, b, c)) - 1e-6


@given(st.lists(st.tuples(st.integers(-5, 5), st.integers(-5, 5)), min_size=2, max_size=30))
def test_correlations_equal_scipy(pairs: list[tuple[int, int]]) -> None:
    stats = pytest.importorskip("scipy.stats", reason="compares with scipy")
    one, other = zip(*pairs, strict=True)
    if len(set(one)) == 1 or len(set(other)) == 1:
        assert pearson(one, other) == spearman(one, other) == 0
        return
    assert pearson(one, other) == pytest.approx(float(stats.pearsonr(one, other)[0]), abs=1e-9)
    assert spearman(one, other) == pytest.approx(float(stats.spearmanr(one, other)[0]), abs=1e-9)


def test_sets_are_read_in_every_dress(tmp_path: Path) -> None:
    dresses = {
        "sim.en-a.tsv": b"word1\tword2\tscore\ntiger\tcat\t7.35\n",
        "sim.zh_b.csv": "老虎,猫,7\n".encode(),
        "sim.en-c.txt": b"# comment\ntiger cat 7\n",
        "analogy.en_d.tsv.gz": gzip.compress(b"category\ta\tb\tc\td\nk\tx y\tb\tc\td\n"),
        "analogy.zh_e.txt": ": 省会\n浙江 杭州 江苏 南京\n".encode(),
        "README.md": b"no set",
    }
    for name, content in dresses.items():
        (tmp_path / name).write_bytes(content)
    sets = {file.name: read_word_set(file) for file in word_set_files([tmp_path])}
    assert list(sets) == sorted(name for name in dresses if name != "README.md")
    assert sets["sim.en-a.tsv"].rows == (("tiger", "cat"),)
    assert sets["sim.en-a.tsv"].scores == (7.35,)
    assert sets["sim.zh_b.csv"].rows == (("老虎", "猫"),)
    assert sets["analogy.en_d.tsv.gz"].rows == (("x y", "b", "c", "d"),)
    assert sets["analogy.zh_e.txt"].categories == ("省会",)
    assert [file.name for file in word_set_files([tmp_path], "zh")] == ["analogy.zh_e.txt", "sim.zh_b.csv"]
    with pytest.raises(DataError, match="no sets in fr"):
        word_set_files([tmp_path], "fr")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "holds no rows"),
        ([["a", "b"]], "rows of 2 columns"),
        (
            [["a", "b", "3"], ["a", "b"], ["a", "", "1"], ["a", "b", "nan"]],
            r"rows 2, 3, 4 are not like row 1",
        ),
        ([["x", "q", "b", "c", "d"], ["q", "b", "c", "d"]], "rows 2 are not like"),
    ],
)
def test_broken_sets_are_refused(rows: list[list[str]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        word_set("made", rows)


def test_unknown_words_come_with_near_spellings() -> None:
    words = ("Paris", "parish", "colour", "北京市", "北京", "cat")
    vectors = WordVectors(words, np.eye(6, dtype=np.float32))
    with pytest.raises(
        DataError, match=r"2 problems\n.*\"paris\".*Near spellings: Paris, parish\n.*\"color\".*colour"
    ):
        vectors.rows(["paris", "cat", "color"])
    with pytest.raises(DataError, match="Near spellings: 北京"):
        vectors["北平"]
    with pytest.raises(
        DataError, match=r'"qqq" has no vector among these 6 words\Z|"qqq" has no vector.*words$'
    ):
        vectors.neighbours("qqq")


def test_word_vectors_refuse_what_does_not_fit() -> None:
    with pytest.raises(DataError, match="2 words and 3 vectors"):
        WordVectors(("a", "b"), np.ones((3, 2), np.float32))
    with pytest.raises(DataError, match=r'"a" has two vectors'):
        WordVectors(("a", "a"), np.ones((2, 2), np.float32))
    with pytest.raises(DataError, match="words x dimensions"):
        WordVectors((), np.ones((0, 2), np.float32))
