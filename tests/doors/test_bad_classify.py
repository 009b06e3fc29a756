"""`inkstone classify` and `inkstone train classify`, and what they are given wrongly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from door import Call, one_document, refused, rewritten
from made_corpus import made_labelled

pytest.importorskip("inkstone.cli.classify", reason="the classify verbs are not here yet")

if TYPE_CHECKING:
    from conftest import Trained, TrainedClassifier

TEXTS = {
    "nothing": ((), "nothing to classify"),
    "missing file": (("missing.jsonl",), "missing.jsonl does not exist"),
    "empty file": (("empty.tsv",), "empty.tsv is empty"),
    "blank file": (("blank.txt",), "only white space"),
    "binary file": (("binary.tsv",), "is a binary file"),
    "picture": (("picture.jsonl",), "is a PNG image"),
    "encoding": (("latin1.txt",), "unknown encoding"),
    "wide": (("utf16.txt",), "UTF-16"),
    "columns": (("columns.csv",), "has the columns a, b … `text`"),
    "one document": (("document.json",), "one JSON document, not JSON Lines"),
    "fields": (("texts.txt", "--fields", "text"), "role=column"),
    "fields not there": (("labelled.tsv", "--fields", "text=body"), 'field="body"'),
    "fields of no file": (("hello there", "--fields", "text=body"), "--fields is for a file"),
    "none at the top": (("hello", "--top", "0"), "--top"),
    "threads": (("hello", "--threads", "-1"), "--threads"),
    "option": (("hello", "--modle", "m"), "No such option: --modle"),
}
DATA = {
    "missing.tsv": "missing.tsv does not exist",
    "empty.tsv": "empty.tsv is empty",
    "blank.txt": "only white space",
    "binary.tsv": "is a binary file",
    "picture.jsonl": "is a PNG image",
    "utf16.txt": "UTF-16",
    "damaged.gz": "damaged gzip",
    "folder": "is a folder",
    "columns.csv": "has the columns a, b … `text` and `label`",
    "texts.txt": "plain text without columns",
    "german.tsv": "has the columns en, de",
    "one-class.jsonl": "music",
    "labelled.tsv": "",  # two examples: too few, in whatever words
}
SETTINGS = {
    "x": "no name or no value",
    "dat=3": 'Did you mean "data"',
    "options.sed=3": 'Did you mean "options.seed"',
    "options=3": "options",
    "rules=[lenght]": 'Did you mean "length"',
    "cleaning.max_ratio=.nan": "max_ratio=nan",
    "options.architecture=bagg": "'bag'",
}
PLACES = {
    "folder": "folder already exists",
    "labelled.tsv": "labelled.tsv already exists",
    "labelled.tsv/model": "cannot write labelled.tsv/model",
    "x" * 300: "too long",
    "": "already exists",
}


@pytest.fixture
def model(trained_classifier: TrainedClassifier, place: Path) -> tuple[str, str]:
    return "--model", str(trained_classifier.bundle)


@pytest.fixture
def command(place: Path) -> tuple[str, ...]:
    """A training that would go well."""
    pytest.importorskip("torch", reason="training needs torch")
    rows = [{"text": f"{text} {n}", "label": label} for n in range(8) for text, label in made_labelled()]
    (place / "made.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    one_class = [row for row in rows if row["label"] == "music"]
    (place / "one-class.jsonl").write_text("\n".join(map(json.dumps, one_class)), "utf-8")
    return "train", "classify", "--architecture", "bag", "--data"


@pytest.mark.parametrize("json_too", [(), ("--json",)], ids=["text", "json"])
@pytest.mark.parametrize("name", TEXTS)
def test_texts(call: Call, model: tuple[str, str], name: str, json_too: tuple[str, ...]) -> None:
    arguments, words = TEXTS[name]
    refused(call, "classify", *arguments, *model, *json_too, words=words)


def test_standard_input(call: Call, model: tuple[str, str]) -> None:
    refused(call, "classify", "-", *model, stdin=b"fine\n\xff", words="standard input … not UTF-8")


def test_empty_standard_input(call: Call, model: tuple[str, str]) -> None:
    refused(call, "classify", "-", "--json", *model, stdin=b"", words="standard input is empty")


@pytest.mark.parametrize("name", ["missing", "folder", "texts.txt", "x" * 300])
def test_models(call: Call, place: Path, name: str) -> None:
    refused(call, "classify", "hello", "--model", name)
    refused(call, "classify", "hello", "--model", name, "--json")


def test_a_model_for_another_task(call: Call, place: Path, trained: Trained) -> None:
    words = "for task 'translate', but 'classify' is needed"
    refused(call, "classify", "hello", "--model", str(trained.bundle), words=words)


@pytest.mark.parametrize("labels", [None, [], "music", [1, 2], ["music"], ["music", "weather", "sports"]])
def test_labels_that_are_not_the_models(
    call: Call, place: Path, trained_classifier: TrainedClassifier, labels: object
) -> None:
    import shutil

    shutil.copytree(trained_classifier.bundle, "altered")
    rewritten("inkstone.json", lambda description: description.update(labels=labels))(Path("altered"))
    refused(call, "classify", "hello", "--model", "altered", words="label")


@pytest.mark.parametrize(
    "text", ["", " \n ", "\0", "a" * 200_000, "猫" * 50_000, "\u0301" * 1000, "\ud800", "🀄"]
)
def test_odd_texts_get_a_label(call: Call, model: tuple[str, str], text: str) -> None:
    answer = call("classify", "-", *model, "--json", stdin=text.encode("utf-8", "surrogatepass"))
    assert answer.code in (0, 2), answer
    if answer.code == 0:
        assert one_document(answer.out)["model"]
    else:
        assert answer.out == ""
        assert answer.err.startswith("inkstone: ")


@pytest.mark.parametrize("name", DATA)
def test_data(call: Call, command: tuple[str, ...], name: str) -> None:
    refused(call, *command, name, "--out", "model", words=DATA[name])
    refused(call, *command, name, "--out", "model", "--json", words=DATA[name])


@pytest.mark.parametrize("setting", SETTINGS)
def test_settings(call: Call, command: tuple[str, ...], setting: str) -> None:
    refused(call, *command, "made.jsonl", "--out", "model", "--set", setting, words=SETTINGS[setting])


@pytest.mark.parametrize("name", PLACES)
def test_places(call: Call, command: tuple[str, ...], name: str) -> None:
    refused(call, *command, "made.jsonl", "--out", name, words=PLACES[name])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--out", "m", "--size", "huge"), "'tiny', 'small', 'base'"),
        (("--out", "m", "--architecture", "forest"), "'bag', 'transformer'"),
        (("--out", "m", "--valid", "missing.tsv"), "missing.tsv does not exist"),
        (("--out", "m", "--test", "missing.tsv"), "missing.tsv does not exist"),
        (("--out", "m", "--test", "made.jsonl"), "left"),
        (("--out", "m", "--fields", "text=q,label=w"), 'field="q"'),
        (("--out", "m", "--name", " "), "name is empty"),
        (("--recipe", "out.yaml"), "out=7"),
        (("--out", "m", "--recipe", "unknown.yaml"), "is not known"),
        ((), "Give --out FOLDER"),
    ],
)
def test_options(call: Call, command: tuple[str, ...], options: tuple[str, ...], words: str) -> None:
    refused(call, *command, "made.jsonl", *options, words=words)


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ("task: classify\n", "recipe"),
        ("task: classify\nrecipe: 3\n", "recipe"),
        ("task: classify\nout: model\nrecipe: {nam: x, data: [y]}\n", 'Did you mean "name"'),
        ("task: classify\nout: model\nrecipe: {name: x, data: [gone.tsv]}\n", "gone.tsv does not exist"),
    ],
)
def test_runs_that_cannot_go_on(call: Call, place: Path, recipe: str, words: str) -> None:
    (place / "model.run").mkdir()
    (place / "model.run" / "recipe.yaml").write_text(recipe, "utf-8")
    refused(call, "train", "resume", "model.run", words=words)
