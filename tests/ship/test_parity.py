"""What cannot be exported is refused, what was exported wrongly is not shipped, and too lossy an int8 is float32."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch", reason="the trained engine needs torch")

from inkstone.generate.ctranslate2_engine import CTranslate2Engine  # noqa: E402
from inkstone.generate.torch_engine import TorchEngine  # noqa: E402
from inkstone.ground.errors import ConfigError, TrainingError  # noqa: E402
from inkstone.model.checkpoint import build_model, load_model, read_config, save_model  # noqa: E402
from inkstone.model.config import tiny  # noqa: E402
from inkstone.model.transformer import Transformer  # noqa: E402
from inkstone.ship import ctranslate2 as export_module  # noqa: E402
from inkstone.ship.ctranslate2 import export_ctranslate2, obstacles  # noqa: E402
from inkstone.ship.parity import CERTIFICATE, greedy, ship_translator  # noqa: E402
from inkstone.text.template import translation_sources  # noqa: E402
from inkstone.text.tokenizer import Tokenizer  # noqa: E402

if TYPE_CHECKING:
    from conftest import Trained

TEXTS = ["我喜欢这只猫。", "他们不买一些茶。", "你丢了这张旧地图。", "玛丽画一座房子。"]
REFERENCES = ["I like the cat.", "they do not buy some tea.", "you lose the old map.", "Mary draw a house."]


@pytest.fixture
def folder(trained: Trained, tmp_path: Path) -> Path:
    """A bundle in the making: the checkpoint and the tokenizer of the trained model."""
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        shutil.copy(trained.bundle / name, tmp_path)
    return tmp_path


def ship(folder: Path, **options: Any) -> Any:
    tokenizer = Tokenizer.load(folder)
    sources = translation_sources(tokenizer, TEXTS, "en")
    return ship_translator(
        folder, TorchEngine.load(folder), sources, REFERENCES, [("probe", sources[0])], **options
    )


def test_the_certificate_says_what_was_compared(folder: Path) -> None:
    before = (folder / "model.safetensors").read_bytes()
    certificate = ship(folder, limit=100.0)
    kept = json.loads((folder / CERTIFICATE).read_text())
    assert (certificate.engine, certificate.sentences, certificate.float32_identical) == (
        "ctranslate2-int8",
        4,
        4,
    )
    assert {name: kept[name] for name in ("engine", "limit", "note")} == {
        "engine": "ctranslate2-int8", "limit": 100.0, "note": "",
    }  # fmt: skip
    served = CTranslate2Engine(folder / "ctranslate2-int8", Tokenizer.load(folder))
    (probe,) = kept["probes"]
    assert probe["probe"] == "probe"
    assert list(served.generate([probe["source"]], greedy(folder))[0][0].ids) == probe["output"]
    assert 0 < certificate.score_difference < 1e-4
    assert certificate.facts()["float32 export, greedy output identical"] == "4 of 4 sentences"
    assert (folder / "model.safetensors").read_bytes() == before, "quantising changes no weights of ours"
    size = (folder / "ctranslate2-int8" / "model.bin").stat().st_size
    assert size < len(before) / 2


def test_int8_that_loses_more_than_the_limit_is_float32(folder: Path) -> None:
    certificate = ship(folder, limit=-100.0)  # nothing can gain a hundred
    assert certificate.engine == "ctranslate2-float32"
    assert "int8 lost" in certificate.note and "float32 is shipped instead" in certificate.note
    assert [path.name for path in folder.glob("ctranslate2-*")] == ["ctranslate2-float32"]
    assert certificate.chrf_served == pytest.approx(certificate.chrf_trained)


WRONG: dict[str, Callable[[dict[str, Any]], None]] = {
    "one norm doubled": lambda weights: weights.update(
        {"decoder.norm.weight": weights["decoder.norm.weight"] * 2}
    ),
    "queries and keys in each other's places": lambda weights: weights.update(
        {
            "decoder.layers.0.memory_attention.query.weight": weights[
                "decoder.layers.0.memory_attention.query.weight"
            ].T.copy()
        }
    ),
    "two words exchanged": lambda weights: weights["embedding.weight"].__setitem__(
        slice(None), weights["embedding.weight"][::-1].copy()
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_export_is_not_shipped(folder: Path, monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    real = export_module._specification

    def specification(config: Any, weights: Any) -> Any:
        spoiled = dict(weights)
        WRONG[wrong](spoiled)
        return real(config, spoiled)

    monkeypatch.setattr(export_module, "_specification", specification)
    with pytest.raises(
        TrainingError, match=r"float32 export differs.*The export is wrong; nothing was shipped"
    ):
        ship(folder)
    assert list(folder.glob("ctranslate2-*")) == [] and not (folder / CERTIFICATE).exists()


@pytest.mark.parametrize(
    ("shape", "axes", "why"),
    [
        ("encoder", {"prediction_head": True}, "prediction_head=True"),
        ("decoder", {"window": 8}, "window=8"),
        ("decoder", {"positions": "relative"}, "positions=relative"),
        ("encoder-decoder", {"query_key_norm": True}, "query_key_norm=True"),
    ],
)
def test_what_ctranslate2_cannot_hold_is_refused(
    tmp_path: Path, shape: Any, axes: dict[str, Any], why: str
) -> None:
    config = tiny(300, shape, **axes)
    assert obstacles(tiny(300, shape)) == [] and len(obstacles(config)) == 1
    save_model(Transformer(config), tmp_path)
    with pytest.raises(ConfigError, match=f"does not fit CTranslate2: {why}"):
        export_ctranslate2(tmp_path, tmp_path / "out", quantization="float32")
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_in_half_precision_loads_and_exports(trained: Trained, folder: Path) -> None:
    exact = load_model(folder)
    save_model(exact, folder, dtype=torch.float16)
    loaded = load_model(folder)
    for (name, a), (_, b) in zip(exact.named_parameters(), loaded.named_parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3, msg=name)
    assert ship(folder, limit=100.0).float32_identical == 4


def test_outputs_that_fill_all_positions_are_proved_too(folder: Path) -> None:
    """A model that has learnt nothing does not end by itself; its outputs go to the last place but the end mark's."""
    config = replace(read_config(folder), max_positions=24)
    save_model(build_model(config, torch.Generator().manual_seed(1)), folder)
    assert ship(folder, limit=100.0).float32_identical == 4
    (probe,) = json.loads((folder / CERTIFICATE).read_text())["probes"]
    assert len(probe["output"]) == 23
