"""A torch engine with small weights, in a folder of its own beside the checkpoint, proved against what it was made from.

    torch-int8/  torch-int4/      config.json  model.safetensors  parity.json

The proof has two halves. What is read back from the folder must give the very scores that the rounded model gave in
memory: that shows the file. How far rounding moved the scores is measured and written down; whether that is too far is
for the task's metric to say (`recipes.compress`).

A bag of features is served by numpy from its checkpoint; its embedding is kept there in int8, row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from inkstone.generate.classify_bag import BagEngine
from inkstone.ground.errors import TrainingError
from inkstone.ground.files import explained, write_json
from inkstone.model.bag import Bag
from inkstone.model.quantized import (
    Bits,
    Int4Linear,
    Int8Embedding,
    Int8Linear,
    load_quantized,
    quantized,
    rounded_rows,
)
from inkstone.model.quantized import save_quantized as save
from inkstone.model.transformer import Transformer
from inkstone.text.ngrams import FeatureVocabulary

CERTIFICATE = "parity.json"
TOLERANCE = 1e-3  # of a score before softmax: numpy and torch add up in another order
Run = Callable[[nn.Module], Tensor]  # the scores of a model on some real texts


def engine_folder(folder: Path, kind: Bits) -> Path:
    """Where a bundle keeps this engine."""
    return folder / f"torch-{kind}"


def ship_quantized(
    model: Transformer, folder: Path, kind: Bits, run: Run, *, group: int = 32
) -> dict[str, Any]:
    """Write the engine into a bundle in the making; the certificate's facts. Raises TrainingError when it cannot be read.

    run: scores of a model on real texts, by which the proof is made.
    """
    small = quantized(model, kind, group=group)
    place = engine_folder(folder, kind)
    place.mkdir(parents=True)
    save(small, place, kind, group=group)
    with torch.inference_mode():
        exact, rounded, back = run(model).float(), run(small).float(), run(load_quantized(place)).float()
    if not torch.equal(rounded, back):
        raise TrainingError(
            f"{place.name}: what was written does not give what was measured. The file is wrong; nothing was shipped."
        )
    apart = float((exact - rounded).norm() / exact.norm().clamp(min=1e-12))
    kinds = [type(module) for module in small.modules()]
    facts = {
        "engine": place.name,
        "read back: identical scores": f"{rounded.shape[0]} of {rounded.shape[0]} texts",
        "scores moved by rounding, of their size": round(apart, 4),
        "layers in int4": kinds.count(Int4Linear),
        "layers in int8": kinds.count(Int8Linear) + kinds.count(Int8Embedding),
    }
    write_json(place / CERTIFICATE, facts)
    return facts


def as_rounded(model: Transformer, kind: Bits, *, group: int = 32) -> Transformer:
    """The model in float32 with the weights its quantised form computes with, for engines to be made of it."""
    small = quantized(model, kind, group=group)
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    for name, module in small.named_modules():
        if isinstance(module, Int8Linear | Int4Linear):
            weights[f"{name}.weight"] = module.dequantized()
        elif isinstance(module, Int8Embedding):
            weights[f"{name}.weight"] = module.weight.clone()
    return Transformer.of_weights(model.config, weights)


def ship_bag_int8(
    model: Bag, features: FeatureVocabulary, folder: Path, texts: Sequence[str]
) -> dict[str, Any]:
    """Write a bag with its embedding in int8 into a folder and prove what numpy serves; the certificate's facts.

    The served scores must be those of torch with the same rounded numbers. Raises TrainingError when they are not.
    """
    # Scales and weights in float16: with two labels an embedding is two numbers, and they would be most of the file.
    scale_V = rounded_rows(model.embedding.weight)[1].clamp(min=torch.finfo(torch.float16).tiny).half()
    steps_VD = model.embedding.weight.detach().float() / scale_V.float()[:, None]
    codes_VD = steps_VD.round().clamp(-127, 127).to(torch.int8)
    weights_V = model.weights.half()
    tensors = {name: tensor.detach().float().contiguous() for name, tensor in model.state_dict().items()}
    tensors |= {"embedding.weight": codes_VD, "embedding.scale": scale_V, "weights": weights_V}
    with explained(folder / "model.safetensors"):
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", model.config.to_dict())
    features.save(folder / "features.json")
    rounded = Bag(model.config, weights_V.float().numpy())
    wide_VD = codes_VD.float() * scale_V.float()[:, None]
    kept = {"embedding.weight": wide_VD, "weights": weights_V.float()}
    rounded.load_state_dict({**model.state_dict(), **kept})
    served = BagEngine(folder).logits(texts)
    with torch.no_grad():
        ours = np.concatenate(
            [rounded(torch.tensor([features.encode(text) or [0]])).numpy() for text in texts]
        )
    apart = float(np.abs(ours - served).max())
    if apart > TOLERANCE:
        raise TrainingError(
            f"the served scores are up to {apart:.4f} away from torch's (limit {TOLERANCE}). Nothing was written."
        )
    same = int((ours.argmax(1) == served.argmax(1)).sum())
    facts = {
        "texts compared": len(texts),
        "int8 embedding: same label as torch": f"{same} of {len(texts)}",
        "int8 embedding: largest difference of a score": round(apart, 6),
    }
    write_json(folder / CERTIFICATE, {"engine": "numpy", **facts})
    return facts
