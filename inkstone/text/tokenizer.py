"""Text to numbers and back, through the `tokenizers` library, saved as one `tokenizer.json`.

Four kinds, all trained here from plain text:

  bpe        byte-pair encoding (Sennrich et al., 2016) in the manner of SentencePiece: a space becomes ▁,
  so
             text is found again with its spaces; characters outside the alphabet are spelled in bytes
             (<0xE7>…)
  unigram    the unigram language model (Kudo, 2018), same spaces, same bytes
  wordpiece  as BERT: words are cut at spaces, punctuation and every Chinese character. Lossy: runs of
  spaces
             become one, spaces about punctuation are guessed, an unknown word becomes <unk>. For
             compatibility
  byte-bpe   as GPT-2: byte-pair encoding over bytes, exact for every text

What comes back (`decode(encode(x)) == x`): byte-bpe always; bpe and unigram always but for U+2581 "▁"
itself, which comes back as the space it stands for; wordpiece for words it knows, one space apart. No
kind normalises: that is `text.normalize`, done once before training and before use, where it can be seen.

Chinese has no spaces, so before merging, text is cut where the script changes, at punctuation and around
each digit; a merge never crosses such a border ("的。" is no word). The alphabet is chosen here by
frequency with ties broken by code point, because the library's own choice depends on a random hash: the
same texts give the same file (unigram excepted: there the library's estimates move in the second decimal
from run to run).

Special tokens live at fixed places: <pad> 0, <unk> 1, <s> 2, </s> 3, then those asked for, in their order.
Somebody who types "</s>" gets the letters "<", "/", "s", ">" and never number 3 (`encode_special_tokens`,
which the file does not keep and `load` sets again); a special token whose name could grow out of ordinary
text is refused.

The library uses threads. A process that forks after `encode_batch` sees its warning about
TOKENIZERS_PARALLELISM; set that variable to "false" in the parent to choose silence and one thread.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from inkstone.ground.errors import ConfigError, DataError, not_known
from inkstone.ground.files import write_text
from inkstone.text.decoding import Decoding, StreamDecoder, join_chinese

PAD, UNK, BOS, EOS = "<pad>", "<unk>", "<s>", "</s>"
MARKS = (PAD, UNK, BOS, EOS)
Kind = Literal["bpe", "unigram", "wordpiece", "byte-bpe"]
KINDS: tuple[str, ...] = get_args(Kind)
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
SPACE = "▁"

# Where bpe and unigram may never merge across. Reading order matters: the first alternative that fits wins.
_LETTER = r"[[\p{L}\p{M}]&&[^\p{Han}\p{Hiragana}\p{Katakana}]]"
_BORDERS = "|".join(
    [
        rf"{SPACE}+(?={SPACE})",  # all but the last of several spaces
        rf"{SPACE}?\p{{N}}",  # each digit alone, so that every number can be copied
        rf"{SPACE}?\p{{Han}}+",
        rf"{SPACE}?[\p{{Hiragana}}\p{{Katakana}}ー]+",
        rf"{SPACE}?{_LETTER}+",
        rf"['’]{_LETTER}+",  # 's, n't
        rf"{SPACE}?[^\s{SPACE}\p{{L}}\p{{M}}\p{{N}}]+",  # punctuation, emoji
        SPACE,
        r"\s+",
    ]
)
# Of the free places; the rest is for merges. Measured at 8,000 places on 78,000 zh-en pairs (3,843 characters): 0.6
# gives 4.75 million tokens, 0.4 4.62, 0.25 4.47 with 0.5 % of them bytes, 0.15 4.44 with 2 %.
_ALPHABET_SHARE = 0.3
_WORDPIECE_SHARE = 0.6  # here a character outside the alphabet is unknown, not spelled


class Tokenizer:
    """A trained tokenizer. Make one with `train` or `load`.

    >>> tokenizer = Tokenizer.train(["the cat sat", "the mat"], vocab_size=300)
    >>> tokenizer.decode(tokenizer.encode("the 猫 sat"))
    'the 猫 sat'
    """

    def __init__(self, inner: tokenizers.Tokenizer, kind: Kind) -> None:
        inner.encode_special_tokens = True
        inner.no_padding()
        inner.no_truncation()
        self.inner = inner
        self.kind: Kind = kind
        self.vocab_size: int = inner.get_vocab_size(with_added_tokens=True)
        self.pad_id, self.unk_id, self.bos_id, self.eos_id = range(4)
        added = inner.get_added_tokens_decoder()
        self.specials: tuple[str, ...] = tuple(added[number].content for number in sorted(added))
        self._decoding = Decoding.of(inner, added, joins_chinese=kind == "wordpiece")

    @classmethod
    def train(
        cls,
        texts: Iterable[str],
        *,
        kind: Kind = "bpe",
        vocab_size: int = 8000,
        specials: Sequence[str] = (),
        alphabet_share: float | None = None,
    ) -> Tokenizer:
        """Learn a vocabulary of at most `vocab_size` tokens; short texts give fewer.

        specials: further named tokens ("<2en>"), given numbers 4, 5, … in this order. alphabet_share: of the places in
        the vocabulary, for single characters; None is what suits running text. Poems of many characters want more.
        Raises ConfigError for a size or a name that cannot be, DataError where there is no text at all.
        """
        if kind not in KINDS:
            raise ConfigError(not_known("kind", kind, KINDS))
        texts = list(texts)
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(text)
        if not any(not character.isspace() for character in counts):
            raise DataError(
                "there is no text to train a tokenizer on: every line is empty. Give other files."
            )
        names = [*MARKS, *specials]
        _check_specials(names, kind)
        smallest = len(names) + (0 if kind == "wordpiece" else len(BYTES)) + 1
        if vocab_size < smallest:
            raise ConfigError(
                f"vocab_size={vocab_size} is too small for kind={kind}. Give at least {smallest}."
            )
        _check_share(alphabet_share, kind)
        return cls(_TRAINERS[kind](texts, counts, vocab_size, names, alphabet_share), kind)

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Open a `tokenizer.json` (or a folder that holds one). Raises DataError when it is none of ours."""
        path = Path(path)
        if path.is_dir():
            path = path / "tokenizer.json"
        if not path.is_file():
            raise DataError(f"{path} does not exist. Give the path of a tokenizer.json file.")
        try:
            description = json.loads(path.read_bytes())
            inner = tokenizers.Tokenizer.from_str(json.dumps(description, ensure_ascii=False))
        except Exception as error:  # the library knows no finer kind
            raise DataError(
                f"{path} is not a tokenizer.json file, or it is damaged ({error}). Train or copy it again."
            ) from error
        wrong = [
            f"{mark} is {inner.token_to_id(mark)}"
            for at, mark in enumerate(MARKS)
            if inner.token_to_id(mark) != at
        ]
        if wrong:
            raise DataError(
                f"{path} is a tokenizer of another make: {', '.join(wrong)}. "
                f"Valid: {PAD} 0, {UNK} 1, {BOS} 2, {EOS} 3."
            )
        return cls(inner, _kind_of(description, path))

    def save(self, path: str | Path) -> None:
        """Write `tokenizer.json`, whole or not at all."""
        write_text(path, self.inner.to_str(pretty=True) + "\n")

    def encode(self, text: str) -> list[int]:
        """The numbers of the tokens of `text`, without <s> and </s>."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The same for many texts, in threads."""
        try:
            encodings = self.inner.encode_batch_fast(list(texts), add_special_tokens=False)
        except TypeError as error:
            for text in texts:
                if not isinstance(text, str):
                    raise
                refuse_surrogates(text)
            raise error
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Sequence[int], keep_specials: bool = False) -> str:
        """The text of the numbers; special tokens are left out unless asked for."""
        return self.decode_batch([ids], keep_specials)[0]

    def decode_batch(self, batch: Sequence[Sequence[int]], keep_specials: bool = False) -> list[str]:
        """The same for many. Raises ConfigError for a number this vocabulary does not have."""
        for ids in batch:
            if len(ids) and not 0 <= max(ids) < self.vocab_size:
                raise ConfigError(
                    f"token {max(ids)} is not in this vocabulary of {self.vocab_size}. "
                    "The model and the tokenizer do not belong together."
                )
        texts: list[str] = self.inner.decode_batch(
            [list(ids) for ids in batch], skip_special_tokens=not keep_specials
        )
        return [join_chinese(text) for text in texts] if self.kind == "wordpiece" else texts

    def stream(self, skip_special_tokens: bool = True) -> StreamDecoder:
        """A decoder for ids that come one after another; never half a character."""
        return self._decoding.stream(skip_special_tokens)

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

    def pieces(self, text: str) -> list[str]:
        """The tokens of `text` as the vocabulary writes them."""
        return [self.token_of(number) for number in self.encode(text)]


