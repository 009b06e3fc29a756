"""A checkpoint comes back bit by bit, and one that does not fit, or is no safetensors at all, is refused by name."""

from __future__ import annotations

import json
import pickle
import random
import struct
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="checkpoints of models need torch")

from safetensors import SafetensorError  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from inkstone.ground.errors import BundleError, InkstoneError, OutputError  # noqa: E402
from inkstone.model import checkpoint  # noqa: E402
from inkstone.model.checkpoint import load_model, save_model  # noqa: E402
from inkstone.model.config import tiny  # noqa: E402
from inkstone.model.transformer import Transformer  # noqa: E402

SIZES: dict[str, Any] = {"hidden_size": 16, "num_heads": 2, "feed_forward_size": 16}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    layers = {"num_encoder_layers": 1, "num_decoder_layers": 1}
    save_model(Transformer(tiny(30, **SIZES, **layers), torch.Generator().manual_seed(1)), tmp_path)
    return tmp_path


def test_it_comes_back_bit_by_bit_and_ready_to_evaluate(saved: Path) -> None:
    weights = load_file(saved / "model.safetensors")
    model = load_model(saved)
    assert not model.training
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.state_dict().items())
    assert "position_table" not in weights, "what follows from the configuration is not stored"


def test_every_tensor_that_does_not_fit_is_named(saved: Path) -> None:
    weights = load_file(saved / "model.safetensors")
    del weights["encoder.norm.weight"]
    weights["head.weight"] = torch.zeros(2)
    weights["embedding.weight"] = torch.zeros(31, 16)
    save_file(weights, saved / "model.safetensors")
    with pytest.raises(BundleError) as error:
        load_model(saved)
    for words in (
        "3 problems", "encoder.norm.weight is missing", "head.weight is not known",
        "embedding.weight has shape (31, 16), not (30, 16)",
    ):  # fmt: skip
        assert words in str(error.value)


class Canary:
    """What a pickle would run."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (open, ("canary",))


def header(text: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(text) if length is None else length) + text


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(Canary()),
        b"",
        b"\0" * 7,
        header(b"{}", 1 << 62),
        header(b"not json"),
        header(json.dumps({"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}}).encode()),
        header(json.dumps({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}).encode()) + b"1234",
        header(json.dumps({n: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in "ab"}).encode()) + b"1234",
    ],
)  # fmt: skip
def test_hostile_weights_are_refused_and_nothing_runs(
    saved: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(saved)
    (saved / "model.safetensors").write_bytes(content)
    with pytest.raises(BundleError, match=r"model\.safetensors"):
        load_model(saved)
    assert not (saved / "canary").exists()


def test_no_truncation_or_flipped_header_is_anything_but_a_refusal_or_a_model(saved: Path) -> None:
    """Without the manifest's hashes even: 200 damages, each a clear error or weights of the right shapes."""
    file, random_ = saved / "model.safetensors", random.Random(3)
    content = file.read_bytes()
    header_size = 8 + struct.unpack("<Q", content[:8])[0]
    for trial in range(200):
        if trial % 2:
            spoiled = content[: random_.randrange(len(content))]
        else:
            place = random_.randrange(header_size)
            spoiled = (
                content[:place] + bytes([content[place] ^ (1 << random_.randrange(8))]) + content[place + 1 :]
            )
        file.write_bytes(spoiled)
        try:
            model = load_model(saved)
        except InkstoneError as error:
            assert "model.safetensors" in str(error)
        else:
            assert trial % 2 == 0, "what is truncated never loads"
            assert sum(p.numel() for p in model.parameters()) > 0


def test_a_full_disk_is_said(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    model = load_model(saved)
    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OutputError, match="No space left on device"):
        save_model(model, saved)
