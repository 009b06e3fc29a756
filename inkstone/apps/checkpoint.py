"""A public checkpoint that goes on with a text, or answers in a conversation: a decoder as `inkstone pull` brought it.

    prompt ─ its tokenizer, or its chat template ─ ids ─ engine ─ ids as they come ─ text

The folder of a checkpoint runs in torch; what `inkstone export --to ct2|onnx` made of it in CTranslate2 or onnxruntime,
without torch. How texts are drawn is what its generation_config.json asks for, where nobody asks for anything else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from inkstone.apps.language_model import After, LanguageModel, chat_ids
from inkstone.generate.engine import GenerationOptions, StreamingEngine
from inkstone.generate.foreign_options import options_of
from inkstone.generate.streaming import Completion, complete, stream
from inkstone.ground.errors import BundleError, ConfigError, raise_all, require
from inkstone.ground.manifest import MANIFEST, problems
from inkstone.text.foreign_tokenizer import ForeignTokenizer


class Checkpoint:
    """Goes on with texts. threads: 0 takes all cores. Raises BundleError where the folder is none, or is no decoder."""

    def __init__(self, folder: str | Path, *, threads: int = 0) -> None:
        self.path = Path(folder)
        if (self.path / MANIFEST).exists():
            raise_all(BundleError, f"{self.path} is not as it was written", problems(self.path))
        self.name = self.path.name
        self.engine = _engine(self.path, threads)
        self.tokenizer = ForeignTokenizer.load(self.path)

    def options(self, **asked: Any) -> GenerationOptions:
        """How to generate: what was asked for, over what the checkpoint asks for."""
        if asked.get("temperature") == 0:  # nothing is drawn, whatever the checkpoint would draw from
            asked = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, **asked}
        elif asked.get("temperature"):
            asked = {"beam_size": 1, **asked}
        return options_of(self.path, **asked)

    def ids(self, prompt: str, *, chat: bool = False) -> list[int]:
        """A prompt as the model reads it. chat: as the words of a user, to be answered.

        Raises ConfigError where a prompt without a token comes to nothing, or the checkpoint knows no conversations.
        """
        if chat:
            return chat_ids(self.name, self.tokenizer, [{"role": "user", "content": prompt}])
        ids = self.tokenizer.encode(prompt)
        if not ids:
            raise ConfigError(f"{self.name} begins with no mark of its own: give it a text to go on with.")
        return ids

    def generate(
        self,
        prompt: str,
        options: GenerationOptions | None = None,
        stop: Sequence[str] = (),
        *,
        chat: bool = False,
    ) -> list[Completion]:
        """`options.alternatives` continuations of a text, best first; without what stands before them."""
        ids = self.ids(prompt, chat=chat)
        decodes = self.tokenizer if chat else After(self.tokenizer, ids)
        return complete(self.engine, decodes, [ids], options or self.options(), stop)[0]

    def stream(
        self,
        prompt: str,
        options: GenerationOptions | None = None,
        stop: Sequence[str] = (),
        *,
        chat: bool = False,
    ) -> Iterator[str | Completion]:
        """One continuation in pieces as they come, and the `Completion` at last."""
        ids = self.ids(prompt, chat=chat)
        decodes = self.tokenizer if chat else After(self.tokenizer, ids)
        return stream(self.engine, decodes, ids, options or self.options(), stop)


def _engine(folder: Path, threads: int) -> StreamingEngine:
    if (folder / "model.bin").is_file():
        from inkstone.generate.ctranslate2_decoder import CTranslate2Decoder

        return CTranslate2Decoder(folder, threads=threads)
    if (folder / "decoder.onnx").is_file() and not (folder / "encoder.onnx").exists():
        from inkstone.generate.onnx_decoder import OnnxDecoder

        return OnnxDecoder(folder, threads=threads)
    require("torch", "running a checkpoint that was not exported (`inkstone export --to ct2`)", "train")
    from inkstone.generate.torch_engine import TorchDecoder

    return TorchDecoder.load(folder)


def open_continuing(source: str | Path, *, threads: int = 0) -> LanguageModel | Checkpoint:
    """What goes on with texts at this place: a model made here, or a public checkpoint. Raises BundleError for others."""
    folder = Path(source)
    if folder.is_dir() and not (folder / "inkstone.json").exists():
        return Checkpoint(folder, threads=threads)
    return LanguageModel(source, threads=threads)
