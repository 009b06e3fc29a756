"""`inkstone vectors`, wrongly used: one message, exit code 2, nothing written; and rightly, from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from door import Call, one_document, refused

TEXT = "the cat sat on the mat with the dog\n\nthe dog sees the cat\n" * 10
TRAINING = {
    "nothing": ((), "Missing argument"),
    "no output": (("texts.txt",), "Missing option '--out'"),
    "missing": (("missing.txt", "-o", "v"), "missing.txt does not exist"),
    "empty": (("empty.tsv", "-o", "v"), "empty.tsv is empty"),
    "blank": (("blank.txt", "-o", "v"), "holds only white space"),
    "binary": (("binary.tsv", "-o", "v"), "is a binary file"),
    "columns": (("columns.csv", "-o", "v"), "has the columns a, b"),
    "punctuation alone": (("marks.txt", "-o", "v"), "0 words occur … the corpus has 0 words"),
    "one word": (
        ("one.txt", "-o", "v"),
        '1 words occur 5 times or more, where two are needed … "word", 20 times',
    ),
    "too rare": (("texts.txt", "-o", "v"), "0 words occur 5 times … --min-count"),
    "no window": (("lonely.txt", "-o", "v", "--method", "glove"), "no two words stand near each other"),
    "method": (("many.txt", "-o", "v", "--method", "fasttext"), "'skip-gram', 'cbow', 'glove'"),
    "many things": (
        (
            "many.txt",
            "-o",
            "v",
            "--dimensions",
            "0",
            "--epochs",
            "-1",
            "--window",
            "101",
            "--learning-rate",
            "9",
        ),
        "4 problems … dimensions=0 … epochs=-1 … window=101 … learning_rate=9.0",
    ),
    "many things, glove": (
        ("many.txt", "-o", "v", "--method", "glove", "--x-max", "0", "--epochs", "0", "--seed", "-1"),
        "3 problems … epochs=0 … x_max=0.0 … seed=-1",
    ),
    "not finite": (("many.txt", "-o", "v", "--subsample", "nan"), "subsample=nan"),
    "x-max without glove": (("many.txt", "-o", "v", "--x-max", "5"), "x_max=5.0 is for glove"),
    "min-count": (("many.txt", "-o", "v", "--min-count", "0"), "min_count=0 is below 1"),
    "max-words": (("many.txt", "-o", "v", "--max-words", "1"), "max_words=1 is below 2"),
    "workers": (("many.txt", "-o", "v", "--workers", "-2"), "workers=-2 is below 1"),
    "too many workers": (("many.txt", "-o", "v", "--workers", "100000"), "workers=100000 is above 256"),
    "huge numbers": (
        ("many.txt", "-o", "v", "--dimensions", "1000000000000", "--negatives", "100000000"),
        "2 problems … dimensions=1000000000000 is above 10,000 … negatives=100000000 is above 1,000",
    ),
    "a huge number, glove": (
        ("many.txt", "-o", "v", "--method", "glove", "--dimensions", "99999"),
        "above 10,000",
    ),
    "language": (("many.txt", "-o", "v", "--language", "xx"), 'language="xx"'),
    "format": (("many.txt", "-o", "v", "--format", "npz"), "'inkstone', 'word2vec'"),
    "fields": (("many.txt", "-o", "v", "--fields", "text"), "role=column"),
    "taken": (("many.txt", "-o", "folder", "--epochs", "1"), "folder already exists"),
    "a file in a folder's place": (("many.txt", "-o", "many.txt"), "is also an input"),
    "a file into nowhere": (
        ("many.txt", "-o", "no/v.txt", "--format", "glove", "--epochs", "1"),
        "the folder does not exist",
    ),
}
LOOKING = {
    "no vectors": (("neighbours", "missing", "cat"), "missing does not exist … word2vec text or binary"),
    "no words": (("neighbours", "v.txt"), "Missing argument"),
    "a folder of something": (
        ("neighbours", "folder", "cat"),
        "folder holds no usable vectors … manifest.json is missing",
    ),
    "unknown words": (
        ("neighbours", "v.txt", "catt", "dog", "katze"),
        '2 problems … "catt" … Near spellings: cat … "katze"',
    ),
    "unknown in an analogy": (
        ("neighbours", "v.txt", "--analogy", "cat", "dog", "Mta"),
        '"Mta" has no vector',
    ),
    "half an analogy": (("neighbours", "v.txt", "--analogy", "cat", "dog"), "needs three words"),
    "k": (("neighbours", "v.txt", "cat", "-k", "0"), "-k"),
    "cut off": (
        ("neighbours", "cut.bin", "cat"),
        "cut.bin is cut off … 2 words x 3 dimensions … within word 2",
    ),
    "short lines": (("neighbours", "short.txt", "cat"), "line 3 … has 1 numbers … where 2 are needed"),
    "not a number": (("neighbours", "nan.txt", "cat"), '"cat" holds a number that is not finite'),
    "a corpus": (("neighbours", "many.txt", "cat"), "many.txt:1: a word followed by numbers is expected"),
    "empty vectors": (("neighbours", "empty.tsv", "cat"), "empty.tsv is empty"),
    "no sets": (("evaluate", "v.txt"), "Missing argument"),
    "missing set": (("evaluate", "v.txt", "missing.tsv"), "missing.tsv cannot be read … Check the path"),
    "folder without sets": (("evaluate", "v.txt", "folder"), "folder holds no sets"),
    "a set of two columns": (("evaluate", "v.txt", "pairs.tsv"), "rows of 2 columns"),
    "rows that differ": (("evaluate", "v.txt", "rows.tsv"), "rows 2, 3 are not like row 1"),
    "a set not in UTF-8": (("evaluate", "v.txt", "latin1.txt"), "latin1.txt is not UTF-8"),
    "damaged set": (("evaluate", "v.txt", "damaged.gz"), "damaged gzip file"),
    "vectors of another kind": (
        ("evaluate", "texts.txt", "sim.tsv"),
        "a word followed by numbers is expected",
    ),
    "convert onto itself": (("convert", "v.txt", "v.txt"), "is also an input"),
    "convert onto a folder": (("convert", "v.txt", "folder"), "folder already exists"),
    "convert into nowhere": (
        ("convert", "v.txt", "no/w.txt", "--format", "glove"),
        "the folder does not exist",
    ),
    "convert words with spaces": (
        ("convert", "spaces.txt", "w", "--format", "word2vec"),
        "white space: 'new york'",
    ),
    "verb": (("neighbors",), "neighbors"),
}


@pytest.fixture
def shelf(place: Path) -> Path:
    """Small files of vectors beside the bad files of the working folder."""
    files: dict[str, bytes] = {
        "many.txt": TEXT.encode(),
        "marks.txt": "，。！ ... \n".encode() * 9,
        "one.txt": b"word\n" * 20,
        "lonely.txt": b"one\ntwo\n" * 9,
        "v.txt": b"4 2\ncat 1 0\ndog 0.9 0.1\nmat 0 1\ntea -1 0\n",
        "cut.bin": b"2 3\ncat " + bytes(range(12)) + b"dog " + bytes(4),
        "short.txt": b"cat 1 2\ndog 3 4\nmat 5\n",
        "nan.txt": b"cat 1 nan\ndog 3 4\n",
        "spaces.txt": b"new york 1 2\ncat 3 4\n",
        "rows.tsv": b"cat\tdog\t3\ncat\tdog\ncat\tdog\tmany\n",
        "sim.tsv": b"cat\tdog\t9\ncat\tmat\t5\ncat\ttea\t1\n",
    }
    for name, content in files.items():
        (place / name).write_bytes(content)
    return place


@pytest.mark.parametrize("name", TRAINING)
def test_training_is_refused(name: str, call: Call, shelf: Path) -> None:
    arguments, words = TRAINING[name]
    refused(call, "vectors", "train", *arguments, words=words)


@pytest.mark.parametrize("name", LOOKING)
def test_looking_is_refused(name: str, call: Call, shelf: Path) -> None:
    arguments, words = LOOKING[name]
    refused(call, "vectors", *arguments, words=words)


def test_from_text_to_neighbours(call: Call, shelf: Path) -> None:
    """Standard input, one file of another program, and the same vectors whatever they are kept in."""
    train = ("vectors", "train", "-", "--dimensions", "8", "--workers", "1", "--json")
    for out, kind in (("made", "inkstone"), ("made.bin.gz", "word2vec-binary")):
        answer = call(*train, "-o", out, "--format", kind, stdin=TEXT.encode())
        assert answer.code == 0, answer.err
        made = one_document(answer.out)
        assert (made["words"], made["corpus_words"], made["format"]) == (8, 140, kind)
    near = [
        json.loads(call("vectors", "neighbours", out, "cat", "--json").out) for out in ("made", "made.bin.gz")
    ]
    assert near[0]["results"] == near[1]["results"]
    assert len(near[0]["results"][0]["neighbours"]) == 7


def test_what_was_passed_over_is_said(call: Call, shelf: Path) -> None:
    (shelf / "twice.txt").write_bytes(b"cat 1 2\ncat 3 4\ndog 5 6\n")
    answer = call("vectors", "neighbours", "twice.txt", "cat", "--json")
    assert answer.code == 0
    assert "1 words came again" in answer.err
    assert "1 words came again" in str(one_document(answer.out)["notes"])


def test_an_evaluation_says_how_much_it_could_use(call: Call, shelf: Path) -> None:
    (shelf / "more.tsv").write_text("Cat\tDog\t9\ncat\tmat\t5\ncat\ttea\t1\ncat\tunknown\t5\n", "utf-8")
    answer = call("vectors", "evaluate", "v.txt", "more.tsv")
    assert "3 of      4 rows  spearman 1.000" in answer.out
    (shelf / "none.tsv").write_text("a\tb\t9\nc\td\t5\n", "utf-8")
    assert "0 of      2 rows  too few to measure" in call("vectors", "evaluate", "v.txt", "none.tsv").out
