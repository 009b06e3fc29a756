"""Pre-training: documents lose nothing on their way into rows, and rows that are packed teach what padded ones do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="training needs torch")

from inkstone.generate.foresight import windows  # noqa: E402
from inkstone.ground.errors import TrainingError  # noqa: E402
from inkstone.learn.data.documents import PackedFeed, causal_batch, pack, parts  # noqa: E402
from inkstone.learn.objectives import causal  # noqa: E402
from inkstone.model.config import preset  # noqa: E402
from inkstone.model.transformer import Transformer, places_within  # noqa: E402

BOS, EOS = 2, 3
POSITIONS: list[dict[str, Any]] = [
    {"positions": "rotary"},
    {"positions": "learned", "norm": "rms"},
    {"positions": "sinusoidal", "scale_embeddings": True},
    {"positions": "relative", "relative_distance": 64},
    {"positions": "rotary", "window": 5, "num_kv_heads": 1},
]


def decoder(**axes: Any) -> Transformer:
    """A small decoder without dropout."""
    sizes = {
        "hidden_size": 32,
        "num_heads": 2,
        "feed_forward_size": 48,
        "num_decoder_layers": 2,
        "dropout": 0.0,
    }
    return Transformer(preset("tiny", 40, "decoder", {**sizes, **axes}), torch.Generator().manual_seed(3))


def documents(count: int = 9, longest: int = 30, seed: int = 0) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [
        [BOS, *random.integers(4, 40, int(size)).tolist(), EOS] for size in random.integers(0, longest, count)
    ]


@given(st.integers(0, 70), st.integers(1, 20))
def test_parts_ask_for_every_token_once(size: int, block: int) -> None:
    ids = [BOS, *range(10, 10 + size), EOS]
    found = list(parts(ids, block))
    assert [token for part in found for token in part[1:]] == ids[1:]
    assert all(2 <= len(part) <= block + 1 for part in found)
    assert [part[0] for part in found] == [ids[n * block] for n in range(len(found))]


@given(st.integers(0, 70), st.integers(1, 20), st.integers(1, 20))
def test_windows_ask_for_every_token_once_with_context_before(size: int, block: int, stride: int) -> None:
    ids, stride = [BOS, *range(10, 10 + size), EOS], min(block, stride)
    asked = []
    for number, (part, context) in enumerate(windows(ids, block, stride)):
        asked += part[1 + context :]
        assert 2 <= len(part) <= block + 1
        assert number == 0 or context >= block - stride
    assert asked == ids[1:]


@given(st.lists(st.integers(1, 20), max_size=60))
def test_packing_keeps_everything_and_fills_rows(lengths: list[int]) -> None:
    rows = pack(lengths, 20)
    assert sorted(n for row in rows for n in row) == list(range(len(lengths)))
    filled = [sum(lengths[n] for n in row) for row in rows]
    assert all(total <= 20 for total in filled)
    assert sum(total <= 10 for total in filled) <= 1  # else first fit would have joined them


def test_what_is_longer_than_a_row_is_refused() -> None:
    with pytest.raises(TrainingError, match="21 tokens does not fit into a row of 20"):
        pack([3, 21], 20)


def test_places_begin_anew_in_every_text() -> None:
    segments_BT = torch.tensor([[1, 1, 1, 2, 3, 3, 0], [1, 2, 2, 2, 2, 0, 0]])
    assert places_within(segments_BT).tolist() == [[0, 1, 2, 0, 0, 1, 0], [0, 0, 1, 2, 3, 0, 1]]


@pytest.mark.parametrize("axes", POSITIONS, ids=lambda axes: "-".join(map(str, axes.values())))
def test_packed_rows_teach_what_padded_ones_do(axes: dict[str, Any]) -> None:
    model = decoder(**axes)
    texts = documents()
    rows = pack([len(ids) - 1 for ids in texts], 40)
    assert 1 < len(rows) < len(texts)
    packed = causal_batch([[texts[n] for n in row] for row in rows], 0)
    padded = causal_batch([[ids] for ids in texts], 0)
    assert packed.segments_BT is not None and padded.segments_BT is None
    assert packed.tokens == padded.tokens == sum(len(ids) - 1 for ids in texts)
    gradients = []
    for batch in (packed, padded):
        model.zero_grad()
        loss = causal(model, batch)
        loss.mean.backward()
        gradients.append((loss, [p.grad.clone() for p in model.parameters() if p.grad is not None]))
    (one, ones), (other, others) = gradients
    assert (one.count, one.correct) == (other.count, other.correct)
    assert one.mean.item() == pytest.approx(other.mean.item(), rel=1e-6)
    for mine, theirs in zip(ones, others, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_texts_in_a_row_do_not_see_each_other() -> None:
    model = decoder()
    first, second, other = documents(3, seed=4)
    alone = causal_batch([[first]], 0)
    states = model.decode(alone.ids_BT)[0]
    for beside in (second, other):
        row = causal_batch([[beside, first]], 0)
        both = model.decode(row.ids_BT, segments_BT=row.segments_BT)[0]
        torch.testing.assert_close(both[len(beside) - 1 :], states, rtol=1e-5, atol=1e-6)


def test_the_loss_is_the_cross_entropy_of_the_next_token() -> None:
    model, texts = decoder(), documents()
    loss = causal(model, causal_batch([[ids] for ids in texts], 0))
    each = [
        torch.nn.functional.cross_entropy(
            model(torch.tensor([ids[:-1]]))[0], torch.tensor(ids[1:]), reduction="sum"
        )
        for ids in texts
    ]
    assert loss.mean.item() == pytest.approx(
        sum(one.item() for one in each) / sum(len(ids) - 1 for ids in texts), rel=1e-5
    )


def test_epochs_are_packed_anew_and_always_the_same() -> None:
    feeds = [
        PackedFeed(documents(50), block=24, tokens_per_batch=100, seed=seed, pad_id=0) for seed in (1, 1, 2)
    ]
    one, same, other = ([feed.packed(number) for number in range(2)] for feed in feeds)
    assert one == same != other
    assert one[0] != one[1]
    for rows in one:
        assert sorted(n for row in rows for n in row) == list(range(len(feeds[0].lengths)))
    batches = [make() for make in feeds[0].epoch(0)]
    assert all(batch.ids_BT.numel() <= 100 for batch in batches)
    asked = sorted(number for batch in batches for number in batch.wanted_N.tolist())
    assert asked == sorted(number for ids in documents(50) for number in ids[1:])
    assert sum(batch.tokens for batch in batches) == sum(len(ids) - 1 for ids in documents(50))


def test_a_batch_must_hold_a_row() -> None:
    with pytest.raises(TrainingError, match="a row has 24 tokens, but a batch may hold 20"):
        PackedFeed(documents(), block=24, tokens_per_batch=20, seed=1, pad_id=0)
