"""Words cut in other ways than the usual one, by byte-pair encoding that leaves out merges at random.

BPE-dropout (Provilkov et al., 2020): a word is merged from its characters as always, but at each step every merge that
could be made is left out with a certain probability, and the best of the others is made. Where none is left, the word
stays as it is. A model that sees a word in many cuts learns what it is made of, and does not come to rely on one cut;
on small corpora this is worth a point of BLEU and more. Only training texts are cut in this way.

    share 0     un|believ|able      always, as the tokenizer does
    share 0.1   un|believ|able   un|bel|iev|able   unbelievable in letters, rarely   ...
    share 1     u|n|b|e|l|i|e|v|a|b|l|e
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from random import Random

from inkstone.ground.errors import ConfigError, not_known
from inkstone.text.tokenizer import Tokenizer

MERGED = ("bpe", "byte-bpe")


class BpeDropout:
    """Cuts the words of a tokenizer otherwise. Raises ConfigError for a kind of tokenizer that has no merges."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        if tokenizer.kind not in MERGED:
            raise ConfigError(not_known("tokenizer for bpe_dropout", tokenizer.kind, MERGED))
        self.inner = tokenizer.inner
        model = json.loads(tokenizer.inner.to_str())["model"]
        self.vocabulary: dict[str, int] = model["vocab"]
        self.unknown = tokenizer.unk_id
        numbered = self.vocabulary
        self.merges: dict[tuple[int, int], tuple[int, int]] = {  # pair -> (rank, what it becomes)
            (numbered[one], numbered[other]): (rank, numbered[one + other])
            for rank, (one, other) in enumerate(model["merges"])
        }

    def words(self, text: str) -> list[str]:
        """What the text is cut into before anything is merged, in the tokenizer's own spelling."""
        normal = self.inner.normalizer.normalize_str(text) if self.inner.normalizer else text
        return [word for word, _ in self.inner.pre_tokenizer.pre_tokenize_str(normal)]

    def cut(self, word: str, share: float, random: Random) -> list[int]:
        """The numbers of the tokens that one of `words` becomes, when this share of possible merges is left out."""
        ids = [number for character in word for number in self._letters(character)]
        while True:
            best, place = None, 0
            for at in range(len(ids) - 1):
                merge = self.merges.get((ids[at], ids[at + 1]))
                if merge and (best is None or merge < best) and random.random() >= share:
                    best, place = merge, at
            if best is None:
                return ids
            ids[place : place + 2] = [best[1]]

    def _letters(self, character: str) -> Iterable[int]:
        """A character's own token, or, outside the alphabet, its bytes."""
        number = self.vocabulary.get(character)
        if number is not None:
            return (number,)
        return [self.vocabulary.get(f"<0x{byte:02X}>", self.unknown) for byte in character.encode()]
