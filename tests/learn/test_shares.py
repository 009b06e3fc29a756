"""What processes read of a step adds up to the step, for every kind of batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

import reversing  # noqa: E402

from inkstone.ground.errors import ConfigError  # noqa: E402
from inkstone.learn.data.batches import LabelExample, label_batch  # noqa: E402
from inkstone.learn.data.documents import causal_batch  # noqa: E402
from inkstone.learn.data.shares import Portion, Steps, divided  # noqa: E402
from inkstone.learn.objectives import causal, classification, sequence_to_sequence  # noqa: E402
from inkstone.model.config import tiny  # noqa: E402
from inkstone.model.transformer import Transformer  # noqa: E402

SIZES = {"hidden_size": 32, "feed_forward_size": 64, "dropout": 0.0}


def pairs() -> tuple[Any, Any, Any]:
    return reversing.small_model(dropout=0.0), sequence_to_sequence, reversing.collate(reversing.examples(7))


def packed() -> tuple[Any, Any, Any]:
    """Three rows, of which one holds two texts."""
    rows = [[[2, 4, 5, 6, 3], [2, 7, 3]], [[2, 8, 9, 3]], [[2, 5, 3]]]
    config = tiny(12, "decoder", num_decoder_layers=1, **SIZES)
    return Transformer(config, torch.Generator().manual_seed(1)), causal, causal_batch(rows, 0)


def labelled() -> tuple[Any, Any, Any]:
    examples = [LabelExample([4 + n, 5, 6][: 1 + n % 3], (n % 2,)) for n in range(5)]
    config = tiny(12, "encoder", num_encoder_layers=1, num_labels=2, **SIZES)
    batch = label_batch(examples, pad_id=0, num_labels=2, multi_label=False)
    return Transformer(config, torch.Generator().manual_seed(1)), classification, batch


@pytest.mark.parametrize("kind", [pairs, packed, labelled])
@pytest.mark.parametrize("world", [2, 3, 4, 9])
def test_the_parts_of_a_batch_add_up(kind: Callable[[], tuple[Any, Any, Any]], world: int) -> None:
    """Also where there are more processes than rows: those read the batch too, and it does not count."""
    model, objective, batch = kind()
    whole = objective(model, batch)
    parts = [divided(batch, rank, world) for rank in range(world)]
    losses = [(objective(model, part.batch), part.counts) for part in parts]
    assert sum(loss.count * counts for loss, counts in losses) == whole.count
    assert sum(loss.correct * counts for loss, counts in losses) == whole.correct
    assert sum(part.batch.tokens * part.counts for part in parts) == batch.tokens
    total = sum(float(loss.mean.detach()) * loss.count * counts for loss, counts in losses)
    assert total / whole.count == pytest.approx(float(whole.mean.detach()), rel=1e-5)


class Letters:
    """A feed of letters in place of batches."""

    def __init__(self, letters: str) -> None:
        self.letters = letters

    def epoch(self, number: int) -> Any:
        return [lambda letter=letter: letter for letter in self.letters]


def read(accumulate: int, rank: int, world: int) -> list[str]:
    steps = Steps(Letters("abcdefgh"), accumulate, rank, world)  # type: ignore[arg-type]
    return ["".join(f"{p.batch}{p.place}" for p in make()) for make in steps.epoch(0)]


def test_batches_are_dealt_out_with_the_places_they_have_in_one_process() -> None:
    assert read(4, 0, 1) == ["a0b1c2d3", "e0f1g2h3"]
    assert read(4, 0, 2) == ["a0c2", "e0g2"]
    assert read(4, 1, 2) == ["b1d3", "f1h3"]
    assert read(3, 0, 1) == ["a0b1c2", "d0e1f2", "g0h1"], "the last step of an epoch is smaller"
    assert read(1, 0, 1) == [f"{letter}0" for letter in "abcdefgh"]


def test_rows_are_divided_where_batches_cannot_be_dealt_out() -> None:
    batches = [reversing.collate(reversing.examples(6, seed)) for seed in range(3)]

    class Three:
        def epoch(self, number: int) -> Any:
            return [lambda batch=batch: batch for batch in batches]

    (make,) = Steps(Three(), 3, rank=1, world=2).epoch(0)
    portions = make()
    assert [portion.place for portion in portions] == [1, 3, 5], "not those of rank 0: 0, 2, 4"
    assert all(
        torch.equal(portion.batch.source_BS, batch.source_BS[1::2])  # type: ignore[union-attr]
        for portion, batch in zip(portions, batches, strict=True)
    )


def test_a_kind_that_cannot_be_divided_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"a str cannot be divided among 2 processes. Set training.accumulate"
    ):
        divided("batch", 0, 2)  # type: ignore[arg-type]
    assert Portion("batch").counts  # type: ignore[arg-type]
