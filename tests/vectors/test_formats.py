"""The files of word vectors against gensim, there and back; and what is wrong with a file, said by line."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inkstone.ground.errors import BundleError, ConfigError, DataError
from inkstone.vectors.formats import read_vectors, write_vectors
from inkstone.vectors.store import WordVectors, load, save

WORDS = ("the", "猫", "naïve", "don't", "e-mail", "北京大学", "5")


@pytest.fixture
def vectors() -> WordVectors:
    matrix = np.random.default_rng(0).standard_normal((len(WORDS), 6)).astype(np.float32)
    matrix[0] = [0, -0.0, 1e-38, 3.4e38, 1 / 3, -1]
    return WordVectors(WORDS, matrix)


def same(one: WordVectors, other: WordVectors) -> None:
    assert one.words == other.words
    assert one.matrix_VD.tobytes() == other.matrix_VD.tobytes()


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("kind", ["word2vec", "word2vec-binary", "glove"])
def test_there_and_back(kind: str, packed: str, vectors: WordVectors, tmp_path: Path) -> None:
    write_vectors(vectors, tmp_path / f"v{packed}", kind)  # type: ignore[arg-type]
    read = read_vectors(tmp_path / f"v{packed}")
    same(read.vectors, vectors)
    assert (read.format, read.notes) == (kind, ())


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", ["word2vec", "word2vec-binary", "glove"])
def test_gensim_reads_what_is_written(kind: str, vectors: WordVectors, tmp_path: Path) -> None:
    models = pytest.importorskip("gensim.models", reason="compares with gensim")
    write_vectors(vectors, tmp_path / "v", kind)  # type: ignore[arg-type]
    theirs = models.KeyedVectors.load_word2vec_format(
        str(tmp_path / "v"), binary=kind == "word2vec-binary", no_header=kind == "glove"
    )
    assert tuple(theirs.index_to_key) == vectors.words
    assert theirs.vectors.tobytes() == vectors.matrix_VD.tobytes()


@pytest.mark.parametrize("binary", [False, True])
def test_what_gensim_writes_is_read(binary: bool, vectors: WordVectors, tmp_path: Path) -> None:
    models = pytest.importorskip("gensim.models", reason="compares with gensim")
    theirs = models.KeyedVectors(vectors.dimensions)
    theirs.add_vectors(list(vectors.words), vectors.matrix_VD)
    theirs.save_word2vec_format(str(tmp_path / "v"), binary=binary)
    read = read_vectors(tmp_path / "v")
    assert read.format == ("word2vec-binary" if binary else "word2vec")
    assert read.vectors.words == vectors.words
    np.testing.assert_array_equal(read.vectors.matrix_VD, vectors.matrix_VD)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 30), st.integers(1, 80), st.booleans())
def test_binary_of_any_shape_with_and_without_line_breaks(words: int, width: int, breaks: bool) -> None:
    """word2vec.c ends each row with a line break, gensim does not; the bytes of numbers may look like either."""
    from tempfile import TemporaryDirectory

    rng = np.random.default_rng(words * 100 + width)
    matrix = np.frombuffer(
        rng.choice([0x0A, 0x20, 0x41, 0xC8], (words, width, 4)).astype(np.uint8).tobytes(), "<f4"
    )
    matrix = matrix.reshape(words, width)
    end = b"\n" if breaks else b""
    rows = [f"w{n}é ".encode() + row.tobytes() + end for n, row in enumerate(matrix)]
    with TemporaryDirectory() as folder:
        file = Path(folder, "v.bin")
        file.write_bytes(f"{words} {width}\n".encode() + b"".join(rows))
        read = read_vectors(file)
    assert read.format == "word2vec-binary"
    assert read.vectors.words == tuple(f"w{n}é" for n in range(words))
    assert read.vectors.matrix_VD.tobytes() == matrix.tobytes()


def test_words_with_spaces_twice_and_not_utf8(tmp_path: Path) -> None:
    """All three are in well-known files: GloVe 840B has ". . .", word2vec's news vectors have broken letters."""
    (tmp_path / "v").write_bytes(b". . . 1 2 3\ncat 4 5 6\ncat 7 8 9\nb\xff 1 1 1\n")
    read = read_vectors(tmp_path / "v")
    assert (read.format, read.vectors.words) == ("glove", (". . .", "cat"))
    assert read.vectors["cat"].tolist() == [4, 5, 6]
    assert "1 words came again" in read.notes[0]
    assert "1 words are not valid UTF-8" in read.notes[1]
    with pytest.raises(DataError, match=r"white space: '\. \. \.'"):
        write_vectors(read.vectors, tmp_path / "w", "word2vec")
    assert not (tmp_path / "w").exists()


