"""Pruning: what goes, what stays, and that what is left is the same function where what went did nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from inkstone.ground.errors import ConfigError
from inkstone.model.config import tiny
from inkstone.model.transformer import Transformer
from inkstone.ship.prune import drop_layers, evenly_spread, input_norms, prune_structure, prune_weights

SOURCE = torch.tensor([[4, 5, 6, 7, 3], [8, 9, 3, 0, 0]])
TARGET = torch.tensor([[2, 5, 6, 7], [2, 9, 8, 4]])


def model(**overlay: Any) -> Transformer:
    sizes = {"hidden_size": 32, "num_heads": 4, "feed_forward_size": 96, "dropout": 0.0, **overlay}
    sizes |= {"num_encoder_layers": 2, "num_decoder_layers": 2} if "num_decoder_layers" not in overlay else {}
    return Transformer(tiny(40, **sizes), torch.Generator().manual_seed(0)).eval()


def run(one: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return one(SOURCE, TARGET)


def test_input_norms_are_those_of_the_inputs() -> None:
    layer = nn.Sequential(nn.Linear(3, 2))
    x = torch.tensor([[3.0, 0.0, 1.0], [4.0, 2.0, 1.0]])
    found = input_norms(layer, lambda one: [one(x[:1]), one(x[1:])])
    assert torch.allclose(found["0"], torch.tensor([5.0, 2.0, 2.0**0.5]))
    assert not layer[0]._forward_pre_hooks  # nobody listens any more
    with pytest.raises(ConfigError, match="no text went through"):
        input_norms(layer, lambda one: None)


def test_wanda_and_magnitude_choose_as_their_papers_say() -> None:
    # Sun et al. (2023), figure 1: W = [[4, 0, 1, -1], [3, -2, -1, -3], [-3, 1, 0, 2]], |X| = [1, 2, 8, 3], half pruned
    weight = torch.tensor([[4.0, 0, 1, -1], [3, -2, -1, -3], [-3, 1, 0, 2]])
    norms = {"0": torch.tensor([1.0, 2, 8, 3])}
    layer = nn.Sequential(nn.Linear(4, 3, bias=False))
    with torch.no_grad():
        layer[0].weight.copy_(weight)
    prune_weights(layer, 0.5, score="wanda", norms=norms)
    assert layer[0].weight.tolist() == [[4.0, 0, 1, 0], [0, 0, -1, -3], [-3, 0, 0, 2]]
    with torch.no_grad():
        layer[0].weight.copy_(weight)
    assert prune_weights(layer, 0.5, score="magnitude") == 0.5
    assert layer[0].weight.abs().tolist()[2] == [3, 0, 0, 2]


@pytest.mark.parametrize("score", ["wanda", "magnitude"])
def test_so_many_weights_of_every_row_are_zero(score: Any) -> None:
    one = model()
    embedding = one.embedding.weight.detach().clone()
    norms = input_norms(one, run)
    share = prune_weights(one, 0.25, score=score, norms=norms)
    assert 0.24 < share < 0.26
    rows = one.get_submodule("encoder.layers.0.feed_forward.up").weight
    assert ((rows == 0).sum(1) == 8).all()  # type: ignore[operator]
    assert torch.equal(one.embedding.weight, embedding)


def test_columns_and_heads_that_do_nothing_go_and_nothing_changes() -> None:
    one = model(bias="all")
    K = one.config.head_size
    with torch.no_grad():
        for side in (one.encoder, one.decoder):
            assert side is not None
            for number, block in enumerate(side.layers):
                block.feed_forward.down.weight[:, number : number + 48] = 0.0
                for attention in filter(None, (block.attention, block.memory_attention)):
                    dead = (number + 1) % 4
                    attention.output.weight[:, dead * K : (dead + 1) * K] = 0.0
    expected = run(one)
    norms = input_norms(one, run)
    small = prune_structure(one, heads=0.25, columns=0.5, norms=norms)
    assert (small.config.num_heads, small.config.num_kv_heads, small.config.feed_forward_size) == (3, 3, 48)
    assert small.config.head_size == K
    assert (run(small) - expected).abs().max() < 1e-5
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in one.parameters())
    assert torch.equal(run(one), expected)  # the model itself is as it was


def test_a_group_of_keys_goes_with_all_its_heads() -> None:
    one = model(num_kv_heads=2)
    K = one.config.head_size
    with torch.no_grad():
        for path, module in one.named_modules():
            if path.endswith("attention"):
                module.output.weight[:, : 2 * K] = 0.0  # both heads of the first group
    expected = run(one)
    small = prune_structure(one, heads=0.5, score="magnitude")
    assert (small.config.num_heads, small.config.num_kv_heads) == (2, 1)
    assert (run(small) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("feed_forward", ["plain", "gated"])
def test_the_best_columns_stay(feed_forward: Any) -> None:
    one = model(feed_forward=feed_forward)
    with torch.no_grad():
        for path, module in one.named_modules():
            if path.endswith("feed_forward"):
                module.down.weight[:, 10:58] *= 20
    small = prune_structure(one, columns=0.5, score="magnitude")
    old, new = (m.get_submodule("decoder.layers.1.feed_forward") for m in (one, small))
    assert torch.equal(new.down.weight, old.down.weight[:, 10:58])  # type: ignore[index, union-attr, arg-type]
    assert torch.equal(new.up.weight[:48], old.up.weight[10:58])  # type: ignore[index, union-attr, arg-type]


def test_layers_are_spread_evenly_and_dropping_none_changes_nothing() -> None:
    assert [evenly_spread(12, n) for n in (1, 2, 4)] == [[0], [0, 11], [0, 4, 7, 11]]
    one = model(num_encoder_layers=4, num_decoder_layers=3)
    assert torch.equal(run(drop_layers(one, encoder=0, decoder=3)), run(one))
    small = drop_layers(one, encoder=2, decoder=1)
    assert (small.config.num_encoder_layers, small.config.num_decoder_layers) == (2, 1)
    for new, old in ((0, 0), (1, 3)):
        name = "encoder.layers.{}.feed_forward.up"
        assert torch.equal(
            small.get_submodule(name.format(new)).weight, one.get_submodule(name.format(old)).weight
        )  # type: ignore[arg-type]
    assert run(small).shape == run(one).shape


def test_layers_that_do_nothing_can_be_dropped() -> None:
    one = model(num_encoder_layers=4, num_decoder_layers=2)
    assert one.encoder is not None
    with torch.no_grad():
        for number in (1, 2):
            block = one.encoder.layers[number]
            block.attention.output.weight.zero_()  # type: ignore[union-attr, operator]
            block.feed_forward.down.weight.zero_()  # type: ignore[union-attr, operator]
    assert (run(drop_layers(one, encoder=2, decoder=0)) - run(one)).abs().max() < 1e-6


def test_what_cannot_be_is_refused() -> None:
    one = model()
    with pytest.raises(ConfigError) as caught:
        prune_weights(one, 1.5, score="luck")  # type: ignore[arg-type]
    assert "share=1.5" in str(caught.value) and 'score="luck"' in str(caught.value)
    with pytest.raises(ConfigError, match="needs the norms"):
        prune_structure(one, heads=0.3)
    with pytest.raises(ConfigError, match="5 encoder layers cannot be kept of 2"):
        drop_layers(one, encoder=5, decoder=1)
    with pytest.raises(ConfigError, match="positions=relative"):
        prune_structure(model(positions="relative"), heads=0.5, score="magnitude")
