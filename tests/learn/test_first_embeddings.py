"""Word vectors as first embeddings: where they land, whatever the architecture, and that they are part of the run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from inkstone.cli import main  # noqa: E402
from inkstone.ground.errors import ConfigError, DataError, TrainingError  # noqa: E402
from inkstone.learn.classifier import ClassifierOptions, choose  # noqa: E402
from inkstone.learn.first_embeddings import FirstEmbeddings  # noqa: E402
from inkstone.learn.labelled import Texts  # noqa: E402
from inkstone.learn.loop import TrainingOptions  # noqa: E402
from inkstone.learn.token_classifier import TokenOptions  # noqa: E402
from inkstone.model import presets  # noqa: E402
from inkstone.model.checkpoint import build_model  # noqa: E402
from inkstone.text.tokenizer import Tokenizer  # noqa: E402

TEXTS = [
    "play the song",
    "play some jazz",
    "turn up the tune",
    "is it rain",
    "will it snow",
    "how much rain",
] * 8
LABELS: list[tuple[str, ...]] = [("music",)] * 3 + [("weather",)] * 3
WORDS = ("play", "song", "jazz", "rain", "snow", "it")


def write_vectors(path: Path, size: int = 8, seed: int = 0, scale: float = 1.0) -> Path:
    """A file of word2vec's text format."""
    numbers = np.random.default_rng(seed).standard_normal((len(WORDS), size)) * scale
    rows = [f"{word} {' '.join(f'{x:.5f}' for x in row)}" for word, row in zip(WORDS, numbers, strict=True)]
    path.write_text(f"{len(WORDS)} {size}\n" + "\n".join(rows) + "\n", "utf-8")
    return path


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(TEXTS, kind="bpe", vocab_size=400)


@pytest.mark.parametrize("size", [8, 16, 24])
@pytest.mark.parametrize("architecture", ["transformer", "rnn", "cnn"])
@pytest.mark.parametrize("task", ["classify", "translate"])
def test_every_architecture_can_begin_with_them(
    task: str, architecture: str, size: int, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    width = {"hidden_size": 16} if architecture == "transformer" else {"embedding_size": 16}
    make = presets.classifier_config if task == "classify" else presets.translator_config
    more = (2, width) if task == "classify" else (width,)
    config = make(architecture, "tiny", tokenizer.vocab_size, *more)  # type: ignore[operator]
    plain, model = (build_model(config, torch.Generator().manual_seed(3)) for _ in range(2))
    first = FirstEmbeddings.read(write_vectors(tmp_path / "v.txt", size))
    assert first.put(model, tokenizer).matched == len(WORDS)
    own, begun = plain.embedding.weight.detach(), model.embedding.weight.detach()
    ids = [tokenizer.encode(word)[0] for word in WORDS]
    others = [n for n in range(tokenizer.vocab_size) if n not in ids]
    assert torch.equal(begun[others], own[others])
    if size <= 16:  # a rotation keeps angles; fewer dimensions cannot keep all
        theirs = first.vectors.matrix_VD @ first.vectors.matrix_VD.T
        found = (begun[ids] @ begun[ids].T).numpy()
        assert np.allclose(found / found[0, 0], theirs / theirs[0, 0], atol=1e-4)
    assert float(begun[ids].square().mean()) == pytest.approx(float(own.square().mean()), rel=1e-3)
    assert all(
        torch.equal(tensor, model.state_dict()[name])
        for name, tensor in plain.state_dict().items()
        if name != "embedding.weight"
    )


def test_the_digest_is_of_the_content(tmp_path: Path) -> None:
    one, same, other = (
        FirstEmbeddings.read(write_vectors(tmp_path / name, seed=seed)).digest
        for name, seed in (("a.txt", 0), ("b.txt", 0), ("c.txt", 1))
    )
    assert one == same != other


def options(architecture: Any) -> ClassifierOptions:
    training = TrainingOptions(epochs=1, warmup_steps=1, threads=1, precision="float32")
    sizes = {"hidden_size": 16, "num_encoder_layers": 1, "num_heads": 2, "num_kv_heads": 2}
    own = TokenOptions(model=sizes, vocab_size=400, training=training)
    return ClassifierOptions(architecture=architecture, transformer=own)


def test_a_classifier_learns_on_from_them(tmp_path: Path) -> None:
    data = Texts(TEXTS, LABELS * 8)
    files = [write_vectors(tmp_path / f"{seed}.txt", seed=seed) for seed in range(2)]

    def run(name: str, vectors: Path | None) -> Any:
        first = None if vectors is None else FirstEmbeddings.read(vectors)
        return choose(
            data, data, options("transformer"), multi_label=False, run=tmp_path / name, vectors=first
        )

    found = [run(f"run{n}", file) for n, file in enumerate([None, *files, files[0]])]
    weights = [one.best.model.embedding.weight for one in found]
    assert torch.equal(weights[1], weights[3])
    assert not torch.equal(weights[0], weights[1]) and not torch.equal(weights[1], weights[2])
    with pytest.raises(TrainingError, match="begun with other data or another configuration"):
        run("run1", files[1])


def test_what_they_mean_nothing_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_vectors(tmp_path / "v.txt")
    data = tmp_path / "data.jsonl"
    rows = [{"text": text, "label": label} for text, (label,) in zip(TEXTS, LABELS * 8, strict=True)]
    data.write_text("\n".join(json.dumps(row) for row in rows), "utf-8")
    command = ["train", "classify", "--data", str(data), "--out", str(tmp_path / "out")]
    command += ["--set", "rules=[length]"]
    assert main([*command, "--vectors", str(file), "--architecture", "bag"]) == 2
    assert "word vectors mean nothing to it" in capsys.readouterr().err
    assert main([*command, "--vectors", str(tmp_path / "none.txt")]) == 2
    assert "none.txt does not exist" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.run").exists()
    with pytest.raises(ConfigError, match="a bag begins with no embeddings"):
        choose(Texts(TEXTS, LABELS * 8), None, options("bag"), multi_label=False, run=tmp_path,
               vectors=FirstEmbeddings.read(file))  # fmt: skip
    strange = tmp_path / "strange.txt"
    strange.write_text("1 2\nxylophone 0.5 1\n", "utf-8")
    with pytest.raises(DataError, match=r"none of .* has a vector"):
        choose(Texts(TEXTS, LABELS * 8), None, options("transformer"), multi_label=False, run=tmp_path / "r",
               vectors=FirstEmbeddings.read(strange))  # fmt: skip
