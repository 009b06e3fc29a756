"""`inkstone corpus clean`, `tokenizer`, `evaluate`, `serve`, `doctor` and the verbs themselves, wrongly used."""

from __future__ import annotations

import gzip
import json
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from door import Call, one_document, refused

from inkstone.cli import VERBS

if TYPE_CHECKING:
    from conftest import Trained

FILES = {
    "missing.tsv": "missing.tsv does not exist",
    "empty.tsv": "empty.tsv is empty",
    "blank.txt": "blank.txt holds only white space",
    "binary.tsv": "binary.tsv is a binary file … Valid: JSON Lines",
    "picture.jsonl": "picture.jsonl is a PNG image",
    "latin1.txt": "latin1.txt is in an unknown encoding … iconv",
    "utf16.txt": "utf16.txt is written in UTF-16 … iconv -f UTF-16",
    "damaged.gz": "damaged.gz is a damaged gzip file … Copy it again",
    "document.json": "document.json is one JSON document, not JSON Lines … jq",
    "folder": "folder is a folder. Give the files in it",
    "dangling": "dangling does not exist",
    "pipe": "pipe is a pipe or a device",
    "/dev/zero": "a pipe or a device",
    "x" * 300: "too long",
}
CLEANING = {
    "nothing": ((), "Missing argument"),
    "no output": (("texts.txt",), "Missing option '--out'"),
    "columns": (("columns.csv", "-o", "o.jsonl"), "has the columns a, b … --task and --fields"),
    "columns of pairs": (("columns.csv", "-o", "o.jsonl", "--task", "pairs"), "has the columns a, b"),
    "mixture": (("pairs.tsv", "german.tsv", "-o", "o.jsonl"), "different language pairs: de-en, en-zh"),
    "language": (("pairs.tsv", "-o", "o.jsonl", "--from", "xx", "--to", "zh"), 'language="xx"'),
    "language of a text": (("texts.txt", "-o", "o.jsonl", "--from", "en"), "is for pairs"),
    "fields": (("columns.csv", "-o", "o.jsonl", "--fields", "source"), "role=column"),
    "fields not there": (("columns.csv", "-o", "o.jsonl", "--fields", "source=a,target=q"), 'field="q"'),
    "task": (("texts.txt", "-o", "o.jsonl", "--task", "pair"), "'pairs', 'labelled', 'documents'"),
    "script": (("texts.txt", "-o", "o.jsonl", "--script", "old"), "'simplified', 'traditional'"),
    "strict": (("broken.jsonl", "-o", "o.jsonl", "--strict"), "broken.jsonl:2: is not JSON"),
    "nothing left": (("texts.txt", "-o", "o.jsonl", "--min-chars", "500"), "nothing is left … length 2"),
    "below zero": (("texts.txt", "-o", "o.jsonl", "--min-chars", "-1"), "min_chars=-1 is below 0"),
    "crossed": (("texts.txt", "-o", "o.jsonl", "--min-chars", "9", "--max-chars", "3"), "nothing between"),
    "ratio": (("pairs.tsv", "-o", "o.jsonl", "--max-ratio", "0.5"), "max_ratio=0.5 is not 1 or more"),
    "ratio nan": (("pairs.tsv", "-o", "o.jsonl", "--max-ratio", "nan"), "max_ratio=nan is not 1 or more"),
    "similarity": (("pairs.tsv", "-o", "o.jsonl", "--near-similarity", "2"), "near_similarity=2.0"),
    "held out": (("pairs.tsv", "-o", "o.jsonl", "--held-out", "missing.tsv"), "missing.tsv does not exist"),
    "into nowhere": (("texts.txt", "-o", "nowhere/o.jsonl"), "the folder does not exist. Create it first"),
    "into a folder": (("texts.txt", "-o", "folder"), "this is a folder"),
    "into a file": (("texts.txt", "-o", "pairs.tsv/o.jsonl"), "a part of the path is a file"),
    "into the input": (("texts.txt", "-o", "texts.txt"), "is also an input"),
    "into the input, otherwise named": (("texts.txt", "-o", "folder/../texts.txt"), "is also an input"),
    "into a device": (("texts.txt", "-o", "/dev/null"), "cannot be the output"),
    "into nothing": (("texts.txt", "-o", ""), "cannot be the output"),
    "into a long name": (("texts.txt", "-o", "x" * 300), "too long"),
}
TOKENIZERS = {
    "nothing": (("train",), "Missing argument"),
    "no output": (("train", "texts.txt"), "Missing option '--out'"),
    "kind": (
        ("train", "texts.txt", "-o", "t.json", "--kind", "bp"),
        "'bpe', 'unigram', 'wordpiece', 'byte-bpe'",
    ),
    "size": (("train", "texts.txt", "-o", "t.json", "--vocab-size", "3"), "vocab_size=3 is too small"),
    "size below zero": (("train", "texts.txt", "-o", "t.json", "--vocab-size", "-3"), "vocab_size=-3"),
    "special of nothing": (
        ("train", "texts.txt", "-o", "t.json", "--special", ""),
        "cannot be a special token",
    ),
    "special of letters": (("train", "texts.txt", "-o", "t.json", "--special", "the"), "like <the>"),
    "special twice": (("train", "texts.txt", "-o", "t.json", "--special", "<s>"), "named twice: <s>"),
    "special half": (("train", "texts.txt", "-o", "t.json", "--special", "<\ud800>"), "not valid Unicode"),
    "into the input": (("train", "texts.txt", "-o", "texts.txt"), "is also an input"),
    "into nowhere": (("train", "texts.txt", "-o", "nowhere/t.json"), "the folder does not exist"),
    "into a folder": (("train", "texts.txt", "-o", "folder"), "this is a folder"),
    "into a full disk": (("train", "texts.txt", "-o", "/dev/full"), "the disk is full"),
    "show nothing": (("show",), "Missing argument"),
    "show what is missing": (("show", "missing.json", "x"), "missing.json does not exist"),
    "show a folder": (("show", "folder", "x"), "folder/tokenizer.json does not exist"),
    "show a text": (("show", "texts.txt", "x"), "is not a tokenizer.json"),
    "show a list": (("show", "document.json", "x"), "is not a tokenizer.json"),
    "show bytes": (("show", "binary.tsv", "x"), "is not a tokenizer.json"),
}
EVALUATIONS = {
    "nothing": ((), "Missing option '--data'"),
    "columns": (("--data", "columns.csv"), "has the columns a, b … `source` and `target`"),
    "labels": (("--data", "labelled.tsv"), "has the columns text, label"),
    "language": (("--data", "german.tsv"), 'to="de" … Valid: en, zh'),
    "language not there": (("--data", "pairs.tsv", "--to", "fr"), "with fr among them"),
    "mixture": (
        ("--data", "pairs.tsv", "--data", "german.tsv"),
        "one translation direction … en to de, zh to en",
    ),
    "strict": (("--data", "broken.jsonl", "--strict"), "broken.jsonl:2"),
    "tokenize": (("--data", "pairs.tsv", "--tokenize", "chars"), 'Did you mean "char"'),
    "beam": (("--data", "pairs.tsv", "--beam-size", "0"), "--beam-size"),
    "seed": (("--data", "pairs.tsv", "--seed", "-1"), "--seed"),
    "against": (("--data", "pairs.tsv", "--against", "missing"), 'model="missing"'),
    "against a folder": (("--data", "pairs.tsv", "--against", "folder"), "not a usable bundle"),
    "fields": (("--data", "pairs.tsv", "--fields", "x"), "role=column"),
}
SERVING = {
    "port below zero": (("--port", "-1"), "--port"),
    "port too high": (("--port", "70000"), "--port … 65535"),
    "port no number": (("--port", "http"), "--port … integer"),
    "threads": (("--threads", "-1"), "--threads"),
    "models missing": (("--models", "missing", "--port", "0"), "there is no model in missing"),
    "models a file": (("--models", "texts.txt", "--port", "0"), "there is no model in texts.txt"),
    "models none": (("--models", "folder", "--port", "0"), "there is no model in folder"),
    "open without a key": (("--host", "0.0.0.0", "--port", "0"), "an API key is needed … INKSTONE_API_KEY"),
    "host unknown": (("--host", "nowhere.invalid"), 'host="nowhere.invalid" … 127.0.0.1'),
    "key file missing": (("--api-key-file", "missing"), "missing cannot be read"),
    "key file empty": (("--api-key-file", "empty.tsv"), "holds no key"),
    "key file binary": (("--api-key-file", "binary.tsv"), "not UTF-8"),
    "key file a folder": (("--api-key-file", "folder"), "Is a directory"),
}


