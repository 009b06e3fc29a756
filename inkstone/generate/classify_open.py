"""Which engine a classifier's folder needs: `architecture` in its `inkstone.json` says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from inkstone.generate.classify_engine import ClassifyEngine
from inkstone.ground.errors import BundleError, not_known


def _bag(folder: Path, threads: int) -> ClassifyEngine:
    from inkstone.generate.classify_bag import BagEngine

    return BagEngine(folder)


def _encoder(folder: Path, threads: int) -> ClassifyEngine:
    from inkstone.generate.classify_encoder import EncoderEngine

    exported = sorted(path.parent for path in folder.glob("ctranslate2-*/model.bin"))
    if not exported:  # read in all layers, which CTranslate2 does not give
        return _onnx(folder, threads)
    return EncoderEngine(folder, exported[0], threads=threads)


def _onnx(folder: Path, threads: int) -> ClassifyEngine:
    from inkstone.generate.classify_onnx import OnnxClassifier

    exported = sorted(path.parent for path in folder.glob("onnx-*/classifier.onnx"))
    if not exported:
        raise BundleError(f"{folder} holds no engine. Train the model again.")
    return OnnxClassifier(folder, exported[0], threads=threads)


ENGINES: dict[str, Callable[[Path, int], ClassifyEngine]] = {
    "bag": _bag,
    "transformer": _encoder,
    "rnn": _onnx,
    "cnn": _onnx,
}


def open_classify_engine(folder: Path, architecture: str, *, threads: int = 0) -> ClassifyEngine:
    """The engine of a classifier's folder. threads: 0 takes all cores. Raises BundleError when it cannot run."""
    if architecture not in ENGINES:
        raise BundleError(f"{folder}: {not_known('architecture', architecture, ENGINES)}")
    return ENGINES[architecture](folder, threads)
