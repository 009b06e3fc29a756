"""The server as people get it: the real process over the bundled models, its memory and its first answers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from inkstone.model.bundle import list_bundles

MAX_RESIDENT_BYTES = 300 * 2**20

pytestmark = pytest.mark.skipif(not list_bundles(), reason="the bundled models are not here: run the recipes")


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[subprocess.Popen[str], HTTPConnection, list[str]]]:
    main = "import sys; from inkstone.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", main, "serve", "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        port = int(told["url"].rpartition(":")[2])
        with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            yield process, connection, told["models"]
        process.terminate()
        assert process.wait(15) == 0


def ask(connection: HTTPConnection, path: str, body: object = None) -> Any:
    """The JSON answer of a route."""
    sent = None if body is None else json.dumps(body)
    connection.request("GET" if body is None else "POST", path, sent, {"Content-Type": "application/json"})
    response = connection.getresponse()
    content = json.loads(response.read())
    assert response.status == 200, content
    return content


def test_it_translates_both_ways(served: tuple[Any, HTTPConnection, list[str]]) -> None:
    _, connection, names = served
    if "zh-en" not in names:
        pytest.skip("zh-en is not bundled here")
    asked = {"text": ["你好，世界。", "", "Good morning."], "alternatives": 2}
    there, blank, back = ask(connection, "/v1/translate", asked)["results"]
    assert re.search("[a-z]", there["translation"])
    assert blank["translation"] == ""
    assert re.search("[\u4e00-\u9fff]", back["translation"])
    assert there["score"] < 0
    assert len(there["alternatives"]) == 1


def test_it_classifies(served: tuple[Any, HTTPConnection, list[str]]) -> None:
    _, connection, names = served
    if "intents-en" not in names:
        pytest.skip("intents-en is not bundled here")
    (result,) = ask(connection, "/v1/classify", {"text": "what is my account balance"})["results"]
    assert result["label"] == "balance"
    assert sum(result["scores"].values()) == pytest.approx(1, abs=0.01)


def test_its_models_have_cards_and_measured_results(served: tuple[Any, HTTPConnection, list[str]]) -> None:
    _, connection, names = served
    for name in names:
        model = ask(connection, f"/v1/models/{name}")
        assert model["card"].strip()
        assert model["results"], f"{name} was never measured"
        for result in model["results"]:
            assert all(m["low"] <= m["value"] <= m["high"] for m in result["metrics"].values())


def test_it_stays_small(served: tuple[subprocess.Popen[str], HTTPConnection, list[str]]) -> None:
    process, connection, names = served
    if "zh-en" in names:
        ask(connection, "/v1/translate", {"text": ["The file was not found. Try again."] * 64})
    status = Path(f"/proc/{process.pid}/status")
    if not status.exists():
        pytest.skip("resident memory is read from /proc, which this system has not")
    resident = int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text("ascii")).group(1)) * 1024  # type: ignore[union-attr]
    assert resident < MAX_RESIDENT_BYTES
