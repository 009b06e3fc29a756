"""Who may come in: keys, hosts, origins; every route that exists, and those that do not."""

from __future__ import annotations

import hashlib
from contextlib import closing
from pathlib import Path

import pytest
from fastapi.routing import APIRoute
from standins import KEY, stand_in_models
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from inkstone.ground.errors import ConfigError
from inkstone.serve.application import Settings, create_app
from inkstone.serve.auth import PUBLIC_ROUTES, Keys, is_loopback

OPEN = {
    ("GET", "/"),
    ("GET", "/favicon.svg"),
    ("GET", "/assets/workbench.js"),
    ("GET", "/assets/workbench.css"),
}
OPEN |= {("GET", "/health")}


def test_the_list_of_open_routes_is_the_one_reviewed_here() -> None:
    assert OPEN == PUBLIC_ROUTES


def test_every_route_of_the_table_needs_a_key_unless_it_is_on_the_list(locked: TestClient) -> None:
    routes = locked.app.routes  # type: ignore[attr-defined]
    assert all(isinstance(route, Route | APIRoute) for route in routes), (
        "a route kind this test does not know"
    )
    pairs = {(method, route.path) for route in routes for method in route.methods or ()}
    assert len(pairs) >= 11
    for method, path in pairs:
        answer = locked.request(method, path.replace("{model_id}", "zh-en"))
        is_open = ("GET" if method == "HEAD" else method, path) in OPEN
        assert (answer.status_code == 401) != is_open, f"{method} {path} gave {answer.status_code}"


VARIANTS = ["//v1/models", "/v1//models", "/V1/MODELS", "/v1/models/", "/./v1/models", "/health/../v1/models"]
VARIANTS += [
    "/assets/",
    "/assets/other.js",
    "/docs",
    "/nothing",
    "/health/",
    "/health%2f..%2fv1/models",
    "/v1/models;/health",
]


@pytest.mark.parametrize("path", VARIANTS)
def test_other_spellings_open_nothing(locked: TestClient, path: str) -> None:
    assert locked.get(path).status_code == 401


@pytest.mark.parametrize("method", ["POST", "DELETE", "OPTIONS", "PUT", "BREW"])
def test_open_paths_are_open_for_reading_only(locked: TestClient, method: str) -> None:
    assert locked.request(method, "/health").status_code == 401


def test_web_sockets_are_refused(locked: TestClient) -> None:
    with pytest.raises(WebSocketDisconnect), locked.websocket_connect("/v1/models"):
        pass


def test_the_right_key_opens_and_wrong_ones_do_not(locked: TestClient) -> None:
    def ask(authorization: str) -> int:
        return locked.get("/v1/models", headers={"Authorization": authorization}).status_code

    assert ask(f"Bearer {KEY}") == 200
    assert ask(f"bearer  {KEY} ") == 200
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    for wrong in (
        KEY,
        f"Basic {KEY}",
        "Bearer",
        "Bearer ",
        f"Bearer {KEY}x",
        f"Bearer {KEY[:-1]}",
        f"Bearer sha256:{digest}",
    ):
        assert ask(wrong) == 401, wrong
    refused = locked.get("/v1/models", headers={"Authorization": "Bearer nonsense"})
    assert refused.headers["www-authenticate"].startswith("Bearer")
    assert refused.json()["error"]["type"] == "authentication_error"
    assert "nonsense" not in refused.text


def test_a_key_in_the_address_is_no_key(locked: TestClient) -> None:
    assert locked.get(f"/v1/models?api_key={KEY}&key={KEY}").status_code == 401


def test_a_request_without_a_key_is_refused_before_its_body_is_read(locked: TestClient) -> None:
    read = []

    def body() -> object:
        for _ in range(100):
            read.append(1)
            yield b"a" * 65536

    assert locked.post("/v1/translate", content=body()).status_code == 401  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "127.0.0.1.evil.example",
        "10.0.0.1",
        "localhost.evil",
        "[::2]:8000",
    ],
)
def test_on_loopback_a_foreign_host_name_is_refused(client: TestClient, host: str) -> None:
    """DNS rebinding: the browser sends the attacker's name with a request that reaches 127.0.0.1."""
    answer = client.get("/v1/models", headers={"Host": host})
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "host_not_allowed"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:9999", "localhost:8000", "LOCALHOST", "[::1]:8000"])
def test_on_loopback_its_own_names_are_taken(client: TestClient, host: str) -> None:
    assert client.get("/v1/models", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["", "a b", "a/b", "localhost:80:80", "user@localhost", "localhost:999999"])
def test_hosts_that_are_none(client: TestClient, host: str) -> None:
    answer = client.get("/v1/models", headers={"Host": host})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_host"


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://127.0.0.1:8001", "http://localhost:8000", "http://[", ""],
)
def test_requests_of_foreign_pages_are_refused(client: TestClient, origin: str) -> None:
    answer = client.post("/v1/translate", json={"text": "你好"}, headers={"Origin": origin})
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "origin_not_allowed"


def test_the_own_page_may_ask(client: TestClient) -> None:
    own = {"Origin": "http://127.0.0.1:8000"}
    assert client.post("/v1/translate", json={"text": "你好"}, headers=own).status_code == 200


def test_keys_come_from_a_file_and_from_the_environment(tmp_path: Path) -> None:
    first, second, third = (f"key-number-{n}-long-enough" for n in range(3))
    file = tmp_path / "keys"
    file.write_text(f"# ours\n{first}\n\nsha256:{hashlib.sha256(second.encode()).hexdigest()}\n", "utf-8")
    keys = Keys.configured(file, {"INKSTONE_API_KEY": third})
    assert [keys.open_for(key) for key in (first, second, third, "another")] == [True, True, True, False]
    assert first not in repr(keys)
    assert not Keys.configured(None, {})


@pytest.mark.parametrize(
    "content", ["short", "with a space in it", "schlüssel-schlüssel", "", "# only a comment"]
)
def test_keys_that_are_not_safe_are_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "keys"
    file.write_text(content, "utf-8")
    with pytest.raises(ConfigError, match="key") as caught:
        Keys.configured(file, {})
    assert "short" not in str(caught.value).replace("too short", "")


def test_a_key_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        Keys.configured(tmp_path / "nowhere", {})
    with pytest.raises(ConfigError, match="cannot be read"):
        Keys.configured(tmp_path, {})
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        Keys.configured(tmp_path / "binary", {})


def test_an_empty_key_in_the_environment_is_a_mistake_not_an_open_door() -> None:
    with pytest.raises(ConfigError, match="INKSTONE_API_KEY"):
        Keys.configured(None, {"INKSTONE_API_KEY": ""})


def test_what_is_loopback() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.8.8.8", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.1", "example.org", "")))


def test_keys_may_be_asked_for_on_loopback_too(tmp_path: Path) -> None:
    models = stand_in_models(tmp_path)
    app = create_app(Settings(keys=Keys.of([KEY])), models)
    with closing(models), TestClient(app, base_url="http://localhost") as client:
        assert client.get("/v1/models").status_code == 401
        assert client.get("/v1/models", headers={"Authorization": f"Bearer {KEY}"}).status_code == 200
