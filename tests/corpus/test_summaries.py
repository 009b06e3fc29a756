"""Documents with their summaries, from files of many kinds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from inkstone.corpus.summaries import read_summaries
from inkstone.ground.errors import ConfigError, DataError

ENGLISH = (
    "The committee met on Monday and decided that the old bridge will be closed for repairs until spring."
)
CHINESE = "委员会星期一开会，决定旧桥将关闭维修，直到明年春天。"


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("document", "summary"),
    [("document", "summary"), ("text", "summary"), ("article", "highlights"), ("abstract", "title"),
     ("source", "targets"), ("dialogue", "summaries"), ("article", "abstract")],
)  # fmt: skip
def test_fields_are_told_by_their_names(tmp_path: Path, document: str, summary: str) -> None:
    file = write(tmp_path / "a.jsonl", [{"id": "7", summary: "Bridge closed.", document: ENGLISH}])
    (found,) = read_summaries([file])
    assert (found.document, found.summaries, found.language) == (ENGLISH, ("Bridge closed.",), "en")
    assert found.origin == f"{file}:1"


def test_lists_of_sentences_and_of_summaries(tmp_path: Path) -> None:
    rows = [
        {"source": ["One is here.", " Two follows. ", ""], "targets": ["First.", "Second."]},
        {"source": ["第一句。", "第二句。", "Third one."], "targets": "一句"},
    ]
    first, second = read_summaries([write(tmp_path / "a.jsonl", rows)], language="en")
    assert (first.document, first.summaries) == ("One is here. Two follows.", ("First.", "Second."))
    assert (second.document, second.summaries) == ("第一句。第二句。Third one.", ("一句",))


def test_languages_are_told_by_the_documents(tmp_path: Path) -> None:
    rows = [{"document": text, "summary": "."} for text in [ENGLISH, CHINESE] * 8]
    rows[5]["document"] = (
        "Le comité s'est réuni lundi et a décidé que le vieux pont sera fermé jusqu'au printemps."
    )
    reading = read_summaries([write(tmp_path / "a.jsonl", rows)])
    languages = [one.language for one in reading]
    assert languages[:4] == ["en", "zh", "en", "zh"]
    assert set(languages) == {"en", "zh"}  # one document in French is a stray, not a language of the file
    assert "told from the text" in reading.sources[0].describe()
    assert {one.language for one in read_summaries([tmp_path / "a.jsonl"], language="zh")} == {"zh"}


def test_a_column_of_that_name_may_be_something_else(tmp_path: Path) -> None:
    row = {"source": "a journal", "abstract": ENGLISH, "title": "Bridges", "summary": "Closed."}
    (found,) = read_summaries([write(tmp_path / "a.jsonl", [row])])
    assert (found.document, found.summaries) == (ENGLISH, ("Closed.",))


def test_a_file_sorted_by_language_has_both(tmp_path: Path) -> None:
    rows = [{"document": f"{text} {n}", "summary": "."} for text in (ENGLISH, CHINESE) for n in range(450)]
    languages = [one.language for one in read_summaries([write(tmp_path / "a.jsonl", rows)])]
    assert languages == ["en"] * 450 + ["zh"] * 450


def test_bad_rows_are_problems_and_not_silence(tmp_path: Path) -> None:
    rows = [
        {"document": ENGLISH, "summary": ""},
        {"document": [], "summary": "b"},
        {"document": ENGLISH, "summary": "b"},
    ]
    reading = read_summaries([write(tmp_path / "a.jsonl", rows)])
    assert len(list(reading)) == 1
    assert [problem.line for problem in reading.problems] == [1, 2]
    with pytest.raises(DataError, match='field "summary" is no text, or empty'):
        list(read_summaries([tmp_path / "a.jsonl"], strict=True))


def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [{"essay": ENGLISH, "gist": "b"}])
    with pytest.raises(DataError, match="has the columns essay, gist, where a document"):
        read_summaries([file])
    (found,) = read_summaries([file], fields={"document": "essay", "summary": "gist"})
    assert found.summaries == ("b",)
    with pytest.raises(ConfigError, match="both document and summary"):
        read_summaries([file], fields={"document": "essay"})
    with pytest.raises(ConfigError, match="Valid: document, summary"):
        read_summaries([file], fields={"source": "essay", "summary": "gist"})
    numbers = write(tmp_path / "b.jsonl", [{"document": "12 34", "summary": "5"}])
    with pytest.raises(ConfigError, match=r"cannot be told from its text\. Give --language"):
        read_summaries([numbers])
    with pytest.raises(ConfigError, match="no file was given"):
        read_summaries([])
