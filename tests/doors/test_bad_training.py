"""`inkstone train` and what it is given wrongly: said before anything is read or written, in one message."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from door import Call, refused
from made_corpus import made_pairs, write_pairs

pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("inkstone.cli.classify", reason="the classify verbs are not here yet")

DATA = {
    "missing.tsv": "missing.tsv does not exist",
    "empty.tsv": "empty.tsv is empty",
    "blank.txt": "only white space",
    "binary.tsv": "is a binary file",
    "picture.jsonl": "is a PNG image",
    "latin1.txt": "unknown encoding … iconv",
    "utf16.txt": "UTF-16 … iconv",
    "damaged.gz": "damaged gzip",
    "folder": "is a folder",
    "columns.csv": "has the columns a, b … --fields",
    "three.tsv": "has the columns 1, 2, 3",
    "labelled.tsv": "has the columns text, label",
    "document.json": "one JSON document, not JSON Lines … jq",
    "pairs.tsv": "too few to hold out",
    "corpus.{en,zh}": "corpus.en does not exist",
    "/dev/zero": "a pipe or a device",
    "x" * 300: "too long",
}
OPTIONS = {
    "size": (("--size", "huge"), 'size="huge" … tiny, small, base'),
    "language": (("--from", "zz"), 'language="zz" … ISO 639-1'),
    "languages equal": (("--from", "en", "--to", "en"), "both en"),
    "language not there": (("--from", "de", "--to", "en"), "de and en among them"),
    "fields": (("--fields", "zh"), "role=column"),
    "fields unknown role": (("--fields", "sorce=zh,target=en"), 'Did you mean "source"'),
    "fields unknown column": (("--fields", "source=q,target=en"), 'field="q" … Valid: zh, en'),
    "name": (("--name", " "), "name is empty"),
    "valid missing": (("--valid", "missing.tsv"), "missing.tsv does not exist"),
    "valid is the data": (("--valid", "made.tsv"), "no pair to train on is left … overlap"),
    "test missing": (("--test", "missing.tsv"), "missing.tsv does not exist"),
    "test without a file": (("--test", "news="), '"news=" names no file'),
    "tests of one name": (("--test", "a/t.tsv", "--test", "b/t.tsv"), 'two test sets are called "t.tsv"'),
    "recipe missing": (("--recipe", "missing.yaml"), "missing.yaml cannot be read"),
    "recipe of no name": (
        ("--recipe", "zh-em"),
        'recipe="zh-em" … Valid: english-novels … Did you mean "zh-en"',
    ),
    "recipe no YAML": (("--recipe", "yaml.yaml"), "yaml.yaml is not valid YAML … line 1"),
    "recipe a list": (("--recipe", "list.yaml"), "holds a list"),
    "recipe binary": (("--recipe", "binary.yaml"), "not valid YAML"),
    "recipe a folder": (("--recipe", "folder"), "cannot be read: Is a directory"),
    "recipe out": (("--recipe", "out.yaml"), "out=7 is not the name of a folder"),
    "recipe unknown keys": (
        ("--recipe", "unknown.yaml"),
        '3 problems … "vocab_siz" … Did you mean "vocab_size" … "training.epochs" … patience=\'often\'',
    ),
}
SETTINGS = {
    "x": "no name or no value … training.epochs=3",
    "=3": "no name or no value",
    "training=3": "training",
    "training.epochs=[1": "not valid YAML",
    "training.epoch=3": 'Did you mean "training.epochs"',
    "training.epochs=many": "training.epochs='many' … number",
    "training.epochs=0": "epochs=0.0 must be above 0",
    "training.learning_rate=nan": "learning_rate=nan",
    "training.tokens_per_batch=0": "tokens_per_batch=0 must be at least 1",
    "training.threads=-1": "threads=-1",
    "vocab_size=5": "vocab_size=5",
    "vocab_size=-5": "vocab_size=-5",
    "vocab_size=many": "vocab_size='many' … integer",
    "model=3": "model=3 … mapping",
    "model.hiden_size=64": 'Did you mean "hidden_size"',
    "model.hidden_size=63": "multiple of num_heads",
    "model.hidden_size=a": "hidden_size='a' must be of type int",
    "model.vocab_size=5": 'model option="vocab_size"',
    "tokenizer=bp": "'bpe', 'unigram', 'wordpiece' or 'byte-bpe'",
    "rules=[lenght]": 'rule="lenght" … Did you mean "length"',
    "rules=length": "list, such as",
    "max_length=100000": "max_length=100000 is more than",
    "max_length=0": "max_length=0",
    "beam_size=0": "beam_size=0 must be between",
    "beam_size=1000": "beam_size=1000 must be between",
    "weights=float8": "'float32' or 'float16'",
    "cleaning.max_ratio=-1": "max_ratio=-1.0",
    "cleaning.max_ratio=.nan": "max_ratio=nan",
    "bleu=x": "'none', '13a' or 'zh'",
    "script=old": "'simplified' or 'traditional'",
    "test=foo": "mapping, such as",
    "name=": "name=None",
}
PLACES = {
    "folder": "folder already exists … another --out",
    "pairs.tsv": "pairs.tsv already exists",
    "dangling": "dangling already exists",
    "pairs.tsv/model": "is a file, not a folder",
    "": "already exists",
    "/": "already exists",
    "unfinished": "unfinished.run holds an unfinished run … inkstone train resume unfinished.run",
    "/proc/model": "cannot write /proc/model.run",
    "x" * 300: "too long",
}


@pytest.fixture
def command(place: Path) -> tuple[str, ...]:
    """A training that would go well."""
    write_pairs(place / "made.tsv", made_pairs(300))
    return "train", "translate", "--data", "made.tsv", "--size", "tiny", "--set", "training.epochs=0.01"


@pytest.mark.parametrize("name", DATA)
def test_data(call: Call, place: Path, name: str) -> None:
    refused(call, "train", "translate", "--data", name, "--out", "model", words=DATA[name])
    refused(call, "train", "translate", "--data", name, "--out", "model", "--json", words=DATA[name])


@pytest.mark.parametrize("name", OPTIONS)
def test_options(call: Call, command: tuple[str, ...], name: str) -> None:
    options, words = OPTIONS[name]
    if "--size" in options:
        command = command[:4]
    refused(call, *command, "--out", "model", *options, words=words)


@pytest.mark.parametrize("setting", SETTINGS)
def test_settings(call: Call, command: tuple[str, ...], setting: str) -> None:
    refused(call, *command[:6], "--out", "model", "--set", setting, words=SETTINGS[setting])


@pytest.mark.parametrize("name", PLACES)
def test_places(call: Call, command: tuple[str, ...], place: Path, name: str) -> None:
    (place / "unfinished.run" / "checkpoints").mkdir(parents=True)
    refused(call, *command, "--out", name, words=PLACES[name])


def test_what_is_missing_is_asked_for(call: Call, place: Path) -> None:
    refused(call, "train", "translate", words="Give --out FOLDER")
    refused(call, "train", "translate", "--out", "model", words="nothing to train on … --data")
    refused(call, "train", "translat", words="No such command 'translat'")
    refused(
        call, "train", "translate", "--recipe", "one-file.yaml", "--out", "m", words="data='pairs.tsv' … list"
    )


RUNS = {
    "no recipe": (None, "no recipe.yaml"),
    "no YAML": ("a: [1", "not valid YAML"),
    "another task": ("task: translat\n", 'task="translat" … Did you mean "translate"'),
    "a task that is a list": ("task: [1]\n", "is not known"),
    "nothing else": ("task: translate\n", "holds no recipe"),
    "recipe a number": ("task: translate\nout: x\nrecipe: 3\n", "holds no recipe"),
    "recipe of unknown names": ("task: translate\nrecipe: {nam: x, data: [y]}\n", 'Did you mean "name"'),
    "data gone": ("task: translate\nrecipe: {name: x, data: [gone.tsv]}\n", "gone.tsv does not exist"),
}


@pytest.mark.parametrize("name", RUNS)
def test_runs_that_cannot_go_on(call: Call, place: Path, name: str) -> None:
    recipe, words = RUNS[name]
    (place / "model.run").mkdir()
    if recipe is not None:
        (place / "model.run" / "recipe.yaml").write_text(recipe, "utf-8")
    refused(call, "train", "resume", "model.run", words=words)
    refused(call, "train", "resume", "model.run", "--json", words=words)


def test_what_is_no_run(call: Call, place: Path) -> None:
    refused(call, "train", "resume", words="Missing argument")
    refused(call, "train", "resume", "missing", words="no recipe.yaml")
    refused(call, "train", "resume", "pairs.tsv", words="no recipe.yaml")
    shutil.copytree("folder", "renamed")
    Path("renamed", "recipe.yaml").write_text(
        "task: translate\nrecipe: {name: x, data: [pairs.tsv]}\n", "utf-8"
    )
    refused(call, "train", "resume", "renamed", words="must be named like the model, with .run")
