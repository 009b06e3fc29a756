"""Classifiers as ONNX graphs give torch's scores, whatever is in the batch; in eight bits they move by rounding alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="exporting needs torch")
pytest.importorskip("onnxscript", reason="exporting needs onnxscript")

from inkstone.generate.classify_encoder import EncoderEngine  # noqa: E402
from inkstone.generate.classify_onnx import OnnxClassifier  # noqa: E402
from inkstone.generate.onnx_session import open_session  # noqa: E402
from inkstone.ground.errors import BundleError, ConfigError, TrainingError  # noqa: E402
from inkstone.model import config, convolutional_config, recurrent_config  # noqa: E402
from inkstone.model.checkpoint import build_model, save_model  # noqa: E402
from inkstone.ship import onnx_graph, onnx_traced  # noqa: E402
from inkstone.ship.classify import CERTIFICATE, export_encoder, ship_reader, torch_logits  # noqa: E402
from inkstone.ship.onnx import export_onnx, quantise_onnx  # noqa: E402
from inkstone.text.reader import TextReader  # noqa: E402
from inkstone.text.tokenizer import Tokenizer  # noqa: E402

TEXTS = [
    "",
    "red",
    "the red car",
    "a dog sees the old map of the red house",
    "two apples and some tea",
    "你好",
]
SIZES = {"embedding_size": 8, "hidden_size": 12, "num_encoder_layers": 2, "num_labels": 3}
KINDS: dict[str, Any] = {
    "lstm": lambda size: recurrent_config.preset("tiny", size, "encoder", SIZES),
    "gru": lambda size: recurrent_config.preset(
        "tiny", size, "encoder", {**SIZES, "cell": "gru", "bidirectional": False, "pooling": "max"}
    ),
    "textcnn": lambda size: convolutional_config.textcnn_preset(
        "tiny", size, {"embedding_size": 8, "num_channels": 4, "num_labels": 3}
    ),
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS * 4, kind="bpe", vocab_size=340)


def made(kind: str, size: int) -> Any:
    model = build_model(KINDS[kind](size), torch.Generator().manual_seed(1))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)) * 0.3)
    return model.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_served_is_what_was_trained(kind: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = made(kind, tokenizer.vocab_size)
    facts = ship_reader(
        model, TextReader(tokenizer), tmp_path, TEXTS, lambda logits: float(len(logits) == len(TEXTS))
    )
    assert facts["float32 export: same label as torch"] == f"{len(TEXTS)} of {len(TEXTS)}"
    assert facts["float32 export: largest difference of a score"] < 1e-5
    assert facts["engine"] == "onnx-int8" and (tmp_path / CERTIFICATE).exists()
    served = OnnxClassifier(tmp_path, tmp_path / "onnx-int8", threads=1)
    together = served.logits(TEXTS)
    np.testing.assert_allclose(together, torch_logits(model, served.encode(TEXTS)), atol=0.3)
    alone = np.concatenate([served.logits([text]) for text in TEXTS])
    np.testing.assert_allclose(together.argmax(1), alone.argmax(1))
    long = served.logits([" ".join(TEXTS) * 200])  # longer than any batch
    assert np.isfinite(long).all()


def test_gates_in_the_wrong_order_are_not_shipped(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = onnx_traced.drawn_recurrences

    def turned(model: Any) -> Any:
        layers = real(model)
        for layer in layers:
            layer.weights.copy_(layer.weights.roll(layer.size, dims=1))
        return layers

    monkeypatch.setattr(onnx_traced, "drawn_recurrences", turned)
    with pytest.raises(
        TrainingError, match=r"float32 export: the served scores are up to .* The export is wrong"
    ):
        ship_reader(made("lstm", tokenizer.vocab_size), TextReader(tokenizer), tmp_path, TEXTS, lambda _: 1.0)
    assert not (tmp_path / CERTIFICATE).exists() and not list(tmp_path.glob("onnx-*"))


def test_what_has_no_graph_is_refused(tmp_path: Path) -> None:
    save_model(
        build_model(recurrent_config.preset("tiny", 30, "encoder", {**SIZES, "num_labels": 0})), tmp_path
    )
    with pytest.raises(ConfigError, match="a Recurrent encoder without labels is not exported to ONNX"):
        export_onnx(tmp_path, tmp_path / "out", quantization="float32")


def test_another_tokenizer_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_model(made("textcnn", tokenizer.vocab_size - 1), tmp_path)
    tokenizer.save(tmp_path / "tokenizer.json")
    export_onnx(tmp_path, tmp_path / "onnx-float32", quantization="float32")
    with pytest.raises(BundleError, match=r"the tokenizer has \d+ tokens, the model"):
        OnnxClassifier(tmp_path, tmp_path / "onnx-float32")


def test_a_long_text_of_a_transformer_is_read_as_in_ctranslate2(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """In windows: the mean of their scores, by tokens, is the score of the mean of all states."""
    sizes = {"hidden_size": 16, "num_heads": 2, "num_kv_heads": 2, "feed_forward_size": 16, "num_labels": 3}
    model = build_model(
        config.tiny(tokenizer.vocab_size, "encoder", **sizes, max_positions=4),
        torch.Generator().manual_seed(1),
    )
    save_model(model, tmp_path)
    tokenizer.save(tmp_path / "tokenizer.json")
    export_onnx(tmp_path, tmp_path / "onnx-float32", quantization="float32")
    export_encoder(tmp_path, tmp_path / "ctranslate2-float32", quantization="float32")
    served = OnnxClassifier(tmp_path, tmp_path / "onnx-float32", threads=1)
    other = EncoderEngine(tmp_path, tmp_path / "ctranslate2-float32", threads=1)
    assert max(len(ids) for ids in served.encode(TEXTS)) > 8
    np.testing.assert_allclose(served.logits(TEXTS), other.logits(TEXTS), atol=1e-5)
    np.testing.assert_allclose(served.logits(["red"]), torch_logits(model, served.encode(["red"])), atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [("product", (2, 3, 5)), ("product", (4, 5)), ("turned", (4, 5)), ("lookup", (2, 3))],
    ids=str,
)
def test_rounding_moves_a_product_by_no_more_than_half_a_step(shape: str, sizes: Any, tmp_path: Path) -> None:
    """A token's codes are of its own size: a large neighbour changes nothing."""
    drawn = np.random.default_rng(3)
    weight = drawn.normal(size=(5, 7)).astype(np.float32)
    graph = onnx_graph.Graph("one")
    if shape == "lookup":
        x: Any = drawn.integers(0, 5, sizes)
        exact = weight[x]
        y = graph.node("Gather", graph.weight("w", weight), graph.input("x", onnx_graph.INTEGER, *sizes))
        most: Any = np.abs(exact).max(-1, keepdims=True) / 254
    else:
        x = drawn.normal(size=sizes).astype(np.float32)
        x[-1] *= 1000
        exact = x @ weight
        given = graph.input("x", onnx_graph.NUMBER, *sizes)
        if shape == "turned":
            y = graph.node(
                "Gemm",
                given,
                graph.weight("w", weight.T),
                graph.weight("b", np.ones(7, np.float32)),
                transB=1,
            )
            exact = exact + 1
        else:
            y = graph.node("MatMul", given, graph.weight("w", weight))
        steps = np.abs(x).max(-1, keepdims=True) / 254, np.abs(weight).max(0) / 254
        most = steps[0] * np.abs(weight).sum(0) + (np.abs(x).sum(-1, keepdims=True) + 5 * steps[0]) * steps[1]
    graph.output(y, "y", onnx_graph.NUMBER, *exact.shape)
    graph.write(tmp_path / "one.onnx", {})
    quantise_onnx(tmp_path, tmp_path)
    (found,) = open_session(tmp_path / "one.onnx", 1).run(None, {"x": x})
    assert found.shape == exact.shape
    moved = np.abs(found - exact)
    assert moved.max() > 0 and (moved <= most * 1.01 + 1e-6).all()
