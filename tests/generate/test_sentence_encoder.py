"""The sentence encoder: the same vectors as sentence-transformers, long texts read to their end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the reference encoder needs torch")

from inkstone.generate.sentence_encoder import (  # noqa: E402
    ctranslate2_encoder,
    minilm_folder,
    onnx_encoder,
    read_reading,
    torch_encoder,
)
from inkstone.ground.errors import BundleError, MissingPackage  # noqa: E402
from inkstone.ship.ctranslate2 import export_ctranslate2  # noqa: E402
from inkstone.ship.onnx import export_onnx  # noqa: E402

TEXTS = [
    "That is a happy person", "That is a happy dog", "That is a very happy person", "Today is a sunny day",
    "The stock market fell sharply on Monday.", "Bananas are yellow.", "你好，世界", "",
    "A much longer text, with numbers such as 3.14, names such as Ada Lovelace, and a question: is this all?",
]  # fmt: skip


@pytest.fixture(scope="module")
def minilm() -> Path:
    try:
        return minilm_folder()
    except MissingPackage as error:
        pytest.skip(str(error))


def test_it_is_sentence_transformers(minilm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reference = pytest.importorskip("sentence_transformers", reason="install the dev extra")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    wanted = reference.SentenceTransformer(str(minilm), device="cpu").encode(TEXTS, normalize_embeddings=True)
    found = torch_encoder(minilm).encode(TEXTS)
    assert found.shape == wanted.shape == (len(TEXTS), 384)
    cosines = (found * wanted).sum(axis=1)
    assert cosines.min() >= 0.99999, cosines


def test_the_pairs_of_its_published_card(minilm: Path) -> None:
    """The order of likeness that the model's page shows for these sentences."""
    person, dog, very, day = torch_encoder(minilm).encode(TEXTS[:4])
    assert person @ very > 0.9 > person @ dog > 0.5 > person @ day


def test_a_long_text_is_read_to_its_end_and_batches_change_nothing(minilm: Path) -> None:
    encoder = torch_encoder(minilm)
    filler = "the weather was quiet that week and nothing happened in the village. " * 60
    one, other = encoder.encode([filler + "An earthquake destroyed the bridge.", filler])
    assert one @ other < 0.99999, "the last sentence counts"
    alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
    np.testing.assert_allclose(encoder.encode(TEXTS), alone, atol=2e-6)
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize(("quantization", "least"), [("float32", 0.99999), ("int8", 0.98)])
@pytest.mark.parametrize(
    ("write", "opened"),
    [(export_ctranslate2, ctranslate2_encoder), (export_onnx, onnx_encoder)],
    ids=["CTranslate2", "onnxruntime"],
)
def test_without_torch_it_says_the_same(
    minilm: Path, tmp_path: Path, write: Any, opened: Any, quantization: str, least: float
) -> None:
    write(minilm, tmp_path / "engine", quantization=quantization)
    encoder = opened(minilm, tmp_path / "engine", threads=1)
    found = encoder.encode(TEXTS)
    np.testing.assert_allclose(np.concatenate([encoder.encode([text]) for text in TEXTS]), found, atol=2e-6)
    cosines = (found * torch_encoder(minilm).encode(TEXTS)).sum(axis=1)
    assert cosines.min() >= least, cosines


def test_other_ways_of_pooling_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "1_Pooling").mkdir()
    steps = [{"type": f"sentence_transformers.models.{name}"} for name in ("Transformer", "Pooling", "Dense")]
    (tmp_path / "modules.json").write_text(json.dumps(steps))
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(BundleError) as error:
        read_reading(tmp_path, 512)
    for words in ("step Dense is not known", "not normalised", "pooling by pooling_mode_max_tokens"):
        assert words in str(error.value)
