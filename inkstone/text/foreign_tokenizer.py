"""The tokenizer of somebody else's checkpoint: BERT's, GPT-2's, Llama's, T5's, …; read from a folder, written back.

Why not the house's own `Tokenizer`? That one promises fixed places (<pad> 0, <unk> 1, <s> 2, </s> 3), so everything
trained here may count on them; a foreign one promises nothing: Qwen has no <s>, BERT encloses a text in [CLS] and [SEP],
Marian cuts the source with one model and the target with another. Making the four numbers optional in `Tokenizer` would
put a question after every use of them. So there are two records with the same verbs (`encode_batch`, `decode`, `stream`,
`id_of`, `token_of`, `vocab_size`, `bos_id`, `eos_id`, `pad_id`); here the numbers may be None. A tokenizer.json made here
opens with both.

What a person types is text. "</s>" in a text is spelled in letters, and never becomes the token (`parse_special=True`
asks for that, for instance to write "[MASK]"). `transformers` does the opposite by default; on texts without such names
the two agree id for id. Which names count: special tokens as the files declare them. Where the library would still
find one (the Unigram vocabulary of T5 holds "</s>" as a piece), the text is cut inside of the name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import tokenizers

from inkstone.ground.errors import ConfigError, DataError, not_known
from inkstone.ground.files import whole_file, write_json, write_text
from inkstone.text.decoding import Decoding, StreamDecoder
from inkstone.text.foreign_files import NAMES, Parts, read_parts
from inkstone.text.foreign_makes import marks_template
from inkstone.text.tokenizer import Tokenizer, refuse_surrogates

Offset = tuple[int, int]
_KEPT_SETTINGS = (
    "model_max_length",
    "padding_side",
    "truncation_side",
    "clean_up_tokenization_spaces",
    "do_lower_case",
    "additional_special_tokens",
    "extra_special_tokens",
)
_MARIAN_SETTINGS = ("source_lang", "target_lang", "separate_vocabs")


@dataclass(frozen=True, slots=True)
class Marks:
    """What is added around a text, and around a pair: numbers of tokens, and the type of every part of a pair.

    single      before  text  after
    pair        before  text  between  second text  after_pair
    types       one per mark; of the texts 0 and `second_type` (BERT tells the two apart by it)
    """

    before: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    between: tuple[int, ...] = ()
    after_pair: tuple[int, ...] = ()
    second_type: int = 0


@dataclass(frozen=True, slots=True)
class Cut:
    """A text as token ids; offsets are the places (from, to) in the text, in characters."""

    ids: list[int]
    offsets: list[Offset]


@dataclass(frozen=True, slots=True)
class ForeignTokenizer:
    """A tokenizer read from a Hugging Face folder. Make one with `load`, or with `of` from one trained here.

    names: "bos_token" -> "<s>" and so on. special_ids: all special tokens, named or not.
    vocab_size: the highest number plus one. target: Marian's tokenizer for the target language (else itself).
    """

    inner: tokenizers.Tokenizer = field(repr=False)
    names: Mapping[str, str]
    marks: Marks
    vocab_size: int
    special_ids: frozenset[int] = field(repr=False)
    decoding: Decoding = field(repr=False)
    config: Mapping[str, Any] = field(repr=False)
    chat_templates: Mapping[str, str] = field(repr=False)
    originals: Mapping[str, bytes] = field(repr=False)
    pieces_of: tokenizers.Tokenizer | None = field(default=None, repr=False)
    target_side: ForeignTokenizer | None = field(default=None, repr=False)

    @classmethod
    def load(cls, folder: str | Path) -> ForeignTokenizer:
        """Open the tokenizer of a Hugging Face folder. Raises DataError with every problem of its files."""
        return cls._made(read_parts(folder))

    @classmethod
    def of(
        cls, tokenizer: Tokenizer, before: Sequence[str] = (), after: Sequence[str] = ()
    ) -> ForeignTokenizer:
        """One of our own, to be saved for `transformers`: marks named, and these added around a text."""
        inner = tokenizers.Tokenizer.from_str(tokenizer.inner.to_str())
        if before or after:
            around = ([(mark, tokenizer.id_of(mark)) for mark in marks] for marks in (before, after))
            first, last = around
            inner.post_processor = marks_template(first, last, last, 0)
        names = dict(
            zip(("pad_token", "unk_token", "bos_token", "eos_token"), tokenizer.specials[:4], strict=True)
        )
        return cls._made(Parts(inner, names, {"additional_special_tokens": list(tokenizer.specials[4:])}, {}))

    def taught_to_chat(self, template: str, marks: Sequence[str], end: str) -> ForeignTokenizer:
        """The same with a chat template, these special tokens behind all others, and `end` for its end mark."""
        inner = tokenizers.Tokenizer.from_str(self.inner.to_str())
        inner.add_special_tokens(
            [tokenizers.AddedToken(mark, special=True, normalized=False) for mark in marks]
        )
        names = {**self.names, "eos_token": end}
        return ForeignTokenizer._made(
            Parts(inner, names, dict(self.config), {"default": template}, originals=self.originals)
        )

    @classmethod
    def _made(cls, parts: Parts) -> ForeignTokenizer:
        inner = parts.inner
        added = inner.get_added_tokens_decoder()
        special = frozenset(number for number, token in added.items() if token.special)
        is_bpe = type(inner.model).__name__ == "BPE"
        cleans = bool(parts.config.get("clean_up_tokenization_spaces", False)) and not is_bpe
        return cls(
            inner=inner,
            names=parts.names,
            marks=_marks(inner),
            vocab_size=max(inner.get_vocab(with_added_tokens=True).values()) + 1,
            special_ids=special,
            decoding=Decoding.of(inner, special, clean_up=cleans),
            config=parts.config,
            chat_templates=parts.chat_templates,
            originals=parts.originals,
            pieces_of=parts.pieces,
            target_side=None if parts.target is None else cls._made(parts.target),
        )

    # Names ---------------------------------------------------------------------------------------------------------

    def named_id(self, name: str) -> int | None:
        """The number of a named token ("eos_token"), or None where the tokenizer has none."""
        token = self.names.get(name)
        return None if token is None else self.inner.token_to_id(token)

    @property
    def named_ids(self) -> dict[str, int]:
        """Name -> number, of the named tokens that are there."""
        found = {name: self.named_id(name) for name in self.names}
        return {name: number for name, number in found.items() if number is not None}

    @property
    def bos_id(self) -> int | None:
        return self.named_id("bos_token")

    @property
    def eos_id(self) -> int | None:
        return self.named_id("eos_token")

    @property
    def pad_id(self) -> int | None:
        return self.named_id("pad_token")

    @property
    def unk_id(self) -> int | None:
        return self.named_id("unk_token")

    @property
    def cls_id(self) -> int | None:
        return self.named_id("cls_token")

    @property
    def sep_id(self) -> int | None:
        return self.named_id("sep_token")

    @property
    def mask_id(self) -> int | None:
        return self.named_id("mask_token")

    @property
    def specials(self) -> tuple[str, ...]:
        """All special tokens, by number."""
        return tuple(self.token_of(number) for number in sorted(self.special_ids))

    @property
    def target(self) -> ForeignTokenizer:
        """The tokenizer for texts of the target side: Marian has one of its own."""
        return self if self.target_side is None else self.target_side

    def id_of(self, token: str) -> int:
        """The number of a token. Raises ConfigError when there is no such token."""
        number: int | None = self.inner.token_to_id(token)
        if number is None:
            raise ConfigError(not_known("token", token, self.specials))
        return number

    def token_of(self, number: int) -> str:
        """The token of a number, as the vocabulary writes it. Raises ConfigError when there is none."""
        token: str | None = self.inner.id_to_token(number)
        if token is None:
            raise ConfigError(f"token number {number} is not known. Valid: 0 to {self.vocab_size - 1}.")
        return token

    # Text to ids ---------------------------------------------------------------------------------------------------

    def encode(
        self,
        text: str,
        pair: str | None = None,
        add_special_tokens: bool = True,
        parse_special: bool = False,
    ) -> list[int]:
        """The ids of a text, or of a pair of texts, with the marks this tokenizer puts around them.

        parse_special: the name of a special token in the text becomes that token. Off for what people type.
        Raises DataError for a text that is not valid Unicode.
        """
        pairs = None if pair is None else [pair]
        return self.encode_batch([text], pairs, add_special_tokens, parse_special)[0]

    def encode_batch(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        add_special_tokens: bool = True,
        parse_special: bool = False,
    ) -> list[list[int]]:
        """The same for many, in threads."""
        firsts = self._plain(texts, parse_special)
        marks = self.marks if add_special_tokens else Marks()
        if pairs is None:
            return [[*marks.before, *ids, *marks.after] for ids in firsts]
        seconds = self._plain(pairs, parse_special)
        return [
            [*marks.before, *first, *marks.between, *second, *marks.after_pair]
            for first, second in zip(firsts, seconds, strict=True)
        ]

    def pair_types(self, text: str, pair: str) -> list[int]:
        """The token types ("segments") of `encode(text, pair)`, for encoders in the manner of BERT."""
        marks = self.marks
        first, second = self._plain([text, pair], parse_special=False)
        return [0] * (len(marks.before) + len(first) + len(marks.between)) + [marks.second_type] * (
            len(second) + len(marks.after_pair)
        )

    def cut(self, text: str, breaks: Sequence[int] = (), parse_special: bool = True) -> Cut:
        """Ids and their places in the text, no marks; no token goes over a break (a place in the text)."""
        if self.pieces_of is not None:
            raise ConfigError(
                "a Marian tokenizer gives no places in the text: its vocabulary is not its cutter's."
            )
        refuse_surrogates(text)
        if not parse_special:
            return self._spelled(text)
        return self._cut_at(text, breaks)

    def _plain(self, texts: Sequence[str], parse_special: bool) -> list[list[int]]:
        for text in texts:
            if not isinstance(text, str):
                raise TypeError(f"a text must be str, not {type(text).__name__}")
            refuse_surrogates(text)
        if self.pieces_of is not None:
            return [self._marian(text, parse_special) for text in texts]
        encodings = self.inner.encode_batch_fast(list(texts), add_special_tokens=False)
        batch: list[list[int]] = [encoding.ids for encoding in encodings]
        if not parse_special:
            control, unknown = self._control(), self.names.get("unk_token")
            batch = [
                self._spelled(text).ids
                if not control.isdisjoint(ids) or (unknown is not None and unknown in text)
                else ids
                for text, ids in zip(texts, batch, strict=True)
            ]
        return batch

    def _control(self) -> frozenset[int]:
        """Special tokens that no text may become. The unknown token is none, unless it is also another (GPT-2)."""
        others = {number for name, number in self.named_ids.items() if name != "unk_token"}
        unknown = self.unk_id
        return self.special_ids - ({unknown} if unknown is not None and unknown not in others else set())

    def _spelled(self, text: str) -> Cut:
        """The text in letters, where the library sees special tokens in it: cut inside of their names."""
        control = self._control()
        encoding = self.inner.encode(text, add_special_tokens=False)
        breaks = []
        for number, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            name = text[start:end].lstrip()
            if number in control or (number == self.unk_id and name.rstrip() == self.names["unk_token"]):
                breaks.append(end - len(name) + 1)
        cut = self._cut_at(text, breaks) if breaks else Cut(encoding.ids, encoding.offsets)
        left = control.intersection(cut.ids)
        if left:
            names = ", ".join(sorted(self.token_of(number) for number in left))
            raise DataError(f"this tokenizer cannot spell {names} in letters. Take it out of the text.")
        return cut

    def _cut_at(self, text: str, breaks: Sequence[int]) -> Cut:
        """Each stretch between breaks on its own; those after the first without a ▁ of their own in front."""
        places = [0, *sorted({place for place in breaks if 0 < place < len(text)}), len(text)]
        ids: list[int] = []
        offsets: list[Offset] = []
        anchor = self.inner.encode("\n", add_special_tokens=False).ids if len(places) > 2 else []
        for start, end in pairwise(places):
            stretch, shift, skip = text[start:end], start, 0
            encoding = self.inner.encode(stretch, add_special_tokens=False)
            if start and anchor:
                behind = self.inner.encode("\n" + stretch, add_special_tokens=False)
                if behind.ids[: len(anchor)] == anchor:
                    encoding, shift, skip = behind, start - 1, len(anchor)
            ids += encoding.ids[skip:]
            offsets += [(a + shift, b + shift) for a, b in encoding.offsets[skip:]]
        return Cut(ids, offsets)

    def _marian(self, text: str, parse_special: bool) -> list[int]:
        """Pieces by SentencePiece, numbers by vocab.json; ">>fr<<" in front asks for a language."""
        assert self.pieces_of is not None and self.unk_id is not None
        ids: list[int] = []
        if text.startswith(">>") and (end := text.find("<<")) != -1:
            ids.append(self._number(text[: end + 2]))
            text = text[end + 2 :]
        control = frozenset() if parse_special else self._control()
        for token in self.pieces_of.encode(text, add_special_tokens=False).tokens:
            number = self._number(token)
            ids.append(self.unk_id if number in control else number)
        return ids

    def _number(self, token: str) -> int:
        number: int | None = self.inner.token_to_id(token)
        assert self.unk_id is not None
        return self.unk_id if number is None else number

    # Ids to text ---------------------------------------------------------------------------------------------------

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of the ids. Raises ConfigError for a number this vocabulary does not have."""
        try:
            return self.decoding.whole(ids, skip_special_tokens)
        except KeyError as error:
            raise ConfigError(
                f"token {error.args[0]} is not in this vocabulary of {self.vocab_size}. "
                "The model and the tokenizer do not belong together."
            ) from None

    def decode_batch(self, batch: Sequence[Sequence[int]], skip_special_tokens: bool = True) -> list[str]:
        """The same for many."""
        return [self.decode(ids, skip_special_tokens) for ids in batch]

    def stream(self, skip_special_tokens: bool = True) -> StreamDecoder:
        """A decoder for ids as they come; never half a character."""
        return self.decoding.stream(skip_special_tokens)

    # To the disk ---------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> None:
        """Write what `transformers.AutoTokenizer` opens with equal ids, into a folder that exists.

        tokenizer.json with tokenizer_config.json and special_tokens_map.json, and the SentencePiece file it came from;
        for Marian its own files, since its two vocabularies do not fit into one tokenizer.json. Every file is written
        whole or not at all; write into a `whole_folder` to have that of all of them together.
        """
        folder = Path(folder)
        is_marian = self.pieces_of is not None
        for name, content in self.originals.items():
            with whole_file(folder / name) as out:
                out.write(content)
        if not is_marian:
            write_text(folder / "tokenizer.json", self.inner.to_str(pretty=True) + "\n")
        write_json(folder / "special_tokens_map.json", dict(self.names))
        write_json(folder / "tokenizer_config.json", self._saved_config(is_marian))

    def _saved_config(self, is_marian: bool) -> dict[str, Any]:
        kept = (*_KEPT_SETTINGS, *(_MARIAN_SETTINGS if is_marian else ()))
        config: dict[str, Any] = {key: self.config[key] for key in kept if key in self.config}
        config.setdefault("clean_up_tokenization_spaces", False)
        config.update({name: self.names.get(name) for name in NAMES})
        added = self.inner.get_added_tokens_decoder()
        config["added_tokens_decoder"] = {
            str(number): {
                "content": token.content,
                "lstrip": token.lstrip,
                "normalized": token.normalized,
                "rstrip": token.rstrip,
                "single_word": token.single_word,
                "special": token.special,
            }
            for number, token in sorted(added.items())
        }
        has_types = (
            bool(self.marks.second_type) and "cls_token" in self.names
        )  # a decoder has no use for them
        types = ["token_type_ids"] if has_types else []
        default = ["input_ids", *types, "attention_mask"]
        config["model_input_names"] = self.config.get("model_input_names", default)
        if list(self.chat_templates) == ["default"]:
            config["chat_template"] = self.chat_templates["default"]
        elif self.chat_templates:
            config["chat_template"] = [
                {"name": name, "template": template} for name, template in self.chat_templates.items()
            ]
        config["tokenizer_class"] = "MarianTokenizer" if is_marian else "PreTrainedTokenizerFast"
        return config


