"""`inkstone serve` as a process, and the addresses it may listen on."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest
from standins import KEY, write_bundles

from inkstone.cli.serve import listen, url
from inkstone.ground.errors import ConfigError

# The command itself, over the stand-in applications (the bundles of these tests hold no weights).
COMMAND = """
import sys, typer
sys.path.insert(0, {tests!r})
from standins import stand_in_loaders
from inkstone.serve import models
models.LOADERS.update(stand_in_loaders())
from inkstone.cli.serve import serve
typer.run(serve)
"""


def start(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """The process, its output in pipes."""
    command = [sys.executable, "-c", COMMAND.format(tests=str(Path(__file__).parent)), *arguments]
    variables = {name: value for name, value in os.environ.items() if name != "INKSTONE_API_KEY"}
    variables |= environment or {}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], HTTPConnection]]:
    process = start("--models", str(write_bundles(tmp_path)), "--port", "0", "--json")
    assert process.stdout is not None
    told = json.loads(process.stdout.readline())
    assert (told["models"], told["key_needed"]) == (["intents-en", "zh-en"], False)
    host, port = re.fullmatch(r"http://([\d.]+):(\d+)", told["url"]).groups()  # type: ignore[union-attr]
    with closing(HTTPConnection(host, int(port), timeout=10)) as connection:
        yield process, connection
    if process.poll() is None:
        process.kill()
    process.communicate()


def ask(connection: HTTPConnection, text: str) -> int:
    connection.request(
        "POST", "/v1/translate", json.dumps({"text": text}), {"Content-Type": "application/json"}
    )
    response = connection.getresponse()
    response.read()
    return response.status


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_told_to_stop(
    running: tuple[subprocess.Popen[str], HTTPConnection], number: signal.Signals
) -> None:
    process, connection = running
    assert ask(connection, "你好 canary-in-a-text") == 200
    process.send_signal(number)
    output, log = process.communicate(timeout=10)
    assert process.returncode == 0, log
    assert output == ""
    assert "POST /v1/translate 200" in log
    assert "canary-in-a-text" not in log
    assert "Traceback" not in log


def test_bytes_that_are_no_http_do_not_stop_it(running: tuple[subprocess.Popen[str], HTTPConnection]) -> None:
    _, connection = running
    for noise in (
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/translate HTTP/1.1\r\n",
        b"\n" * 9999,
    ):
        with socket.create_connection((connection.host, connection.port), timeout=5) as stranger:
            stranger.sendall(noise)
    assert ask(connection, "你好") == 200


def test_headers_without_end_are_cut_off(running: tuple[subprocess.Popen[str], HTTPConnection]) -> None:
    _, connection = running
    sent = 0
    with socket.create_connection((connection.host, connection.port), timeout=5) as stranger:
        stranger.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Long: ")
        with pytest.raises(ConnectionError):
            for _ in range(2000):
                stranger.sendall(b"a" * 65536)
                sent += 65536
    assert sent < 64 * 2**20
    assert ask(connection, "你好") == 200


def test_a_port_in_use_is_told_with_a_free_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} on 127.0.0.1 is in use") as caught:
            listen("127.0.0.1", port, protected=False)
    free = int(re.search(r"--port (\d+)", str(caught.value)).group(1))  # type: ignore[union-attr]
    assert free != port
    listen("127.0.0.1", free, protected=False).close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_other_machines_need_a_key(host: str) -> None:
    if host == "::" and not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    with pytest.raises(ConfigError, match="an API key is needed") as caught:
        listen(host, 0, protected=False)
    assert "INKSTONE_API_KEY" in str(caught.value)
    assert "--api-key-file" in str(caught.value)


def test_with_a_key_other_machines_may_come() -> None:
    with closing(listen("0.0.0.0", 0, protected=True)) as listener:
        assert url(listener).startswith("http://127.0.0.1:")


@pytest.mark.parametrize("host", ["no such host", "256.1.1.1", "192.0.2.1"])
def test_addresses_that_are_not_ours(host: str) -> None:
    with pytest.raises(ConfigError, match="is not an address of this machine"):
        listen(host, 0, protected=True)


def test_a_server_for_others_asks_for_the_key_of_the_environment(tmp_path: Path) -> None:
    arguments = ["--models", str(write_bundles(tmp_path)), "--host", "0.0.0.0", "--port", "0", "--json"]
    process = start(*arguments, environment={"INKSTONE_API_KEY": KEY})
    assert process.stdout is not None
    told = json.loads(process.stdout.readline())
    assert told["key_needed"] is True
    port = int(told["url"].rpartition(":")[2])
    with closing(HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        for headers, status in (({}, 401), ({"Authorization": f"Bearer {KEY}"}, 200)):
            connection.request("GET", "/v1/models", headers={**headers, "Host": "models.example.org"})
            response = connection.getresponse()
            response.read()
            assert response.status == status
    process.terminate()
    _, log = process.communicate(timeout=10)
    assert "TLS proxy" in log
    assert KEY not in log


def test_starting_loads_nothing_of_training(tmp_path: Path) -> None:
    script = """
import sys
import inkstone.cli.serve, inkstone.cli.doctor
early = {"fastapi", "uvicorn", "pydantic", "numpy"} & set(sys.modules)
import inkstone.serve.application
late = {"torch", "transformers", "sklearn", "sacrebleu", "matplotlib"} & set(sys.modules)
print(sorted(early), sorted(late))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] []"
