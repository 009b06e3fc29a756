"""Pairs of texts that belong together, from files of many kinds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from inkstone.corpus.related import RelatedData, read_related
from inkstone.ground.errors import ConfigError, DataError
from inkstone.ground.records import Related


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("one", "other"), [("source", "target"), ("question", "answer"), ("anchor", "positive"), ("en", "zh")]
)
def test_fields_are_told_by_their_names(tmp_path: Path, one: str, other: str) -> None:
    file = write(tmp_path / "a.jsonl", [{"id": "7", other: "B", one: "A"}])
    assert list(read_related([file])) == [Related("A", "B", (), f"{file}:1")] or one == "en"
    (found,) = read_related([file], fields={"source": one, "target": other})
    assert (found.source, found.target) == ("A", "B")


def test_negatives_come_along(tmp_path: Path) -> None:
    rows = [{"query": "q", "passage": "p", "negatives": ["x", "y"]}, {"query": "r", "passage": "s"}]
    found = list(read_related([write(tmp_path / "a.jsonl", rows)]))
    assert [one.negatives for one in found] == [("x", "y"), ()]
    triples = write(tmp_path / "b.jsonl", [{"anchor": "a", "positive": "p", "negative": "n"}])
    assert [one.negatives for one in read_related([triples])] == [("n",)]


def test_a_side_of_several_fields_and_rows_by_their_fold(tmp_path: Path) -> None:
    rows = [{"title": f"T{n}", "question": f"Q{n}", "answer": f"A{n}", "fold": n} for n in range(4)]
    file = write(tmp_path / "a.jsonl", rows)
    data = RelatedData(file, {"source": "title+question", "target": "answer"}, {"fold": [1, 3]})
    reading = read_related([data, file])
    assert [one.source for one in reading] == ["T1\nQ1", "T3\nQ3", "Q0", "Q1", "Q2", "Q3"]
    assert "fold in [1, 3]" in reading.sources[0].describe()


def test_two_columns_without_a_header(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("one\teins\ntwo\tzwei\n", "utf-8")
    assert [(one.source, one.target) for one in read_related([str(tmp_path / "a.tsv")])] == [
        ("one", "eins"),
        ("two", "zwei"),
    ]


def test_bad_rows_are_problems_and_not_silence(tmp_path: Path) -> None:
    rows = [{"source": "a", "target": ""}, {"source": 3, "target": "b"}, {"source": "a", "target": "b"}]
    reading = read_related([write(tmp_path / "a.jsonl", rows)])
    assert len(list(reading)) == 1 and reading.problem_count == 2
    assert "target is no text, or empty" in str(reading.problems[0])
    with pytest.raises(DataError, match="target is no text"):
        list(read_related([write(tmp_path / "a.jsonl", rows)], strict=True))


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        ({}, DataError, "two texts that belong together are needed"),
        ({"fields": {"source": "text"}}, ConfigError, "both source and target"),
        ({"fields": {"source": "text", "target": "labell"}}, DataError, 'Did you mean "label"'),
        ({"fields": {"sorce": "text"}}, ConfigError, 'Did you mean "source"'),
        ({"fields": {"source": "text", "target": "label"}, "where": {"fild": [1]}}, DataError, "fild"),
    ],
)
def test_what_cannot_be_is_said(tmp_path: Path, data: dict[str, Any], kind: Any, words: str) -> None:
    file = write(tmp_path / "a.jsonl", [{"text": "a", "label": "b", "third": 1}])
    with pytest.raises(kind, match=words):
        list(read_related([RelatedData(file, **data)]))