@pytest.fixture
def pipe(place: Path) -> None:
    os.mkfifo(place / "pipe")


@pytest.mark.parametrize("name", FILES)
def test_files(call: Call, place: Path, pipe: None, name: str) -> None:
    for json_too in ((), ("--json",)):
        refused(call, "corpus", "clean", name, "-o", "o.jsonl", *json_too, words=FILES[name])
        refused(call, "corpus", "clean", "texts.txt", name, "-o", "o.jsonl.gz", *json_too, words=FILES[name])
        refused(call, "tokenizer", "train", name, "-o", "t.json", *json_too, words=FILES[name])


@pytest.mark.parametrize("name", FILES)
def test_files_to_measure_with(call: Call, place: Path, pipe: None, trained: Trained, name: str) -> None:
    for json_too in ((), ("--json",)):
        refused(call, "evaluate", str(trained.bundle), "--data", name, *json_too, words=FILES[name])


@pytest.mark.parametrize("name", CLEANING)
def test_cleaning(call: Call, place: Path, name: str) -> None:
    arguments, words = CLEANING[name]
    refused(call, "corpus", "clean", *arguments, words=words)
    refused(call, "corpus", "clean", *arguments, "--json", words=words)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokenizers(call: Call, place: Path, name: str) -> None:
    arguments, words = TOKENIZERS[name]
    refused(call, "tokenizer", *arguments, words=words)
    refused(call, "tokenizer", *arguments, "--json", words=words)


