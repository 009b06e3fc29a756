"""A checkpoint as ONNX graphs, which onnxruntime runs without torch. All architectures but the bag have them.

    classifier        classifier.onnx   ids (B, S) -> logits (B, C)
    other encoder     encoder.onnx      ids (B, S) -> states (B, S, D); pooled (B, D) with a pooler, logits (B, S, V) with
                                        a head that predicts tokens
    encoder-decoder   encoder.onnx      ids (B, S) -> mask, state_0, state_1 ..., memory_0 ...
                      decoder.onnx      token (N), mask, state_..., memory_..., count
                                        -> logits and log_probabilities (N, V), next_state_...,
                                           top_scores and top_tokens (N, count)
    decoder           decoder.onnx      ids (N, T), padding (N), wanted (P), state_..., count
                                        -> logits and log_probabilities (N, P, V), next_state_...,
                                           top_scores and top_tokens (N, P, count)

A decoder makes one step, and picks out the likeliest tokens itself: a search needs a handful of the thousands of
log-probabilities of each row. What it remembers is handed in and out openly: a search reorders the rows of the states
and repeats those of the memory, and needs to know nothing else about the architecture. A recurrent model remembers as
much after a thousand tokens as after one; the states of a Transformer are keys and values, (N, G, L, K), and grow by
the tokens that come. Every tensor has the batch first.

A decoder alone begins with states of length 0 and reads any number of tokens at once: prompts, padded on the left by
`padding` tokens, then one token a step. `wanted` says of which of them scores are needed: of the last, mostly.

The marks a search needs stand in the metadata of each graph. Transformers are written in ONNX's operators
(`onnx_transformer`), the other architectures traced (`onnx_traced`). An encoder's tokens are all of the first type.

int8: matrices and embeddings are kept in eight bits, and what is multiplied becomes so at each product, token by token
(`onnx_rounding`). LSTM layers are quantised by onnxruntime. Convolutions stay as they are; their integer kernels are
slower.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, Literal

from inkstone.generate.onnx_session import CLASSIFIER, DECODER, ENCODER
from inkstone.ground.errors import ConfigError, require

Quantization = Literal["float32", "int8"]


def export_onnx(folder: Path, out: Path, *, quantization: Quantization) -> Path:
    """Write the checkpoint in `folder`, ours or of a family known here, as ONNX graphs into `out`.

    Raises ConfigError for a model that has no such export.
    """
    for package in ("torch", "onnx"):
        require(package, "exporting to ONNX", "train")
    from inkstone.model.checkpoint import load_model
    from inkstone.model.transformer import Transformer

    model = load_model(folder)
    out.mkdir(parents=True, exist_ok=True)
    if isinstance(model, Transformer):
        write_transformer(model, out)
    else:
        _write_traced(model, folder, out)
    if quantization == "int8":
        quantise_onnx(out, out)
    return out


def write_transformer(model: Any, out: Path) -> None:
    """Write the graphs of a Transformer in float32, whatever its shape and axes, into a folder that is there."""
    from inkstone.ship import onnx_transformer as drawn

    marks = _marks(model)
    if model.config.shape == "decoder":
        drawn.decoder_graph(model).write(out / DECODER, marks)
    elif model.config.shape == "encoder-decoder":
        drawn.memory_graph(model).write(out / ENCODER, marks)
        drawn.step_graph(model).write(out / DECODER, marks)
    elif model.config.num_labels:
        drawn.classifier_graph(model).write(out / CLASSIFIER, marks)
    else:
        drawn.encoder_graph(model).write(out / ENCODER, marks)


def _write_traced(model: Any, folder: Path, out: Path) -> None:
    require("onnxscript", "exporting this architecture to ONNX", "train")
    from inkstone.model.convolutional import Convolutional
    from inkstone.model.recurrent import Recurrent
    from inkstone.model.textcnn import TextCNN
    from inkstone.ship import onnx_traced as traced

    if isinstance(model, Recurrent):
        model.encoder = traced.drawn_recurrences(model)
    if isinstance(model, TextCNN) or (isinstance(model, Recurrent) and model.classifier is not None):
        traced.write_classifier(model, out / CLASSIFIER, _marks(model))
    elif isinstance(model, Convolutional) or (isinstance(model, Recurrent) and model.decoder is not None):
        traced.write_translator(model, out / ENCODER, out / DECODER, _marks(model))
    else:
        kind = type(model).__name__
        raise ConfigError(
            f"{folder}: a {kind} encoder without labels is not exported to ONNX: nothing here would run it."
        )


def quantise_onnx(exact: Path, out: Path) -> Path:
    """Write the float32 graphs of a folder into another (or in their own place) with their weights in eight bits."""
    require("onnx", "quantising ONNX graphs", "train")
    import onnx

    from inkstone.ship.onnx_graph import write_model
    from inkstone.ship.onnx_rounding import Rounding

    out.mkdir(parents=True, exist_ok=True)
    for file in sorted(exact.glob("*.onnx")):
        model = onnx.load(file)
        Rounding(model).run()
        if any(node.op_type == "LSTM" for node in model.graph.node):
            model = _with_small_recurrences(model)
        write_model(model, out / file.name)
    return out


def _with_small_recurrences(model: Any) -> Any:
    """LSTM layers as onnxruntime's own operator keeps them in eight bits; GRU layers have none."""
    require("onnxruntime", "quantising recurrent ONNX graphs", "serve")
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from inkstone.ship.onnx_graph import quiet

    with tempfile.TemporaryDirectory(prefix="inkstone-onnx-") as scratch, quiet():
        small = Path(scratch) / "small.onnx"
        quantize_dynamic(model, small, weight_type=QuantType.QUInt8, op_types_to_quantize=["LSTM"])
        return onnx.load(small)


def _marks(model: Any) -> dict[str, str]:
    """What an engine has to know besides. max_positions: 0 where a text may have any length."""
    config: Any = model.config
    values = {name: getattr(config, name) for name in ("pad_id", "bos_id", "eos_id", "vocab_size")}
    values["max_positions"] = config.position_limit
    kind = config.to_dict()["model_type"]
    return {"inkstone": kind, **{name: str(value) for name, value in values.items()}}
