"""A linear layer on a pretrained encoder: the features are the encoder's, the fit is scikit-learn's, and it is served."""

from __future__ import annotations

import math
import string
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_texts import english, write_jsonl

torch = pytest.importorskip("torch", reason="pretrained encoders are fitted with torch")
transformers = pytest.importorskip(
    "transformers", reason="the reference is transformers; install the dev extra"
)

from inkstone import Classifier  # noqa: E402
from inkstone.cli import main  # noqa: E402
from inkstone.ground.errors import BundleError, ConfigError  # noqa: E402
from inkstone.learn import token_classifier  # noqa: E402
from inkstone.learn.classifier import ClassifierOptions  # noqa: E402
from inkstone.learn.labelled import LabelSpace, Texts, Trained  # noqa: E402
from inkstone.learn.objectives import classification  # noqa: E402
from inkstone.learn.pretrained import TUNING, PretrainedOptions, opened, train_on_pretrained  # noqa: E402
from inkstone.model.config import ModelConfig  # noqa: E402
from inkstone.model.lora import LoraConfig  # noqa: E402

TEXTS, LABELS = english()
MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random BERT by transformers, with a tokenizer of whole words and letters."""
    folder = tmp_path_factory.mktemp("bert")
    words = sorted({word for text in TEXTS for word in text.split()} - {"tomorrow"})
    letters = [*string.ascii_lowercase, *(f"##{letter}" for letter in string.ascii_lowercase)]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys([*MARKS, *words, *letters]))}
    transformers.BertTokenizerFast(vocab=vocabulary).save_pretrained(folder)
    torch.manual_seed(1)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=48, max_position_embeddings=24, initializer_range=0.3,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)
    return folder


@torch.no_grad()
def test_what_is_read_are_the_means_of_all_layers(bert: Path) -> None:
    features = opened(str(bert), 256)
    texts = [*TEXTS[:7], "rain", "", TEXTS[0]]
    theirs = transformers.BertModel.from_pretrained(bert).eval()
    for row, found_E in zip(features.reader.marked(texts), features.of(texts), strict=True):
        layers = theirs(torch.tensor([row]), output_hidden_states=True).hidden_states[1:]
        wanted_E = torch.cat([states[0].mean(0) for states in layers])
        assert (found_E - wanted_E).abs().max() < 1e-5


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_fit_is_that_of_scikit_learn(bert: Path, multi_label: bool) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    strength, cut = 0.01, 80
    names = ("music", "weather")
    labels = [(label,) if n % 5 or not multi_label else names for n, label in enumerate(LABELS)]
    order = np.random.default_rng(1).permutation(len(TEXTS))
    data, valid = (
        Texts([TEXTS[n] for n in some], [labels[n] for n in some]) for some in (order[:cut], order[cut:])
    )
    options = PretrainedOptions(base=str(bert), strengths=(strength,))
    trained = train_on_pretrained(data, valid, LabelSpace(names, multi_label), options, Path("unused"))
    features = opened(str(options.base), options.max_length)
    x, unseen = features.of(data.texts).numpy(), features.of(valid.texts).numpy()
    mean, spread = x.mean(0), x.std(0, ddof=1)
    z, unseen = (x - mean) / spread, (unseen - mean) / spread
    with torch.no_grad():
        found = [trained.model(torch.tensor([row])) for row in features.reader.marked(valid.texts)]
    logits = torch.cat(found)
    if multi_label:
        for place, name in enumerate(names):
            theirs = linear.LogisticRegression(C=strength, tol=1e-8, max_iter=5000)
            theirs.fit(z, [name in row for row in data.labels])
            wanted = theirs.predict_proba(unseen)[:, 1]
            np.testing.assert_allclose(logits[:, place].sigmoid(), wanted, atol=2e-3)
        return
    theirs = linear.LogisticRegression(
        C=2 * strength, tol=1e-8, max_iter=5000
    )  # one row of weights for our two
    theirs.fit(z, [row[0] for row in data.labels])
    np.testing.assert_allclose(logits.softmax(-1), theirs.predict_proba(unseen), atol=2e-3)


def test_it_is_served_without_torch_and_reads_long_texts_to_their_end(bert: Path, tmp_path: Path) -> None:
    options = ClassifierOptions(architecture="pretrained", pretrained=PretrainedOptions(base=str(bert)))
    fitted = Classifier().fit(TEXTS, LABELS, options=options)
    asked = ["will it snow in rome", "play some jazz from bach", "", " ".join(["play jazz"] * 40)]
    said = fitted.predict(asked)
    assert [one.label for one in said[:2]] == ["weather", "music"]
    fitted.save(tmp_path / "mine")
    again = Classifier(tmp_path / "mine")
    assert again.engine.name.startswith("onnx-")
    assert [one.scores for one in again.predict(asked)] == [one.scores for one in said]
    filler = "how much rain does rome get " * 30
    one, other = again.predict([filler, filler + "play some jazz " * 30])
    assert one.scores["music"] < other.scores["music"], "what comes after the model's last position counts"


def test_from_the_command_line(bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_jsonl(tmp_path / "texts.jsonl", TEXTS, LABELS)
    out = tmp_path / "mine"
    assert main(["train", "classify", "--data", str(data), "--out", str(out), "--base", str(bert)]) == 0
    capsys.readouterr()
    assert main(["classify", "put on a soul song by adele", "--model", str(out)]) == 0
    assert capsys.readouterr().out.startswith("music\t")
    words = ["train", "classify", "--data", str(data), "--out", f"{out}2"]
    assert main([*words, "--base", str(bert), "--architecture", "cnn"]) == 2
    assert "--base goes with --architecture pretrained or auto, not cnn" in capsys.readouterr().err


def test_the_encoder_learns_too_where_that_is_asked_for(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the layer as it was fitted; a run that died at a step goes on and ends with the same weights."""
    tuning = replace(TUNING, epochs=2, warmup_steps=2, learning_rate=1e-3, save_every_s=0.0)
    options = PretrainedOptions(base=str(bert), tuning=tuning)
    texts, space = Texts(TEXTS, [(label,) for label in LABELS]), LabelSpace(("music", "weather"), False)

    def trained(name: str, options: PretrainedOptions = options) -> Trained:
        return train_on_pretrained(texts, texts, space, options, tmp_path / name)

    steps = iter(range(10))

    def dying(*given: Any) -> Any:
        if next(steps) == 3:
            raise OSError("the power went")
        return classification(*given)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="power"):
        patch.setattr(token_classifier, "classification", dying)
        trained("died")
    assert next(steps) == 4
    whole, again, frozen = trained("whole"), trained("died"), trained("none", replace(options, tuning=None))
    name = "encoder.layers.0.attention.query_key_value.weight"
    weights = [dict(one.model.named_parameters())[name] for one in (whole, again, frozen)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.allclose(weights[0], weights[2])
    assert whole.outcome.curve[-1]["train_loss"] < math.log(2), "it began with a fitted layer"


def test_an_adapter_learns_beside_the_encoder(
    bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only it and the layer on the encoder learn; what comes of it is a plain model with it merged in."""
    tuning = replace(TUNING, epochs=2, warmup_steps=2, learning_rate=1e-2)
    options = PretrainedOptions(base=str(bert), tuning=tuning, lora=LoraConfig(rank=2))
    texts, space = Texts(TEXTS, [(label,) for label in LABELS]), LabelSpace(("music", "weather"), False)
    adapted = train_on_pretrained(texts, texts, space, options, tmp_path / "adapted").model
    frozen = train_on_pretrained(
        texts, texts, space, replace(options, tuning=None, lora=None), tmp_path / "no"
    )
    ours, before = dict(adapted.named_parameters()), dict(frozen.model.named_parameters())
    assert ours.keys() == before.keys(), "no trace of the adapter is left"
    moved = {name for name in ours if not torch.allclose(ours[name], before[name], atol=1e-7)}
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in moved} <= {
        "query_key_value", "query", "key_value", "output", "classifier",
    }  # fmt: skip
    assert "classifier.weight" in moved and any("attention" in name for name in moved)
    name = "encoder.layers.0.attention.query_key_value.weight"
    assert torch.linalg.matrix_rank((ours[name] - before[name]).detach(), atol=1e-5) <= 2
    with pytest.raises(ConfigError, match="give tuning"):
        PretrainedOptions(base=str(bert), lora=LoraConfig())
    data = str(write_jsonl(tmp_path / "texts.jsonl", TEXTS, LABELS))
    words = [
        "train",
        "classify",
        "--data",
        data,
        "--base",
        str(bert),
        "--out",
        str(tmp_path / "mine"),
        "--lora",
    ]
    assert main(words) == 2
    assert "give --base and --tune too" in capsys.readouterr().err
    assert main([*words, "--tune", "--set", "options.pretrained.tuning.epochs=1"]) == 0
    assert "parameters learn" in capsys.readouterr().err


def test_what_cannot_be_a_base_is_said(bert: Path, tmp_path: Path) -> None:
    decoder = transformers.GPT2Config(n_embd=16, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=1)
    transformers.GPT2LMHeadModel(decoder).save_pretrained(tmp_path / "gpt2")
    with pytest.raises(BundleError, match=r"shape=decoder\. Give an encoder"):
        opened(str(tmp_path / "gpt2"), 256)
    with pytest.raises(BundleError, match="nowhere"):
        opened(str(tmp_path / "nowhere"), 256)
    with pytest.raises(ConfigError, match="must be numbers above 0"):
        PretrainedOptions(strengths=())
    with pytest.raises(ConfigError, match="pooling=layers goes with num_labels"):
        ModelConfig("encoder", 30, 16, 2, 2, 32, 1, 0, pooling="layers")
