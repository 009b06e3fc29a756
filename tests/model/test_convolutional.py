"""The convolutional encoder-decoder: causal, cached = uncached, batched = single; its layers by their formulas."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="models need torch")

import torch.nn.functional as F  # noqa: E402
from samples import ids, padded_ids, shaken  # noqa: E402

from inkstone.ground.errors import ConfigError  # noqa: E402
from inkstone.model.convolutional import Convolutional, GatedConvolution  # noqa: E402
from inkstone.model.convolutional_config import ConvolutionalConfig  # noqa: E402
from inkstone.model.interface import StepCache  # noqa: E402

AXES: list[dict[str, Any]] = [
    {"width": width, "tie_embeddings": tied, "num_decoder_layers": layers}
    for width, tied, layers in ((1, True, 1), (3, False, 2), (3, True, 3), (5, True, 2))
]


def make(**overlay: Any) -> Convolutional:
    sizes = {"vocab_size": 40, "embedding_size": 10, "hidden_size": 16, "num_encoder_layers": 2}
    config = ConvolutionalConfig(
        **{**sizes, "num_decoder_layers": 2, "dropout": 0.0, "max_positions": 20, **overlay}
    )
    model = Convolutional(config, torch.Generator().manual_seed(1))
    return shaken(model)


@pytest.mark.parametrize("axes", AXES, ids=str)
class TestEveryAxis:
    @torch.no_grad()
    def test_cached_decoding_equals_uncached(self, axes: dict[str, Any]) -> None:
        model = make(**axes)
        source, target = padded_ids([7, 5, 2]), ids(3, 9, seed=1)
        memory, mask = model.encode(source), model.visible(source)
        whole = model.decode(target, memory, mask)
        cache = StepCache()
        parts = [model.decode(target[:, :4], memory, mask, cache)]
        parts += [model.decode(target[:, n : n + 1], None, mask, cache) for n in range(4, 9)]
        torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-6, rtol=1e-5)
        rows = torch.tensor([2, 0, 2])
        cache.reorder(rows)
        moved = model.decode(target[:, :1], None, mask[rows], cache)
        longer = torch.cat([target[rows], target[:, :1]], dim=1)
        torch.testing.assert_close(
            moved, model.decode(longer, memory[rows], mask[rows])[:, 9:], atol=1e-6, rtol=1e-5
        )

    @torch.no_grad()
    def test_batched_with_padding_equals_single(self, axes: dict[str, Any]) -> None:
        model = make(**axes)
        sources, targets = padded_ids([2, 9, 5]), padded_ids([6, 1, 3])
        together = model(sources, targets)
        for number, (source, target) in enumerate(((2, 6), (9, 1), (5, 3))):
            alone = model(sources[number : number + 1, :source], targets[number : number + 1, :target])
            torch.testing.assert_close(together[number, :target], alone[0], atol=1e-6, rtol=1e-5)

    @torch.no_grad()
    def test_a_later_token_changes_nothing_before_it(self, axes: dict[str, Any]) -> None:
        model, source, target = make(**axes), ids(2, 4, seed=3), ids(2, 8)
        changed = target.clone()
        changed[:, 5] = (changed[:, 5] - 3) % 36 + 4
        one, other = model(source, target), model(source, changed)
        torch.testing.assert_close(one[:, :5], other[:, :5], atol=0, rtol=0)
        assert not torch.allclose(one[:, 5:], other[:, 5:])

    def test_gradients_reach_every_parameter(self, axes: dict[str, Any]) -> None:
        model = make(**axes).train()
        out = model(ids(2, 20), ids(2, 20, seed=1))
        (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(3))).sum().backward()
        without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
        assert without == []


@torch.no_grad()
def test_a_gated_convolution_is_torchs_own() -> None:
    layer = GatedConvolution(make(width=3).config).eval()
    x = torch.randn(2, 7, 16, generator=torch.Generator().manual_seed(3))
    kernel = layer.linear.weight.view(32, 3, 16).transpose(1, 2)  # (out, in, width)
    expected = F.glu(F.conv1d(x.transpose(1, 2), kernel, layer.linear.bias), dim=1).transpose(1, 2)
    torch.testing.assert_close(layer(x), expected, atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_attention_is_its_formula() -> None:
    """Of one position: a_j = softmax(d · z_j) with d = (W h + b + g) sqrt(1/2), c = sum a_j (z_j + e_j) sqrt(n/2)."""
    model = make()
    attention, generator = model.attention[0], torch.Generator().manual_seed(4)
    h, g = torch.randn(1, 3, 16, generator=generator), torch.randn(1, 3, 10, generator=generator)
    memory = torch.randn(1, 5, 20, generator=generator)
    mask = torch.tensor([[True, True, True, False, False]])
    found, weights = attention(h, g, memory, mask)
    d = (attention.query.weight @ h[0, 1] + attention.query.bias + g[0, 1]) / 2**0.5
    raised = (memory[0, :3, :10] @ d).exp()
    shares = raised / raised.sum()
    context = (shares[:, None] * memory[0, :3, 10:]).sum(0) * 3**0.5
    expected = (attention.output.weight @ context + attention.output.bias + h[0, 1]) / 2**0.5
    torch.testing.assert_close(found[0, 1], expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 3))
    assert (weights[..., 3:] == 0).all()


@torch.no_grad()
def test_more_tokens_than_positions_are_refused() -> None:
    model, cache = make(), StepCache()
    with pytest.raises(ConfigError, match="21 tokens are more than the model's max_positions=20"):
        model.encode(ids(1, 21))
    memory, mask = model.encode(ids(1, 4)), model.visible(ids(1, 4))
    model.decode(ids(1, 20), memory, mask, cache)
    with pytest.raises(ConfigError, match="max_positions=20"):
        model.decode(ids(1, 1), None, mask, cache)
