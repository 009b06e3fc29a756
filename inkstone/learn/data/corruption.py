"""Documents with something hidden, for a model to find: words behind masks, or spans in gaps.

masked   (Devlin et al., 2019) of all tokens a share is asked for; of these 80 % become <mask>, 10 % another token at
         random, 10 % stay. They are chosen word by word, whole, in English and in Chinese (`text.word_pieces`).

             我 爱 北 京        <s> 我 爱 <mask> <mask> </s>        asked: 北 京

span     (Raffel et al., 2020, section 3.1.4) of all tokens a share goes, in spans of so many tokens on average, an
         encoder reads what is left with a sentinel for each gap, and a decoder writes the gaps after one another.

             text      Thank you for inviting me to your party last week
             read      Thank you <extra_id_0> me to your party <extra_id_1> week </s>
             written   <extra_id_0> for inviting <extra_id_1> last </s>

What is hidden is drawn anew in each epoch, seeded by (seed, epoch, number of the batch): no state has to be kept for a
run to go on exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from inkstone.learn.data.batches import (
    PairBatch,
    PairExample,
    Random,
    TokenBatch,
    TokenExample,
    pair_batch,
)
from inkstone.model.padding import Ids, pad
from inkstone.text.tokenizer import Tokenizer
from inkstone.text.word_pieces import word_numbers

MASK = "<mask>"
MASKED, REPLACED = 0.8, 0.1  # of what is asked for; the rest stays as it is


def sentinel(number: int) -> str:
    """The special token for a gap; named as T5 names it."""
    return f"<extra_id_{number}>"


def masked_parts(
    tokenizer: Tokenizer, texts: Sequence[str], block: int, whole_words: bool
) -> list[TokenExample]:
    """Texts in parts of at most `block` tokens, marks included, that end between words where that is possible."""
    found = []
    for ids, words in word_numbers(tokenizer, texts):
        if not whole_words:
            words = list(range(len(ids)))
        start = 0
        while start < len(ids):
            end = min(start + block - 2, len(ids))
            if end < len(ids):
                back = end
                while back > start and words[back] == words[back - 1]:
                    back -= 1
                end = back if back > start else end
            marked = [tokenizer.bos_id, *ids[start:end], tokenizer.eos_id]
            found.append(TokenExample(marked, [-1, *words[start:end], -1]))
            start = end
    return found


@dataclass(frozen=True, slots=True)
class Masking:
    """How tokens are masked. ordinary: the ids that may stand in for a hidden one."""

    pad_id: int
    mask_id: int
    ordinary: npt.NDArray[np.int64]
    share: float

    @classmethod
    def of(cls, tokenizer: Tokenizer, share: float) -> Masking:
        """For the vocabulary of a tokenizer that has `MASK`."""
        special = {tokenizer.id_of(name) for name in tokenizer.specials}
        ordinary = np.array([n for n in range(tokenizer.vocab_size) if n not in special])
        return cls(tokenizer.pad_id, tokenizer.id_of(MASK), ordinary, share)

    def __call__(self, examples: Sequence[TokenExample], random: Random) -> TokenBatch:
        """A batch, and what is asked for in it."""
        ids_BT = pad([example.ids for example in examples], self.pad_id)
        width = ids_BT.shape[1]
        chosen = [chosen_tokens(example.words, self.share, random) for example in examples]
        counted_N = torch.from_numpy(np.concatenate([at + row * width for row, at in enumerate(chosen)]))
        flat = ids_BT.flatten()
        wanted_N = flat[counted_N].clone()
        lot_N = random.random(len(wanted_N))
        other_N = torch.from_numpy(random.choice(self.ordinary, len(wanted_N)))
        hidden_N = torch.from_numpy(lot_N < MASKED)
        replaced_N = torch.from_numpy((lot_N >= MASKED) & (lot_N < MASKED + REPLACED))
        shown_N = torch.where(hidden_N, torch.full_like(wanted_N, self.mask_id), wanted_N)
        flat[counted_N] = torch.where(replaced_N, other_N, shown_N)
        tokens = sum(len(example.ids) for example in examples)
        return TokenBatch(flat.view(-1, width), None, counted_N, wanted_N, tokens)


def chosen_tokens(words: Ids, share: float, random: Random) -> npt.NDArray[np.int64]:
    """The places of about this share of the tokens (one at least), whole words only; marks have the number -1."""
    words_T = np.asarray(words)
    numbers, sizes = np.unique(words_T[words_T >= 0], return_counts=True)
    if not len(numbers):
        return np.zeros(0, dtype=np.int64)
    wanted = max(1, round(share * int(sizes.sum())))
    order = random.permutation(len(numbers))
    before = np.cumsum(sizes[order]) - sizes[order]
    taken = numbers[order[before < wanted]]
    places: npt.NDArray[np.int64] = np.flatnonzero(np.isin(words_T, taken))
    return places


def hidden_sizes(length: int, share: float, mean: float) -> tuple[int, int]:
    """How many of so many tokens are hidden, and in how many spans: the same for all texts of a length."""
    hidden = min(max(round(length * share), 1), max(1, length - 1))
    spans = max(1, round(hidden / mean))
    return hidden, min(spans, hidden, max(1, length - hidden))


def corrupted(
    ids: Ids, random: Random, sentinels: Ids, share: float, mean: float
) -> tuple[list[int], list[int]]:
    """A text with gaps, and the gaps one after another, each after its sentinel. No marks of the end."""
    hidden, spans = hidden_sizes(len(ids), share, mean)
    if len(ids) < 2:  # nothing would be left to guess it from
        return [sentinels[0]] * len(ids), [*([sentinels[0]] * len(ids)), *ids]
    kept_sizes, hidden_lengths = (_split(total, spans, random) for total in (len(ids) - hidden, hidden))
    source: list[int] = []
    target: list[int] = []
    place = 0
    for number, (kept, gone) in enumerate(zip(kept_sizes, hidden_lengths, strict=True)):
        source += [*ids[place : place + kept], sentinels[number]]
        target += [sentinels[number], *ids[place + kept : place + kept + gone]]
        place += kept + gone
    return source, target


def _split(total: int, pieces: int, random: Random) -> list[int]:
    """`total` in so many pieces of at least 1, all ways equally likely."""
    cuts = np.sort(random.permutation(total - 1)[: pieces - 1]) + 1
    return [int(size) for size in np.diff([0, *cuts, total])]


def filled(source: Ids, target: Ids, sentinels: Ids) -> list[int]:
    """The text again: each sentinel of the source gives way to what stands after it in the target."""
    gaps: dict[int, list[int]] = {}
    current: list[int] = []
    for number in target:
        if number in sentinels:
            current = gaps.setdefault(number, [])
        else:
            current.append(number)
    return [
        token for number in source for token in (gaps.get(number, []) if number in sentinels else [number])
    ]


@dataclass(frozen=True, slots=True)
class Gaps:
    """How spans are hidden. sentinels: as many as the longest part has gaps."""

    pad_id: int
    bos_id: int
    eos_id: int
    sentinels: tuple[int, ...]
    share: float
    mean: float

    @classmethod
    def of(cls, tokenizer: Tokenizer, block: int, share: float, mean: float) -> Gaps:
        """For the vocabulary of a tokenizer that has the sentinels."""
        names = tuple(tokenizer.id_of(name) for name in sentinels_for(block, share, mean))
        return cls(tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id, names, share, mean)

    def parts(self, documents: Sequence[Ids], block: int) -> list[TokenExample]:
        """Documents in consecutive parts from which no source is longer than `block`."""
        found = []
        for ids in documents:
            for start in range(0, len(ids), block - 1):
                part = list(ids[start : start + block - 1])
                hidden, spans = hidden_sizes(len(part), self.share, self.mean)
                sizes = (len(part) - hidden + spans + 1, hidden + spans + 1)
                found.append(TokenExample(part, sizes=sizes))
        return found

    def __call__(self, examples: Sequence[TokenExample], random: Random) -> PairBatch:
        """A batch of texts with gaps, and what goes into these."""
        pairs = []
        for example in examples:
            source, target = corrupted(example.ids, random, self.sentinels, self.share, self.mean)
            pairs.append(PairExample([*source, self.eos_id], target))
        return pair_batch(pairs, pad_id=self.pad_id, bos_id=self.bos_id, eos_id=self.eos_id)


def sentinels_for(block: int, share: float, mean: float) -> tuple[str, ...]:
    """The special tokens that parts of this length may need."""
    return tuple(sentinel(number) for number in range(hidden_sizes(block, share, mean)[1] + 1))
