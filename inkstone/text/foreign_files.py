"""The tokenizer files of a Hugging Face folder, read into one pipeline of the `tokenizers` library.

A folder holds one of these, and the first that is there counts:

  tokenizer.json                         the whole pipeline, as it is
  vocab.json + merges.txt                byte-level BPE: GPT-2, RoBERTa, BART, Qwen2
  vocab.txt                              WordPiece: BERT
  source.spm + target.spm + vocab.json   Marian: SentencePiece cuts, vocab.json numbers
  spiece.model, tokenizer.model,         SentencePiece: T5, Llama and Mistral, XLM-RoBERTa
  sentencepiece.bpe.model

Only tokenizer.json says everything. For the others the make of the tokenizer decides what is around the vocabulary, and
`foreign_makes` is the whole knowledge of that: it is looked up by `tokenizer_class` in tokenizer_config.json, else by
`model_type` in config.json, never guessed. Further tokens and their names come from tokenizer_config.json,
special_tokens_map.json and added_tokens.json, as `transformers` reads them: a named token that the vocabulary does not
have gets the next free number.

Everything wrong is collected and raised once. Code that comes with a tokenizer (`auto_map`) is refused, not run.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from inkstone.ground.errors import DataError, not_known, raise_all
from inkstone.text.foreign_makes import (
    MAKE_OF_MODEL,
    MAKES,
    in_fairseq_order,
    marks_template,
    with_sentinels,
)
from inkstone.text.sentencepiece import (
    SentencePieceModel,
    inner_tokenizer,
    is_whole_charsmap,
    read_model,
)

Json = dict[str, Any]
NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
FILES = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "source.spm",
)
SENTENCEPIECE_FILES = ("spiece.model", "tokenizer.model", "sentencepiece.bpe.model")
_GENERIC = {"PreTrainedTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend", ""}
# The cuts of Qwen2: contractions, words with one sign before them, single digits, signs, line ends, spaces.
_QWEN2_CUTS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a folder's files come to.

    inner: the vocabulary, how text is cut (unless `pieces` does) and how ids become text again.
    pieces: Marian only; cuts text into pieces, which `inner` numbers.
    target: Marian only; the same for text in the target language.
    originals: files that a saved tokenizer keeps beside or instead of tokenizer.json.
    """

    inner: tokenizers.Tokenizer
    names: Mapping[str, str]
    config: Json
    chat_templates: Mapping[str, str]
    pieces: tokenizers.Tokenizer | None = None
    target: Parts | None = None
    originals: Mapping[str, bytes] = field(default_factory=dict)


def has_tokenizer(folder: str | Path) -> bool:
    """Whether a folder holds any of the files that a tokenizer is read from."""
    return any((Path(folder) / name).exists() for name in FILES)


def read_parts(folder: str | Path) -> Parts:
    """Read the tokenizer of a Hugging Face folder. Raises DataError with every problem of its files."""
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder. Give the folder of a Hugging Face checkpoint.")
    reader = _Reader(folder)
    parts = reader.parts()
    raise_all(DataError, f"the tokenizer in {folder} cannot be used", list(dict.fromkeys(reader.problems)))
    assert parts is not None
    return parts


