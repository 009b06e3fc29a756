"""Every bad request gets a 4xx in the one shape, with a message that says what to do."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from inkstone.serve.limits import MAX_BODY_BYTES, MAX_CHARACTERS, MAX_TEXT_CHARACTERS, MAX_TEXTS

JSON = {"Content-Type": "application/json"}


def error_of(answer: Any, status: int) -> dict[str, Any]:
    """The error of an answer, after checking its shape."""
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error"}
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["type"].endswith("_error")
    return error


BODIES = {
    "nothing": (b"", "invalid_body"),
    "half an object": (b'{"text": "a"', "invalid_json"),
    "not JSON": (b"text=hello", "invalid_json"),
    "a list": (b'["hello"]', "invalid_body"),
    "null": (b"null", "invalid_body"),
    "not UTF-8": (b'{"text": "\xff\xfe"}', "invalid_json"),
    "deep": (b"[" * 100_000, "invalid_json"),
    "deep and closed": (b'{"text":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "invalid_json"),
    "a giant number": (b'{"text": "a", "beam_size": ' + b"9" * 100_000 + b"}", "invalid_json"),
    "NaN": (b'{"text": NaN}', "wrong_type"),
    "half a surrogate pair": (b'{"text": "\\ud800"}', "invalid_unicode"),
}


@pytest.mark.parametrize("route", ["/v1/translate", "/v1/classify"])
@pytest.mark.parametrize("name", BODIES)
def test_bodies_that_are_no_request(client: TestClient, route: str, name: str) -> None:
    body, code = BODIES[name]
    error = error_of(client.post(route, content=body, headers=JSON), 400)
    assert error["code"] == code
    assert client.post(route, json={"text": "my balance"}).status_code == 200, "the server must go on"


TRANSLATE: list[tuple[dict[str, Any], str, str]] = [
    ({}, "text", "missing"),
    ({"text": None}, "text", "wrong_type"),
    ({"text": 5}, "text", "wrong_type"),
    ({"text": {"a": "b"}}, "text", "wrong_type"),
    ({"text": []}, "text", "empty"),
    ({"text": ""}, "text", "empty"),
    ({"text": ["", " \n "]}, "text", "empty"),
    ({"text": ["a", 5]}, "text[1]", "wrong_type"),
    ({"text": ["a", None]}, "text[1]", "wrong_type"),
    ({"text": ["a", ["b"]]}, "text[1]", "wrong_type"),
    ({"text": "a" * (MAX_TEXT_CHARACTERS + 1)}, "text", "too_long"),
    ({"text": ["a", "b" * (MAX_TEXT_CHARACTERS + 1)]}, "text[1]", "too_long"),
    ({"text": ["a"] * (MAX_TEXTS + 1)}, "text", "too_many"),
    ({"text": ["a" * (MAX_CHARACTERS // 6 + 1)] * 6}, "text", "too_long"),
    ({"text": "a", "to": "tlh"}, "to", "unsupported_language"),
    ({"text": "a", "from": "tlh"}, "from", "unsupported_language"),
    ({"text": "a", "from": "en", "to": "en"}, "to", "unsupported_language"),
    ({"text": "a", "to": ""}, "to", "empty"),
    ({"text": "a", "to": "../../etc"}, "to", "string_pattern_mismatch"),
    ({"text": "a", "to": ["en"]}, "to", "wrong_type"),
    ({"text": "a", "model": "intents-en"}, "model", "wrong_task"),
    ({"text": "a", "beam_size": 0}, "beam_size", "greater_than_equal"),
    ({"text": "a", "beam_size": 10**9}, "beam_size", "less_than_equal"),
    ({"text": "a", "beam_size": 2.5}, "beam_size", "int_type"),
    ({"text": "a", "beam_size": True}, "beam_size", "int_type"),
    ({"text": "a", "beam_size": "4"}, "beam_size", "int_type"),
    ({"text": "a", "alternatives": 9}, "alternatives", "less_than_equal"),
    ({"text": "a", "alternatives": 5, "beam_size": 4}, "alternatives", "invalid_value"),
    ({"text": "a", "source": "en"}, "source", "unknown_field"),
    ({"text": "a", "temperature": 1}, "temperature", "unknown_field"),
]


@pytest.mark.parametrize(("asked", "param", "code"), TRANSLATE, ids=range(len(TRANSLATE)))
def test_fields_that_are_not_valid(client: TestClient, asked: dict[str, Any], param: str, code: str) -> None:
    error = error_of(client.post("/v1/translate", json=asked), 400)
    assert (error["param"], error["code"]) == (param, code), error


def test_a_name_nearly_right_is_suggested(client: TestClient) -> None:
    error = error_of(client.post("/v1/translate", json={"text": "a", "beamsize": 2}), 400)
    assert 'Did you mean "beam_size"?' in error["message"]
    error = error_of(client.post("/v1/translate", json={"text": "a", "model": "zh_en"}), 404)
    assert 'Did you mean "zh-en"?' in error["message"]
    assert (error["param"], error["code"]) == ("model", "model_not_found")


def test_several_mistakes_are_told_at_once(client: TestClient) -> None:
    error = error_of(client.post("/v1/translate", json={"text": 1, "beam_size": 99, "colour": "red"}), 400)
    for word in ("text", "beam_size", "colour"):
        assert word in error["message"]


def test_the_limit_itself_is_still_taken(client: TestClient) -> None:
    text = "好" * MAX_TEXT_CHARACTERS
    assert client.post("/v1/translate", json={"text": text}).status_code == 200
    texts = ["\U0001f600" * (MAX_CHARACTERS // MAX_TEXTS)] * MAX_TEXTS
    body = json.dumps(
        {"text": texts}, ensure_ascii=True
    ).encode()  # the longest way to write so many characters
    assert len(body) < MAX_BODY_BYTES
    assert client.post("/v1/translate", content=body, headers=JSON).status_code == 200


def test_an_oversize_body_is_refused_by_its_declared_length(client: TestClient) -> None:
    body = b'{"text": "' + b"a" * MAX_BODY_BYTES + b'"}'
    error = error_of(client.post("/v1/translate", content=body, headers=JSON), 413)
    assert error["code"] == "request_too_large"


def test_an_oversize_body_without_a_length_is_cut_off_where_it_gets_too_long(client: TestClient) -> None:
    sent = 0

    def endless() -> Any:
        nonlocal sent
        yield b'{"text": "'
        for _ in range(1000):
            sent += 65536
            yield b"a" * 65536

    error = error_of(client.post("/v1/translate", content=endless(), headers=JSON), 413)
    assert error["code"] == "request_too_large"


@pytest.mark.parametrize("length", ["-1", "abc", "9" * 5000, "1e3"])
def test_a_length_that_is_no_number(client: TestClient, length: str) -> None:
    answer = client.post("/v1/translate", content=b"{}", headers={**JSON, "Content-Length": length})
    error_of(answer, 413)


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
def test_other_media_types(client: TestClient, kind: str) -> None:
    error = error_of(
        client.post("/v1/translate", content=b'{"text": "a"}', headers={"Content-Type": kind}), 415
    )
    assert "application/json" in error["message"]


def test_unknown_routes_and_methods(client: TestClient) -> None:
    for path in (
        "/nothing",
        "/v1",
        "/v1/translate/",
        "/V1/translate",
        "//v1/translate",
        "/v1/models/a/b",
        "/%2e%2e/etc",
    ):
        assert error_of(client.get(path), 404)["code"] in ("not_found", "model_not_found")
    for method, path in (
        ("GET", "/v1/translate"),
        ("DELETE", "/v1/models"),
        ("PUT", "/"),
        ("PATCH", "/health"),
    ):
        answer = client.request(method, path)
        assert error_of(answer, 405)["code"] == "method_not_allowed"
        assert answer.headers["allow"]
    assert error_of(client.get("/v1/models/nope"), 404)["code"] == "model_not_found"
    assert error_of(client.get("/v1/models/" + "x" * 101), 400)["param"] == "model_id"


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from(["text", "to", "from", "model", "beam_size", "alternatives", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
            lambda inner: (
                st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
            ),
            max_leaves=6,
        ),
    )
)
def test_whatever_comes_is_answered_quickly_and_never_with_500(
    client: TestClient, asked: dict[str, Any]
) -> None:
    started = time.perf_counter()
    answer = client.post("/v1/translate", content=json.dumps(asked).encode(), headers=JSON)
    assert answer.status_code in (200, 400, 404), answer.text
    assert time.perf_counter() - started < 2
    if answer.status_code != 200:
        error_of(answer, answer.status_code)
