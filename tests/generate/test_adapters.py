"""Adapters in the engines: a request gets what the model with its adapter merged would say; others are not disturbed."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch", reason="adapters run in torch")

from inkstone.apps.translate import Translator  # noqa: E402
from inkstone.cli import main  # noqa: E402
from inkstone.generate.ctranslate2_engine import CTranslate2Engine  # noqa: E402
from inkstone.generate.engine import GenerationOptions  # noqa: E402
from inkstone.generate.onnx_engine import OnnxEngine  # noqa: E402
from inkstone.generate.torch_engine import TorchDecoder, TorchEngine  # noqa: E402
from inkstone.ground.errors import BundleError, ConfigError  # noqa: E402
from inkstone.model.checkpoint import load_model, save_model  # noqa: E402
from inkstone.model.config import tiny  # noqa: E402
from inkstone.model.lora import Adapters, LoraConfig  # noqa: E402
from inkstone.model.lora_files import save_adapter  # noqa: E402
from inkstone.model.transformer import Transformer  # noqa: E402
from inkstone.recipes.export import export  # noqa: E402

if TYPE_CHECKING:
    from conftest import Trained

SOURCES = [[4, 9, 7, 3], [12, 5, 3], [8, 8, 10, 6, 15, 3]]
GREEDY = GenerationOptions(beam_size=1, max_length=12)
WAYS = {
    "greedy": GREEDY,
    "beam": GenerationOptions(beam_size=3, alternatives=2, max_length=12),
    "drawn": GenerationOptions(beam_size=1, temperature=1.0, seed=7, max_length=12),
}


def write_adapter(base: Path, folder: Path, seed: int, size: float = 0.3) -> Path:
    """An adapter on the checkpoint of a folder that really changes it."""
    adapters, generator = Adapters(load_model(base)), torch.Generator().manual_seed(seed)
    adapters.add("a", LoraConfig(rank=4, targets=("*.attention.*", "*.feed_forward.*")), generator)
    with torch.no_grad():
        for parts in adapters.parts("a").values():
            for part in parts:
                part.up.normal_(0, size, generator=generator)
    folder.mkdir(parents=True)
    save_adapter(adapters, "a", folder)
    return folder


@pytest.fixture(scope="module", params=["encoder-decoder", "decoder"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A random model on disk with two adapters beside it, and the engine of its kind."""
    place = tmp_path_factory.mktemp("adapters")
    config = tiny(20, request.param, hidden_size=32, feed_forward_size=48, dropout=0.0)
    (place / "base").mkdir()
    save_model(Transformer(config, torch.Generator().manual_seed(3)), place / "base")
    folders = {name: write_adapter(place / "base", place / name, n) for n, name in enumerate(("law", "care"))}
    return place / "base", folders, TorchEngine if request.param == "encoder-decoder" else TorchDecoder


@pytest.mark.parametrize("way", WAYS)
def test_a_request_is_answered_as_by_the_merged_model(base: Any, way: str) -> None:
    folder, folders, kind = base
    engine, outputs = kind.load(folder, adapters=folders), []
    for name in (None, *folders):
        adapters = Adapters(load_model(folder))
        plain = kind(adapters.model)
        if name is not None:
            plain = kind.load(folder, adapters={"it": folders[name]})
            plain = kind(plain.adapters.merged("it"))
        asked = replace(WAYS[way], adapter=name)
        found, expected = engine.generate(SOURCES, asked), plain.generate(SOURCES, WAYS[way])
        assert [[one.ids for one in row] for row in found] == [[one.ids for one in row] for row in expected]
        for row, other in zip(found, expected, strict=True):
            assert row[0].log_probability == pytest.approx(other[0].log_probability, abs=1e-4)
        targets = [list(row[0].ids) for row in found]
        scores = engine.score(SOURCES, targets, adapter=name)
        assert scores == pytest.approx(plain.score(SOURCES, targets), abs=1e-4)
        outputs.append(targets)
    assert outputs[0] != outputs[1] != outputs[2] != outputs[0]


