"""Every command and every Python example of the documentation works as pasted.

Blocks of ```sh and ```python run in order, each file in a folder of its own. A block after `<!-- not run: why -->` is
left out; one that asks a server on port 8000 gets a real server (on a free port).
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "README.zh.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
BLOCK = re.compile(r"(?P<note><!-- not run: .+? -->\n)?```(?P<kind>sh|python)\n(?P<code>.*?)```", re.DOTALL)
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Example:
    """A code block of a page."""

    kind: str
    code: str
    skipped: bool


def examples(page: Path) -> list[Example]:
    """The blocks of a page, in order."""
    return [
        Example(found["kind"], found["code"], bool(found["note"]))
        for found in BLOCK.finditer(page.read_text("utf-8"))
    ]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A server with the bundled models, on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number = int(probe.getsockname()[1])
    server = subprocess.Popen(
        [BIN / "inkstone", "serve", "--port", str(number)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{number}/health", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, "the server ended"
                assert time.monotonic() < deadline, "the server did not start"
                time.sleep(0.1)
        yield number
    finally:
        server.terminate()
        server.wait(20)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_run(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    for number, example in enumerate(examples(page), 1):
        if example.skipped:
            continue
        code = example.code
        if "127.0.0.1:8000" in code:
            code = code.replace("127.0.0.1:8000", f"127.0.0.1:{request.getfixturevalue('port')}")
        command = (
            ["bash", "-euo", "pipefail", "-c", code] if example.kind == "sh" else [sys.executable, "-c", code]
        )
        environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{page.name}, block {number}:\n{code}\n{done.stdout}\n{done.stderr}"


def test_links_lead_somewhere() -> None:
    missing = [
        f"{page.name}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert not missing


@pytest.mark.parametrize("page", [ROOT / "README.md", ROOT / "README.zh.md"], ids=lambda page: page.name)
def test_the_ten_sentences_are_what_the_model_says(page: Path) -> None:
    from inkstone import Translator

    rows = re.findall(
        r"^\| (?P<source>[^|]+) \| (?P<answer>[^|]+) \|$", page.read_text("utf-8"), re.MULTILINE
    )
    said = [row for row in rows if row[0] not in ("Text", "原文") and not row[0].startswith("-")]
    assert len(said) == 10
    translator = Translator("zh-en", threads=1)
    for source, answer in said:
        assert translator(source) == answer, source
