"""Bad recipes: all that is wrong is said at once, before the first step; and a dry run, which only looks."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from made_corpus import made_pairs, write_pairs

torch = pytest.importorskip("torch", reason="training needs torch")

from inkstone.cli import main  # noqa: E402

Usage = namedtuple("Usage", "total used free")
TOPICS = {"rain": "will it rain in {} on day {}", "song": "play a song from {} number {}"}
PLACES = ("paris", "oslo", "rome", "cairo", "lima")


def run(*arguments: str, code: int = 0) -> tuple[str, str]:
    """What a command prints on both streams."""
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        assert main(arguments) == code, err.getvalue()
    return out.getvalue(), err.getvalue()


def texts(count: int, first: int = 0, **more: tuple[str, ...]) -> list[tuple[str, str]]:
    """Texts of two labels, and those of others."""
    rows = [
        (pattern.format(place, number), label)
        for number in range(first, first + count)
        for place in PLACES
        for label, pattern in TOPICS.items()
    ]
    return rows + [(text, label) for label, some in more.items() for text in some]


def write(path: Path, rows: list[tuple[str, str]]) -> str:
    path.write_text("".join(json.dumps({"text": t, "label": n}) + "\n" for t, n in rows), "utf-8")
    return str(path)


@pytest.fixture
def small_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(10**9, 10**9 - 10**6, 10**6))


def all_said(err: str, *words: str) -> None:
    for word in words:
        assert word.lower() in err.lower(), f"{word!r} is not said: {err}"
    assert err.count("inkstone: ") == 1 and "Traceback" not in err


@pytest.mark.usefixtures("small_disk")
def test_everything_wrong_with_a_translation_is_said_at_once(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.tsv", made_pairs(200))
    (tmp_path / "taken").mkdir()
    before = sorted(tmp_path.rglob("*"))
    recipe = ("--set", "vocab_siz=300", "--set", "training.epochs=many", "--set", "max_length=1")
    more = ("--set", "training.watch=[tensorbord]", "--valid", str(tmp_path / "gone.tsv"))
    _, err = run(
        *("train", "translate", "--data", str(data), "--out", str(tmp_path / "taken"), "--size", "tiny"),
        *(*recipe, *more),
        code=2,
    )
    all_said(
        err,
        'Did you mean "vocab_size"',
        "training.epochs='many'",
        "max_length=1 leaves no room",
        'Did you mean "tensorboard"',
        "taken already exists",
        "gone.tsv does not exist",
        "0.00 GB free",
        "7 problems",
    )
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.usefixtures("small_disk")
def test_everything_wrong_with_a_classification_is_said_at_once(tmp_path: Path) -> None:
    data = write(tmp_path / "train.jsonl", texts(8, first=0, news=("what is new", "the news please")))
    valid = write(tmp_path / "valid.jsonl", texts(2, first=20))
    test = write(tmp_path / "test.jsonl", texts(2, first=30, sport=("who won",)))
    _, err = run(
        *(
            "train",
            "classify",
            "--data",
            data,
            "--valid",
            valid,
            "--test",
            test,
            "--out",
            str(tmp_path / "m"),
        ),
        *("--set", "optoins.seed=3", "--set", "rules=[lenght]"),
        *("--set", "options.transformer.training.epochs=0"),
        code=2,
    )
    all_said(
        err,
        'Did you mean "options"',
        'Did you mean "length"',
        '"sport"',
        '"news"',
        "unmatched_labels=accept",
        "GB free",
        "epochs=0.0",
        "6 problems",
    )


@pytest.mark.usefixtures("small_disk")
def test_everything_wrong_with_a_pre_training_is_said_at_once(tmp_path: Path) -> None:
    _, err = run(
        *("pretrain", "--out", str(tmp_path / "m"), "--set", "blok=3", "--set", "training.learning_rate=-1"),
        code=2,
    )
    all_said(err, "nothing to train on", 'Did you mean "block"', "learning_rate=-1", "3 problems")
    documents = tmp_path / "texts.txt"
    documents.write_text("".join(f"This is document number {n}.\n" for n in range(300)), "utf-8")
    _, err = run(
        *(
            "pretrain",
            "--data",
            str(documents),
            "--test",
            str(tmp_path / "gone.txt"),
            "--out",
            str(tmp_path / "m"),
        ),
        *("--block", "9999", "--set", "hidden_share=2", "--set", "ngram_order=0", "--set", "rules=[lenght]"),
        code=2,
    )
    all_said(
        err,
        "block=9999",
        "hidden_share=2",
        "ngram_order=0",
        'Did you mean "length"',
        "gone.txt does not exist",
    )


@pytest.mark.usefixtures("small_disk")
def test_everything_wrong_with_a_summariser_is_said_at_once(tmp_path: Path) -> None:
    data = tmp_path / "texts.jsonl"
    data.write_text("".join(json.dumps({"essay": f"Text {n}."}) + "\n" for n in range(50)), "utf-8")
    _, err = run(
        *("train", "summarize", "--data", str(data), "--test", str(tmp_path / "gone.jsonl")),
        *("--out", str(tmp_path / "m"), "--set", "languge=en", "--set", "max_length=9999"),
        *("--set", "training.epochs=0"),
        code=2,
    )
    all_said(
        err,
        'Did you mean "language"',
        "max_length=9999",
        "epochs=0",
        "gone.jsonl does not exist",
        "where a document",
        "GB free",
    )


@pytest.mark.usefixtures("small_disk")
def test_everything_wrong_with_an_encoder_is_said_at_once(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.tsv", made_pairs(200))
    _, err = run(
        *("train", "embed", "--data", str(data), "--valid", str(tmp_path / "gone.tsv")),
        *("--out", str(tmp_path / "m"), "--set", "pairs_per_batch=1", "--set", "vocab_siz=300"),
        *("--set", "training.watch=[tensorbord]"),
        code=2,
    )
    all_said(err, "pairs_per_batch=1", 'Did you mean "vocab_size"', 'Did you mean "tensorboard"')
    all_said(err, "gone.tsv does not exist", "GB free", "5 problems")


def test_everything_wrong_with_a_chat_model_is_said_at_once(tmp_path: Path) -> None:
    data = tmp_path / "talks.jsonl"
    data.write_text('{"messages": [{"role": "user", "content": "a"}]}\n', "utf-8")
    (tmp_path / "taken").mkdir()
    _, err = run(
        *("train", "chat", "--data", str(data), "--base", str(tmp_path / "no-model")),
        *("--valid", str(tmp_path / "gone.jsonl"), "--out", str(tmp_path / "taken")),
        *("--set", "block=3", "--set", "training.watch=[tensorbord]", "--set", "training.epochs=-1"),
        code=2,
    )
    all_said(err, "taken already exists", "block=3 must be at least 8", 'Did you mean "tensorboard"')
    all_said(err, "there is no folder of this name", "gone.jsonl does not exist", "epochs=-1")


def test_labels_are_looked_at_although_a_file_is_missing(tmp_path: Path) -> None:
    data = write(tmp_path / "train.jsonl", texts(8, news=("what is new", "the news please")))
    valid = write(tmp_path / "valid.jsonl", texts(2, first=20))
    gone = ("--test", str(tmp_path / "gone.jsonl"), "--out", str(tmp_path / "m"))
    _, err = run("train", "classify", "--data", data, "--valid", valid, *gone, code=2)
    all_said(err, "gone.jsonl does not exist", "labels without a text in the validation set, which chooses")


def test_labels_are_not_looked_at_where_there_is_no_text_to_learn_from(tmp_path: Path) -> None:
    valid = write(tmp_path / "valid.jsonl", texts(2, first=20))
    gone = ("--data", str(tmp_path / "gone.jsonl"), "--out", str(tmp_path / "m"))
    _, err = run("train", "classify", "--valid", valid, *gone, code=2)
    all_said(err, "gone.jsonl does not exist")
    assert "labels of the" not in err


def test_a_search_names_a_wrong_recipe_and_a_missing_space_at_once(tmp_path: Path) -> None:
    data = str(write_pairs(tmp_path / "pairs.tsv", made_pairs(200)))
    space = ("--space", str(tmp_path / "gone.yaml"), "--out", str(tmp_path / "search"))
    _, err = run("tune", "translate", "--data", data, "--set", "vocab_siz=300", *space, code=2)
    all_said(err, 'Did you mean "vocab_size"', "gone.yaml cannot be read")


def test_labels_that_do_not_match_are_refused_unless_accepted(tmp_path: Path) -> None:
    data = write(tmp_path / "train.jsonl", texts(8, news=("what is new", "the news please", "any news")))
    valid = write(tmp_path / "valid.jsonl", texts(2, first=20))
    command = ("train", "classify", "--data", data, "--valid", valid, "--out", str(tmp_path / "m"))
    command = (*command, "--architecture", "bag")
    _, err = run(*command, code=2)
    all_said(err, 'labels without a text in the validation set, which chooses the model: "news"')
    run(*command, "--set", "unmatched_labels=accept", "--dry-run")


def listing(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


SMALL: dict[str, Any] = {"hidden_size": 32, "num_heads": 2, "num_kv_heads": 2, "feed_forward_size": 64}


def test_a_dry_run_of_a_translation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pairs = made_pairs(400)
    test = write_pairs(tmp_path / "test.tsv", pairs[:20])
    repeated = [(f"{source}！", f"{target}!") for source, target in pairs[20:80]]
    endless = [("很长" * 300, "so very long " * 100)]
    data = write_pairs(tmp_path / "pairs.tsv", [*pairs, *repeated, *endless])
    before = listing(tmp_path)
    out, err = run(
        *("train", "translate", "--data", str(data), "--test", str(test), "--out", "m/n", "--size", "tiny"),
        *("--set", f"model={json.dumps(SMALL)}", "--set", "vocab_size=400", "--set", "training.epochs=3"),
        *("--set", "training.tokens_per_batch=1000", "--set", "max_length=40", "--dry-run", "--json"),
    )
    report = json.loads(out)
    assert report["steps"] == 3 * report["steps_per_epoch"]
    found = "\n".join(report["data"])
    for finding in ("duplicate: 60 of", "overlap: 18 of", "test overlap: 2 of", "length outliers: 1 of"):
        assert finding in found, found
    for line in ("preflight:", "memory", "time", "disk", "a dry run: nothing was trained"):
        assert line in err
    assert listing(tmp_path) == before


def test_a_dry_run_of_a_classification(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = texts(12, news=("what is new", "the news please"))
    rows += [("will it rain in paris on day 3", "song"), ("rain " * 400, "rain")]
    data, test = write(tmp_path / "train.jsonl", rows), write(tmp_path / "test.jsonl", texts(2, first=11))
    before = listing(tmp_path)
    out, _ = run(
        *("train", "classify", "--data", data, "--test", test, "--out", "m", "--size", "tiny"),
        *(
            "--set",
            f"options.transformer.model={json.dumps(SMALL)}",
            "--set",
            "options.transformer.vocab_size=300",
        ),
        *("--set", "options.transformer.max_length=30", "--dry-run", "--json"),
    )
    report = json.loads(out)
    found = "\n".join(report["data"])
    wanted = (
        "contradictions: 1 texts",
        "overlap: 10 of",
        "label imbalance",
        'rare labels: "news"',
        "without a test text",
    )
    for finding in (*wanted, "length outliers: 1 of", "truncated: 1 of"):
        assert finding in found, found
    assert report["steps"] and listing(tmp_path) == before


def test_a_dry_run_of_a_pre_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    documents = [" ".join(en for _, en in made_pairs(900)[n : n + 3]) for n in range(0, 300, 2)]
    Path("texts.txt").write_text("\n".join([*documents, *documents[:40]]), "utf-8")
    before = listing(tmp_path)
    out, _ = run(
        *(
            "pretrain",
            "--data",
            "texts.txt",
            "--out",
            "m",
            "--size",
            "tiny",
            "--block",
            "16",
            "--dry-run",
            "--json",
        ),
        *("--set", "vocab_size=300", "--set", f"model={json.dumps({**SMALL, 'num_decoder_layers': 1})}"),
        *("--set", "training.epochs=2", "--set", "training.tokens_per_batch=320"),
    )
    report = json.loads(out)
    assert report["largest_cells"] == 320 and report["steps"] == 2 * report["steps_per_epoch"]
    assert any(finding.startswith("duplicate: 40 of ") for finding in report["data"]), report["data"]
    assert listing(tmp_path) == before