BROKEN = {
    "empty": (b"", "is empty"),
    "no vectors promised": (b"0 5\n", "promises no vectors"),
    "a sentence": (b"the cat sat on the mat\nthe dog\n", r":1: a word followed by numbers is expected"),
    "short line": (
        b"2 3\na 1 2 3\nb 1 2\n",
        r'line 3 \("b 1 2"\) has 2 numbers after its word, where 3 are needed',
    ),
    "long line": (b"a 1 2\nb 1 2 3 4\nc 1\n", r"2 problems[\s\S]*line 2[\s\S]*line 3"),
    "first line short": (b"2 3\na 1 2\nb 1 2 3\n", r"line 2 \(.a 1 2.\) has 2 numbers"),
    "many": (b"".join(b"w%d 1 2\n" % n for n in range(3)) + b"x 1\n" * 9, "… and 4 lines more"),
    "fewer words": (b"3 2\na 1 2\nb 3 4\n", "line 1 promises 3 words, and there are 2: the file was cut off"),
    "more words": (b"1 2\na 1 2\nb 3 4\n", "line 1 promises 1 words, and there are 2"),
    "not finite": (b"a 1 nan\nb inf 2\n", r'"a" holds a number that is not finite[\s\S]*"b"'),
    "binary cut off": (
        b"2 3\na " + bytes(range(12)) + b"b " + bytes(5),
        "cut off: .*2 words x 3 .* within word 2",
    ),
    "binary cut in a word": (b"2 3\na " + bytes(range(12)) + b"bb", "cut off: .* within word 2"),
    "binary too long": (
        b"1 3\na " + bytes(range(12)) + b"b " + bytes(range(12)),
        "goes on after the 1 words",
    ),
    "binary of another width": (b"9 2\na " + bytes(range(200)) * 50, "no end within|cut off|goes on after"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(100), "binary file that does not begin with two numbers"),
    "gzip cut off": (gzip.compress(b"a 1 2\n" * 9999)[:50], "damaged gzip file"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_is_said(name: str, tmp_path: Path) -> None:
    content, message = BROKEN[name]
    (tmp_path / "v").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_vectors(tmp_path / "v")
    assert str(tmp_path / "v") in str(caught.value)


def test_a_folder_there_and_back(vectors: WordVectors, tmp_path: Path) -> None:
    counted = WordVectors(vectors.words, vectors.matrix_VD, np.arange(7, 0, -1), {"method": "cbow"})
    save(counted, tmp_path / "v")
    back = load(tmp_path / "v")
    same(back, counted)
    assert back.counts_V is not None
    assert back.counts_V.tolist() == [7, 6, 5, 4, 3, 2, 1]
    assert back.description is not None
    assert back.description["method"] == "cbow"
    same(read_vectors(tmp_path / "v").vectors, vectors)
    save(vectors, tmp_path / "w")
    assert load(tmp_path / "w").counts_V is None


def test_a_damaged_folder_is_refused(vectors: WordVectors, tmp_path: Path) -> None:
    save(vectors, tmp_path / "v")
    (tmp_path / "v" / "vocabulary.tsv").write_text("word\tcount\nthe\t\n", "utf-8")
    with pytest.raises(BundleError, match=r"vocabulary\.tsv has"):
        load(tmp_path / "v")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleError, match=r"manifest\.json is missing"):
        read_vectors(tmp_path / "empty")
    with pytest.raises(ConfigError, match='format="word2vc"'):
        write_vectors(vectors, tmp_path / "x", "word2vc")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="a tab or a line break"):
        save(WordVectors(("a\tb",), np.ones((1, 2), np.float32)), tmp_path / "x")
    assert not (tmp_path / "x").exists()