@pytest.mark.parametrize("name", EVALUATIONS)
def test_evaluations(call: Call, place: Path, trained: Trained, name: str) -> None:
    arguments, words = EVALUATIONS[name]
    refused(call, "evaluate", str(trained.bundle), *arguments, words=words)
    refused(call, "evaluate", str(trained.bundle), *arguments, "--json", words=words)


@pytest.mark.parametrize("name", SERVING)
def test_serving(call: Call, place: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastapi", reason="serving needs fastapi")
    monkeypatch.delenv("INKSTONE_API_KEY", raising=False)
    arguments, words = SERVING[name]
    refused(call, "serve", *arguments, words=words)
    refused(call, "serve", *arguments, "--json", words=words)


def test_a_port_in_use(call: Call, place: Path, trained: Trained) -> None:
    pytest.importorskip("fastapi", reason="serving needs fastapi")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        words = f"port {port} on 127.0.0.1 is in use … --port"
        refused(call, "serve", "--models", str(trained.bundle), "--port", str(port), "--json", words=words)


@pytest.mark.parametrize("options", [("--port", "0"), ("--port", "x"), ("--pot", "8000"), ("extra",)])
def test_the_doctor(call: Call, place: Path, options: tuple[str, ...]) -> None:
    refused(
        call, "doctor", *options, words="--port" if options[0] != "extra" else "unexpected extra argument"
    )


@pytest.mark.parametrize("name", ["missing", "texts.txt", "folder"])
def test_the_doctor_on_no_models(call: Call, place: Path, name: str) -> None:
    answer = call("doctor", "--models", name, "--json")
    assert (answer.code, answer.err) == (2, "")
    checks = {check["name"]: check for check in one_document(answer.out)["checks"]}  # type: ignore[attr-defined]
    assert checks["models"]["ok"] is False
    assert checks["models"]["advice"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("translat",), "No such command 'translat'"),
        (("--nope",), "No such option: --nope"),
        (("corpus", "cleen"), "No such command 'cleen'"),
        (("tokenizer", "shw"), "No such command 'shw'"),
        (("verify",), "Missing argument"),
        (("verify", "a", "b"), "unexpected extra argument"),
        (("doctor", "--json=maybe"), "--json"),
    ],
)
def test_verbs_and_options_that_do_not_exist(
    call: Call, place: Path, arguments: tuple[str, ...], words: str
) -> None:
    refused(call, *arguments, words=words)


@pytest.mark.parametrize("verb", [name for name in VERBS if name not in ("classify", "train")])
def test_every_verb_refuses_an_unknown_option(call: Call, place: Path, verb: str) -> None:
    sub = {"corpus": ("clean",), "tokenizer": ("train",)}.get(verb, ())
    refused(call, verb, *sub, "--no-such-option", words="No such option: --no-such-option")


def test_standard_input_is_a_corpus_too(call: Call, place: Path) -> None:
    packed = gzip.compress((place / "pairs.tsv").read_bytes())
    answer = call("corpus", "clean", "-", "-o", "o.jsonl", "--json", stdin=packed)
    assert answer.code == 0, answer.err
    assert one_document(answer.out)["kept"] == 2
    first, _ = (place / "o.jsonl").read_text("utf-8").splitlines()
    assert json.loads(first)["en"] == "I see the cat."
    refused(call, "corpus", "clean", "-", "-o", "p.jsonl", stdin=b"", words="standard-input is empty")
    refused(
        call,
        "tokenizer",
        "train",
        "-",
        "-o",
        "t.json",
        stdin=b"\0\1\2",
        words="standard-input is a binary file",
    )
    refused(call, "tokenizer", "show", "texts.txt", "-", stdin=b"\xff", words="not a tokenizer.json")


def test_standard_input_that_is_no_text(call: Call, place: Path, trained: Trained) -> None:
    refused(
        call, "tokenizer", "show", str(trained.bundle), "-", stdin=b"ab\xff", words="not UTF-8 text (byte 2)"
    )


def test_bad_lines_are_counted_and_the_rest_is_used(call: Call, place: Path, trained: Trained) -> None:
    """One line of four is usable: it is measured, and the three others are said."""
    answer = call("evaluate", str(trained.bundle), "--data", "broken.jsonl", "--json")
    document = one_document(answer.out)
    assert (answer.code, document["n"]) == (0, 1)
    assert "3 lines of the data could not be used; the first: broken.jsonl:2" in str(document["notes"])
    answer = call("corpus", "clean", "broken.jsonl", "-o", "o.jsonl", "--json")
    assert one_document(answer.out)["problem_count"] == 3
    assert "bad line: broken.jsonl:2: is not JSON" in answer.err
