"""Recurrent models: torch's own LSTM and GRU on the same weights, attention by its formula in a loop, and the relations
that every architecture has to hold: cached = uncached, batched = single, padding changes nothing."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="models need torch")

from samples import ids, padded_ids, shaken  # noqa: E402
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence  # noqa: E402

from inkstone.model.interface import StepCache  # noqa: E402
from inkstone.model.recurrent import Attention, Recurrent  # noqa: E402
from inkstone.model.recurrent_config import RecurrentConfig  # noqa: E402

CELLS = ("lstm", "gru")
ATTENTIONS = ("bahdanau", "luong-dot", "luong-general", "none")
AXES = [
    {"cell": cell, "attention": attention, "bidirectional": bidirectional, "tie_embeddings": tied}
    for (cell, attention, bidirectional), tied in zip(
        itertools.product(CELLS, ATTENTIONS, (True, False)), itertools.cycle((True, False, False, True))
    )
]


def named(axes: dict[str, Any]) -> str:
    return "-".join(str(value) for value in axes.values())


def make(shape: str = "encoder-decoder", **overlay: Any) -> Recurrent:
    layers = {"num_encoder_layers": 2, "num_decoder_layers": 2 if shape == "encoder-decoder" else 0}
    sizes = {"vocab_size": 40, "embedding_size": 10, "hidden_size": 16, "dropout": 0.0}
    config = RecurrentConfig(**{"shape": shape, **sizes, **layers, **overlay})  # type: ignore[arg-type]
    model = Recurrent(config, torch.Generator().manual_seed(1))
    return shaken(model)


@pytest.mark.parametrize("axes", AXES, ids=named)
class TestEveryAxis:
    @torch.no_grad()
    def test_cached_decoding_equals_uncached(self, axes: dict[str, Any]) -> None:
        model = make(**axes)
        source, target = padded_ids([7, 5, 2]), ids(3, 9, seed=1)
        memory, mask = model.encode(source), model.visible(source)
        whole = model.decode(target, memory, mask)
        cache = StepCache()
        parts = [model.decode(target[:, :4], memory, mask, cache)]  # a prefix at once, then token by token
        parts += [model.decode(target[:, n : n + 1], None, mask, cache) for n in range(4, 9)]
        torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-6, rtol=1e-5)
        assert cache.length == 9

    @torch.no_grad()
    def test_a_cache_follows_its_rows_when_they_move(self, axes: dict[str, Any]) -> None:
        model = make(**axes)
        source, target = padded_ids([5, 3, 4]), ids(3, 6, seed=1)
        memory, mask = model.encode(source), model.visible(source)
        cache, rows = StepCache(), torch.tensor([2, 0, 2])
        model.decode(target[:, :4], memory, mask, cache)
        cache.reorder(rows)
        moved = model.decode(target[rows][:, 4:5], None, mask[rows], cache)
        whole = model.decode(target[rows][:, :5], memory[rows], mask[rows])
        torch.testing.assert_close(moved, whole[:, 4:], atol=1e-6, rtol=1e-5)

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

    @torch.no_grad()
    def test_every_source_token_matters(self, axes: dict[str, Any]) -> None:
        model, source, target = make(**axes), ids(1, 6, seed=3), ids(1, 3)
        before = model(source, target)
        for place in range(6):
            changed = source.clone()
            changed[0, place] = (changed[0, place] - 3) % 36 + 4
            assert not torch.equal(model(changed, target), before), f"token {place}"

    def test_gradients_reach_every_parameter(self, axes: dict[str, Any]) -> None:
        for shape, more in (("encoder-decoder", {}), ("encoder", {"num_labels": 3})):
            model = make(shape, **axes, **more).train()
            out = model(ids(2, 32), ids(2, 32, seed=1)) if shape == "encoder-decoder" else model(ids(2, 32))
            (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(3))).sum().backward()
            without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
            assert without == []


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [True, False])
@torch.no_grad()
def test_the_encoder_is_torchs_own_on_packed_rows(cell: str, bidirectional: bool) -> None:
    model = make("encoder", cell=cell, bidirectional=bidirectional)
    kind = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell]
    size = 8 if bidirectional else 16
    theirs = kind(10, size, num_layers=2, batch_first=True, bidirectional=bidirectional)
    for number, layer in enumerate(model.encoder):
        for side, suffix in ((layer.ahead, ""), (layer.back, "_reverse")):
            for name, weight in side.named_parameters() if side is not None else ():
                getattr(theirs, f"{name.removesuffix('0')}{number}{suffix}").copy_(weight)
    source, lengths = padded_ids([9, 4, 7, 1]), torch.tensor([9, 4, 7, 1])
    packed = pack_padded_sequence(model.embedding(source), lengths, batch_first=True, enforce_sorted=False)
    expected, _ = pad_packed_sequence(theirs(packed)[0], batch_first=True)
    torch.testing.assert_close(model.encode(source), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ATTENTIONS[:3])
@torch.no_grad()
def test_attention_is_its_formula(kind: str) -> None:
    """One query and one memory state at a time, as the papers write them."""
    attention = make(attention=kind).decoder.attention
    assert isinstance(attention, Attention)
    generator = torch.Generator().manual_seed(4)
    query, memory = (torch.randn(2, n, 16, generator=generator) for n in (3, 5))
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    context, weights = attention(query, attention.keys(memory), memory, mask)

    def score(q: torch.Tensor, m: torch.Tensor) -> torch.Tensor:
        if kind == "luong-dot":
            return q @ m
        if kind == "luong-general":
            return q @ attention.key.weight @ m
        inner = attention.query.weight @ q + attention.query.bias + attention.key.weight @ m
        return attention.score.weight[0] @ inner.tanh()

    for row, seen in ((0, 5), (1, 2)):
        for place in range(3):
            raised = torch.stack([score(query[row, place], memory[row, s]) for s in range(seen)]).exp()
            shares = raised / raised.sum()
            torch.testing.assert_close(weights[row, place, :seen], shares, atol=1e-6, rtol=1e-5)
            expected = (shares[:, None] * memory[row, :seen]).sum(0)
            torch.testing.assert_close(context[row, place], expected, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3))
    assert (weights[1, :, 2:] == 0).all()


@pytest.mark.parametrize("cell", CELLS)
@torch.no_grad()
def test_bahdanaus_decoder_step_by_step(cell: str) -> None:
    """Attend with the last state, then one torch cell a layer, then read out: written as a loop over cells."""
    model = make(attention="bahdanau", cell=cell)
    source, target = padded_ids([6, 3]), ids(2, 5, seed=1)
    memory, mask = model.encode(source), model.visible(source)
    decoder = model.decoder
    states = decoder.start(memory, mask)
    outputs = []
    for place in range(5):
        x = model.embedding(target[:, place])
        context, _ = decoder.attention(
            states[-2 if cell == "lstm" else -1][:, None], decoder.attention.keys(memory), memory, mask
        )
        inner = torch.cat([x, context[:, 0]], dim=-1)
        for number, layer in enumerate(decoder.layers):
            weights = list(layer.parameters())
            if cell == "lstm":
                inner, states[2 * number + 1] = torch.lstm_cell(
                    inner, states[2 * number : 2 * number + 2], *weights
                )
                states[2 * number] = inner
            else:
                inner = states[number] = torch.gru_cell(inner, states[number], *weights)
        outputs.append(torch.tanh(decoder.readout(torch.cat([context[:, 0], inner, x], dim=-1))))
    found = model.decode(target, memory, mask)
    torch.testing.assert_close(found, torch.stack(outputs, dim=1), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("pooling", ["attention", "mean", "max"])
@torch.no_grad()
def test_a_classifier_reads_no_padding(pooling: str) -> None:
    model = make("encoder", num_labels=3, pooling=pooling)
    together = model(padded_ids([2, 9, 5, 1]))
    for number, length in enumerate((2, 9, 5, 1)):
        alone = model(padded_ids([2, 9, 5, 1])[number : number + 1, :length])
        torch.testing.assert_close(together[number : number + 1], alone, atol=1e-6, rtol=1e-5)
    assert model(torch.zeros(1, 4, dtype=torch.long)).isfinite().all()


@torch.no_grad()
def test_weights_come_from_the_generator_alone() -> None:
    torch.manual_seed(5)
    one = Recurrent(make().config, torch.Generator().manual_seed(7)).state_dict()
    torch.manual_seed(6)
    other = Recurrent(make().config, torch.Generator().manual_seed(7)).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in one)
