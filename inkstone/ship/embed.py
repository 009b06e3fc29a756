"""A sentence encoder as it is served, proved equal to the one that was trained.

    config.json  model.safetensors  tokenizer.json  onnx-int8/ (or onnx-float32/)  parity.json

The proof, on real texts: in float32 the served vectors lie no further from the trained model's than rounding; int8 may
cost at most a limit of the mean reciprocal rank on validation pairs, or float32 is shipped. The certificate keeps the
served vectors of a few texts, so that `inkstone verify` can find out later, without torch, whether they still come out.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inkstone.generate.sentence_encoder import FolderEncoder, Vectors, onnx_encoder, torch_encoder
from inkstone.ground.errors import BundleError, TrainingError
from inkstone.ground.files import write_json
from inkstone.ground.progress import say
from inkstone.ship.onnx import export_onnx, quantise_onnx

CERTIFICATE = "parity.json"
TEXTS = 200
LIMIT = 1e-3  # of the distance of two vectors of length one, float32 against torch
PROBES = ("The door is open.", "How many books did you buy yesterday?", "门是开着的。", "你昨天买了几本书？")
DIGITS = 5  # kept of the vectors of the probes
SAME = (
    0.99  # the least cosine of a probe that is answered as it was: kernels of other machines round otherwise
)


def ship_encoder(
    folder: Path,
    queries: Sequence[str],
    candidates: Sequence[str],
    right: Sequence[Sequence[int]],
    *,
    limit: float,
) -> dict[str, Any]:
    """Put the served engine beside the checkpoint in a folder, prove it, write the certificate; its facts.

    queries, candidates, right: validation pairs. limit: of the mean reciprocal rank that int8 may lose.
    Raises TrainingError when the float32 export does not agree: that is no model to ship.
    """
    some = list(dict.fromkeys([*queries[:TEXTS], *candidates[:TEXTS]]))
    trained = torch_encoder(folder)
    with tempfile.TemporaryDirectory(prefix="inkstone-parity-") as scratch:
        exact = export_onnx(folder, Path(scratch) / "float32", quantization="float32")
        whole = onnx_encoder(folder, exact)
        apart = farthest(trained.encode(some), whole.encode(some))
        if not apart <= LIMIT:
            raise TrainingError(
                f"the float32 export gives vectors up to {apart:.3g} away from the trained model's (limit {LIMIT}). "
                "The export is wrong; nothing was written."
            )
        engine = quantise_onnx(exact, folder / "onnx-int8")
        before = _found(whole, queries, candidates, right)
        after = _found(onnx_encoder(folder, engine), queries, candidates, right)
        facts: dict[str, Any] = {
            "texts compared": len(some),
            "float32 export, largest distance of a vector": float(f"{apart:.2g}"),
            "mean reciprocal rank on validation pairs, float32": round(before, 4),
            "mean reciprocal rank on validation pairs, int8": round(after, 4),
            "mean reciprocal rank it may lose": limit,
        }
        if before - after > limit:
            facts["note"] = f"int8 lost {before - after:.4f}, more than {limit}: float32 is shipped instead"
            say(str(facts["note"]))
            shutil.rmtree(engine)
            engine = folder / "onnx-float32"
            shutil.copytree(exact, engine)
    vectors = onnx_encoder(folder, engine).encode(PROBES)
    probes = [
        {"text": text, "vector": [round(float(one), DIGITS) for one in vector]}
        for text, vector in zip(PROBES, vectors, strict=True)
    ]
    write_json(folder / CERTIFICATE, {"engine": engine.name, **facts, "probes": probes})
    return {"engine": engine.name, **facts}


def vector_probes(certificate: dict[str, Any], width: int) -> tuple[list[str], Vectors]:
    """The certified texts and their vectors. Raises BundleError when the certificate holds none that can be compared."""
    probes = certificate.get("probes")
    rows = [row for row in probes if isinstance(row, dict)] if isinstance(probes, list) else []
    texts = [row.get("text") for row in rows]
    vectors = [row.get("vector") for row in rows]
    fits = [
        isinstance(one, list) and len(one) == width and all(isinstance(number, int | float) for number in one)
        for one in vectors
    ]
    if not rows or not all(fits) or not all(isinstance(text, str) for text in texts):
        raise BundleError(
            "the parity certificate holds no probes that can be compared. Train the model again."
        )
    return [str(text) for text in texts], np.array(vectors, np.float32)


def farthest(one_ND: Vectors, other_ND: Vectors) -> float:
    """The largest distance between the vectors of the same texts."""
    return float(np.linalg.norm(one_ND - other_ND, axis=1).max())


def _found(
    encoder: FolderEncoder,
    queries: Sequence[str],
    candidates: Sequence[str],
    right: Sequence[Sequence[int]],
) -> float:
    from inkstone.metrics.ranking import first_ranks

    return float((1 / first_ranks(encoder.encode(queries) @ encoder.encode(candidates).T, right)).mean())
