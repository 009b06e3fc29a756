"""Every architecture through a checkpoint and back, its configuration with all its problems, word vectors to begin."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="checkpoints of models need torch")

from inkstone.ground.errors import BundleError, ConfigError  # noqa: E402
from inkstone.model import config, convolutional_config, recurrent_config  # noqa: E402
from inkstone.model.checkpoint import ARCHITECTURES, build_model, load_model, save_model  # noqa: E402
from inkstone.model.interface import put_embeddings  # noqa: E402

SMALL: dict[str, Any] = {
    "inkstone-transformer": config.tiny(30, hidden_size=16, num_heads=2, num_kv_heads=2, feed_forward_size=16),
    "inkstone-recurrent": recurrent_config.tiny(30, embedding_size=8, hidden_size=16),
    "inkstone-convolutional": convolutional_config.tiny(30, embedding_size=8, hidden_size=16),
    "inkstone-textcnn": convolutional_config.textcnn_preset("tiny", 30, {"num_labels": 3, "embedding_size": 8}),
}  # fmt: skip


def test_none_is_forgotten_here() -> None:
    assert set(SMALL) == set(ARCHITECTURES)


@pytest.mark.parametrize("name", SMALL)
def test_through_a_checkpoint_and_back(name: str, tmp_path: Path) -> None:
    model = build_model(SMALL[name], torch.Generator().manual_seed(1))
    save_model(model, tmp_path)
    found = load_model(tmp_path)
    assert type(found) is type(model) and found.config == model.config and not found.training
    assert all(torch.equal(tensor, found.state_dict()[n]) for n, tensor in model.state_dict().items())


def test_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "inkstone-recurent"}), "utf-8")
    with pytest.raises(
        BundleError, match=r'model_type="inkstone-recurent".*Did you mean "inkstone-recurrent"'
    ):
        load_model(tmp_path)


RNN, CNN, TEXT = recurrent_config.preset, convolutional_config.preset, convolutional_config.textcnn_preset


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RNN("tiny", 9, "encoder-decoder", {"cell": "lstmm", "attention": "luong", "dropout": 1.0}),
         ("3 problems", 'Did you mean "lstm"', 'attention="luong"', "dropout=1.0")),
        (lambda: RNN("tiny", 9, "encoder-decoder", {"hidden_size": 7}), ("hidden_size=7 must be even",)),
        (lambda: RNN("tiny", 9, "encoder-decoder", {"num_labels": 3}), ("needs shape=encoder",)),
        (lambda: RNN("tiny", 9, "encoder", {"num_decoder_layers": 1}), ("does not go with shape=encoder",)),
        (lambda: RNN("tiny", 9, "encoder", {"bidirectional": 1}), ("bidirectional=1 must be of type bool",)),
        (lambda: RNN("tini", 9, "encoder"), ('Did you mean "tiny"',)),
        (lambda: RNN("tiny", 9, "encoder", {"heads": 1}), ('model option="heads" is not known',)),
        (lambda: CNN("tiny", 9, {"width": 4, "eos_id": 9}), ("width=4 must be odd", "below vocab_size=9")),
        (lambda: TEXT("tiny", 9, {"num_labels": 0, "widths": "3,x"}), ("num_labels=0", "widths='3,x'")),
    ],
)  # fmt: skip
def test_everything_wrong_is_said_at_once(make: Callable[[], Any], words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as error:
        make()
    for one in words:
        assert one in str(error.value)


@pytest.mark.parametrize("name", SMALL)
def test_a_config_json_with_everything_wrong_in_it(name: str) -> None:
    values = SMALL[name].to_dict()
    del values["vocab_size"]
    values |= {"dropout": "high", "n_layer": 12}
    with pytest.raises(ConfigError) as error:
        type(SMALL[name]).from_dict(values)
    for words in ("vocab_size is missing", "dropout='high'", 'key="n_layer"'):
        assert words in str(error.value)


@pytest.mark.parametrize("name", [name for name in SMALL if name != "inkstone-transformer"])
def test_word_vectors_to_begin_with(name: str) -> None:
    model = build_model(SMALL[name], torch.Generator().manual_seed(1))
    before = model.embedding.weight.detach().clone()
    vectors = np.random.default_rng(1).normal(size=(30, 8))
    vectors[7] = np.nan  # no vector for this one
    put_embeddings(model, vectors)
    assert torch.equal(model.embedding.weight[7], before[7])
    np.testing.assert_allclose(model.embedding.weight.detach().numpy()[8:], vectors[8:].astype(np.float32))
    with pytest.raises(ConfigError, match=r"shape \(30, 9\), the model's embedding \(30, 8\)"):
        put_embeddings(model, np.zeros((30, 9)))
