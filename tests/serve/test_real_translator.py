"""The server over the real Translator: a bundle of random weights, its own tokenizer, the CTranslate2 engine.

What it says is nonsense; that it says it through the default loaders, in the right shape, is what is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from starlette.testclient import TestClient

from inkstone.model.bundle import new_bundle
from inkstone.serve.application import Settings, create_app
from inkstone.serve.models import Models

torch = pytest.importorskip(
    "torch", reason="a random model is made with torch: pip install 'inkstone[train]'"
)

TEXTS = [
    "你好，世界。",
    "今天天气很好。",
    "Good morning.",
    "The file was not found.",
    "Try it again tomorrow.",
]
DIRECTIONS = [["zh", "en"], ["en", "zh"]]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    torch = pytest.importorskip("torch", reason="a random model is made with torch: inkstone[train]")
    from inkstone.model.checkpoint import save_model
    from inkstone.model.config import tiny
    from inkstone.model.transformer import Transformer
    from inkstone.ship.ctranslate2 import export_ctranslate2
    from inkstone.text.tokenizer import Tokenizer

    folder = tmp_path_factory.mktemp("models")
    description = {
        "task": "translate",
        "name": "nonsense",
        "languages": ["zh", "en"],
        "directions": DIRECTIONS,
    }
    tokenizer = Tokenizer.train(TEXTS * 20, kind="bpe", vocab_size=320, specials=["<2en>", "<2zh>"])
    model = Transformer(tiny(tokenizer.vocab_size), torch.Generator().manual_seed(1))
    with new_bundle(folder / "nonsense", description, made={"by": "a test"}) as inside:
        save_model(model, inside, dtype=torch.float32)
        tokenizer.save(inside / "tokenizer.json")
        export_ctranslate2(inside, inside / "ctranslate2-int8", quantization="int8")
    models = Models.load(folder, threads=1)
    with closing(models), TestClient(create_app(Settings(), models), base_url="http://localhost") as client:
        yield client


def test_texts_come_back_in_order_and_shape(client: TestClient) -> None:
    asked = {"text": [*TEXTS, "", "two\n\nlines"], "beam_size": 2, "alternatives": 2}
    answer = client.post("/v1/translate", json=asked)
    assert answer.status_code == 200, answer.text
    results = answer.json()["results"]
    assert [result["source"] for result in results] == asked["text"]
    assert [result["target_language"] for result in results[:5]] == ["en", "en", "zh", "zh", "zh"]
    assert results[5]["translation"] == ""
    assert results[6]["translation"].count("\n") == 2
    assert all(len(result["alternatives"]) == 1 for result in results[:5])
    assert all(result["score"] < 0 for result in results[:5])


def test_a_text_alone_and_among_others_is_translated_alike(client: TestClient) -> None:
    together = client.post("/v1/translate", json={"text": TEXTS * 5}).json()["results"]
    alone = [client.post("/v1/translate", json={"text": text}).json()["results"][0] for text in TEXTS]
    for one, other in zip(alone * 5, together, strict=True):
        assert one["translation"] == other["translation"]
        assert one["score"] == pytest.approx(other["score"], abs=1e-3)


def test_the_longest_text_that_is_taken(client: TestClient) -> None:
    asked = {"text": "Try it again tomorrow. " * 200, "to": "zh", "beam_size": 1}
    assert client.post("/v1/translate", json=asked).status_code == 200


def test_languages_it_does_not_have(client: TestClient) -> None:
    answer = client.post("/v1/translate", json={"text": "hello", "to": "fr"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "to"
