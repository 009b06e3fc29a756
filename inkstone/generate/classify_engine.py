"""The engine of a classifier: texts in, a score for each label out. Applications and the server see only this.

A bundle's `inkstone.json` says which kind it needs; neither kind needs torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from inkstone.ground.errors import BundleError, not_known

Array = NDArray[np.float32]


class ClassifyEngine(Protocol):
    """Scores texts. `name` says what runs it."""

    name: str

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The numbers that the model sees of each text, whatever its length."""
        ...

    def logits(self, texts: Sequence[str]) -> Array:
        """The score of each label before softmax or sigmoid: (N, C)."""
        ...


def _bag(folder: Path, threads: int) -> ClassifyEngine:
    from inkstone.generate.classify_bag import BagEngine

    return BagEngine(folder)


def _encoder(folder: Path, threads: int) -> ClassifyEngine:
    from inkstone.generate.classify_encoder import EncoderEngine

    exported = sorted(path.parent for path in folder.glob("ctranslate2-*/model.bin"))
    if not exported:
        raise BundleError(f"{folder} holds no CTranslate2 engine. Train the model again.")
    return EncoderEngine(folder, exported[0], threads=threads)


ENGINES: dict[str, Callable[[Path, int], ClassifyEngine]] = {"bag": _bag, "transformer": _encoder}


def open_classify_engine(folder: Path, architecture: str, *, threads: int = 0) -> ClassifyEngine:
    """The engine of a classifier's folder. threads: 0 takes all cores. Raises BundleError when it cannot run."""
    if architecture not in ENGINES:
        raise BundleError(f"{folder}: {not_known('architecture', architecture, ENGINES)}")
    return ENGINES[architecture](folder, threads)


def softmax(logits_NC: Array) -> Array:
    """Probabilities of labels of which exactly one is right."""
    raised = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True))
    shares: Array = raised / raised.sum(axis=1, keepdims=True)
    return shares


def sigmoid(logits_NC: Array) -> Array:
    """Probabilities of labels that are right or wrong each by itself."""
    shares: Array = 0.5 * (1 + np.tanh(0.5 * logits_NC))
    return shares
