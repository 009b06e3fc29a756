"""What a classifier reads of a text: the tokens of one of our tokenizers, or of another's, between the marks it needs.

    ours        <s> text
    BERT's      [CLS] text [SEP]

So an empty text has a token too. A folder whose tokenizer came with a foreign checkpoint has a tokenizer_config.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inkstone.text.foreign_tokenizer import ForeignTokenizer
from inkstone.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class TextReader:
    """A tokenizer, and the marks before and after every text."""

    tokenizer: Tokenizer | ForeignTokenizer

    @classmethod
    def load(cls, folder: Path) -> TextReader:
        """The reader of a model's folder. Raises DataError when its tokenizer is none."""
        if (folder / "tokenizer_config.json").exists():
            return cls(ForeignTokenizer.load(folder))
        return cls(Tokenizer.load(folder / "tokenizer.json"))

    def save(self, folder: Path) -> None:
        """Write it into a model's folder."""
        if isinstance(self.tokenizer, Tokenizer):
            self.tokenizer.save(folder / "tokenizer.json")
        else:
            self.tokenizer.save(folder)

    @property
    def vocab_size(self) -> int:
        """The highest number of a token plus one."""
        return self.tokenizer.vocab_size

    @property
    def before(self) -> tuple[int, ...]:
        """The marks before a text."""
        return (
            (self.tokenizer.bos_id,) if isinstance(self.tokenizer, Tokenizer) else self.tokenizer.marks.before
        )

    @property
    def after(self) -> tuple[int, ...]:
        """The marks after a text."""
        return () if isinstance(self.tokenizer, Tokenizer) else self.tokenizer.marks.after

    def bare(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text, without marks."""
        if isinstance(self.tokenizer, Tokenizer):
            return self.tokenizer.encode_batch(texts)
        return self.tokenizer.encode_batch(texts, add_special_tokens=False)

    def marked(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text, of whatever length, between its marks."""
        return [[*self.before, *ids, *self.after] for ids in self.bare(texts)]

    def cut(self, texts: Sequence[str], longest: int) -> tuple[list[list[int]], int]:
        """The tokens of each text between its marks, at most `longest`; and how many texts had more."""
        rows = self.bare(texts)
        room = longest - len(self.before) - len(self.after)
        return [[*self.before, *ids[:room], *self.after] for ids in rows], sum(
            len(ids) > room for ids in rows
        )
