"""`inkstone pull`: a checkpoint comes in whole, checked, sealed; one that is not in order is said in full, and gone."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="checkpoints need torch")
pytest.importorskip("transformers", reason="the reference is transformers; install the dev extra")

sys.path.insert(0, str(Path(__file__).parent.parent / "model"))
from families import reference  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from inkstone.cli import main  # noqa: E402
from inkstone.ground.errors import BundleError, ConfigError  # noqa: E402
from inkstone.ground.manifest import problems  # noqa: E402
from inkstone.model.checkpoint import load_model  # noqa: E402
from inkstone.recipes.pull import pull  # noqa: E402
from inkstone.text.foreign_tokenizer import ForeignTokenizer  # noqa: E402
from inkstone.text.tokenizer import Tokenizer  # noqa: E402


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as transformers writes it: a model in shards, its options, a tokenizer."""
    folder = tmp_path_factory.mktemp("hub") / "tiny-llama"
    reference("llama, llama3 positions", vocab_size=280).save_pretrained(folder, max_shard_size="6KB")
    texts = ["the cat sat on the mat", "a dog ran"] * 4
    ForeignTokenizer.of(Tokenizer.train(texts, kind="bpe", vocab_size=270)).save(folder)
    return folder


def changed(folder: Path, tmp_path: Path, change: Callable[[Path], None]) -> Path:
    copy = tmp_path / "changed"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    change(copy)
    return copy


def options(folder: Path, **new: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **new}))


