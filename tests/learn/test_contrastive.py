"""Contrastive learning beside a written-out loop and beside sentence-transformers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from inkstone.ground.errors import ConfigError  # noqa: E402
from inkstone.learn.data.batches import Plan, RelatedBatch, RelatedExample  # noqa: E402
from inkstone.learn.data.related import related_batch  # noqa: E402
from inkstone.learn.objectives import OBJECTIVES, contrastive  # noqa: E402
from inkstone.learn.objectives.contrastive import ContrastiveOptions, contrasted, nearest  # noqa: E402
from inkstone.model.config import tiny  # noqa: E402
from inkstone.model.transformer import Transformer  # noqa: E402

ROWS = [
    RelatedExample([2, 5, 6], [2, 7, 8, 9], ([2, 30], [2, 31, 32])),
    RelatedExample([2, 10], [2, 11]),
    RelatedExample([2, 12, 13, 14], [2, 15, 16], ([2, 33, 34],)),
    RelatedExample([2, 17], [2, 18, 19]),
]


def encoder(**overlay: Any) -> Transformer:
    config = tiny(60, "encoder", dropout=0.0, num_encoder_layers=1, hidden_size=16, **overlay)
    return Transformer(config, torch.Generator().manual_seed(1)).eval()


def cosine(one: list[float], other: list[float]) -> float:
    product = sum(a * b for a, b in zip(one, other, strict=True))
    return product / math.sqrt(sum(a * a for a in one) * sum(b * b for b in other))


def by_hand(
    source: list[list[float]], target: list[list[float]], batch: RelatedBatch, options: ContrastiveOptions
) -> float:
    """The loss as its definition reads, number by number."""
    total, sizes = 0.0, [len(source[0]), *options.dimensions]
    for size in sizes:
        for here in range(len(source)):
            own = cosine(source[here][:size], target[here][:size]) - options.margin
            rivals = [
                cosine(source[here][:size], target[p][:size])
                for p in range(len(target))
                if batch.rivals_BP[here, p]
            ]
            losses = [-math.log(softmax(own, rivals, options.temperature))]
            if options.symmetric:
                rivals = [
                    cosine(source[b][:size], target[here][:size])
                    for b in range(len(source))
                    if batch.rivals_BP[b, here]
                ]
                losses.append(-math.log(softmax(own, rivals, options.temperature)))
            total += sum(losses) / len(losses) / len(source)
    return total / len(sizes)


def softmax(own: float, rivals: list[float], temperature: float) -> float:
    powers = [math.exp(one / temperature) for one in (own, *rivals)]
    return powers[0] / sum(powers)


@pytest.mark.parametrize(
    "options",
    [
        ContrastiveOptions(),
        ContrastiveOptions(temperature=0.2, symmetric=False),
        ContrastiveOptions(margin=0.3),
        ContrastiveOptions(dimensions=(4, 8), margin=0.1),
    ],
    ids=["plain", "one way", "margin", "cut"],
)
def test_it_is_what_its_definition_says(options: ContrastiveOptions) -> None:
    model = encoder()
    double = [RelatedExample([2, 5, 6], [2, 40, 41]), RelatedExample([2, 42], [2, 11])]
    batch = related_batch([*ROWS, *double], pad_id=0)  # the first source again, and the second target again
    source, target = (model.pooled(ids).tolist() for ids in (batch.source_BS, batch.target_PT))
    loss = contrasted(options)(model, batch)
    assert float(loss.mean.detach()) == pytest.approx(by_hand(source, target, batch, options), rel=1e-4)
    assert loss.count == 6


@pytest.mark.parametrize(
    ("negatives", "symmetric"),  # with both, theirs takes the negatives of all directions into one softmax
    [(False, False), (False, True), (True, False)],
)
def test_it_is_multiple_negatives_ranking_of_sentence_transformers(negatives: bool, symmetric: bool) -> None:
    pytest.importorskip("sentence_transformers", reason="install the dev extra")
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    rows = [
        RelatedExample(row.source, row.target, ([2, 50 + n],) if negatives else ())
        for n, row in enumerate(ROWS)
    ]
    batch, mine, theirs = related_batch(rows, pad_id=0), encoder(), encoder()

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = theirs

        def forward(self, features: dict[str, Any]) -> dict[str, Any]:
            return {"sentence_embedding": self.inner.pooled(features["input_ids"])}

    directions = ("query_to_doc", "doc_to_query") if symmetric else ("query_to_doc",)
    reference = MultipleNegativesRankingLoss(
        Wrapped(), scale=20.0, directions=directions, partition_mode="per_direction"
    )
    columns = [batch.source_BS, *batch.target_PT.split(len(rows))]
    wanted = reference([{"input_ids": ids} for ids in columns], torch.arange(len(rows)))
    found = contrasted(ContrastiveOptions(temperature=0.05, symmetric=symmetric))(mine, batch)
    torch.testing.assert_close(found.mean, wanted, atol=1e-5, rtol=1e-5)
    found.mean.backward()
    wanted.backward()
    for (name, one), other in zip(mine.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-5, rtol=1e-3, msg=name)


def test_the_same_text_is_no_counterexample_to_itself() -> None:
    rows = [
        RelatedExample([1], [2]),
        RelatedExample([3], [2]),  # the same target
        RelatedExample([1], [4]),  # the same source
        RelatedExample([5], [1], ([2],)),  # a target that is a source, a negative that is a target
    ]
    assert related_batch(rows, pad_id=0).rivals_BP.tolist() == [
        [False, False, False, False, False],
        [False, False, True, True, False],
        [False, True, False, False, True],
        [True, True, True, False, True],
    ]


def test_without_a_rival_there_is_nothing_to_learn() -> None:
    vectors = torch.randn(1, 4, requires_grad=True)
    loss = nearest(vectors, torch.randn(1, 4), torch.zeros(1, 1, dtype=torch.bool), ContrastiveOptions())
    loss.mean.backward()
    assert (float(loss.mean.detach()), loss.correct, float(vectors.grad.abs().max())) == (0.0, 1, 0.0)


def test_smoothing_leaves_out_what_does_not_count() -> None:
    """With nothing masked it is torch's label smoothing; what is masked has no share."""
    generator = torch.Generator().manual_seed(3)
    source, target = (torch.randn(n, 8, generator=generator) for n in (4, 6))
    rivals = ~torch.eye(4, 6, dtype=torch.bool)
    options = ContrastiveOptions(temperature=0.1, symmetric=False)
    scores = torch.nn.functional.cosine_similarity(source[:, None], target[None], dim=2) / 0.1
    wanted = torch.nn.functional.cross_entropy(scores, torch.arange(4), label_smoothing=0.2)
    torch.testing.assert_close(nearest(source, target, rivals, options, 0.2).mean, wanted)
    rivals[:, 5] = False
    without = nearest(source, target[:5], rivals[:, :5], options, 0.2)
    torch.testing.assert_close(nearest(source, target, rivals, options, 0.2).mean, without.mean)


