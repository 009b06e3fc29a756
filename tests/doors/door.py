"""How the tests of this folder come to the door: a command line as a user types it, and what must hold when it is
refused."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from inkstone.cli import main
from inkstone.ground.manifest import MANIFEST, seal

LONGEST_MESSAGE = 2000  # characters: a message, not a log


@dataclass(frozen=True)
class Answer:
    """What a command gave back."""

    code: int
    out: str
    err: str


Call = Callable[..., Answer]


def caller(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """A function that runs `inkstone` with these arguments in this process."""

    def call(*arguments: str, stdin: bytes = b"") -> Answer:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        capsys.readouterr()
        code = main(arguments)
        return Answer(code, *capsys.readouterr())

    return call


def listing(folder: Path) -> dict[str, str]:
    """Every file, link and folder below, and the content of files."""

    def content(path: Path) -> str:
        if path.is_symlink():
            return f"-> {path.readlink()}"
        return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "not a file"

    return {str(path.relative_to(folder)): content(path) for path in sorted(folder.rglob("*"))}


def refused(call: Call, *arguments: str, words: str = "", stdin: bytes = b"", code: int = 2) -> Answer:
    """Run a command that must be refused, and check all that every refusal promises; words, in any case, are said."""
    before = listing(Path.cwd())
    answer = call(*arguments, stdin=stdin)
    assert answer.code == code, answer
    assert answer.out == "", answer.out
    assert (
        answer.err.startswith(("inkstone: ", "Usage: inkstone", "Error: ")) or "\ninkstone: " in answer.err
    ), answer.err
    assert answer.err.count("inkstone: ") <= 1, f"more than one message: {answer.err}"
    assert "Traceback" not in answer.err, answer.err
    assert len(answer.err) <= LONGEST_MESSAGE, answer.err
    for word in filter(None, words.split(" … ")):
        assert word.lower() in answer.err.lower(), f"{word!r} is not said: {answer.err}"
    assert listing(Path.cwd()) == before
    return answer


def one_document(text: str) -> dict[str, object]:
    """What `--json` printed: one JSON object without NaN, one line break at the end, nothing else."""

    def no_number(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    document = json.loads(text, parse_constant=no_number)
    assert isinstance(document, dict)
    assert text.endswith("}\n")
    return document


def rewritten(file: str, change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    """Change a JSON file of a bundle and seal the bundle again: whole, yet not right."""

    def damage(bundle: Path) -> None:
        value = json.loads((bundle / file).read_text("utf-8"))
        change(value)
        (bundle / file).write_text(json.dumps(value), "utf-8")
        resealed(bundle)

    return damage


def resealed(bundle: Path) -> None:
    """A manifest of the files as they are now."""
    (bundle / MANIFEST).unlink()
    seal(bundle, {})