def test_requests_at_the_same_time_do_not_disturb_each_other(base: Any) -> None:
    folder, folders, kind = base
    engine = kind.load(folder, adapters=folders)
    alone = {name: engine.generate(SOURCES, replace(GREEDY, adapter=name)) for name in (None, *folders)}
    found: list[tuple[str | None, Any]] = []
    begin = threading.Barrier(6)

    def ask(name: str | None) -> None:
        begin.wait()
        for _ in range(5):
            found.append((name, engine.generate(SOURCES, replace(GREEDY, adapter=name))))

    threads = [threading.Thread(target=ask, args=(name,)) for name in (None, *folders) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 30
    assert all(answer == alone[name] for name, answer in found)


def test_an_adapter_that_is_not_there(base: Any, tmp_path: Path) -> None:
    folder, folders, kind = base
    asked = replace(GREEDY, adapter="lew")
    with pytest.raises(
        ConfigError, match=r'adapter="lew" is not known\. Valid: law, care\. Did you mean "law"'
    ):
        kind.load(folder, adapters=folders).generate(SOURCES, asked)
    with pytest.raises(ConfigError, match=r'adapter="lew": there are none on this model'):
        kind.load(folder).generate(SOURCES, asked)
    with pytest.raises(BundleError, match=r"adapter_config\.json"):
        kind.load(folder, adapters={"law": tmp_path})


def test_other_engines_refuse_by_name() -> None:
    for engine, name in ((CTranslate2Engine, "CTranslate2"), (OnnxEngine, "onnxruntime")):
        unopened = object.__new__(engine)  # it is refused before anything is run
        with pytest.raises(ConfigError, match=f"{name} does not offer adapter=law here"):
            unopened.generate(SOURCES, replace(GREEDY, adapter="law"))


@pytest.fixture(scope="module")
def adapter(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_adapter(trained.bundle, tmp_path_factory.mktemp("on_bundle") / "law", seed=5, size=0.02)


TEXTS = ["我喜欢这本书。", "他们不买两个苹果。", "汤姆看见一只狗。"]


def test_a_translator_with_adapters(trained: Trained, adapter: Path, tmp_path: Path) -> None:
    plain = Translator(trained.bundle, engine="torch", threads=1)
    translator = Translator(trained.bundle, adapters={"law": adapter}, threads=1)
    before = plain.translate(TEXTS, to="en")
    with_it = translator.translate(TEXTS, to="en", options=GenerationOptions(adapter="law"))
    assert translator.translate(TEXTS, to="en") == before
    assert [one.score for one in with_it] != [one.score for one in before]
    merged = export(trained.bundle, "ct2", tmp_path / "merged", adapter=adapter)
    assert merged.proof.greedy_identical == "6 of 6"
    translator.engine = CTranslate2Engine(tmp_path / "merged", translator.tokenizer, threads=1)
    for one, other in zip(translator.translate(TEXTS, to="en"), with_it, strict=True):
        assert one.translation == other.translation
        assert one.score == pytest.approx(other.score, abs=1e-3)
    with pytest.raises(ConfigError, match="engine=ctranslate2 has no adapters"):
        Translator(trained.bundle, engine="ctranslate2", adapters={"law": adapter})


def test_on_the_command_line(
    trained: Trained, adapter: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["translate", *TEXTS, "--to", "en", "--model", str(trained.bundle), "--json", "--threads", "1"]
    expected = Translator(trained.bundle, adapters={"law": adapter}, threads=1).translate(
        TEXTS, to="en", options=GenerationOptions(adapter="law")
    )
    for given in (str(adapter), f"jus={adapter}"):
        assert main([*command, "--adapter", given]) == 0
        results = json.loads(capsys.readouterr().out)["results"]
        assert [one["score"] for one in results] == [round(one.score, 4) for one in expected]
    assert main([*command, "--adapter", str(adapter), "--engine", "ctranslate2"]) == 2
    assert "engine=ctranslate2 has no adapters" in capsys.readouterr().err
    assert main([*command, "--adapter", str(tmp_path)]) == 2
    assert "adapter_config.json" in capsys.readouterr().err
    assert main([*command, "--adapter", "=x"]) == 2
    assert "names no folder" in capsys.readouterr().err
    out = ["export", str(trained.bundle), "--to", "ct2", "-o", str(tmp_path / "out")]
    assert main([*out, "--adapter", str(tmp_path)]) == 2
    assert "adapter_config.json" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
