"""Translation: texts in, translations out, whatever their length or layout.

    text ─ lines ─ pieces (sentences packed up to a comfortable length) ─ ids ─ engine ─ text, put together again

Lines stay lines and blank lines stay blank. A line that is longer than the model is used to - nine of ten sources it
was trained on were shorter - is split into sentences, a sentence still too long at its commas, and what is still too
long between words or characters: nothing is ever cut off. All pieces of all texts go to the engine together, sorted
by length there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from inkstone.generate.engine import Engine, GenerationOptions, Hypothesis
from inkstone.ground.errors import BundleError, ConfigError, not_known, raise_all, require
from inkstone.ground.manifest import read_json
from inkstone.model.bundle import Bundle, open_bundle
from inkstone.text.language import detect
from inkstone.text.normalize import Script, normalize
from inkstone.text.pieces import packed
from inkstone.text.template import translation_sources
from inkstone.text.tokenizer import Tokenizer

Direction = tuple[str, str]
MOST_THREADS = 256
SPACELESS = ("zh", "ja", "th")


@dataclass(frozen=True, slots=True)
class Translation:
    """A translated text. score: the mean log-probability per token in nats, 0 being certainty."""

    source: str
    translation: str
    score: float
    source_language: str
    target_language: str
    alternatives: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of a text that goes through the engine at once: which text and line it belongs to."""

    text_number: int
    line_number: int
    text: str
    target_language: str


