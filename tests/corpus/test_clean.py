"""The recipe and its command: what stays, what goes and why, and nothing half written."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from inkstone.cli.corpus import app as corpus_app
from inkstone.cli.tokenizer import app as tokenizer_app
from inkstone.corpus.read import read_labelled, read_pairs
from inkstone.ground.errors import ConfigError, DataError, InkstoneError
from inkstone.recipes.clean import Cleaning, clean

RAW = [
    {"en": "It is  warm today,\u200b isn't it?", "zh": "今天很溫暖，不是嗎？"},
    {"en": "It is warm today, isn't it?", "zh": "今天很溫暖，不是嗎？"},
    {"en": "The committee meets on Monday.", "zh": "The committee meets on Monday."},
    {"en": "A secret of the test set.", "zh": "测试集的秘密。"},
    {"en": "<div><b>Buy</b> now</div>", "zh": "立即购买"},
    {"en": "She &amp; he agree.", "zh": "她和他同意。"},
]


def lines(path: Path) -> list[dict[str, Any]]:
    data = path.read_bytes()
    text = gzip.decompress(data) if path.suffix == ".gz" else data
    return [json.loads(line) for line in text.splitlines()]


def write(path: Path, rows: list[dict[str, Any]], extra: str = "") -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + extra, encoding="utf-8")
    return path


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return write(tmp_path / "raw.jsonl", RAW, extra="{broken\n")


@pytest.fixture
def held_out(tmp_path: Path) -> Path:
    return write(tmp_path / "test.jsonl", [{"en": "a secret of the test set", "zh": "x"}])


def test_clean_keeps_drops_and_says_why(raw: Path, held_out: Path, tmp_path: Path) -> None:
    out = tmp_path / "clean.jsonl.gz"
    summary = clean([raw], out, Cleaning(held_out=[held_out], script="simplified"))
    assert lines(out) == [
        {"en": "It is warm today, isn't it?", "zh": "今天很温暖，不是吗？"},
        {"en": "She & he agree.", "zh": "她和他同意。"},
    ]
    dropped = lines(tmp_path / "clean.dropped.jsonl.gz")
    assert [row["rule"] for row in dropped] == ["duplicate", "identical", "overlap", "markup"]
    assert dropped[0]["reason"] == f"the same as {raw}:1" and dropped[0]["origin"] == f"{raw}:2"
    assert (summary.task, summary.read, summary.kept, summary.problem_count) == ("pairs", 6, 2, 1)
    assert summary.dropped == {
        **dict.fromkeys(summary.dropped, 0),
        **dict.fromkeys([row["rule"] for row in dropped], 1),
    }
    assert [(p.source_language, p.target_language) for p in read_pairs([out])] == [("en", "zh")] * 2


def test_cleaning_twice_changes_nothing(raw: Path, tmp_path: Path) -> None:
    clean([raw], tmp_path / "one.jsonl")
    again = clean([tmp_path / "one.jsonl"], tmp_path / "two.jsonl")
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
    assert sum(again.dropped.values()) == 0 and lines(tmp_path / "two.dropped.jsonl") == []


def test_multi_label_stays_multi_label(tmp_path: Path) -> None:
    raw = write(
        tmp_path / "a.jsonl", [{"text": "one", "labels": ["x"]}, {"text": "two", "labels": ["x", "y"]}]
    )
    assert clean([raw], tmp_path / "out.jsonl").task == "labelled"
    assert [record.labels for record in read_labelled([tmp_path / "out.jsonl"])] == [("x",), ("x", "y")]


def test_what_cannot_be_is_refused_and_leaves_no_file(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out.jsonl"
    out.parent.mkdir()
    de = write(tmp_path / "de.jsonl", [{"en": "one", "de": "eins"}])
    docs = tmp_path / "a.txt"
    docs.write_text("just a line\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"raw\.jsonl:7.*--strict"):
        clean([raw], out, Cleaning(strict=True))
    with pytest.raises(ConfigError, match="different language pairs: de-en, en-zh"):
        clean([raw, de], out)
    with pytest.raises(ConfigError, match="--from en is for pairs"):
        clean([docs], out, Cleaning(source_language="en"))
    with pytest.raises(ConfigError, match="also an input"):
        clean([raw], raw)
    identical = write(tmp_path / "same.jsonl", [{"en": "Same text.", "zh": "same text"}])
    with pytest.raises(DataError, match=r"nothing is left.*identical 1"):
        clean([identical], out)
    assert list(out.parent.iterdir()) == []


def test_a_full_disk_leaves_the_old_file(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("old", encoding="utf-8")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InkstoneError, match="disk is full"):
        clean([raw], out)
    assert out.read_text(encoding="utf-8") == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "raw.jsonl"]


def test_the_command_prints_a_table_or_one_document(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    result = CliRunner().invoke(corpus_app, ["clean", str(raw), "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert "dropped: identical" in result.stdout and "jsonl, utf-8; source=en, target=zh" in result.stdout
    assert f"{raw}:7: is not JSON" in result.stderr
    result = CliRunner().invoke(
        corpus_app, ["clean", str(raw), "-o", str(out), "--json", "--no-near-duplicates"]
    )
    document = json.loads(result.stdout)
    assert document["kept"] == 3 and document["problems"][0]["line"] == 7
    assert "near-duplicate" not in document["dropped"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--fields", "source"], "role=column"),
        (["--from", "klingon"], "ISO 639"),
        (["--max-ratio", "0"], "max_ratio"),
    ],
)
def test_the_command_refuses_bad_options(raw: Path, tmp_path: Path, options: list[str], words: str) -> None:
    result = CliRunner().invoke(corpus_app, ["clean", str(raw), "-o", str(tmp_path / "o.jsonl"), *options])
    assert isinstance(result.exception, InkstoneError) and words in str(result.exception)


def test_the_tokenizer_command(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "tokenizer.json"
    trained = CliRunner().invoke(
        tokenizer_app,
        ["train", str(raw), "-o", str(out), "--vocab-size", "350", "--special", "<2en>", "--json"],
    )
    assert trained.exit_code == 0, trained.output
    assert json.loads(trained.stdout)["specials"] == ["<pad>", "<unk>", "<s>", "</s>", "<2en>"]
    assert "1 bad lines" in trained.stderr
    text = "今天 is warm 👍 </s>"
    shown = json.loads(CliRunner().invoke(tokenizer_app, ["show", str(out), text, "--json"]).stdout)
    assert (
        shown["round_trip"] is True and shown["decoded"] == text and len(shown["ids"]) == len(shown["tokens"])
    )
    assert 3 not in shown["ids"]
    human = CliRunner().invoke(tokenizer_app, ["show", str(out), "-"], input="warm")
    assert "comes back as it was" in human.stdout
    missing = CliRunner().invoke(tokenizer_app, ["show", str(tmp_path / "none"), "x"])
    assert isinstance(missing.exception, DataError)
