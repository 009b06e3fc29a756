"""A graph in onnxruntime, ready to run, with the marks that `ship.onnx` wrote into it. No torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkstone.ground.errors import BundleError, ConfigError, raise_all, require

ENCODER, DECODER, CLASSIFIER = "encoder.onnx", "decoder.onnx", "classifier.onnx"


def open_session(file: Path, threads: int) -> Any:
    """A graph, ready to run. threads: 0 takes all cores. Raises BundleError when onnxruntime refuses it."""
    require("onnxruntime", "running this model", "serve")
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as refusals

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or os.cpu_count() or 1
    options.log_severity_level = 3  # errors only
    # Threads that wait for work must sleep, not spin: on a busy machine spinning slows everything ten-fold.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    broken = (refusals.Fail, refusals.InvalidGraph, refusals.InvalidProtobuf, refusals.NoSuchFile)
    try:
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    except (*broken, refusals.InvalidArgument, refusals.NotImplemented, refusals.RuntimeException) as error:
        raise BundleError(f"{file} cannot be opened by onnxruntime: {str(error).strip()}") from error


@dataclass(frozen=True, slots=True)
class Marks:
    """What a graph says of its model. max_positions: the most tokens of a text; 0 is no limit."""

    pad_id: int
    bos_id: int
    eos_id: int
    vocab_size: int
    max_positions: int

    @classmethod
    def of(cls, session: Any, file: Path) -> Marks:
        """From the metadata of a graph. Raises BundleError where they are not there."""
        said = session.get_modelmeta().custom_metadata_map
        try:
            return cls(
                int(said["pad_id"]),
                int(said["bos_id"]),
                int(said["eos_id"]),
                int(said["vocab_size"]),
                int(said.get("max_positions", 0)),
            )
        except (KeyError, ValueError) as error:
            raise BundleError(f"{file} does not say its marks. Train the model again.") from error

    def check_lengths(self, rows: Sequence[Sequence[int]]) -> None:
        """Raise ConfigError listing the rows that have more tokens than the model has positions."""
        problems = [
            f"number {number} has {len(row)} tokens"
            for number, row in enumerate(rows)
            if 0 < self.max_positions < len(row)
        ]
        raise_all(
            ConfigError, f"inputs of more than the model's max_positions={self.max_positions}", problems
        )


def padded(rows: Sequence[Sequence[int]], pad_id: int, *, left: bool = False) -> NDArray[np.int64]:
    """Rows of ids as one array, padded on the right, or on the left: (B, longest), at least one wide."""
    longest = max(1, max(len(row) for row in rows))
    out = np.full((len(rows), longest), pad_id, np.int64)
    for number, row in enumerate(rows):
        out[number, longest - len(row) if left else 0 :][: len(row)] = row
    return out
