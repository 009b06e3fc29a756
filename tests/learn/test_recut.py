"""Pairs cut otherwise in every epoch: the same for the same place, the same text always, within the limit."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from inkstone.ground.records import Pair  # noqa: E402
from inkstone.learn.data.batches import PairBatch, Varied, pair_batch  # noqa: E402
from inkstone.learn.data.recut import WAYS, Cuts, Recut, WordsExample  # noqa: E402
from inkstone.recipes.pairs import as_words, encode  # noqa: E402
from inkstone.text.tokenizer import Tokenizer  # noqa: E402

LEFT = ["a man in an orange hat", "two unbelievable dogs are running", "nobody", "woman with fireworks"]
RIGHT = ["ein mann mit einem orangen hut", "zwei hunde rennen", "niemand ist hier", "一位女士和烟花"]
PAIRS = [Pair(left, right, "en", "de") for left, right in zip(LEFT, RIGHT, strict=True)]
LIMIT = 24


def tokenizer(specials: tuple[str, ...] = ()) -> Tokenizer:
    return Tokenizer.train(LEFT + RIGHT, vocab_size=420, specials=specials)


def feed(made: Tokenizer, share: float = 0.3, seed: int = 1, limit: int = LIMIT) -> Varied:
    cuts = Cuts(made, share, seed)
    examples = as_words(cuts, made, PAIRS, limit)
    collate = partial(pair_batch, pad_id=0, bos_id=2, eos_id=3)
    return Varied(examples, Recut(cuts.table(), limit, collate), tokens_per_batch=100, seed=seed)


def read(batch: PairBatch) -> list[tuple[list[int], list[int]]]:
    """The rows of a batch without their padding."""
    both = zip(batch.source_BS.tolist(), batch.target_BT.tolist(), strict=True)
    return [tuple([token for token in row if token] for row in rows) for rows in both]  # type: ignore[misc]


def epoch(fed: Varied, number: int) -> list[tuple[list[int], list[int]]]:
    rows = []
    for make in fed.epoch(number):
        batch = make()
        assert isinstance(batch, PairBatch)
        rows += read(batch)
    return rows


@pytest.mark.parametrize("specials", [(), ("<2de>",)])
def test_texts_stay_the_same_in_every_cut(specials: tuple[str, ...]) -> None:
    made = tokenizer(specials)
    fed = feed(made)
    usual, _ = encode(made, PAIRS, LIMIT)
    seen = set()
    for number in range(20):
        rows = epoch(fed, number)
        for source, target in rows:
            assert source[-1] == made.eos_id and target[0] == made.bos_id
            assert (source[0] == made.id_of("<2de>")) if specials else source[0] > 3
        texts = sorted((made.decode(source), made.decode(target)) for source, target in rows)
        assert texts == sorted(zip(LEFT, RIGHT, strict=True))
        seen |= {tuple(source) for source, _ in rows}
    assert len(seen) > 2 * len(usual), "words are cut in several ways"


def test_a_place_has_one_batch_and_a_seed_its_own() -> None:
    made = tokenizer()
    assert epoch(feed(made), 3) == epoch(feed(made), 3)
    assert epoch(feed(made), 3) != epoch(feed(made), 4)
    assert sorted(epoch(feed(made), 3)) != sorted(epoch(feed(made, seed=2), 3))


def test_without_dropout_and_at_the_limit_pairs_are_cut_as_usual() -> None:
    made = tokenizer()
    usual, dropped = encode(made, PAIRS, 12)
    tight = feed(made, share=1.0, limit=max(max(one.lengths()) for one in usual))
    assert dropped == len(PAIRS) - len(tight.examples) and usual
    plain = feed(made, share=0.0, limit=12)
    assert [one.lengths() for one in plain.examples] == [one.lengths() for one in usual]
    wanted = sorted((list(one.source), [made.bos_id, *one.target]) for one in usual)
    assert sorted(epoch(plain, 0)) == wanted
    for source, target in epoch(tight, 0):
        assert len(source) <= tight.make.limit and len(target) <= tight.make.limit  # type: ignore[attr-defined]


def test_cuts_of_a_word_depend_on_the_word_alone() -> None:
    made = tokenizer()
    one, other = Cuts(made, 0.3, 1), Cuts(made, 0.3, 1)
    (first,) = one.words("unbelievable")
    other.words("nobody knows")
    (second,) = other.words("unbelievable")
    assert first != second
    ways = []
    for cuts, number in ((one, first), (other, second)):
        table = cuts.table()
        places = range(number * (1 + WAYS), (number + 1) * (1 + WAYS))
        ways.append([tuple(table.ids[table.starts[n] :][: table.sizes[n]]) for n in places])
    assert ways[0] == ways[1] and len(set(ways[0])) > 2


def test_batches_are_planned_by_what_is_drawn_in_the_mean() -> None:
    fed = feed(tokenizer())
    planned = sum(sum(one.lengths()) for one in fed.examples)
    drawn = [sum(len(source) + len(target) for source, target in epoch(fed, number)) for number in range(60)]
    assert np.mean(drawn) == pytest.approx(planned, rel=0.03)


def test_every_way_is_drawn_but_the_usual_one_where_there_is_room() -> None:
    made = tokenizer()
    cuts = Cuts(made, 1.0, 1)
    words = np.array(cuts.words("fireworks") * 500, np.int32)
    (drawn,) = cuts.table().draw([words], 10_000, np.random.default_rng(0))
    assert [made.token_of(n) for n in drawn[:10]] == list("▁fireworks")
    assert len(drawn) == 10 * 500
    assert WordsExample(words, words, (3, 4)).lengths() == (3, 4)
