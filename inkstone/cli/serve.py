"""`inkstone serve`: the models of a folder behind HTTP, with the workbench, until Ctrl-C.

The port is taken before the models are loaded: a port in use is told at once, and whoever asks while they
load waits instead of being refused. A server that other machines can reach does not start without a key.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Annotated

import typer

from inkstone.ground.errors import ConfigError, require

BACKLOG = 128
GRACE_S = 10  # for answers under way when the server is told to stop


def serve(
    models: Annotated[
        Path | None, typer.Option(help="A model, or a folder of models. Default: the bundled ones.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="The address to listen on. Beyond loopback a key is needed.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0: any free one.")] = 8000,
    threads: Annotated[int, typer.Option(min=0, max=256, help="CPU threads a model; 0: chosen.")] = 0,
    api_key_file: Annotated[
        Path | None, typer.Option(help="Keys, one a line. A single key may come in INKSTONE_API_KEY.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the address as one JSON document.")] = False,
) -> None:
    """Serve models over HTTP, with a web page to try them."""
    for package in ("fastapi", "uvicorn", "prometheus_client", "ctranslate2"):
        require(package, "serving", "serve")
    from inkstone.model.bundle import BUNDLED
    from inkstone.serve.application import Settings, create_app
    from inkstone.serve.auth import LOOPBACK_NAMES, Keys
    from inkstone.serve.models import Models

    keys = Keys.configured(api_key_file, os.environ)
    with ExitStack() as stack:
        listener = stack.enter_context(closing(listen(host, port, protected=bool(keys))))
        local = _is_local(listener)
        loaded = stack.enter_context(closing(Models.load(models or BUNDLED, threads=threads)))
        app = create_app(Settings(keys=keys, hosts=LOOPBACK_NAMES if local else None), loaded)
        address = url(listener)
        names = list(loaded.by_name)
        if as_json:
            print(json.dumps({"url": address, "models": names, "key_needed": bool(keys)}), flush=True)
        else:
            print(f"Inkstone serves {', '.join(names)} on {address}", flush=True)
            print(
                "Open it in a browser, or POST to /v1/translate and /v1/classify. Ctrl-C stops.", flush=True
            )
        if not local:
            print(
                "This is plain HTTP: put a TLS proxy in front before keys cross a network.", file=sys.stderr
            )
        _run(app, listener)


def listen(host: str, port: int, *, protected: bool) -> socket.socket:
    """A listening socket. Raises ConfigError: address taken, unknown, or open to others without a key."""
    from inkstone.serve.auth import KEY_VARIABLE, MIN_KEY_CHARACTERS, is_loopback

    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise ConfigError(
            f'host="{host}" is not an address of this machine. Try --host 127.0.0.1.'
        ) from error
    family, kind, protocol, _, address = sorted(found, key=lambda entry: entry[0] != socket.AF_INET)[0]
    if not protected and not is_loopback(str(address[0])):
        raise ConfigError(
            f"--host {host} can be reached from other machines, so an API key is needed. Put one of at least"
            f" {MIN_KEY_CHARACTERS} characters into {KEY_VARIABLE}, or use --api-key-file FILE. Make one:"
            ' python -c "import secrets; print(secrets.token_urlsafe(32))". Or stay with --host 127.0.0.1.'
        )
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(_refused(host, port, family, error)) from error
    return listener


def _refused(host: str, port: int, family: int, error: OSError) -> str:
    import errno

    match error.errno:
        case errno.EADDRINUSE:
            with socket.socket(family) as probe:
                probe.bind((host, 0))
                free = probe.getsockname()[1]
            return (
                f"port {port} on {host} is in use, perhaps by another `inkstone serve`."
                f" Stop that one, or choose a free port: --port {free}"
            )
        case errno.EACCES:
            return f"port {port} may not be used by this user (reserved below 1024). Try --port 8000."
        case errno.EADDRNOTAVAIL:
            return (
                f'host="{host}" is not an address of this machine. Try --host 127.0.0.1, or 0.0.0.0 for all.'
            )
        case _:
            return f"cannot listen on {host}, port {port}: {error.strerror}."


def _is_local(listener: socket.socket) -> bool:
    from inkstone.serve.auth import is_loopback

    return is_loopback(listener.getsockname()[0])


def url(listener: socket.socket) -> str:
    """The address to open in a browser."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _run(app: object, listener: socket.socket) -> None:
    import logging

    import uvicorn

    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    server = uvicorn.Server(
        uvicorn.Config(
            app,  # type: ignore[arg-type]
            log_config=None,
            log_level="warning",
            access_log=False,  # would log what visitors put into paths; serve/metrics.py logs routes
            server_header=False,
            proxy_headers=False,
            ws="none",
            http="h11",  # httptools answers twice as many requests a second, but takes headers without end
            timeout_keep_alive=10,
            timeout_graceful_shutdown=GRACE_S,
        )
    )
    # uvicorn stops gracefully at SIGINT and SIGTERM, then raises the signal again: nothing is left to do.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    server.run(sockets=[listener])
