"""The engine of a classifier: texts in, a score for each label out. Applications and the server see only this.

The kinds are a bag of features in numpy, an encoder in CTranslate2, and any network in onnxruntime (`classify_open`);
none needs torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

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


def softmax(logits_NC: Array) -> Array:
    """Probabilities of labels of which exactly one is right."""
    raised = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True))
    shares: Array = raised / raised.sum(axis=1, keepdims=True)
    return shares


def sigmoid(logits_NC: Array) -> Array:
    """Probabilities of labels that are right or wrong each by itself."""
    shares: Array = 0.5 * (1 + np.tanh(0.5 * logits_NC))
    return shares
