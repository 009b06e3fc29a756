"""A Transformer encoder with a classification head: CTranslate2 for the layers, numpy for the mean and the head.

A text longer than the model was trained on is read in windows of that length, and the mean is taken over the tokens of
all of them: nothing is cut off. Every window begins with <s>, so that an empty text has a token too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from inkstone.generate.batching import windows, within_budget
from inkstone.generate.classify_engine import Array
from inkstone.generate.ctranslate2_model import opened
from inkstone.ground.errors import BundleError
from inkstone.ground.manifest import read_json
from inkstone.text.reader import TextReader

TOKENS_PER_BATCH = 4096


class EncoderEngine:
    """Runs the encoder exported to `engine` and the head of `folder`. threads: 0 takes all cores."""

    def __init__(self, folder: Path, engine: Path, *, threads: int = 0) -> None:
        from safetensors import SafetensorError, safe_open

        self.name = engine.name
        self.reader = TextReader.load(folder)
        config = read_json(folder / "config.json")
        if config.get("vocab_size") != self.reader.vocab_size:
            raise BundleError(
                f"{folder}: the tokenizer has {self.reader.vocab_size} tokens, the model {config.get('vocab_size')}."
            )
        self.longest = int(config["max_positions"])
        try:
            with safe_open(folder / "model.safetensors", framework="numpy") as tensors:
                self._head_CD = tensors.get_tensor("classifier.weight").astype(np.float32)
                self._bias_C = tensors.get_tensor("classifier.bias").astype(np.float32)
        except (OSError, SafetensorError) as error:
            raise BundleError(f"{folder} cannot be opened: {error}") from error
        self._encoder = opened("Encoder", engine, threads)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """See `ClassifyEngine.encode`."""
        return self.reader.marked(texts)

    def logits(self, texts: Sequence[str]) -> Array:
        """See `ClassifyEngine.logits`."""
        read = [
            (row, window)
            for row, ids in enumerate(self.reader.bare(texts))
            for window in windows(ids, self.longest, self.reader.before, self.reader.after)
        ]
        sums_ND = np.zeros((len(texts), self._head_CD.shape[1]), np.float32)
        counts_N1 = np.zeros((len(texts), 1), np.float32)
        for batch in within_budget([len(ids) for _, ids in read], TOKENS_PER_BATCH):
            states = np.array(self._encoder.forward_batch([read[n][1] for n in batch]).last_hidden_state)
            for number, states_SD in zip(batch, states, strict=True):
                row, ids = read[number]
                sums_ND[row] += states_SD[: len(ids)].sum(axis=0)
                counts_N1[row] += len(ids)
        logits_NC: Array = sums_ND / counts_N1 @ self._head_CD.T + self._bias_C
        return logits_NC
