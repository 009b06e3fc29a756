"""What the routes answer when all is well."""

from __future__ import annotations

from typing import Any

import pytest
from standins import HOSTILE_CARD, DictionaryTranslator
from starlette.testclient import TestClient


def test_one_text_gives_one_translation(client: TestClient) -> None:
    answer = client.post("/v1/translate", json={"text": "你好，世界", "to": "en"}).json()
    assert answer["model"] == "zh-en"
    assert answer["seconds"] >= 0
    (result,) = answer["results"]
    assert result["source"] == "你好，世界"
    assert result["translation"] == "hello，world"
    assert (result["source_language"], result["target_language"]) == ("zh", "en")
    assert result["score"] < 0


def test_a_list_keeps_its_order_and_its_blank_lines(
    client: TestClient, translator: DictionaryTranslator
) -> None:
    texts = [("你好", "", "hello", "   ")[n % 4] for n in range(50)]
    answer = client.post("/v1/translate", json={"text": texts}).json()
    assert [result["source"] for result in answer["results"]] == texts
    assert [result["translation"] for result in answer["results"]][:4] == ["hello", "", "你好", "   "]
    assert max(map(len, translator.calls)) < 50, "a long request must be worked on in portions"
    assert sum(translator.calls, ()) == tuple(texts)


def test_alternatives_and_languages_reach_the_translator(client: TestClient) -> None:
    asked = {"text": "hello", "from": "en", "to": "zh", "beam_size": 3, "alternatives": 3}
    (result,) = client.post("/v1/translate", json=asked).json()["results"]
    assert result["translation"] == "你好"
    assert len(result["alternatives"]) == 2, "the best one is not an alternative to itself"


def test_work_happens_off_the_event_loop(client: TestClient, translator: DictionaryTranslator) -> None:
    client.post("/v1/translate", json={"text": ["你好"] * 40})
    assert len(translator.threads) == 1
    assert "model-zh-en" in next(iter(translator.threads))


def test_classes_come_best_first_and_cut_at_top(client: TestClient) -> None:
    answer = client.post("/v1/classify", json={"text": ["my balance", "will it rain"], "top": 2}).json()
    assert [result["label"] for result in answer["results"]] == ["balance", "weather"]
    for result in answer["results"]:
        scores = list(result["scores"].values())
        assert len(scores) == 2
        assert scores == sorted(scores, reverse=True)
        assert "labels" not in result


def test_all_scores_come_when_top_is_not_given(client: TestClient) -> None:
    (result,) = client.post("/v1/classify", json={"text": "my balance"}).json()["results"]
    assert set(result["scores"]) == {"balance", "weather", "alarm", "oos"}


def test_models_are_listed_the_way_openai_clients_read_them(client: TestClient) -> None:
    listing = client.get("/v1/models").json()
    assert listing["object"] == "list"
    entries: dict[str, Any] = {entry["id"]: entry for entry in listing["data"]}
    assert entries["zh-en"]["object"] == "model"
    assert entries["zh-en"]["directions"] == [["zh", "en"], ["en", "zh"]]
    assert entries["zh-en"]["created"] > 1_700_000_000
    assert entries["zh-en"]["results"][0]["metrics"]["bleu"]["low"] == pytest.approx(29.8)
    assert entries["intents-en"]["labels"] == ["balance", "weather", "alarm", "oos"]
    assert entries["intents-en"]["out_of_scope"] == "oos"
    assert entries["intents-en"]["size_bytes"] > 0


def test_a_model_comes_with_its_card_and_report(client: TestClient) -> None:
    model = client.get("/v1/models/zh-en").json()
    assert model["card"] == HOSTILE_CARD
    assert model["report"]["results"][0]["test_set"] == "tatoeba"


def test_metrics_count_what_was_done_and_only_that(client: TestClient) -> None:
    client.post("/v1/translate", json={"text": ["你好", "世界"]})
    client.get("/nobody-knows-this-path")
    text = client.get("/metrics").text
    assert 'inkstone_texts_total{model="zh-en",task="translate"} 2.0' in text
    assert 'inkstone_characters_total{model="zh-en",task="translate"} 4.0' in text
    assert 'inkstone_requests_total{method="POST",route="/v1/translate",status="200"} 1.0' in text
    assert 'route="other",status="404"' in text
    assert "nobody-knows-this-path" not in text


def test_health_says_how_many_models(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "ok", "service": "inkstone", "models": 2}


def test_every_answer_has_an_id_and_safe_headers(client: TestClient) -> None:
    answers = [client.get("/health"), client.get("/"), client.get("/nothing"), client.post("/v1/translate")]
    assert len({answer.headers["x-request-id"] for answer in answers}) == len(answers)
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert "unsafe" not in answer.headers["content-security-policy"]
        assert "access-control-allow-origin" not in answer.headers


def test_the_page_is_served_and_revalidated(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    for path in ("/assets/workbench.js", "/assets/workbench.css"):
        assert f'"{path}"' in page.text
        first = client.get(path)
        assert first.status_code == 200
        again = client.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        changed = client.get(path, headers={"If-None-Match": '"something-else"'})
        assert changed.status_code == 200


def test_documentation_pages_that_load_from_elsewhere_are_off(client: TestClient) -> None:
    assert [client.get(path).status_code for path in ("/docs", "/redoc")] == [404, 404]
    assert client.get("/openapi.json").status_code == 200