class Translator:
    """Translates with a bundle.

    >>> Translator("zh-en").translate(["你好"], to="en")[0].translation
    'Hello.'
    """

    def __init__(
        self,
        bundle: str | Path = "zh-en",
        *,
        engine: Literal["auto", "ctranslate2", "onnx", "torch"] = "auto",
        threads: int = 0,
        adapters: Mapping[str, str | Path] | None = None,
        beside: Sequence[str | Path] = (),
    ) -> None:
        """bundle: a folder, or the name of a bundled model. threads: 0 takes all cores.

        adapters: folders of LoRA adapters on this model, by the name that `GenerationOptions.adapter` gives for a
        request; they need engine="torch", which "auto" then takes. beside: other translators with the same tokenizer,
        whose log-probabilities are averaged with this one's at every token; in torch too, and without adapters.
        """
        self.bundle: Bundle = open_bundle(bundle, task="translate")
        self.name = self.bundle.name
        self.directions: tuple[Direction, ...] = tuple(
            (source, target) for source, target in self.bundle.description["directions"]
        )
        self.tokenizer = Tokenizer.load(self.bundle.path / "tokenizer.json")
        self.script: Script | None = self.bundle.description.get("script")  # as in training, so in use
        self.positions = int(read_json(self.bundle.path / "config.json").get("max_positions", 512))
        # Pieces may have twice as many tokens, and two marks: they must fit the model's positions.
        self.comfortable = min(
            int(self.bundle.description.get("comfortable_tokens", 64)), max(1, (self.positions - 2) // 2)
        )
        if beside:
            self._join([open_bundle(one, task="translate") for one in beside], engine, adapters)
        else:
            self.engine: Engine = open_engine(self.bundle.path, self.tokenizer, engine, threads, adapters)

    def _join(self, others: Sequence[Bundle], engine: str, adapters: Mapping[str, str | Path] | None) -> None:
        """Open this bundle and others as one engine. Raises ConfigError for what does not go together."""
        require("torch", "an ensemble of translators", "train")
        problems = []
        if engine not in ("auto", "torch"):
            problems.append(f"engine={engine} runs one model: use engine=torch")
        if adapters:
            problems.append("adapters go with one model: merge them first, with inkstone export --adapter")
        own = (self.bundle.path / "tokenizer.json").read_bytes()
        for other in others:
            if (other.path / "tokenizer.json").read_bytes() != own:
                problems.append(f"{other.name} has another tokenizer than {self.bundle.name}")
            if other.description["directions"] != self.bundle.description["directions"]:
                problems.append(f"{other.name} translates other directions than {self.bundle.name}")
        raise_all(ConfigError, "an ensemble", problems)
        from inkstone.generate.ensemble import Ensemble
        from inkstone.generate.torch_engine import TorchEngine
        from inkstone.model.checkpoint import load_model

        self.name = " + ".join(one.name for one in (self.bundle, *others))
        model = Ensemble([load_model(one.path) for one in (self.bundle, *others)])
        self.positions = min(self.positions, model.config.max_positions)
        self.engine = TorchEngine(model)

    def __call__(self, text: str, *, to: str | None = None, source: str | None = None) -> str:
        """The translation of one text."""
        return self.translate([text], to=to, source=source)[0].translation

    def translate(
        self,
        texts: Sequence[str],
        *,
        to: str | None = None,
        source: str | None = None,
        options: GenerationOptions | None = None,
    ) -> list[Translation]:
        """Translate texts, each by itself. Languages that are not given are found from the model and the text.

        Raises ConfigError for a language, or a direction, that the model does not have.
        """
        if isinstance(texts, str):
            raise ConfigError("translate takes a list of texts. Write translate([text]) for one.")
        options = options or GenerationOptions()
        options = replace(options, max_length=min(options.max_length, self.positions))
        directions = [self.direction(text, to=to, source=source) for text in texts]
        pieces = [
            piece
            for number, (text, (_, target)) in enumerate(zip(texts, directions, strict=True))
            for piece in self._pieces(number, text, target)
        ]
        found = self._run(pieces, options)
        of_text: list[list[tuple[_Piece, list[Hypothesis]]]] = [[] for _ in texts]
        for piece, hypotheses in zip(pieces, found, strict=True):
            of_text[piece.text_number].append((piece, hypotheses))
        return [
            self._assemble(text, direction, its)
            for text, direction, its in zip(texts, directions, of_text, strict=True)
        ]

    def direction(self, text: str, *, to: str | None = None, source: str | None = None) -> Direction:
        """From which language a text is to be translated into which. Raises ConfigError when that cannot be."""
        for name, code, known in (
            ("from", source, sorted({s for s, _ in self.directions})),
            ("to", to, sorted({t for _, t in self.directions})),
        ):
            if code is not None and code not in known:
                raise ConfigError(f"model {self.name}: {not_known(name, code, known)}")
        fitting = [d for d in self.directions if source in (None, d[0]) and to in (None, d[1])]
        if not fitting:
            listed = ", ".join(f"{s}-{t}" for s, t in self.directions)
            raise ConfigError(f"model {self.name} does not translate from {source} to {to}. Valid: {listed}.")
        if len(fitting) == 1:
            return fitting[0]
        language = detect(text).language
        matching = [d for d in fitting if d[0] == language]
        if len(matching) == 1 or (matching and to is None):
            return matching[0]
        return fitting[0]

    def _pieces(self, number: int, text: str, target: str) -> Iterator[_Piece]:
        for line_number, line in enumerate(text.split("\n")):
            clean = normalize(line, script=self.script).strip()
            if clean:
                for part in packed(clean, self._length, self.comfortable, 2 * self.comfortable):
                    yield _Piece(number, line_number, part, target)

    def _length(self, text: str) -> int:
        return len(self.tokenizer.encode(text))

    def _run(self, pieces: Sequence[_Piece], options: GenerationOptions) -> list[list[Hypothesis]]:
        sources: list[list[int]] = [[] for _ in pieces]
        for target in {piece.target_language for piece in pieces}:
            numbers = [number for number, piece in enumerate(pieces) if piece.target_language == target]
            encoded = translation_sources(self.tokenizer, [pieces[n].text for n in numbers], target)
            for number, ids in zip(numbers, encoded, strict=True):
                sources[number] = ids
        return self.engine.generate(sources, options) if pieces else []

    def _assemble(
        self, text: str, direction: Direction, found: Sequence[tuple[_Piece, list[Hypothesis]]]
    ) -> Translation:
        """Put the best (and the second best, …) hypotheses of a text's pieces together again, line by line."""
        count = min((len(hypotheses) for _, hypotheses in found), default=1)
        whole: list[str] = []
        joint = "" if direction[1] in SPACELESS else " "
        for rank in range(count):
            lines = [""] * (text.count("\n") + 1)
            decoded = self.tokenizer.decode_batch([hypotheses[rank].ids for _, hypotheses in found])
            for (piece, _), words in zip(found, decoded, strict=True):
                before = lines[piece.line_number]
                lines[piece.line_number] = f"{before}{joint}{words.strip()}" if before else words.strip()
            whole.append("\n".join(lines))
        best = [hypotheses[0] for _, hypotheses in found]
        tokens = sum(len(h.ids) + 1 for h in best)
        score = sum(h.log_probability for h in best) / tokens if tokens else 0.0
        return Translation(text, whole[0], score, *direction, alternatives=tuple(whole[1:]))


def open_engine(
    folder: Path,
    tokenizer: Tokenizer,
    kind: str,
    threads: int,
    adapters: Mapping[str, str | Path] | None = None,
) -> Engine:
    """The engine of this kind for a bundle; "auto" takes the one it was shipped with, or torch where there are adapters.

    Raises BundleError without one, ConfigError for adapters on an engine that cannot switch them.
    """
    if not 0 <= threads <= MOST_THREADS:  # a negative number is a crash in CTranslate2, and so is a huge one
        raise ConfigError(f"threads={threads} is not between 0 (all cores) and {MOST_THREADS}.")
    if adapters and kind not in ("auto", "torch"):
        raise ConfigError(
            f"engine={kind} has no adapters. Use engine=torch, or merge one: inkstone export --adapter."
        )
    if kind == "torch" or adapters:
        require("torch", "the torch engine", "train")
        from inkstone.generate.torch_engine import TorchEngine

        return TorchEngine.load(folder, adapters)
    if kind not in ("auto", *_SHIPPED):
        raise ConfigError(not_known("engine", kind, ["auto", *_SHIPPED, "torch"]))
    shipped = {
        name: sorted(path.parent for path in folder.glob(file)) for name, (file, _) in _SHIPPED.items()
    }
    name = next((name for name in shipped if shipped[name]), "ctranslate2") if kind == "auto" else kind
    if not shipped[name]:
        label = {"ctranslate2": "CTranslate2", "onnx": "ONNX"}[name]
        raise BundleError(f"{folder} holds no {label} engine. Train it again, or use engine=torch.")
    vocabulary = read_json(folder / "config.json").get("vocab_size")
    if vocabulary != tokenizer.vocab_size:
        raise BundleError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, the model {vocabulary}."
        )
    return _SHIPPED[name][1](shipped[name][0], tokenizer, threads)


def _ctranslate2(folder: Path, tokenizer: Tokenizer, threads: int) -> Engine:
    from inkstone.generate.ctranslate2_engine import CTranslate2Engine

    return CTranslate2Engine(folder, tokenizer, threads=threads)


def _onnx(folder: Path, tokenizer: Tokenizer, threads: int) -> Engine:
    from inkstone.generate.onnx_engine import OnnxEngine

    return OnnxEngine(folder, tokenizer, threads=threads)


# What a bundle may be shipped with: by which file it is known, and how it is opened.
_SHIPPED: dict[str, tuple[str, Callable[[Path, Tokenizer, int], Engine]]] = {
    "ctranslate2": ("ctranslate2-*/model.bin", _ctranslate2),
    "onnx": ("onnx-*/decoder.onnx", _onnx),
}
