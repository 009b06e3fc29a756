"""A classifier in onnxruntime, whatever its architecture. No torch.

Recurrent and convolutional models have no longest text: whatever comes is read as a whole. A Transformer reads a longer
text than it has positions in windows, and their scores are averaged, each window counting by its tokens. With a mean over
the states and a linear layer over that - our own - this is the same as the mean over all tokens. Nothing is cut off.
Every text and window stands between its marks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from inkstone.generate.batching import windows, within_budget
from inkstone.generate.classify_engine import Array
from inkstone.generate.onnx_session import CLASSIFIER, Marks, open_session, padded
from inkstone.ground.errors import BundleError
from inkstone.text.reader import TextReader

TOKENS_PER_BATCH = 4096  # padded; a longer window runs by itself


class OnnxClassifier:
    """Runs the graph exported to `engine` with the tokenizer of `folder`. threads: 0 takes all cores."""

    def __init__(self, folder: Path, engine: Path, *, threads: int = 0) -> None:
        self.name = engine.name
        self.reader = TextReader.load(folder)
        self._session = open_session(engine / CLASSIFIER, threads)
        marks = Marks.of(self._session, engine / CLASSIFIER)
        if marks.vocab_size < self.reader.vocab_size:
            raise BundleError(
                f"{folder}: the tokenizer has {self.reader.vocab_size} tokens, the model {marks.vocab_size}."
            )
        self.pad_id, self.longest = marks.pad_id, marks.max_positions or None

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """See `ClassifyEngine.encode`."""
        return self.reader.marked(texts)

    def logits(self, texts: Sequence[str]) -> Array:
        """See `ClassifyEngine.logits`."""
        before, after = self.reader.before, self.reader.after
        read = [
            (row, window)
            for row, ids in enumerate(self.reader.bare(texts))
            for window in windows(ids, self.longest or 0, before, after)
        ]
        sums: dict[int, Array] = {}
        counts_N1 = np.zeros((len(texts), 1), np.float32)
        for batch in within_budget([len(ids) for _, ids in read], TOKENS_PER_BATCH):
            rows = [read[number][1] for number in batch]
            (logits_BC,) = self._session.run(None, {"ids": padded(rows, self.pad_id)})
            for number, ids, logits_C in zip(batch, rows, logits_BC, strict=True):
                row = read[number][0]
                sums[row] = sums.get(row, 0) + len(ids) * logits_C
                counts_N1[row] += len(ids)
        found: Array = np.stack([sums[row] for row in range(len(texts))]) / counts_N1
        return found
