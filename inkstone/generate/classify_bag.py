"""A bag of features in numpy: the served form of `model.bag`.

A compressed bag keeps its embedding in int8 with a scale for each feature (`ship.quantize`), and so does this engine:
only the rows of a text are widened.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from inkstone.generate.classify_engine import Array
from inkstone.ground.errors import BundleError, raise_all
from inkstone.text.ngrams import FeatureVocabulary

_SHAPES = ("embedding.weight", "weights", "classifier.weight", "classifier.bias")


class BagEngine:
    """Runs the bag in a folder: model.safetensors and features.json."""

    name = "numpy"

    def __init__(self, folder: Path) -> None:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        self.features = FeatureVocabulary.load(folder / "features.json")
        file = folder / "model.safetensors"
        try:
            stored = load_file(file)
            tensors = {
                name: tensor if tensor.dtype == np.int8 else np.asarray(tensor, np.float32)
                for name, tensor in stored.items()
            }
        except (OSError, SafetensorError) as error:
            raise BundleError(f"{file} cannot be read: {error}") from error
        raise_all(
            BundleError,
            f"{file} is not a bag of features",
            [f"{n} is missing" for n in _SHAPES if n not in tensors],
        )
        self._embedding_VD, self._weights_V, self._head_CD, self._bias_C = (tensors[name] for name in _SHAPES)
        self._scale_V = tensors.get("embedding.scale", np.ones(len(self._embedding_VD), np.float32))
        rows = {len(self.features), len(self._embedding_VD), len(self._weights_V), len(self._scale_V)}
        if len(rows) > 1:
            sizes = ", ".join(map(str, sorted(rows)))
            raise BundleError(
                f"{folder}: features.json and model.safetensors do not fit together ({sizes} features)."
            )

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """See `ClassifyEngine.encode`."""
        return [self.features.encode(text) for text in texts]

    def logits(self, texts: Sequence[str]) -> Array:
        """See `ClassifyEngine.logits`."""
        x_ND = np.zeros((len(texts), self._embedding_VD.shape[1]), np.float32)
        for row, ids in enumerate(self.encode(texts)):
            if ids:
                weights = self._weights_V[ids]
                scaled = weights * self._scale_V[ids]
                x_ND[row] = scaled @ self._embedding_VD[ids].astype(np.float32) / np.sqrt(weights @ weights)
        logits_NC: Array = x_ND @ self._head_CD.T + self._bias_C
        return logits_NC
