"""From files to a served model with the other architectures: certificate, verify, and no torch to serve them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from made_corpus import made_labelled, made_pairs, quick_recipe, write_pairs

pytest.importorskip("torch", reason="training needs torch")
pytest.importorskip("onnxscript", reason="exporting needs onnxscript")

from inkstone.ground.errors import ConfigError
from inkstone.ground.manifest import read_json
from inkstone.model.checkpoint import load_model
from inkstone.model.lora import LoraConfig
from inkstone.recipes.translate import train_translator
from inkstone.recipes.translator_recipe import TranslateRecipe
from inkstone.recipes.verify import verify

SIZES = {"embedding_size": 24, "hidden_size": 32, "num_encoder_layers": 1, "num_decoder_layers": 1}


def recipe(folder: Path, architecture: str, **overlay: Any) -> Any:
    data = write_pairs(folder / "pairs.tsv", made_pairs(300))
    return quick_recipe(
        data,
        **{
            "architecture": architecture,
            "model": SIZES,
            "training": {"epochs": 1},
            "both_directions": False,
            **overlay,
        },
    )


@pytest.mark.parametrize("architecture", ["rnn", "cnn"])
def test_a_translator_is_proved_and_served_without_torch(tmp_path: Path, architecture: str) -> None:
    out = tmp_path / "model"
    result = train_translator(recipe(tmp_path, architecture), out)
    assert result["engine"].startswith("onnx-")
    certificate = read_json(out / "parity.json")
    assert certificate["float32_identical"] == certificate["sentences"] > 0
    checks = {check.name: check for check in verify(out)}
    assert all(check.passed for check in checks.values()), checks
    assert {"certified output", "float32 parity"} <= set(checks)
    code = (
        "import sys; from inkstone.cli import main; code = main(sys.argv[1:]);"
        "print([n for n in ('torch', 'onnx', 'ctranslate2') if n in sys.modules], file=sys.stderr); sys.exit(code)"
    )
    command = ["translate", "我买茶。", "", "他不喜欢书。", "--model", str(out), "--beam-size", "2", "--json"]
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True)
    results = json.loads(done.stdout)["results"]
    assert len(results) == 3 and results[1]["translation"] == ""
    assert done.stderr.strip().endswith("[]")
    learns_on_through_an_adapter(out, tmp_path / "pairs.tsv")


def learns_on_through_an_adapter(base: Path, data: Path) -> None:
    """Of models without an attention of ours, every linear layer gets one, and nothing else changes."""
    import torch

    from inkstone.learn.loop import TrainingOptions

    training = TrainingOptions(epochs=0.2, tokens_per_batch=1024, threads=1, precision="float32")
    more = TranslateRecipe(name="more", data=(str(data),), base=str(base), lora=LoraConfig(rank=2), max_length=48,
                           beam_size=1, training=training)  # fmt: skip
    out = base.with_name("more")
    train_translator(more, out)
    before, model = load_model(base).state_dict(), load_model(out)
    linear = {f"{path}.weight" for path, one in model.named_modules() if isinstance(one, torch.nn.Linear)}
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == linear
    assert (out / "adapter" / "adapter_model.safetensors").exists() and list(out.glob("onnx-*/decoder.onnx"))


def test_fields_of_another_architecture_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='model option="num_heads" is not known'):
        train_translator(recipe(tmp_path, "rnn", model={"num_heads": 4}), tmp_path / "model")
    with pytest.raises(ConfigError, match=r'size="huge" is not known\. Valid: tiny, small, base'):
        train_translator(recipe(tmp_path, "cnn", size="huge"), tmp_path / "model")
    assert not list(tmp_path.glob("model*"))


@pytest.mark.parametrize("architecture", ["rnn", "cnn"])
def test_a_classifier_from_the_command_line(
    tmp_path: Path, architecture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from inkstone.cli import main

    rows = [{"text": f"{text} {n}", "label": label} for n in range(8) for text, label in made_labelled()]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    sizes = (
        ["embedding_size=16", "hidden_size=16"]
        if architecture == "rnn"
        else ["embedding_size=16", "num_channels=8"]
    )
    settings = [f"--set=options.{architecture}.model.{size}" for size in sizes]
    command = [
        "train",
        "classify",
        "--data",
        str(tmp_path / "data.jsonl"),
        "--out",
        str(tmp_path / "model"),
        *settings,
    ]
    command += ["--architecture", architecture, f"--set=options.{architecture}.vocab_size=340"]
    assert main([*command, f"--set=options.{architecture}.training.epochs=15", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["architecture"] == architecture and printed["metrics"]["accuracy"]["value"] > 0.8
    assert (
        main(["classify", "please play jazz for me", "", "--model", str(tmp_path / "model"), "--json"]) == 0
    )
    first, empty = json.loads(capsys.readouterr().out)["results"]
    assert first["label"] == "music" and empty["label"] in ("music", "weather")
    assert main(["verify", str(tmp_path / "model")]) == 0
