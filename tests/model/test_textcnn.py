"""TextCNN against a version in numpy that goes through a text window by window, as Kim (2014) describes it."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="models need torch")

import torch.nn.functional as F  # noqa: E402

from inkstone.model.convolutional_config import TextCNNConfig  # noqa: E402
from inkstone.model.textcnn import TextCNN  # noqa: E402


def make(**overlay: object) -> TextCNN:
    sizes = {"vocab_size": 30, "embedding_size": 6, "num_channels": 4, "num_labels": 3}
    model = TextCNN(TextCNNConfig(**{**sizes, **overlay}), torch.Generator().manual_seed(1))  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
    return model.eval()


def naive(model: TextCNN, text: list[int]) -> np.ndarray:
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    strongest = []
    for number, width in enumerate(model.config.filter_widths):
        edge = np.zeros((width - 1, model.config.embedding_size), np.float32)
        x = np.concatenate([edge, weights["embedding.weight"][text], edge])
        kernel = weights[f"filters.{number}.weight"]  # (channels, E, width)
        answers = [
            np.einsum("cew,we->c", kernel, x[start : start + width]) + weights[f"filters.{number}.bias"]
            for start in range(len(text) + width - 1)
        ]
        activation = {"relu": lambda a: np.maximum(a, 0), "tanh": np.tanh}[model.config.activation]
        strongest.append(activation(np.array(answers)).max(axis=0))
    return weights["classifier.weight"] @ np.concatenate(strongest) + weights["classifier.bias"]


@pytest.mark.parametrize("overlay", [{}, {"widths": "1,2", "activation": "tanh"}, {"widths": "7"}])
@torch.no_grad()
def test_it_is_the_naive_one_whatever_the_padding(overlay: dict[str, object]) -> None:
    model, random = make(**overlay), np.random.default_rng(3)
    texts = [random.integers(4, 30, length).tolist() for length in (1, 2, 5, 11)]
    batch = torch.stack([F.pad(torch.tensor(text), (0, 13 - len(text))) for text in texts])
    expected = np.stack([naive(model, text) for text in texts])
    np.testing.assert_allclose(model(batch).numpy(), expected, atol=1e-5)
    for text, row in zip(texts, expected, strict=True):
        np.testing.assert_allclose(model(torch.tensor([text]))[0].numpy(), row, atol=1e-5)


@torch.no_grad()
def test_a_text_without_tokens_gets_the_bias() -> None:
    model = make()
    torch.testing.assert_close(model(torch.zeros(2, 5, dtype=torch.long)), model.classifier.bias.expand(2, 3))


def test_gradients_reach_every_parameter() -> None:
    model = make(activation="tanh").train()
    random = torch.Generator().manual_seed(3)
    out = model(torch.randint(4, 30, (64, 9), generator=random))
    (out * torch.randn(out.shape, generator=random)).sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
