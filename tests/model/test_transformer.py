"""The one Transformer: every axis, cached = uncached, batched = single, causal, and logits of independent models."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="models need torch")

import torch.nn.functional as F  # noqa: E402
from samples import ids, shaken  # noqa: E402

from inkstone.ground.errors import ConfigError  # noqa: E402
from inkstone.model.attention import Cache  # noqa: E402
from inkstone.model.config import ModelConfig  # noqa: E402
from inkstone.model.dropout import Dropout  # noqa: E402
from inkstone.model.norms import LayerNorm, RMSNorm  # noqa: E402
from inkstone.model.positions import sinusoids  # noqa: E402
from inkstone.model.transformer import Transformer  # noqa: E402

SIZES: dict[str, Any] = {"vocab_size": 40, "hidden_size": 16, "num_heads": 4, "feed_forward_size": 24}
AXES: dict[str, tuple[Any, ...]] = {
    "positions": ("learned", "sinusoidal", "rotary", "relative"),
    "rotary_scaling": ("none", "linear", "llama3", "yarn"),
    "norm": ("layer", "rms"),
    "norm_place": ("before", "after"),
    "embedding_norm": (False, True),
    "feed_forward": ("plain", "gated"),
    "activation": ("relu", "gelu", "gelu-tanh", "silu"),
    "num_kv_heads": (4, 2, 1),
    "head_size": (0, 6),
    "query_key_norm": (False, True),
    "scale_scores": (True, False),
    "window": (0, 3),
    "tie_embeddings": (True, False),
    "output_bias": (False, True),
    "bias": ("none", "query-key-value", "attention", "all"),
    "scale_embeddings": (True, False),
}
SHAPES = {"encoder": (2, 0), "decoder": (0, 2), "encoder-decoder": (2, 2)}


def sampled_axes() -> list[dict[str, Any]]:
    """Twenty-four combinations, drawn at random, with every value of each axis among them."""
    draw = random.Random(7)
    chosen = [{axis: draw.choice(values) for axis, values in AXES.items()} for _ in range(24)]
    for axis, values in AXES.items():
        assert {one[axis] for one in chosen} == set(values), axis
    return chosen


def named(axes: dict[str, Any]) -> str:
    return "-".join(str(value) for value in axes.values())


def make(shape: str = "encoder-decoder", **overlay: Any) -> Transformer:
    encoder, decoder = SHAPES[shape]
    values = {
        **SIZES, "num_kv_heads": 4, "shape": shape, "num_encoder_layers": encoder, "num_decoder_layers": decoder,
        "max_positions": 32, "dropout": 0.0, **overlay,
    }  # fmt: skip
    model = Transformer(ModelConfig(**values), torch.Generator().manual_seed(1))
    return shaken(model)


@pytest.mark.parametrize("axes", sampled_axes(), ids=named)
class TestEveryAxis:
    @torch.no_grad()
    def test_cached_decoding_equals_uncached(self, axes: dict[str, Any]) -> None:
        model = make(**axes)
        source, target = ids(3, 7), ids(3, 9, seed=1)
        source[1, 5:] = source[2, 2:] = 0
        memory, mask = model.encode(source), model.visible(source)
        whole = model.decode(target, memory, mask)
        cache = Cache()
        parts = [model.decode(target[:, :4], memory, mask, cache)]  # a prefix at once, then token by token
        parts += [model.decode(target[:, place : place + 1], memory, mask, cache) for place in range(4, 9)]
        torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=2e-5, rtol=1e-4)
        assert cache.length == 9

    @torch.no_grad()
    def test_batched_with_padding_equals_single(self, axes: dict[str, Any]) -> None:
        model = make(**axes)
        sources = [ids(1, n, seed=n) for n in (2, 9, 5)]
        targets = [ids(1, n, seed=10 + n) for n in (6, 1, 3)]
        source = torch.cat([F.pad(row, (0, 9 - row.shape[1])) for row in sources])
        target = torch.cat([F.pad(row, (0, 6 - row.shape[1])) for row in targets])
        together = model(source, target)
        for number, (one, other) in enumerate(zip(sources, targets, strict=True)):
            alone = model(one, other)[0]
            torch.testing.assert_close(together[number, : len(alone)], alone, atol=2e-5, rtol=1e-4)

    @torch.no_grad()
    def test_padding_on_the_left_changes_nothing(self, axes: dict[str, Any]) -> None:
        model = make("decoder", **axes)
        prompts = [ids(1, n, seed=n) for n in (2, 9, 5)]
        padding = torch.tensor([9 - prompt.shape[1] for prompt in prompts])
        together = torch.cat([F.pad(prompt, (9 - prompt.shape[1], 0)) for prompt in prompts])
        following = ids(3, 3, seed=20)
        cache = Cache()
        states = model.decode(together, cache=cache, padding_B=padding)
        after = torch.cat([model.decode(following[:, n : n + 1], cache=cache) for n in range(3)], dim=1)
        for number, prompt in enumerate(prompts):
            alone = model.decode(torch.cat([prompt, following[number : number + 1]], dim=1))[0]
            torch.testing.assert_close(
                states[number, padding[number] :], alone[: prompt.shape[1]], atol=2e-5, rtol=1e-4
            )
            torch.testing.assert_close(after[number], alone[prompt.shape[1] :], atol=2e-5, rtol=1e-4)

    @torch.no_grad()
    def test_a_later_token_changes_nothing_before_it(self, axes: dict[str, Any]) -> None:
        for model in (make(**axes), make("decoder", **axes)):
            target = ids(2, 8)
            changed = target.clone()
            changed[:, 5] = (changed[:, 5] - 3) % 36 + 4
            source = ids(2, 4, seed=3)
            one, other = (
                model(source, t) if model.config.has_encoder else model(t) for t in (target, changed)
            )
            torch.testing.assert_close(one[:, :5], other[:, :5], atol=0, rtol=0)
            assert not torch.allclose(one[:, 5:], other[:, 5:])

    def test_gradients_reach_every_parameter(self, axes: dict[str, Any]) -> None:
        for shape in SHAPES:
            own = {"num_labels": 3, "window": 0, "output_bias": False} if shape == "encoder" else {}
            model = make(shape, **{**axes, **own}).train()
            out = model(ids(2, 32), ids(2, 32, seed=1)) if shape == "encoder-decoder" else model(ids(2, 32))
            (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(3))).sum().backward()
            without = [
                name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0
            ]
            assert without == []

    @torch.no_grad()
    def test_one_token_at_a_time_a_decoder_says_the_same(self, axes: dict[str, Any]) -> None:
        model, cache = make("decoder", **axes), Cache()
        target = ids(2, 6)
        parts = [model.decode(target[:, place : place + 1], cache=cache) for place in range(6)]
        torch.testing.assert_close(model.logits(torch.cat(parts, 1)), model(target), atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_a_cache_follows_its_rows_when_they_move() -> None:
    model = make()
    source, target = ids(3, 5), ids(3, 6, seed=1)
    memory, mask = model.encode(source), model.visible(source)
    cache = Cache()
    model.decode(target[:, :4], memory, mask, cache)
    rows = torch.tensor([2, 0, 2])
    cache.reorder(rows)
    moved = model.decode(target[rows][:, 4:5], memory[rows], mask[rows], cache)
    torch.testing.assert_close(
        moved, model.decode(target[rows][:, :5], memory[rows], mask[rows])[:, 4:], atol=2e-5, rtol=1e-4
    )


@pytest.mark.parametrize("positions", ("learned", "sinusoidal", "rotary"))
def test_more_tokens_than_positions_are_refused(positions: str) -> None:
    model = make(positions=positions)
    for source, target in ((ids(1, 33), ids(1, 2)), (ids(1, 2), ids(1, 33))):
        with pytest.raises(ConfigError, match="33 tokens are more than the model's max_positions=32"):
            model(source, target)
    with pytest.raises(ConfigError, match="33 tokens"):
        memory, cache = model.encode(ids(1, 4)), Cache()
        model.decode(ids(1, 32), memory, None, cache)
        model.decode(ids(1, 1), memory, None, cache)


@torch.no_grad()
def test_relative_positions_have_no_end() -> None:
    model = make(positions="relative")
    assert model(ids(1, 70), ids(1, 50)).isfinite().all()


@torch.no_grad()
def test_order_of_words_matters_with_every_kind_of_positions() -> None:
    for positions in AXES["positions"]:
        model = make("encoder", positions=positions)
        source = ids(1, 6)
        flipped = model.pool(model.encode(source.flip(1)), source)
        assert not torch.allclose(model.pool(model.encode(source), source), flipped, atol=1e-4), positions


@torch.no_grad()
def test_mean_pooling_leaves_padding_out_and_first_takes_the_first() -> None:
    states = torch.randn(2, 4, 16)
    source = torch.tensor([[5, 6, 0, 0], [5, 6, 7, 8]])
    mean = make("encoder", pooling="mean").pool(states, source)
    torch.testing.assert_close(mean, torch.stack([states[0, :2].mean(0), states[1].mean(0)]))
    torch.testing.assert_close(make("encoder", pooling="first").pool(states, source), states[:, 0])


def test_the_same_generator_gives_the_same_weights_and_another_gives_others() -> None:
    def drawn(seed: int) -> torch.Tensor:
        config = make().config
        return torch.cat(
            [p.flatten() for p in Transformer(config, torch.Generator().manual_seed(seed)).parameters()]
        )

    assert torch.equal(drawn(5), drawn(5))
    assert not torch.equal(drawn(5), drawn(6))


class TestNorms:
    x = torch.randn(3, 5, 16, generator=torch.Generator().manual_seed(0)) * 3 + 1

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_rms_norm_is_that_of_torch(self, dtype: torch.dtype) -> None:
        mine, theirs = RMSNorm(16, 1e-5), torch.nn.RMSNorm(16, eps=1e-5)
        with torch.no_grad():
            theirs.weight.copy_(mine.weight.uniform_(0.5, 2))
        out = mine(self.x.to(dtype))
        assert out.dtype == dtype
        torch.testing.assert_close(out.float(), theirs(self.x.to(dtype).float()).to(dtype).float())

    def test_layer_norm_is_that_of_torch_and_keeps_the_type(self) -> None:
        mine, theirs = LayerNorm(16, 1e-5), torch.nn.LayerNorm(16, eps=1e-5)
        torch.testing.assert_close(mine(self.x), theirs(self.x))
        with torch.autocast("cpu", torch.bfloat16):
            assert mine(self.x.bfloat16()).dtype == torch.bfloat16


class TestDropout:
    def test_it_drops_its_share_and_keeps_the_mean(self) -> None:
        for probability in (0.1, 0.3, 0.5):
            torch.manual_seed(1)
            out = Dropout(probability).train()(torch.ones(1000, 500))
            dropped = float((out == 0).float().mean())
            assert (
                abs(dropped - round(probability * 256) / 256) < 0.005
            )  # six standard deviations of 500,000 draws
            assert abs(float(out.mean()) - 1) < 0.01
            assert out.unique().numel() == 2

    def test_torch_s_seed_decides_the_mask(self) -> None:
        thin, x = Dropout(0.3).train(), torch.ones(50, 50)
        torch.manual_seed(7)
        first, second = thin(x), thin(x)
        torch.manual_seed(7)
        assert torch.equal(thin(x), first)
        assert not torch.equal(second, first)

    def test_its_gradient_is_its_mask(self) -> None:
        x = torch.randn(40, 40, requires_grad=True)
        out = Dropout(0.25).train()(x)
        slope = torch.randn(40, 40)
        out.backward(slope)
        torch.testing.assert_close(x.grad, slope * (out / x).detach())

    def test_it_does_nothing_when_evaluating_or_at_zero(self) -> None:
        x = torch.randn(4, 4)
        assert Dropout(0.5).eval()(x) is x
        assert Dropout(0.0).train()(x) is x


def test_sinusoids_turn_at_the_printed_rates() -> None:
    table = sinusoids(50, 16)
    for position, pair in itertools.product((0, 1, 7, 49), range(8)):
        angle = position * 10_000.0 ** (-2 * pair / 16)
        assert table[position, pair] == pytest.approx(math.sin(angle), abs=1e-5)
        assert table[position, 8 + pair] == pytest.approx(math.cos(angle), abs=1e-5)
