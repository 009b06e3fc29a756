"""`inkstone translate` and what it is given wrongly."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from door import Call, listing, one_document, refused

if TYPE_CHECKING:
    from conftest import Trained

OPTIONS = {
    "nothing to translate": ((), "nothing to translate … --file"),
    "text and file": (("x", "--file", "texts.txt"), "not both"),
    "unknown target": (("我看见这只猫。", "--to", "fr"), 'to="fr" … Valid: en, zh'),
    "unknown source": (("x", "--from", "xx"), 'from="xx" … Valid: en, zh'),
    "no such direction": (("x", "--from", "en", "--to", "en"), "from en to en … zh-en, en-zh"),
    "beam of none": (("x", "--beam-size", "0"), "--beam-size … greater than or equal to 1"),
    "beam too wide": (("x", "--beam-size", "65"), "--beam-size … 64"),
    "beam no number": (("x", "--beam-size", "wide"), "--beam-size … integer"),
    "more alternatives than beams": (
        ("x", "--beam-size", "2", "--alternatives", "3"),
        "alternatives=3 … 1 and 2",
    ),
    "no alternatives": (("x", "--alternatives", "0"), "--alternatives … 1"),
    "penalty not a number": (("x", "--length-penalty", "nan"), "length_penalty=nan … between"),
    "negative penalty": (("x", "--length-penalty", "-1"), "length_penalty=-1.0 … between"),
    "unknown engine": (
        ("x", "--engine", "tourch"),
        'engine="tourch" … ctranslate2, onnx, torch … Did you mean',
    ),
    "negative threads": (("x", "--threads", "-1"), "--threads … 0"),
    "endless threads": (("x", "--threads", "100000"), "--threads … 256"),
    "unknown option": (("x", "--modle", "m"), "No such option: --modle … --model"),
}
FILES = {
    "missing.txt": "missing.txt cannot be read: No such file",
    "folder": "folder cannot be read: Is a directory",
    "dangling": "dangling cannot be read: No such file",
    "empty.tsv": "empty.tsv is empty",
    "latin1.txt": "latin1.txt, line 1 is not UTF-8 … byte 3 … iconv",
    "binary.tsv": "binary.tsv, line 2 is not UTF-8 … byte 117",
    "utf16.txt": "utf16.txt, line 1 is not UTF-8",
    "": "cannot be read: Is a directory",
    "x" * 300: "cannot be read: File name too long",
}
OUTPUTS = {
    "folder": "cannot write folder: this is a folder",
    "nowhere/out.txt": "cannot write nowhere/out.txt: the folder does not exist. Create it first",
    "texts.txt/out.txt": "cannot write texts.txt/out.txt: a part of the path is a file",
    "texts.txt": "texts.txt is also the input … another name",
    "./folder/../texts.txt": "also the input",
    "/dev/full": "cannot write /dev/full: the disk is full",
    "/proc/out.txt": "cannot write /proc/out.txt",
    "x" * 300: "too long",
    "": "this is a folder. Give the name of a file",
}
MODELS = {
    "missing": 'no folder of this name … model="missing"',
    "": "not a usable bundle",
    "folder": "folder is not a usable bundle: manifest.json is missing",
    "texts.txt": "texts.txt is a file. A model is a folder",
    "dangling": 'model="dangling"',
    "../" * 40 + "etc/passwd": "is a file",
    "x" * 300: "too long",
}


@pytest.fixture
def model(trained: Trained, place: Path) -> tuple[str, str]:
    return "--model", str(trained.bundle)


@pytest.mark.parametrize("json", [(), ("--json",)], ids=["text", "json"])
@pytest.mark.parametrize("name", OPTIONS)
def test_options(call: Call, model: tuple[str, str], name: str, json: tuple[str, ...]) -> None:
    arguments, words = OPTIONS[name]
    refused(call, "translate", *arguments, *model, *json, words=words)


@pytest.mark.parametrize("name", FILES)
def test_files(call: Call, model: tuple[str, str], name: str) -> None:
    refused(call, "translate", "--file", name, "--to", "zh", "--out", "out.txt", *model, words=FILES[name])


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs(call: Call, model: tuple[str, str], name: str) -> None:
    refused(call, "translate", "--file", "texts.txt", "--out", name, *model, words=OUTPUTS[name])


@pytest.mark.parametrize("name", MODELS)
def test_models(call: Call, place: Path, name: str) -> None:
    refused(call, "translate", "x", "--model", name, words=MODELS[name])


@pytest.mark.parametrize(
    ("stdin", "words"),
    [(b"", "standard input is empty"), (b"fine\n\xff\xfe", "standard input, line 2 is not UTF-8 … byte 0")],
)
def test_standard_input(call: Call, model: tuple[str, str], stdin: bytes, words: str) -> None:
    refused(call, "translate", "-", *model, words=words, stdin=stdin)
    refused(call, "translate", "-", "--json", *model, words=words, stdin=stdin)


def test_a_line_without_end_is_refused_before_it_is_read(
    call: Call, model: tuple[str, str], place: Path
) -> None:
    with (place / "endless.txt").open("wb") as file:
        file.write(b"short\n")
        file.truncate(1 << 30)  # sparse: a gigabyte of NUL, on no disk
    began = time.monotonic()
    words = "endless.txt, line 2 is longer than 1,048,576 bytes"
    answer = call("translate", "--file", "endless.txt", "--to", "zh", *model)
    assert (answer.code, answer.out) == (2, "")
    assert words in answer.err
    assert time.monotonic() - began < 5


def test_lines_stay_lines(call: Call, model: tuple[str, str], place: Path) -> None:
    """Only a line feed ends a line: as many come out as `wc -l` counts, whatever else is in them."""
    (place / "odd.txt").write_bytes("\ufeffone\x0ctwo\r\n\r\n\x85\u2028 \x1c\nthree\rfour\n\0\nlast".encode())
    answer = call("translate", "--file", "odd.txt", "--to", "zh", "--out", "odd.zh", *model)
    assert (answer.code, answer.out, answer.err) == (0, "", "")
    lines = (place / "odd.zh").read_text("utf-8").split("\n")
    assert len(lines) == 6 + 1
    assert [number for number, line in enumerate(lines) if not line][:2] == [1, 2]
    assert lines[5], "the last line is a text, although nothing ends it"


@pytest.mark.parametrize(
    "text", ["a" * 20_000, "猫" * 5_000, "\0" * 300 + "x", "…?!" * 2_000, "\u0301" * 1_000, "🀄" * 800]
)
def test_texts_without_a_space_come_out_whole(call: Call, model: tuple[str, str], text: str) -> None:
    """Nothing is cut off: what the engine is given, put together, is the text, normalised."""
    from inkstone.apps.translate import Translator
    from inkstone.text.normalize import normalize

    given: list[int] = []
    generate = Translator(model[1]).engine.__class__.generate

    def spy(engine: object, sources: list[list[int]], options: object) -> object:
        given.extend(number for source in sources for number in source)
        return generate(engine, sources, options)  # type: ignore[arg-type]

    translator = Translator(model[1])
    began = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(translator.engine.__class__, "generate", spy)
        answer = call(
            "translate", "-", "--to", "zh", "--beam-size", "1", "--json", *model, stdin=text.encode()
        )
    assert time.monotonic() - began < 20
    assert answer.code == 0, answer.err
    results = one_document(answer.out)["results"]
    assert results[0]["source"] == text  # type: ignore[index]
    assert translator.tokenizer.decode(given).replace(" ", "") == normalize(text).replace(" ", "")


def test_half_a_character_does_not_spoil_the_document(call: Call, model: tuple[str, str]) -> None:
    """A lone surrogate, which a shell makes of bytes that are not UTF-8, is no text; what is printed stays JSON."""
    answer = call("translate", "I see \udcff the cat.", "--to", "zh", "--json", *model)
    assert answer.code in (0, 2), answer
    if answer.code == 0:
        assert one_document(answer.out)["results"]


def test_nothing_is_left_behind_when_it_works(call: Call, model: tuple[str, str], place: Path) -> None:
    before = listing(place)
    assert call("translate", "--file", "texts.txt", "--out", "out.txt", *model).code == 0
    assert sorted(listing(place)) == sorted([*before, "out.txt"])
    assert oct((place / "out.txt").stat().st_mode & 0o777) == oct(0o666 & ~_umask())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
