"""A trained classifier as it is served, proved equal to the one that was trained.

    bag           config.json  model.safetensors  features.json            numpy reads the checkpoint itself
    transformer   config.json  model.safetensors  tokenizer.json  ctranslate2-int8/ (or -float32/)
    rnn, cnn      config.json  model.safetensors  tokenizer.json  onnx-int8/ (or -float32/)

The proof, on real texts: the same labels from torch and from the served engine, and probabilities no further apart than
rounding. Where there is an export, in float32 it has to pass that; int8 may cost at most `INT8_LIMIT` of the accuracy
on the validation texts, or float32 is shipped. The certificate (`parity.json`) says what was found.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from inkstone.generate.classify_bag import BagEngine
from inkstone.generate.classify_encoder import EncoderEngine
from inkstone.generate.classify_engine import Array, ClassifyEngine
from inkstone.generate.classify_onnx import OnnxClassifier
from inkstone.ground.errors import ConfigError, TrainingError, raise_all
from inkstone.ground.files import write_json
from inkstone.ground.manifest import read_json
from inkstone.model.bag import Bag, save_bag
from inkstone.model.checkpoint import save_model
from inkstone.model.config import ModelConfig
from inkstone.ship.ctranslate2 import Quantization, fill_side
from inkstone.ship.onnx import export_onnx, quantise_onnx
from inkstone.ship.target import Target
from inkstone.text.ngrams import FeatureVocabulary
from inkstone.text.reader import TextReader

CERTIFICATE = "parity.json"
TEXTS = 200
TOLERANCE = (
    0.01  # largest difference of a score before softmax: float16 embeddings, float32 sums in another order
)
INT8_LIMIT = 0.005  # of accuracy
Decide = Callable[[Array], Array]  # scores to decisions, one row a text: what must not change


def ship_bag(model: Bag, features: FeatureVocabulary, folder: Path, texts: Sequence[str]) -> dict[str, Any]:
    """Write a bag into a folder and prove it; the certificate's facts. Raises TrainingError when it does not agree."""
    save_bag(model, folder)
    features.save(folder / "features.json")
    engine = BagEngine(folder)
    facts = _compared(model, engine, list(texts[:TEXTS]), TOLERANCE, "numpy")
    write_json(folder / CERTIFICATE, {"engine": engine.name, **facts})
    return facts


def ship_reader(
    model: torch.nn.Module,
    reader: TextReader,
    folder: Path,
    texts: Sequence[str],
    right: Callable[[Array], float],
) -> dict[str, Any]:
    """Write a model that reads tokens into a folder with its served engine and prove that; the certificate's facts.

    Transformers are served by CTranslate2, or where they are read in all layers by onnxruntime, as other models are.
    right: the share of `texts` that these scores label rightly. Raises TrainingError when the export does not agree.
    """
    save_model(model, folder)
    reader.save(folder)
    config = read_json(folder / "config.json")
    transformer = config["model_type"] == "inkstone-transformer"
    target = CTRANSLATE2 if transformer and config["pooling"] == "mean" and not config["pooler"] else ONNX
    with tempfile.TemporaryDirectory(prefix="inkstone-parity-") as scratch:
        exact = Path(scratch) / "float32"
        target.export(folder, exact, quantization="float32")
        whole = target.open(folder, exact)
        facts = _compared(model, whole, list(texts[:TEXTS]), TOLERANCE, "float32 export")
        before = right(whole.logits(texts))
        engine = target.shrink(folder, exact, folder / f"{target.name}-int8")
        after = right(target.open(folder, engine).logits(texts))
        facts |= {
            "validation accuracy, float32": round(before, 4),
            "validation accuracy, int8": round(after, 4),
        }
        if before - after > INT8_LIMIT:
            shutil.rmtree(engine)
            engine = folder / f"{target.name}-float32"
            shutil.copytree(exact, engine)
            facts["note"] = f"int8 lost more than {INT8_LIMIT} of the accuracy: float32 is shipped instead"
    write_json(folder / CERTIFICATE, {"engine": engine.name, **facts})
    return {"engine": engine.name, **facts}