def _check_share(share: float | None, kind: Kind) -> None:
    if share is None:
        return
    if kind == "byte-bpe":
        raise ConfigError(f"alphabet_share={share}: byte-bpe has bytes for an alphabet. Leave it out.")
    if not 0 < share <= 1:
        raise ConfigError(f"alphabet_share={share} must be above 0 and at most 1.")


def _check_specials(names: Sequence[str], kind: Kind) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ConfigError(f"special tokens are named twice: {', '.join(repeated)}. Give each once.")
    for name in names:
        refuse_surrogates(name)
        if not name or name in BYTES or len(_cut(kind).pre_tokenize_str(name)) < 2:
            raise ConfigError(
                f'"{name}" cannot be a special token: ordinary text could become it. '
                f"Give a name in marks, like <{name or 'x'}>."
            )


def refuse_surrogates(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise DataError(
            f"the text is not valid Unicode: half of a surrogate pair at character {error.start}. "
            "Clean it with inkstone.text.normalize first."
        ) from error


def _cut(kind: Kind) -> Any:
    """How text is cut into words before the model sees it; no token crosses a cut."""
    if kind == "byte-bpe":
        return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if kind == "wordpiece":
        return pre_tokenizers.BertPreTokenizer()
    return pre_tokenizers.Split(tokenizers.Regex(_BORDERS), "isolated")


def _with_spaces(inner: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """Spaces as ▁, and one in front so that a word is the same first or later; decoding takes it off."""
    inner.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    inner.pre_tokenizer = _cut("bpe")
    inner.decoder = decoders.Sequence(
        [
            decoders.Replace(SPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1, right=0),
        ]
    )
    return inner


def _alphabet(
    counts: Counter[str],
    free: int,
    places: Callable[[str], int] = lambda _: 1,
    share: float = _ALPHABET_SHARE,
) -> list[str]:
    """The most frequent characters, ties by code point; the rest will be spelled in bytes (or unknown).

    places: how many of the `free` places in the vocabulary a character takes.
    """
    counts = Counter({c: n for c, n in counts.items() if c != " " and not "\ud800" <= c <= "\udfff"})
    counts[SPACE] = 1 << 60
    budget, alphabet = max(1, int(free * share)), []
    for character in sorted(counts, key=lambda character: (-counts[character], character)):
        budget -= places(character)
        if budget < 0:
            break
        alphabet.append(character)
    return sorted(alphabet)


def _train_bpe(
    texts: list[str], counts: Counter[str], size: int, names: list[str], share: float | None
) -> tokenizers.Tokenizer:
    alphabet = _alphabet(counts, size - len(names) - len(BYTES), share=share or _ALPHABET_SHARE)
    inner = _with_spaces(tokenizers.Tokenizer(models.BPE()))
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[*names, *BYTES],  # the bytes only to give them numbers
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    description = json.loads(inner.to_str())
    description["model"].update(byte_fallback=True, unk_token=UNK, fuse_unk=False)
    return _named(description, names)


def _train_unigram(
    texts: list[str], counts: Counter[str], size: int, names: list[str], share: float | None
) -> tokenizers.Tokenizer:
    from inkstone.text.unigram import learn_pieces

    free = size - len(names) - len(BYTES)
    alphabet = _alphabet(counts, free, share=share or _ALPHABET_SHARE)
    inner = _with_spaces(tokenizers.Tokenizer(models.Unigram()))
    words: Counter[str] = Counter()
    for text in texts:
        pieces = inner.pre_tokenizer.pre_tokenize_str(inner.normalizer.normalize_str(text))
        words.update([piece for piece, _ in pieces])
    learned = learn_pieces(words, alphabet, free)
    floor = learned[-1][1] - 10.0
    vocab = [(name, 0.0) for name in names] + [(byte, floor) for byte in BYTES] + learned
    description = json.loads(inner.to_str())
    description["model"].update(vocab=vocab, byte_fallback=True, unk_id=names.index(UNK))
    return _named(description, names)


def _train_wordpiece(
    texts: list[str], counts: Counter[str], size: int, names: list[str], share: float | None
) -> tokenizers.Tokenizer:
    alphabet = _alphabet(
        counts, size - len(names), lambda character: 1 + _may_continue(character), share or _WORDPIECE_SHARE
    )
    inside = [f"##{character}" for character in alphabet if _may_continue(character)]
    inner = tokenizers.Tokenizer(models.WordPiece(unk_token=UNK))
    inner.normalizer = normalizers.BertNormalizer(
        clean_text=False, handle_chinese_chars=True, strip_accents=False, lowercase=False
    )
    inner.pre_tokenizer = _cut("wordpiece")
    inner.decoder = decoders.WordPiece(prefix="##", cleanup=True)
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        special_tokens=[*names, *inside],  # the inner letters only to give them numbers
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    return _named(json.loads(inner.to_str()), names)


def _may_continue(character: str) -> bool:
    """Whether BERT's cutting can leave this character inside a word: no punctuation, no Chinese."""
    punctuation = unicodedata.category(character).startswith("P") or character in "$+<=>^`|~"
    chinese = "\u3400" <= character <= "\u9fff" or character >= "\U00020000"
    return not (punctuation or chinese or character.isspace())


def _train_byte_bpe(
    texts: list[str], counts: Counter[str], size: int, names: list[str], _: float | None
) -> tokenizers.Tokenizer:
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = _cut("byte-bpe")
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=names,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator(texts, trainer)
    return _named(json.loads(inner.to_str()), names)


_TRAINERS = {
    "bpe": _train_bpe,
    "unigram": _train_unigram,
    "wordpiece": _train_wordpiece,
    "byte-bpe": _train_byte_bpe,
}


def _named(description: dict[str, Any], names: list[str]) -> tokenizers.Tokenizer:
    """The tokenizer with exactly `names` as its special tokens, at numbers 0, 1, 2, …"""
    description["added_tokens"] = [
        {
            "id": number,
            "content": name,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for number, name in enumerate(names)
    ]
    inner = tokenizers.Tokenizer.from_str(json.dumps(description, ensure_ascii=False))
    numbers = [inner.token_to_id(name) for name in names]
    assert numbers == list(range(len(names))), (numbers, names)
    return inner


def _kind_of(description: dict[str, Any], path: Path) -> Kind:
    """The kind, read off the model and the cutter: the file needs no companion."""
    model, cutter = description["model"]["type"], (description.get("pre_tokenizer") or {}).get("type")
    if model == "BPE":
        return "byte-bpe" if cutter == "ByteLevel" else "bpe"
    if model in ("Unigram", "WordPiece"):
        return "unigram" if model == "Unigram" else "wordpiece"
    raise DataError(f"{path}: " + not_known("tokenizer model", model, ["BPE", "Unigram", "WordPiece"]))
