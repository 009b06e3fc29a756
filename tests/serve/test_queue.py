"""Too many requests, slow requests, abandoned requests, broken requests: each keeps its trouble to itself."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standins import CANARY, DictionaryTranslator, stand_in_models
from starlette.testclient import TestClient

from inkstone.ground.errors import BundleError
from inkstone.serve import limits
from inkstone.serve.application import Settings, create_app
from inkstone.serve.models import PORTION_CHARACTERS, PORTION_TEXTS, Models, portions


class Caller:
    """Speaks ASGI to an application directly, so that one test can hold many requests open at once."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def post(self, path: str, body: bytes | None, leave: asyncio.Event | None = None) -> dict[str, Any]:
        """One POST; body None: it never arrives. leave: the client goes away when this is set."""
        sent: list[dict[str, Any]] = []
        messages = [] if body is None else [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if messages:
                return messages.pop()
            await (leave or asyncio.Event()).wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "path": path,
        }
        scope |= {"raw_path": path.encode(), "query_string": b"", "headers": headers, "scheme": "http"}
        await self.app(scope, receive, send)
        content = b"".join(message.get("body", b"") for message in sent[1:])
        headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return {"status": sent[0]["status"], "headers": headers, "json": json.loads(content)}

    async def translate(self, *texts: str, leave: asyncio.Event | None = None) -> dict[str, Any]:
        return await self.post("/v1/translate", json.dumps({"text": list(texts)}).encode(), leave)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that other tasks bring about; fail after 5 s."""
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.005)


def held(tmp_path: Path, **limits_of_queue: Any) -> tuple[Caller, DictionaryTranslator, Models]:
    """A server whose translator waits for its gate to open."""
    translator = DictionaryTranslator()
    translator.gate.clear()
    models = stand_in_models(tmp_path, translator, **limits_of_queue)
    return Caller(create_app(Settings(), models)), translator, models


def test_what_does_not_fit_the_queue_is_refused_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        caller, translator, models = held(tmp_path, queue=3)
        inside = [asyncio.create_task(caller.translate("你好")) for _ in range(3)]
        await until(lambda: models.get("zh-en").waiting == 3)
        started = time.perf_counter()
        refused = await asyncio.gather(*(caller.translate("你好") for _ in range(20)))
        assert time.perf_counter() - started < 1
        assert {answer["status"] for answer in refused} == {429}
        for answer in refused:
            assert 1 <= int(answer["headers"]["retry-after"]) <= 120
            assert answer["json"]["error"]["type"] == "rate_limit_error"
        elsewhere = await caller.post("/v1/classify", b'{"text": "my balance"}')
        assert elsewhere["status"] == 200, "another model is not held up"
        translator.gate.set()
        assert [answer["status"] for answer in await asyncio.gather(*inside)] == [200, 200, 200]
        assert (await caller.translate("你好"))["status"] == 200, "and then there is room again"
        models.close()

    asyncio.run(scenario())


def test_the_deadline_is_kept_and_frees_the_place(tmp_path: Path) -> None:
    async def scenario() -> None:
        caller, translator, models = held(tmp_path, deadline_s=0.05)
        answer = await caller.translate("你好")
        assert answer["status"] == 503
        assert answer["json"]["error"]["code"] == "deadline"
        assert "retry-after" in answer["headers"]
        assert models.get("zh-en").waiting == 0
        translator.gate.set()
        models.close()

    asyncio.run(scenario())


def test_work_for_somebody_who_left_stops(tmp_path: Path) -> None:
    async def scenario() -> None:
        caller, translator, models = held(tmp_path)
        leave = asyncio.Event()
        request = asyncio.create_task(caller.translate(*["你好"] * 200, leave=leave))
        await until(lambda: len(translator.calls) == 1)
        leave.set()
        await request
        assert models.get("zh-en").waiting == 0
        translator.gate.set()
        assert (await caller.translate("世界"))["status"] == 200
        assert sum(map(len, translator.calls)) <= PORTION_TEXTS + 1, (
            "the portions that had not begun were dropped"
        )
        models.close()

    asyncio.run(scenario())


def test_a_short_request_overtakes_the_rest_of_a_long_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        caller, translator, models = held(tmp_path)
        long = asyncio.create_task(caller.translate(*["你好"] * 200))
        await until(lambda: len(translator.calls) == 1)
        short = asyncio.create_task(caller.translate("世界"))
        await until(lambda: models.get("zh-en").waiting == 2)
        translator.gate.set()
        assert (await short)["status"] == (await long)["status"] == 200
        assert translator.calls.index(("世界",)) <= 2
        models.close()

    asyncio.run(scenario())


def test_an_exception_ends_one_request_and_quotes_nothing(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    answer = client.post("/v1/translate", json={"text": f"break {CANARY}"})
    assert answer.status_code == 500
    assert answer.json()["error"]["type"] == "server_error"
    assert client.post("/v1/translate", json={"text": f"{CANARY} 你好"}).status_code == 200
    client.post("/v1/translate", json={"text": "a", CANARY: 1})
    client.get(
        f"/{CANARY}?{CANARY}={CANARY}", headers={"Authorization": f"Bearer {CANARY}", "User-Agent": CANARY}
    )
    ours = [record for record in caplog.records if record.name.startswith("inkstone")]
    assert any(
        "RuntimeError" in record.getMessage() and "standins.py" in record.getMessage() for record in ours
    )
    for record in ours:
        assert CANARY not in record.getMessage()
        assert record.exc_info is None
    assert CANARY not in answer.text
    assert CANARY not in client.get("/metrics").text


def test_a_body_that_never_arrives_is_given_up(tmp_path: Path) -> None:
    models = stand_in_models(tmp_path)
    app = create_app(Settings(body_timeout_s=0.05), models)
    answer = asyncio.run(Caller(app).post("/v1/translate", None))
    assert (answer["status"], answer["json"]["error"]["code"]) == (408, "body_timeout")
    models.close()


def test_open_requests_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_OPEN_REQUESTS", 2)

    async def scenario() -> None:
        caller, translator, models = held(tmp_path)
        inside = [asyncio.create_task(caller.translate("你好")) for _ in range(2)]
        await until(lambda: models.get("zh-en").waiting == 2)
        refused = await caller.post("/v1/classify", b'{"text": "a"}')
        assert (refused["status"], refused["json"]["error"]["code"]) == (503, "too_many_requests")
        translator.gate.set()
        await asyncio.gather(*inside)
        assert (await caller.post("/v1/classify", b'{"text": "a"}'))["status"] == 200
        models.close()

    asyncio.run(scenario())


@given(st.lists(st.integers(0, 2 * PORTION_CHARACTERS), min_size=1, max_size=60))
def test_portions_are_small_and_lose_nothing(lengths: list[int]) -> None:
    texts = ["a" * length for length in lengths]
    cut = list(portions(texts))
    assert [text for portion in cut for text in portion] == texts
    for portion in cut:
        assert 1 <= len(portion) <= PORTION_TEXTS
        assert len(portion) == 1 or sum(map(len, portion)) <= PORTION_CHARACTERS


def test_models_that_cannot_be_served_stop_the_start_with_all_reasons(tmp_path: Path) -> None:
    stand_in_models(tmp_path).close()
    (tmp_path / "zh-en" / "README.md").write_text("altered", "utf-8")
    (tmp_path / "intents-en" / "report.json").unlink()
    with pytest.raises(BundleError) as caught:
        Models.load(tmp_path)
    assert "README.md" in str(caught.value)
    assert "report.json is missing" in str(caught.value)


def test_a_folder_without_models_says_what_to_do(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(BundleError, match=r"no model in .*inkstone serve --models"):
            Models.load(folder)


def test_two_models_of_one_name_are_refused(tmp_path: Path) -> None:
    from standins import stand_in_loaders, write_bundles

    write_bundles(tmp_path)
    write_bundles(tmp_path / "again")
    (tmp_path / "again" / "zh-en").rename(tmp_path / "zh-en-2")
    with pytest.raises(BundleError, match="both named 'zh-en'"):
        Models.load(tmp_path, loaders=stand_in_loaders())