class _Reader:
    """One folder's files, and what was wrong with them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.problems: list[str] = []
        self.config = self._json("tokenizer_config.json")
        self.make_name = self._make_name()
        self.make = MAKES.get(self.make_name)
        self.names, self.described = self._named()

    def parts(self) -> Parts | None:
        if "auto_map" in self.config:
            self.problems.append(
                "it brings its own code (auto_map in tokenizer_config.json), which is never run"
            )
        templates = self._chat_templates()
        parts = self._read()
        if self.problems or parts is None:
            return None
        return replace(parts, chat_templates=templates)

    def _read(self) -> Parts | None:
        there = {path.name for path in self.folder.iterdir()}
        model = next((name for name in SENTENCEPIECE_FILES if name in there), None)
        if "tokenizer.json" in there:
            return self._finished(self._tokenizer_json(), has_pipeline=True)
        if {"source.spm", "target.spm"} & there:
            return self._marian()
        if {"vocab.json", "merges.txt"} & there:
            return self._finished(self._byte_level()) if self._has_make("vocab.json") else None
        if "vocab.txt" in there:
            return self._finished(self._word_piece()) if self._has_make("vocab.txt") else None
        if model:
            return self._sentencepiece(model) if self._has_make(model) else None
        self.problems.append(
            "it holds no tokenizer. Valid: tokenizer.json; vocab.json with merges.txt; vocab.txt; "
            f"{', '.join(SENTENCEPIECE_FILES)}; source.spm, target.spm and vocab.json"
        )
        return None

    # Small files -----------------------------------------------------------------------------------------------

    def _json(self, name: str) -> Json:
        """A JSON object, empty where the file is not there."""
        path = self.folder / name
        if not path.is_file():
            return {}
        try:
            value = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            self.problems.append(f"{name} is not JSON ({error})")
            return {}
        if not isinstance(value, dict):
            self.problems.append(f"{name} holds no JSON object")
            return {}
        return value

    def _text(self, name: str) -> str | None:
        path = self.folder / name
        if not path.is_file():
            self.problems.append(f"{name} is missing")
            return None
        try:
            return path.read_text("utf-8")
        except UnicodeDecodeError as error:
            self.problems.append(f"{name} is not UTF-8 (byte {error.start})")
            return None

    def _make_name(self) -> str:
        declared = self.config.get("tokenizer_class") or ""
        name = declared if declared in _GENERIC else str(declared).removesuffix("Fast")
        if name in _GENERIC:
            return MAKE_OF_MODEL.get(str(self._json("config.json").get("model_type")), "")
        return name

    def _has_make(self, file: str) -> bool:
        if self.make is not None:
            return True
        if self.make_name:
            self.problems.append(not_known("tokenizer_class", self.make_name, MAKES))
        else:
            self.problems.append(
                f"{file} alone does not say how texts are cut and enclosed: give tokenizer_class in "
                f"tokenizer_config.json or model_type in config.json. Valid classes: {', '.join(MAKES)}"
            )
        return False

    def _named(self) -> tuple[dict[str, str], dict[str, AddedToken]]:
        """Names of special tokens ("bos_token" -> "<s>"), and the tokens described at length."""
        given = {name: self.config.get(name) for name in NAMES}
        mapped = self._json("special_tokens_map.json")
        for name in NAMES:
            if name in mapped and (given[name] is None or "added_tokens_decoder" not in self.config):
                given[name] = mapped[name]
        names: dict[str, str] = {}
        described: dict[str, AddedToken] = {}
        for name, value in given.items():
            token = self._added(value, name)
            if token is not None:
                names[name] = token.content
                if isinstance(value, dict):
                    described[token.content] = token
        return names, described

    def _added(self, value: object, where: str) -> AddedToken | None:
        """A special token from its text or from its description."""
        if value is None:
            return None
        if isinstance(value, str) and value:
            return AddedToken(value, normalized=False, special=True)
        if isinstance(value, dict) and isinstance(value.get("content"), str) and value["content"]:
            flags = {key: bool(value[key]) for key in ("lstrip", "rstrip", "single_word") if key in value}
            special = bool(value.get("special", True))
            return AddedToken(
                value["content"],
                normalized=bool(value.get("normalized", not special)),
                special=special,
                **flags,
            )
        self.problems.append(
            f"{where}={json.dumps(value)[:60]} is no token. Valid: a text, or an object with content"
        )
        return None

    def _chat_templates(self) -> dict[str, str]:
        """Name -> template: chat_template.jinja, then chat_template.json, then tokenizer_config.json."""
        found: object = self.config.get("chat_template")
        if (self.folder / "chat_template.json").is_file():
            found = self._json("chat_template.json").get("chat_template", found)
        templates: dict[str, str] = {}
        if isinstance(found, str):
            templates["default"] = found
        elif isinstance(found, list) and all(isinstance(one, dict) for one in found):
            templates = {str(one.get("name")): str(one.get("template")) for one in found}
        elif found is not None:
            self.problems.append("chat_template is neither a text nor a list of named templates")
        if (self.folder / "chat_template.jinja").is_file():
            text = self._text("chat_template.jinja")
            templates["default"] = text or ""
        return templates

    # Vocabularies ----------------------------------------------------------------------------------------------

    def _tokenizer_json(self) -> tokenizers.Tokenizer | None:
        description = self._json("tokenizer.json")
        unsafe = list(_unsafe_steps(description))
        self.problems += [f"tokenizer.json has {one}" for one in unsafe]
        if self.problems:
            return None
        try:
            inner = tokenizers.Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        except Exception as error:  # noqa: BLE001  the library knows no finer kind
            self.problems.append(f"tokenizer.json cannot be read ({error})")
            return None
        inner.no_padding()
        inner.no_truncation()
        return inner

    def _vocab_json(self, name: str = "vocab.json") -> dict[str, int]:
        if not (self.folder / name).is_file():
            self.problems.append(f"{name} is missing")
            return {}
        before = len(self.problems)
        vocab = self._json(name)
        wrong = [token for token, number in vocab.items() if type(number) is not int or number < 0]
        if wrong:
            self.problems.append(f"{name}: no number for {', '.join(map(repr, wrong[:5]))}")
        elif len(set(vocab.values())) < len(vocab):
            twice = [number for number, count in Counter(vocab.values()).items() if count > 1]
            self.problems.append(f"{name}: numbers occur twice: {', '.join(map(str, twice[:5]))}")
        elif not vocab and len(self.problems) == before:
            self.problems.append(f"{name} holds no tokens")
        return {} if wrong else vocab

    def _merges(self, vocab: Mapping[str, int]) -> list[tuple[str, str]]:
        merges: list[tuple[str, str]] = []
        wrong: list[str] = []
        for number, line in enumerate((self._text("merges.txt") or "").split("\n"), start=1):
            if not line or (number == 1 and line.startswith("#version")):
                continue
            pair = line.split(" ")
            if len(pair) != 2:
                wrong.append(f"line {number} is not two tokens: {line[:40]!r}")
            elif not (pair[0] in vocab and pair[1] in vocab and pair[0] + pair[1] in vocab):
                wrong.append(f"line {number} joins tokens that vocab.json does not have: {line[:40]!r}")
            else:
                merges.append((pair[0], pair[1]))
        self.problems += [f"merges.txt {one}" for one in wrong[:5]]
        if len(wrong) > 5:
            self.problems.append(f"merges.txt: {len(wrong) - 5} further lines of this kind")
        return merges

    def _byte_level(self) -> tokenizers.Tokenizer | None:
        vocab = self._vocab_json()
        merges = self._merges(vocab)
        if self.problems or self.make is None:
            return None
        inner = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=merges, fuse_unk=False))
        prefix = bool(self.config.get("add_prefix_space", False))
        cutter: pre_tokenizers.PreTokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
        if self.make.cuts == "qwen2":
            inner.normalizer = normalizers.NFC()
            cutter = pre_tokenizers.Sequence(
                [
                    pre_tokenizers.Split(Regex(_QWEN2_CUTS), "isolated"),
                    pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False),
                ]
            )
        inner.pre_tokenizer = cutter
        inner.decoder = decoders.ByteLevel()
        return inner

    def _word_piece(self) -> tokenizers.Tokenizer | None:
        text = self._text("vocab.txt")
        lines = (text or "").removesuffix("\n").split("\n")
        twice = [line for line, count in Counter(lines).items() if count > 1]
        unknown = self.names.get("unk_token", "[UNK]")
        if twice:
            self.problems.append(f"vocab.txt: tokens occur twice: {', '.join(map(repr, twice[:5]))}")
        if text is not None and unknown not in lines:
            self.problems.append(f"vocab.txt does not have the unknown token {unknown}")
        if self.config.get("do_basic_tokenize", True) is not True:
            self.problems.append("do_basic_tokenize=false is not supported. Valid: true")
        if self.problems:
            return None
        vocab = {line: number for number, line in enumerate(lines)}
        inner = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token=unknown))
        inner.normalizer = normalizers.BertNormalizer(
            clean_text=True,
            handle_chinese_chars=bool(self.config.get("tokenize_chinese_chars", True)),
            strip_accents=self.config.get("strip_accents"),
            lowercase=bool(self.config.get("do_lower_case", True)),
        )
        inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        inner.decoder = decoders.WordPiece(prefix="##")
        return inner

    def _spm(self, name: str) -> SentencePieceModel | None:
        try:
            return read_model(self.folder / name)
        except DataError as error:
            self.problems.append(str(error).removeprefix(f"{self.folder}/"))
            return None

    def _sentencepiece(self, name: str) -> Parts | None:
        model = self._spm(name)
        if model is None or self.make is None:
            return None
        if self.make.layout == "sentinels":
            model = with_sentinels(model, int(self.config.get("extra_ids", 100)))
        elif self.make.layout == "fairseq":
            model = in_fairseq_order(model)
        parts = self._finished(inner_tokenizer(model))
        original = {name: (self.folder / name).read_bytes()}
        return parts and replace(parts, originals=original)

    def _marian(self) -> Parts | None:
        separate = bool(self.config.get("separate_vocabs", False))
        sides: list[Parts | None] = []
        originals: dict[str, bytes] = {}
        for side in ("source", "target"):
            vocab_name = "target_vocab.json" if separate and side == "target" else "vocab.json"
            if not (self.folder / f"{side}.spm").is_file():
                self.problems.append(f"{side}.spm is missing")
                continue
            model, vocab = self._spm(f"{side}.spm"), self._vocab_json(vocab_name)
            unknown = self.names.get("unk_token", "<unk>")
            if vocab and unknown not in vocab:
                self.problems.append(f"{vocab_name} does not have the unknown token {unknown}")
            if model is None or self.problems:
                continue
            pieces = inner_tokenizer(model)
            inner = tokenizers.Tokenizer(models.WordLevel(vocab, unk_token=unknown))
            inner.decoder = pieces.decoder
            self.make = MAKES["MarianTokenizer"]
            finished = self._finished(inner)
            sides.append(finished and replace(finished, pieces=pieces))
            for file in (f"{side}.spm", vocab_name):
                originals[file] = (self.folder / file).read_bytes()
        self.problems = list(dict.fromkeys(self.problems))
        if self.problems or len(sides) < 2 or sides[0] is None:
            return None
        return replace(sides[0], target=sides[1], originals=originals)

    # What is around them ---------------------------------------------------------------------------------------

    def _finished(self, inner: tokenizers.Tokenizer | None, has_pipeline: bool = False) -> Parts | None:
        """Further tokens, names, and the marks around a text."""
        if inner is None:
            return None
        names = dict(self.names)
        for name, token in (self.make.names if self.make else {}).items():
            if name not in self.config and inner.token_to_id(token) is not None:  # null means: none
                names.setdefault(name, token)
        self._add_tokens(inner, names)
        if self.problems:
            return None
        ends_asked = "add_bos_token" in self.config or "add_eos_token" in self.config
        marks = self.make.marks if self.make else "ends"
        if not has_pipeline or (ends_asked and marks == "ends"):
            processor = self._marks(inner, names, marks)
            if processor is not None:
                inner.post_processor = processor
        return Parts(inner, names, self.config, {})

    def _add_tokens(self, inner: tokenizers.Tokenizer, names: Mapping[str, str]) -> None:
        numbered: dict[int, AddedToken] = {}
        for key, value in (self.config.get("added_tokens_decoder") or {}).items():
            token = self._added(value, f"added_tokens_decoder[{key}]")
            if token is not None and str(key).isdigit():
                numbered[int(key)] = token
        for content, number in self._json("added_tokens.json").items():
            if type(number) is int and content not in {token.content for token in numbered.values()}:
                special = content in names.values()
                numbered[number] = AddedToken(content, normalized=not special, special=special)
        known = {token.content for token in inner.get_added_tokens_decoder().values()}
        for number, token in sorted(numbered.items()):
            if token.content not in known:
                inner.add_tokens([token])
            if inner.token_to_id(token.content) != number:
                self.problems.append(
                    f"{token.content!r} should be token {number}, but the vocabulary makes it "
                    f"{inner.token_to_id(token.content)}"
                )
        asked = ("additional_special_tokens", "extra_special_tokens")
        files = (self.config, self._json("special_tokens_map.json"))
        further: Any = next((file[name] for file in files for name in asked if file.get(name)), [])
        further = list(further.values()) if isinstance(further, dict) else further
        if not isinstance(further, list):
            self.problems.append("additional_special_tokens is no list")
            further = []
        tokens = [
            self.described.get(content) or self._added(content, name) for name, content in names.items()
        ]
        tokens += [self._added(value, "additional_special_tokens") for value in further]
        known = {token.content for token in inner.get_added_tokens_decoder().values()}
        inner.add_special_tokens(
            [token for token in tokens if token is not None and token.content not in known]
        )

    def _marks(
        self, inner: tokenizers.Tokenizer, names: Mapping[str, str], marks: str
    ) -> processors.PostProcessor | None:
        def numbered(name: str) -> tuple[str, int]:
            token = names.get(name)
            number = None if token is None else inner.token_to_id(token)
            if token is None or number is None:
                self.problems.append(
                    f"the vocabulary has no {name}, which encloses every text of {self.make_name}"
                )
                return "", 0
            return token, number

        if marks == "roberta":
            sep, cls = numbered("sep_token"), numbered("cls_token")
            prefix = bool(self.config.get("add_prefix_space", False))
            return processors.RobertaProcessing(sep, cls, trim_offsets=True, add_prefix_space=prefix)
        if marks == "bert":
            cls, sep = numbered("cls_token"), numbered("sep_token")
            before, between, after = [cls], [sep], [sep]
        elif marks == "eos":
            eos = numbered("eos_token")
            before, between, after = [], ([] if self.make_name == "MarianTokenizer" else [eos]), [eos]
        else:
            default = self.make.adds_bos if self.make else False
            before = [numbered("bos_token")] if self.config.get("add_bos_token", default) else []
            after = [numbered("eos_token")] if self.config.get("add_eos_token", False) else []
            between = [*after, *before]
        if self.problems:
            return None
        return marks_template(before, between, after, second=1 if marks in ("bert", "ends") else 0)


def _unsafe_steps(value: object) -> Iterator[str]:
    """Steps of a pipeline on which the library would fall over instead of refusing them."""
    if isinstance(value, dict):
        charsmap = value.get("precompiled_charsmap")
        if value.get("type") == "Precompiled" and isinstance(charsmap, str):
            try:
                is_whole = not charsmap or is_whole_charsmap(base64.b64decode(charsmap, validate=True))
            except ValueError:
                is_whole = False
            if not is_whole:
                yield "a damaged table of character replacements (Precompiled)"
        if value.get("type") == "Strip" and value.get("stop"):
            yield "a decoder that strips the end of a text (Strip with stop), which is not supported"
        children: Iterable[object] = [child for key, child in value.items() if key not in ("vocab", "merges")]
        for child in children:
            yield from _unsafe_steps(child)
    elif isinstance(value, list):
        for child in value:
            yield from _unsafe_steps(child)