def test_it_comes_whole_and_sealed_and_opens(
    llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pull", str(llama), "--out", str(tmp_path / "mine"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["family"], found["architecture"]) == ("llama", "LlamaForCausalLM")
    wanted = sum(p.numel() for p in reference("llama", vocab_size=280).parameters())
    assert found["parameters"] == wanted
    assert problems(tmp_path / "mine") == []
    model = load_model(tmp_path / "mine")
    assert sum(p.numel() for p in model.parameters()) == wanted
    assert (tmp_path / "mine" / "tokenizer.json").exists()


def test_what_was_pulled_and_exported_is_verified(
    llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "mine"
    pull(str(llama), mine)
    assert main(["verify", str(mine)]) == 0
    assert "LlamaForCausalLM, in order" in capsys.readouterr().out
    assert main(["export", str(mine), "--to", "ct2", "-o", str(tmp_path / "ct2")]) == 0
    assert main(["verify", str(tmp_path / "ct2")]) == 0
    assert "greedy text identical: 6 of 6" in capsys.readouterr().out
    (mine / "config.json").write_text("{}")
    assert main(["verify", str(mine)]) == 2


def lose_a_shard(folder: Path) -> None:
    sorted(folder.glob("model-*.safetensors"))[1].unlink()


def bend_a_tensor(folder: Path) -> None:
    file = sorted(folder.glob("model-*.safetensors"))[0]
    tensors = load_file(file)
    name = next(iter(tensors))
    tensors[name] = torch.zeros(3, 5)
    save_file(tensors, file)


def only_pickles(folder: Path) -> None:
    for file in folder.glob("model*"):
        file.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")


def whole_numbers(folder: Path) -> None:
    file = sorted(folder.glob("model-*.safetensors"))[0]
    save_file({name: tensor.to(torch.int8) for name, tensor in load_file(file).items()}, file)


WRONG: dict[str, tuple[Callable[[Path], None], str]] = {
    "shard": (lose_a_shard, r"model-00002-of-000\d\d.safetensors, named in model.safetensors.index.json, is missing"),
    "shape": (bend_a_tensor, r"\(3, 5\).* should be \("),
    "rope": (
        lambda f: options(f, rope_parameters={"rope_type": "spiral", "rope_theta": 1e4}),
        r'rope: rope_type="spiral" is not known. Valid: default, linear, llama3, yarn',
    ),
    "pickle": (only_pickles, r"pytorch_model.bin are pickles, which run code when read, and are never opened"),
    "code": (lambda f: options(f, auto_map={"AutoModel": "x.Y"}), "remote code is never run"),
    "architecture": (lambda f: options(f, architectures=["LlamaForTokens"]), 'architecture="LlamaForTokens"'),
    "family": (lambda f: options(f, model_type="lama"), 'model_type="lama" is not known.*Did you mean "llama"'),
    "option": (lambda f: options(f, logit_softcap=30.0), "option logit_softcap=30.0 is not known here"),
    "tokenizer": (lambda f: options(f, vocab_size=250), "250"),
    "lists": (lambda f: options(f, model_type=["llama"]), r'model_type="\[.llama.\]" is not known'),
    "classes": (lambda f: options(f, architectures=[{"a": 1}]), "architecture=.* is not known"),
    "kinds": (lambda f: options(f, rope_parameters=[1], hidden_size="8"), "rope_parameters=.* must be of type dict"),
    "layers": (lambda f: options(f, num_hidden_layers=10**9), "1,000,000,000 layers are promised, and there are"),
    "whole numbers": (whole_numbers, "is stored as I8, not as F64, F32, F16 or BF16"),
    "generation": (lambda f: (f / "generation_config.json").write_text("{") and None, "generation_config.json cannot be"),
    "template": (lambda f: (f / "chat_template.jinja").write_text("{% for %}") and None, "chat template is not valid"),
    "truncated": (
        lambda f: (p := sorted(f.glob("model-*.safetensors"))[0]).write_bytes(p.read_bytes()[:50]) and None,
        "model-00001-of-.* cannot be read",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_said_and_nothing_is_left(what: str, llama: Path, tmp_path: Path) -> None:
    change, message = WRONG[what]
    folder = changed(llama, tmp_path, change)
    with pytest.raises(BundleError, match=f"(?s){message}"):
        pull(str(folder), tmp_path / "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["changed"]


def test_everything_wrong_is_said_at_once(llama: Path, tmp_path: Path) -> None:
    def everything(folder: Path) -> None:
        lose_a_shard(folder)
        bend_a_tensor(folder)
        options(
            folder, rope_parameters={"rope_type": "spiral"}, auto_map={}, vocab_size=250, logit_softcap=30.0
        )

    with pytest.raises(BundleError) as error:
        pull(str(changed(llama, tmp_path, everything)), tmp_path / "mine")
    for words in ("named in", "(3, 5)", "spiral", "remote code", "logit_softcap", "(vocab_size)"):
        assert words in str(error.value), words


def test_a_tokenizer_is_looked_at_even_beside_a_configuration_of_no_use(llama: Path, tmp_path: Path) -> None:
    wrong = changed(llama, tmp_path, lambda f: options(f, num_key_value_heads=3, vocab_size=250))
    with pytest.raises(BundleError, match=r"(?s)num_kv_heads=3.*only 250 \(vocab_size\)"):
        pull(str(wrong), tmp_path / "mine")


def test_numbers_that_are_none_are_found(llama: Path, tmp_path: Path) -> None:
    def change(folder: Path) -> None:
        file = sorted(folder.glob("*.safetensors"))[0]
        tensors = load_file(file)
        name = sorted(tensors)[0]
        tensors[name].flatten()[0] = float("nan")
        save_file(tensors, file, metadata={"format": "pt"})

    with pytest.raises(BundleError, match="holds numbers that are not finite"):
        pull(str(changed(llama, tmp_path, change)), tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize("known", [True, False])
def test_weights_are_fetched_after_the_configuration_is_known(
    known: bool, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hub that is a folder here; what was asked of it is counted."""
    hub = pytest.importorskip("huggingface_hub")
    place = changed(llama, tmp_path, lambda folder: None if known else options(folder, model_type="mamba"))
    asked: list[str] = []

    def fetched(source: str, *, local_dir: Path, allow_patterns: list[str]) -> None:
        for file in place.iterdir():
            if any(fnmatch(file.name, pattern) for pattern in allow_patterns):
                asked.append(file.name)
                (local_dir / file.name).write_bytes(file.read_bytes())

    monkeypatch.setattr(hub, "snapshot_download", fetched)
    if known:
        assert pull("owner/tiny-llama", tmp_path / "mine").family == "llama"
        assert any(name.endswith(".safetensors") for name in asked)
        return
    with pytest.raises(BundleError, match="mamba"):
        pull("owner/mamba", tmp_path / "mine")
    assert asked == ["config.json"]
    assert not (tmp_path / "mine").exists()


def test_an_id_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", closed)
    with pytest.raises(
        ConfigError, match="made-up/model is no folder here, and could not be fetched"
    ) as error:
        pull("made-up/model", tmp_path / "models" / "mine")
    assert "Check the name" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_taken_place_and_no_id(tmp_path: Path, llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    assert main(["pull", str(llama), "-o", str(tmp_path / "mine")]) == 2
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "mine"
    for source, words in (("", "is empty"), (str(llama / "config.json"), "is a file")):
        assert main(["pull", source, "-o", str(tmp_path / "other")]) == 2
        assert words in capsys.readouterr().err
    assert main(["pull", "not an id!", "-o", str(tmp_path / "other")]) == 2
    assert "not an id!" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
