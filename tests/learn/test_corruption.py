"""Hidden words and hidden spans: what is hidden, how much of it, and that it can be put back."""

from __future__ import annotations

import itertools
import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="training needs torch")

from inkstone.learn.data.batches import Varied  # noqa: E402
from inkstone.learn.data.corruption import (  # noqa: E402
    MASK,
    Gaps,
    Masking,
    chosen_tokens,
    corrupted,
    filled,
    hidden_sizes,
    masked_parts,
    sentinels_for,
)
from inkstone.learn.objectives import masked, span_corruption  # noqa: E402
from inkstone.model.config import preset  # noqa: E402
from inkstone.model.transformer import Transformer  # noqa: E402
from inkstone.text.segment import words  # noqa: E402
from inkstone.text.tokenizer import Tokenizer  # noqa: E402
from inkstone.text.word_pieces import word_numbers  # noqa: E402

ENGLISH = "The unbelievable weather disappointed twenty-three passengers, didn't it? They paid 3.14 dollars."
CHINESE = "我昨天在图书馆借了一本关于人工智能的书，但是还没有时间阅读。"
BOTH = f"{ENGLISH} {CHINESE} {ENGLISH}"


def tokenizer(kind: str = "bpe") -> Tokenizer:
    specials = (MASK, *sentinels_for(64, 0.15, 3.0))
    return Tokenizer.train(
        ["the weather they paid passengers in dollars", "我在书馆借时间，一本书。人工"] * 3,
        kind=kind,  # type: ignore[arg-type]
        vocab_size=360,
        specials=specials,
    )


@pytest.mark.parametrize("kind", ["bpe", "unigram", "byte-bpe", "wordpiece"])
@pytest.mark.parametrize("text", [ENGLISH, CHINESE, BOTH, "", "。", "a", "😀 学习"])
def test_words_are_never_torn(kind: str, text: str) -> None:
    """A new number begins only where the reader's words have a border, and each word has one number."""
    made = tokenizer(kind)
    ((ids, numbers),) = word_numbers(made, [text])
    assert ids == made.encode(text)
    assert len(numbers) == len(ids)
    assert all(after - before in (0, 1) for before, after in itertools.pairwise(numbers))
    offsets = made.inner.encode(text, add_special_tokens=False).offsets
    place = 0
    for word in words(text):
        start = text.index(word, place)
        place = start + len(word)
        inside = {
            number
            for number, (first, end) in zip(numbers, offsets, strict=True)
            if first < place and end > start and text[first:end].strip()
        }
        assert len(inside) == 1, (word, inside)


def test_pieces_of_a_word_go_together_and_words_apart() -> None:
    """Here every letter is a token, so the groups are the reader's words, and the marks beside them."""
    letters = Tokenizer.train(["abc"], kind="wordpiece", vocab_size=20)
    text = "abc cab, bca"
    ((ids, numbers),) = word_numbers(letters, [text])
    groups: dict[int, str] = {}
    for number, token in zip(numbers, ids, strict=True):
        groups[number] = groups.get(number, "") + letters.token_of(token).removeprefix("##")
    assert list(groups.values()) == ["abc", "cab", "<unk>", "bca"]


@pytest.mark.parametrize("text", [ENGLISH * 3, CHINESE * 3, BOTH])
def test_masks_cover_whole_words(text: str) -> None:
    made = tokenizer()
    examples = masked_parts(made, [text], 48, whole_words=True)
    assert len(examples) > 1
    joined = [token for example in examples for token in example.ids[1:-1]]
    assert joined == made.encode(text)
    edges = [(one.words[-2], other.words[1]) for one, other in itertools.pairwise(examples)]
    assert all(before != after for before, after in edges)  # a part ends between words
    batch = Masking.of(made, 0.3)(examples, np.random.default_rng(0))
    width, asked = batch.ids_BT.shape[1], set(batch.counted_N.tolist())
    some = 0
    for row, example in enumerate(examples):
        for number in set(example.words) - {-1}:
            places = {row * width + at for at, word in enumerate(example.words) if word == number}
            assert places <= asked or not places & asked
            some += places <= asked
    assert some > 3


def test_how_many_and_what_they_become() -> None:
    """15 % are asked for; of these 80 % are masked, 10 % replaced, 10 % stay; marks and padding are never touched."""
    made = tokenizer()
    examples = masked_parts(made, [ENGLISH * 5, CHINESE * 4] * 20, 64, whole_words=False)
    batch = Masking.of(made, 0.15)(examples, np.random.default_rng(1))
    plain = Masking.of(made, 0.15)
    before = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(one.ids) for one in examples], batch_first=True, padding_value=plain.pad_id
    )
    changed = (before != batch.ids_BT).flatten()
    asked = torch.zeros_like(changed)
    asked[batch.counted_N] = True
    assert not (changed & ~asked).any()
    assert (before.flatten()[batch.counted_N] == batch.wanted_N).all()
    special = torch.tensor([made.pad_id, made.bos_id, made.eos_id])
    assert not torch.isin(batch.wanted_N, special).any()
    content = sum(len(one.ids) - 2 for one in examples)
    assert len(batch.wanted_N) / content == pytest.approx(0.15, abs=0.01)
    shown = batch.ids_BT.flatten()[batch.counted_N]
    assert (shown == made.id_of(MASK)).float().mean().item() == pytest.approx(0.8, abs=0.03)
    assert (shown == batch.wanted_N).float().mean().item() == pytest.approx(0.1, abs=0.03)
    assert not np.isin(plain.ordinary, [made.id_of(name) for name in made.specials]).any()


