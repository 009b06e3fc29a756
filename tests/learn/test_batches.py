"""Batches: every example once an epoch, within the budget, a function of (seed, epoch); padded as they should be."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

import numpy as np  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as some  # noqa: E402

from inkstone.ground.errors import TrainingError  # noqa: E402
from inkstone.learn.data import batches  # noqa: E402
from inkstone.learn.data.batches import (  # noqa: E402
    LabelExample,
    PairExample,
    Plan,
    chunks,
    iterate,
    label_batch,
    pair_batch,
    to_device,
)

lengths = some.lists(some.tuples(some.integers(1, 20), some.integers(0, 20)), min_size=1, max_size=60)


def examples(sizes: list[tuple[int, int]]) -> list[PairExample]:
    return [PairExample(range(4, 4 + source), range(4, 4 + target)) for source, target in sizes]


def cells(chosen: list[PairExample]) -> int:
    return len(chosen) * (max(len(e.source) for e in chosen) + max(len(e.target) + 1 for e in chosen))


@settings(max_examples=60, deadline=None)
@given(sizes=lengths, budget=some.integers(41, 200), seed=some.integers(0, 5), epoch=some.integers(0, 3))
def test_every_example_once_and_never_over_budget(
    sizes: list[tuple[int, int]], budget: int, seed: int, epoch: int
) -> None:
    data = examples(sizes)
    plan = Plan(data, tokens_per_batch=budget, seed=seed)
    for planned in (plan.epoch(epoch), plan.in_order()):
        assert sorted(np.concatenate(planned).tolist()) == list(range(len(data)))
        assert all(cells(chunks(data, numbers)) <= budget for numbers in planned)
    again = Plan(data, tokens_per_batch=budget, seed=seed).epoch(epoch)
    assert all(np.array_equal(a, b) for a, b in zip(plan.epoch(epoch), again, strict=True))


def test_small_pools_still_give_every_example_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "POOL", 7)
    data = examples([(n % 9 + 1, n % 5) for n in range(50)])
    planned = Plan(data, tokens_per_batch=40, seed=1).epoch(0)
    assert sorted(np.concatenate(planned).tolist()) == list(range(50))


def test_epochs_and_seeds_differ_in_order() -> None:
    data = examples([(n % 7 + 1, n % 5) for n in range(200)])

    def order(seed: int, epoch: int) -> list[int]:
        return [int(n) for n in np.concatenate(Plan(data, tokens_per_batch=100, seed=seed).epoch(epoch))]

    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)
    # Nor is the order of batches that of lengths: the first batch is not always the shortest or the longest.
    firsts = {len(data[order(seed, 0)[0]].source) for seed in range(20)}
    assert len(firsts) > 2


def test_sorting_by_length_saves_padding() -> None:
    random = np.random.default_rng(0)
    data = examples([(int(n), int(n)) for n in random.integers(1, 40, 2000)])
    real = sum(sum(example.lengths()) for example in data)
    planned = Plan(data, tokens_per_batch=1000, seed=1).epoch(0)
    assert sum(cells(chunks(data, numbers)) for numbers in planned) < 1.1 * real


def test_the_largest_batch_holds_the_longest_examples() -> None:
    data = examples([(n % 20 + 1, 5) for n in range(100)])
    largest = Plan(data, tokens_per_batch=100, seed=1).largest()
    assert max(len(data[n].source) for n in largest) == 20
    assert cells(chunks(data, largest)) <= 100


def test_going_on_in_mid_epoch_gives_the_rest_of_it() -> None:
    plan = Plan(examples([(n % 7 + 1, 3) for n in range(60)]), tokens_per_batch=50, seed=1)
    whole = list(iterate(plan, 2))
    rest = list(iterate(plan, 2, start=3))
    assert [place for place, _ in rest] == list(range(3, len(whole)))
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(whole[3:], rest, strict=True))


def test_nothing_to_train_on_and_too_long_an_example_are_said() -> None:
    with pytest.raises(TrainingError, match="nothing to train on"):
        Plan([], tokens_per_batch=100, seed=1)
    with pytest.raises(TrainingError, match=r"61 tokens.*hold 60.*Raise tokens_per_batch"):
        Plan(examples([(3, 3), (30, 30)]), tokens_per_batch=60, seed=1)


@settings(max_examples=40, deadline=None)
@given(sizes=lengths)
def test_what_is_counted_are_the_real_tokens_and_what_is_wanted_comes_next(
    sizes: list[tuple[int, int]],
) -> None:
    data = examples(sizes)
    batch = pair_batch(data, pad_id=0, bos_id=2, eos_id=3)
    assert batch.tokens == sum(sum(example.lengths()) for example in data)
    read, at = batch.target_BT.flatten()[batch.counted_N].tolist(), 0
    wanted = batch.wanted_N.tolist()
    for number, example in enumerate(data):
        length = len(example.target) + 1
        assert read[at : at + length] == [2, *example.target]
        assert wanted[at : at + length] == [*example.target, 3]
        assert batch.source_BS[number].tolist()[: len(example.source)] == list(example.source)
        assert not batch.source_BS[number, len(example.source) :].any()
        assert not batch.target_BT[number, length:].any()
        at += length
    assert at == len(wanted) == len(read)


def test_labels_are_numbers_or_zeros_and_ones() -> None:
    data = [LabelExample([5, 6], (1,)), LabelExample([7], (0,))]
    single = label_batch(data, pad_id=0, num_labels=3, multi_label=False)
    assert (
        single.ids_BS.tolist() == [[5, 6], [7, 0]] and single.labels.tolist() == [1, 0] and single.tokens == 3
    )
    many = label_batch(
        [LabelExample([5], (0, 2)), LabelExample([6], ())], pad_id=0, num_labels=3, multi_label=True
    )
    assert many.labels.tolist() == [[1, 0, 1], [0, 0, 0]]
    moved = to_device(many, torch.device("cpu"))
    assert (
        type(moved) is type(many) and torch.equal(moved.labels, many.labels) and moved.tokens == many.tokens
    )