def test_half_precision_does_not_reach_the_cosines() -> None:
    batch = related_batch(ROWS, pad_id=0)
    model = encoder()
    with torch.autocast("cpu", torch.bfloat16):
        states = model.pooled(batch.source_BS), model.pooled(batch.target_PT)
        found = contrastive(model, batch)
    wanted = nearest(states[0].float(), states[1].float(), batch.rivals_BP, ContrastiveOptions())
    assert found.mean.dtype is torch.float32
    torch.testing.assert_close(found.mean, wanted.mean)
    assert OBJECTIVES["contrastive"] is contrastive


def test_batches_hold_so_many_pairs_of_similar_length() -> None:
    random = np.random.default_rng(1)
    examples = [RelatedExample([4] * n, [5] * (n + 1)) for n in random.integers(1, 60, 1000)]
    plan = Plan(examples, tokens_per_batch=8, seed=1, rows=64)
    batches = plan.epoch(3)
    assert {len(batch) for batch in batches} <= {62, 63}
    assert sorted(np.concatenate(batches)) == list(range(1000))
    assert all(np.array_equal(a, b) for a, b in zip(batches, plan.epoch(3), strict=True))
    assert not np.array_equal(batches[0], plan.epoch(4)[0])
    spread = [np.ptp(plan.lengths[batch].max(1)) for batch in batches]
    assert max(spread) <= 8, "60 lengths over 16 batches"
    assert len(plan.largest()) <= 64


def test_what_cannot_be_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        ContrastiveOptions(temperature=0.0, margin=1.0, dimensions=(0,))
    for words in ("temperature=0.0", "margin=1.0", "dimensions: 0"):
        assert words in str(error.value)