def vocabulary_problems(tokenizer: ForeignTokenizer | Tokenizer, vocab_size: int) -> list[str]:
    """Why a model of `vocab_size` rows cannot run with this tokenizer; empty where it can.

    More rows than tokens is how checkpoints are padded (Qwen2 has 151,936 for 151,665 tokens) and no problem.
    """
    problems: list[str] = []
    target = tokenizer.target if isinstance(tokenizer, ForeignTokenizer) else tokenizer
    sides = [("the tokenizer", tokenizer)] + (
        [("its target side", target)] if target is not tokenizer else []
    )
    for what, side in sides:
        if side.vocab_size <= vocab_size:
            continue
        beyond = [side.inner.id_to_token(number) for number in range(vocab_size, side.vocab_size)]
        named = [repr(token) for token in beyond if token is not None]
        problems.append(
            f"{what} has {side.vocab_size} tokens but the model only {vocab_size} (vocab_size): "
            f"{len(named)} tokens have no row, {', '.join(named[:3])}{', …' if len(named) > 3 else ''}"
        )
    return problems


def _marks(inner: tokenizers.Tokenizer) -> Marks:
    """Read the marks off what the library puts around a text and a pair of texts.

    Raises DataError where they are no simple enclosure (a second text before the first, a text that occurs twice).
    """
    single = inner.encode("a", add_special_tokens=True)
    pair = inner.encode("a", "a", add_special_tokens=True)
    before, (_, after) = _enclosure(single, 1)
    pair_before, (between, after_pair) = _enclosure(pair, 2)
    second = [kind for kind, text in zip(pair.type_ids, pair.sequence_ids, strict=True) if text == 1]
    if pair_before != before:
        raise DataError("the tokenizer encloses a pair of texts otherwise than a text: not supported.")
    return Marks(before, after, between, after_pair, second[0] if second else 0)


def _enclosure(
    encoding: tokenizers.Encoding, texts: int
) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    """(marks before the first text, (marks behind the first, marks behind the second)) of an encoding."""
    groups: list[list[int]] = [[] for _ in range(texts + 1)]
    at = 0
    for number, text in zip(encoding.ids, encoding.sequence_ids, strict=True):
        if text is None:
            groups[at].append(number)
        elif text + 1 < at:
            raise DataError("the tokenizer puts the second text before the first: not supported.")
        else:
            at = text + 1
    behind = [tuple(group) for group in groups[1:]]
    return tuple(groups[0]), (behind[0], behind[-1])