@given(st.integers(1, 80), st.floats(0.05, 0.9), st.integers(0, 99))
def test_the_share_is_kept_to_a_word(size: int, share: float, seed: int) -> None:
    numbers = np.repeat(np.arange(size), np.random.default_rng(seed).integers(1, 4, size))
    chosen = chosen_tokens([-1, *numbers.tolist(), -1], share, np.random.default_rng(seed))
    wanted = max(1, round(share * len(numbers)))
    assert wanted <= len(chosen) <= wanted + 2
    assert 0 not in chosen and len(numbers) + 1 not in chosen


@given(st.integers(1, 200), st.floats(0.05, 0.6), st.floats(1, 6), st.integers(0, 99))
def test_gaps_filled_give_the_text_again(length: int, share: float, mean: float, seed: int) -> None:
    ids = list(range(1000, 1000 + length))
    sentinels = list(range(200))
    source, target = corrupted(ids, np.random.default_rng(seed), sentinels, share, mean)
    assert filled(source, target, sentinels) == ids
    hidden, spans = hidden_sizes(length, share, mean)
    if length > 1:
        assert (len(source), len(target)) == (length - hidden + spans, hidden + spans)
        assert [one for one in source if one < 200] == sentinels[:spans]
        assert [one for one in target if one < 200] == sentinels[:spans]
        assert source[0] >= 1000  # as in T5, a text begins with something to read


def test_spans_have_the_length_asked_for_and_lie_anywhere() -> None:
    random, found, first = np.random.default_rng(0), Counter[int](), Counter[int]()
    for _ in range(300):
        source, target = corrupted(list(range(1000, 1100)), random, list(range(50)), 0.15, 3.0)
        lengths = [len(span) for span in re.split(r"s", "".join("s" if i < 50 else "x" for i in target))[1:]]
        assert sum(lengths) == 15 and len(lengths) == 5
        found.update(lengths)
        first[source.index(0)] += 1
    assert sum(size * count for size, count in found.items()) / found.total() == pytest.approx(3)
    assert len(found) > 5 and len(first) > 20


def test_what_is_hidden_is_the_same_for_an_epoch_and_another_for_the_next() -> None:
    made = tokenizer()
    gaps = Gaps.of(made, 64, 0.15, 3.0)
    parts = gaps.parts(made.encode_batch([ENGLISH * 4, CHINESE * 4]), 64)
    assert [token for part in parts for token in part.ids] == made.encode(ENGLISH * 4) + made.encode(
        CHINESE * 4
    )
    masks = masked_parts(made, [ENGLISH * 4, CHINESE * 4], 64, whole_words=True)
    for examples, hide, seen in ((parts, gaps, "source_BS"), (masks, Masking.of(made, 0.15), "ids_BT")):
        feeds = [Varied(examples, hide, tokens_per_batch=256, seed=seed) for seed in (1, 1, 2)]
        one, same, other = ([getattr(make(), seen) for make in feed.epoch(0)] for feed in feeds)
        assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
        assert any(a.shape != b.shape or not torch.equal(a, b) for a, b in zip(one, other, strict=False))
        later = [getattr(make(), seen) for make in feeds[0].epoch(1)]
        assert sorted(row for batch in one for row in batch.tolist()) != sorted(
            row for batch in later for row in batch.tolist()
        )
        last = feeds[0].epoch(0)[-1]()  # no batch needs those before it
        assert torch.equal(getattr(last, seen), one[-1])


def test_no_source_is_longer_than_a_block() -> None:
    made = tokenizer()
    gaps = Gaps.of(made, 64, 0.15, 3.0)
    parts = gaps.parts(made.encode_batch([ENGLISH * 9]), 64)
    batch = gaps(parts, np.random.default_rng(0))
    assert batch.source_BS.shape[1] <= 64
    sizes = [part.lengths() for part in parts]
    assert batch.source_BS.shape[1] == max(source for source, _ in sizes)
    assert batch.target_BT.shape[1] == max(target for _, target in sizes)


def test_the_masked_loss_is_that_of_the_whole_vocabulary_at_the_places_asked_for() -> None:
    made = tokenizer()
    sizes = {
        "hidden_size": 32,
        "num_heads": 2,
        "feed_forward_size": 48,
        "num_encoder_layers": 2,
        "dropout": 0.0,
    }
    config = preset(
        "tiny", made.vocab_size, "encoder", {**sizes, "prediction_head": True, "output_bias": True}
    )
    model = Transformer(config, torch.Generator().manual_seed(1))
    torch.nn.init.normal_(model.output_bias)
    batch = Masking.of(made, 0.15)(masked_parts(made, [BOTH, ENGLISH], 64, True), np.random.default_rng(0))
    loss = masked(model, batch)
    logits_NV = model(batch.ids_BT).flatten(0, 1)[batch.counted_N]
    expected = torch.nn.functional.cross_entropy(logits_NV, batch.wanted_N)
    assert loss.mean.item() == pytest.approx(expected.item(), rel=1e-5)
    assert loss.correct == int((logits_NV.argmax(1) == batch.wanted_N).sum())


def test_the_loss_of_spans_counts_sentinels_and_the_end() -> None:
    made = tokenizer()
    sizes = {"hidden_size": 32, "num_heads": 2, "feed_forward_size": 48, "dropout": 0.0}
    model = Transformer(
        preset("tiny", made.vocab_size, "encoder-decoder", sizes), torch.Generator().manual_seed(1)
    )
    gaps = Gaps.of(made, 64, 0.15, 3.0)
    batch = gaps(gaps.parts([made.encode(ENGLISH)], 64), np.random.default_rng(0))
    assert span_corruption(model, batch).count == sum(
        hidden + spans + 1
        for hidden, spans in (
            hidden_sizes(len(part.ids), 0.15, 3.0) for part in gaps.parts([made.encode(ENGLISH)], 64)
        )
    )
