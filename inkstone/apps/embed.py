"""Texts as vectors, so that what means the same lies close, in one language or across two. No torch.

    text ─ normalised ─ tokenizer ─ windows ─ onnxruntime ─ mean over the tokens ─ length one ─> (D)

The cosine of two such vectors is their product. A text longer than the model reads at once is read in windows, and the
mean is taken over all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from inkstone.generate.sentence_encoder import Vectors, onnx_encoder
from inkstone.ground.errors import BundleError, ConfigError
from inkstone.model.bundle import Bundle, open_bundle
from inkstone.text.normalize import normalize

ENGINE = "onnx-*"


class SentenceEncoder:
    """Gives texts their vectors.

    >>> encoder = SentenceEncoder("models/sentences")
    >>> cat, kitten, tax = encoder.encode(["a cat", "一只小猫", "tax law"])
    >>> bool(cat @ kitten > cat @ tax)
    True

    bundle: the folder of a model that `inkstone train embed` made. threads: 0 takes all cores. Raises BundleError.
    """

    def __init__(self, bundle: str | Path, *, threads: int = 0) -> None:
        self.bundle: Bundle = open_bundle(bundle, task="embed")
        self.name = self.bundle.name
        engines = sorted(self.bundle.path.glob(ENGINE))
        if not engines:
            raise BundleError(f"{self.bundle.path} has no engine. Train it again.")
        self.engine = onnx_encoder(self.bundle.path, engines[0], threads=threads)

    @property
    def dimensions(self) -> int:
        """The width of its vectors."""
        return int(self.bundle.description["dimensions"][0])

    def encode(self, texts: Sequence[str], *, dimensions: int | None = None) -> Vectors:
        """The vectors of the texts, of length one, in their order: (N, D).

        dimensions: so many numbers of each; a model can be trained so that they suffice. Raises ConfigError.
        """
        if dimensions is not None and not 1 <= dimensions <= self.dimensions:
            raise ConfigError(f"dimensions={dimensions} must be from 1 to {self.dimensions}.")
        if not texts:
            return np.zeros((0, dimensions or self.dimensions), np.float32)
        script = self.bundle.description.get("script")
        found = self.engine.encode([normalize(text, script=script) for text in texts])
        if dimensions is None:
            return found
        cut = found[:, :dimensions]
        unit: Vectors = cut / np.maximum(np.linalg.norm(cut, axis=1, keepdims=True), 1e-12)
        return unit