def export_encoder(folder: Path, out: Path, *, quantization: Quantization) -> Path:
    """Write the encoder of the checkpoint in `folder` as a CTranslate2 model in `out`; the head stays behind."""
    from ctranslate2 import specs
    from safetensors.numpy import load_file

    config = ModelConfig.from_dict(read_json(folder / "config.json"))
    problems = [] if config.shape == "encoder" else [f"shape={config.shape} is no encoder"]
    problems += [] if config.pooling == "mean" else [f"pooling={config.pooling}: only mean is served"]
    raise_all(ConfigError, "this model does not fit the encoder engine", problems)
    weights = {n: np.array(t, dtype=np.float32) for n, t in load_file(folder / "model.safetensors").items()}
    activation = {
        "relu": specs.Activation.RELU,
        "gelu": specs.Activation.GELU,
        "silu": specs.Activation.SWISH,
    }
    rotary: dict[str, Any] = {
        "rotary_dim": config.head_size,
        "rotary_interleave": False,
        "rotary_base": config.rotary_base,
    }
    encoder = specs.TransformerEncoderSpec(
        config.num_encoder_layers,
        config.num_heads,
        pre_norm=config.norm_place == "before",
        activation=activation[config.activation],
        ffn_glu=config.feed_forward == "gated",
        rms_norm=config.norm == "rms",
        num_heads_kv=config.num_kv_heads if config.num_kv_heads != config.num_heads else None,
        head_dim=config.head_size if config.head_size * config.num_heads != config.hidden_size else None,
        **(rotary if config.positions == "rotary" else {}),
    )
    fill_side(encoder, "encoder", config, weights)
    spec = specs.TransformerEncoderModelSpec(encoder)
    tokenizer = TextReader.load(folder).tokenizer
    spec.register_vocabulary([tokenizer.token_of(number) for number in range(config.vocab_size)])
    spec.config.layer_norm_epsilon = config.norm_epsilon
    spec.validate()
    spec.optimize(quantization=quantization)
    out.mkdir(parents=True, exist_ok=True)
    spec.save(str(out))
    return out


CTRANSLATE2: Target[ClassifyEngine] = Target(
    "ctranslate2",
    export_encoder,
    lambda folder, _, out: export_encoder(folder, out, quantization="int8"),
    EncoderEngine,
)
ONNX: Target[ClassifyEngine] = Target(
    "onnx", export_onnx, lambda _, exact, out: quantise_onnx(exact, out), OnnxClassifier
)


def torch_logits(model: torch.nn.Module, rows: Sequence[Sequence[int]]) -> Array:
    """What the trained model itself says, a text at a time: no padding, no windows."""
    model.eval()
    device = next(model.parameters()).device
    with torch.no_grad():
        found = [model(torch.tensor([list(row) or [0]], device=device)).float().cpu().numpy() for row in rows]
    return np.concatenate(found)


def _compared(
    model: torch.nn.Module, engine: ClassifyEngine, texts: list[str], tolerance: float, what: str
) -> dict[str, Any]:
    longest = getattr(engine, "longest", None)
    rows = engine.encode(texts)
    short = [n for n, row in enumerate(rows) if longest is None or len(row) <= longest]
    if not short:
        return {"texts compared": 0}
    ours = torch_logits(model, [rows[n] for n in short])
    theirs = engine.logits([texts[n] for n in short])
    apart = float(np.abs(ours - theirs).max())
    same = int((ours.argmax(1) == theirs.argmax(1)).sum())
    if apart > tolerance:
        raise TrainingError(
            f"{what}: the served scores are up to {apart:.4f} away from the trained model's (limit {tolerance}). "
            "The export is wrong; nothing was written."
        )
    return {
        "texts compared": len(short),
        f"{what}: same label as torch": f"{same} of {len(short)}",
        f"{what}: largest difference of a score": round(apart, 6),
    }
