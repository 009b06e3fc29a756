"""A live server over the stand-in models, and Chromium to look at it; skips, saying so, without one."""

from __future__ import annotations

import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "serve"))  # standins.py


@dataclass
class LiveServer:
    """A server in a thread, on a port of its own."""

    url: str
    server: Any
    thread: threading.Thread
    models: Any
    translator: Any


def _start(folder: Path, keys: Any, hosts: tuple[str, ...] | None = ("127.0.0.1",)) -> LiveServer:
    import uvicorn
    from standins import DictionaryTranslator, stand_in_models

    from inkstone.serve.application import Settings, create_app

    translator = DictionaryTranslator()
    models = stand_in_models(folder, translator)
    app = create_app(Settings(keys=keys, hosts=hosts), models)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none", access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 10
    while not server.started:
        assert time.monotonic() < deadline, "the server did not start within 10 s"
        time.sleep(0.01)
    return LiveServer(f"http://127.0.0.1:{listener.getsockname()[1]}", server, thread, models, translator)


def _stop(live: LiveServer) -> None:
    live.server.should_exit = True
    live.thread.join(10)
    assert not live.thread.is_alive(), "the server did not stop"
    live.models.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    from inkstone.serve.auth import Keys

    live = _start(tmp_path_factory.mktemp("models"), Keys())
    yield live
    _stop(live)


@pytest.fixture(scope="session")
def locked_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    from standins import KEY

    from inkstone.serve.auth import Keys

    live = _start(tmp_path_factory.mktemp("models"), Keys.of([KEY]), hosts=None)
    yield live
    _stop(live)


@pytest.fixture(scope="module")  # not longer: its event loop would be in the way of other tests' asyncio.run
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install playwright"
    )
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=path, args=["--no-sandbox", "--host-resolver-rules=MAP inkstone.test 127.0.0.1"]
        )
        yield browser
        browser.close()
