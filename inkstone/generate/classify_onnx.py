"""A recurrent or convolutional classifier in onnxruntime. No torch.

Neither kind has a longest text: whatever comes is read as a whole, and nothing is cut off. Every text begins with <s>, so
that an empty one has a token too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from inkstone.generate.classify_engine import Array
from inkstone.generate.onnx_session import CLASSIFIER, open_session, padded
from inkstone.ground.errors import BundleError
from inkstone.text.tokenizer import Tokenizer

TOKENS_PER_BATCH = 4096  # padded; a longer text runs by itself


class OnnxClassifier:
    """Runs the graph exported to `engine` with the tokenizer of `folder`. threads: 0 takes all cores."""

    def __init__(self, folder: Path, engine: Path, *, threads: int = 0) -> None:
        self.name = engine.name
        self.tokenizer = Tokenizer.load(folder / "tokenizer.json")
        self._session = open_session(engine / CLASSIFIER, threads)
        marks = self._session.get_modelmeta().custom_metadata_map
        vocabulary = marks.get("vocab_size")
        if vocabulary != str(self.tokenizer.vocab_size):
            raise BundleError(
                f"{folder}: the tokenizer has {self.tokenizer.vocab_size} tokens, the model {vocabulary}."
            )
        self.pad_id = int(marks["pad_id"])

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """See `ClassifyEngine.encode`."""
        return [[self.tokenizer.bos_id, *ids] for ids in self.tokenizer.encode_batch(texts)]

    def logits(self, texts: Sequence[str]) -> Array:
        """See `ClassifyEngine.logits`."""
        rows = self.encode(texts)
        order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
        found: dict[int, Array] = {}
        start = 0
        while start < len(order):
            end = start + 1
            while end < len(order) and (end - start + 1) * len(rows[order[end]]) <= TOKENS_PER_BATCH:
                end += 1
            numbers = order[start:end]
            (logits_BC,) = self._session.run(None, {"ids": padded([rows[n] for n in numbers], self.pad_id)})
            found.update(zip(numbers, logits_BC, strict=True))
            start = end
        return np.stack([found[number] for number in range(len(rows))])
