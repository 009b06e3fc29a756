"""Weights in 8 and 4 bits: what is rounded, that the kernels compute it, that files give it back, what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from inkstone.ground.errors import BundleError, ConfigError, TrainingError
from inkstone.model.bag import Bag, BagConfig
from inkstone.model.config import tiny
from inkstone.model.quantized import (
    Int4Linear,
    Int8Embedding,
    Int8Linear,
    load_quantized,
    quantized,
    rounded_rows,
    save_quantized,
)
from inkstone.model.transformer import Transformer
from inkstone.ship import quantize
from inkstone.ship.quantize import as_rounded, ship_bag_int8, ship_quantized
from inkstone.text.ngrams import FeatureVocabulary, NgramOptions

SOURCE = torch.tensor([[4, 5, 6, 7, 3], [8, 9, 3, 0, 0]])
TARGET = torch.tensor([[2, 5, 6, 7], [2, 9, 8, 4]])


def model(shape: Any = "encoder-decoder", seed: int = 0, **overlay: Any) -> Transformer:
    sizes = {"hidden_size": 64, "num_heads": 2, "feed_forward_size": 96, "dropout": 0.0, **overlay}
    return Transformer(tiny(50, shape, **sizes), torch.Generator().manual_seed(seed)).eval()


def linear(inputs: int, outputs: int, *, bias: bool = True, seed: int = 0) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias=bias)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(0, 1, generator=torch.Generator().manual_seed(seed))
    return layer


def run(one: nn.Module) -> torch.Tensor:
    return one(SOURCE, TARGET).flatten(0, 1)


@pytest.mark.parametrize("rows", [1, 3, 40])
def test_int8_is_the_product_of_what_was_rounded(rows: int) -> None:
    layer = linear(48, 20)
    small = Int8Linear.of(layer)
    x = torch.randn(2, rows, 48, generator=torch.Generator().manual_seed(rows))
    step = x.abs().amax(-1, keepdim=True) / 127
    plain = (x / step).round() * step @ small.dequantized().t() + layer.bias
    assert torch.allclose(small(x), plain, atol=1e-4)
    assert (small(x) - layer(x)).norm() / layer(x).norm() < 0.02
    # half a step is the most that rounding moves a weight
    assert ((small.dequantized() - layer.weight).abs() <= small.scale[:, None] * 0.5001).all()


@pytest.mark.parametrize("group", [32, 64])
def test_int4_is_the_product_of_what_was_rounded(group: int) -> None:
    layer = linear(128, 48)
    small = Int4Linear.of(layer, group)
    x = torch.randn(5, 3, 128, generator=torch.Generator().manual_seed(1)).bfloat16().float()
    plain = x @ small.dequantized().t() + layer.bias
    assert (small(x) - plain).norm() / plain.norm() < 0.01  # the kernel computes in bfloat16
    assert small.weight_int4.shape == (48, 64)  # two weights a byte
    assert (small.dequantized() - layer.weight).norm() / layer.weight.norm() < 0.12


def test_smaller_groups_round_less() -> None:
    layer = linear(256, 32).requires_grad_(False)
    errors = [
        float((Int4Linear.of(layer, group).dequantized() - layer.weight).norm()) for group in (32, 128, 256)
    ]
    assert errors == sorted(errors)


def test_a_weight_that_fits_the_steps_is_kept_exactly() -> None:
    layer = linear(32, 16, bias=False)
    with torch.no_grad():
        layer.weight.copy_((torch.arange(32) % 16 - 8).float().repeat(16, 1) * 0.5)
    assert torch.equal(Int4Linear.of(layer, 32).dequantized(), layer.weight)
    codes, scale = rounded_rows(torch.tensor([[0.0, 0.0], [-254.0, 2.0]]))
    assert torch.equal(codes.float() * scale[:, None], torch.tensor([[0.0, 0.0], [-254.0, 2.0]]))


@pytest.mark.parametrize("kind", ["int8", "int4"])
@pytest.mark.parametrize("overlay", [{}, {"tie_embeddings": False, "bias": "all", "positions": "sinusoidal"}])
def test_a_model_is_near_itself_and_comes_back_from_its_file(
    kind: Any, overlay: dict[str, Any], tmp_path: Path
) -> None:
    whole = model(**overlay)
    before = {name: tensor.clone() for name, tensor in whole.state_dict().items()}
    with torch.no_grad():
        small = quantized(whole, kind)
        exact, rounded = run(whole), run(small)
        assert (exact - rounded).norm() / exact.norm() < (0.05 if kind == "int8" else 0.35)
        assert all(torch.equal(before[name], tensor) for name, tensor in whole.state_dict().items())
        save_quantized(small, tmp_path, kind)
        back = load_quantized(tmp_path)
        assert torch.equal(run(back), rounded)
        # decoding token by token is the same function
        memory, mask, cache = back.encode(SOURCE), back.visible(SOURCE), back.new_cache()
        steps = [back.decode(TARGET[:, n : n + 1], memory, mask, cache) for n in range(TARGET.shape[1])]
        assert (back.logits(torch.cat(steps, 1)).flatten(0, 1) - rounded).abs().max() < 0.2
    size = (tmp_path / "model.safetensors").stat().st_size
    assert size < (0.4 if kind == "int8" else 0.3) * 4 * sum(p.numel() for p in whole.parameters()) + 20_000


def test_what_the_kernel_does_not_take_stays_in_int8() -> None:
    small = quantized(
        model("encoder", hidden_size=40, num_heads=2, feed_forward_size=64, num_labels=3), "int4"
    )
    kinds = {name: type(module) for name, module in small.named_modules()}
    assert kinds["encoder.layers.0.attention.query_key_value"] is Int8Linear  # 40 inputs
    assert kinds["encoder.layers.0.feed_forward.down"] is Int8Linear  # 40 outputs, no multiple of 16
    assert kinds["classifier"] is Int8Linear
    assert kinds["embedding"] is Int8Embedding
    assert isinstance(
        quantized(model(), "int4").get_submodule("encoder.layers.0.feed_forward.down"), Int4Linear
    )


def test_the_engine_in_a_bundle_is_proved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = model()
    facts = ship_quantized(whole, tmp_path, "int4", run)
    assert json.loads((tmp_path / "torch-int4" / "parity.json").read_text()) == facts
    assert facts["layers in int4"] > 0 < facts["scores moved by rounding, of their size"] < 0.4
    # a file that gives something else is not shipped
    other = quantized(model(seed=1), "int8")
    monkeypatch.setattr(quantize, "load_quantized", lambda folder: other)
    with pytest.raises(TrainingError, match="does not give what was measured"):
        ship_quantized(whole, tmp_path / "other", "int8", run)


@pytest.mark.parametrize("kind", ["int8", "int4"])
def test_rounded_weights_in_float32_are_the_ones_computed_with(kind: Any) -> None:
    whole = model()
    small, plain = quantized(whole, kind), as_rounded(whole, kind)
    for name, module in small.named_modules():
        if isinstance(module, Int8Linear | Int4Linear):
            assert torch.equal(plain.get_submodule(name).weight, module.dequantized())  # type: ignore[arg-type]
    assert torch.equal(plain.embedding.weight, small.embedding.weight)
    assert not torch.equal(plain.embedding.weight, whole.embedding.weight)


def test_unknown_kinds_and_broken_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        quantized(model(), "int3", group=5)  # type: ignore[arg-type]
    assert 'quantization="int3"' in str(caught.value) and 'group="5"' in str(caught.value)
    save_quantized(quantized(model(), "int8"), tmp_path, "int8")
    weights = load_file(tmp_path / "model.safetensors")
    weights["strange"] = weights.pop("embedding.scale")
    weights["encoder.layers.0.feed_forward.up.weight_int8"] = torch.zeros(3, 3)
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(BundleError) as broken:
        load_quantized(tmp_path)
    for part in (
        "embedding.scale is missing",
        "strange is not known",
        "feed_forward.up.weight_int8 is (3, 3)",
    ):
        assert part in str(broken.value)
    values = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(
        json.dumps({**values, "quantization": {"kind": "int2", "group": 32}})
    )
    with pytest.raises(BundleError, match=r"quantization=.*int2.*is not a kind"):
        load_quantized(tmp_path)


def test_a_bag_in_int8_is_served_as_torch_computes_it(tmp_path: Path) -> None:
    texts = ["what is my balance", "book a flight to rome", "balance of the account", "a flight, please", ""]
    features, weights = FeatureVocabulary.train(texts, NgramOptions())
    bag = Bag(BagConfig(len(features), 6, 4), weights)
    with torch.no_grad():
        for parameter in bag.parameters():
            parameter.normal_(0, 1, generator=torch.Generator().manual_seed(0))
    facts = ship_bag_int8(bag, features, tmp_path, texts)
    assert facts["int8 embedding: same label as torch"] == "5 of 5"
    assert load_file(tmp_path / "model.safetensors")["embedding.weight"].dtype == torch.int8
    from inkstone.generate.classify_bag import BagEngine

    served = BagEngine(tmp_path).logits(texts)
    with torch.no_grad():
        exact = np.concatenate([bag(torch.tensor([features.encode(text) or [0]])).numpy() for text in texts])
    assert 0 < np.abs(served - exact).max() < 0.05 * np.abs(exact).max()
