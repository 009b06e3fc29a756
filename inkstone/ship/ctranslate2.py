"""A checkpoint as a CTranslate2 model (github.com/OpenNMT/CTranslate2), written through its specification API.

The tensors go into the specification by name; CTranslate2 checks their shapes, then quantises the matrices to int8 row
by row if asked to. `optimize` changes arrays in place, so it gets copies. What CTranslate2 cannot hold is refused here,
all reasons at once, instead of giving a model that runs and is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from inkstone.ground.errors import ConfigError, raise_all, require
from inkstone.ground.manifest import read_json
from inkstone.model.config import ModelConfig
from inkstone.model.positions import sinusoids
from inkstone.text.tokenizer import BOS, EOS, UNK, Tokenizer

Quantization = Literal["float32", "int8"]
Weights = Mapping[str, npt.NDArray[np.float32]]


def export_ctranslate2(folder: Path, out: Path, *, quantization: Quantization) -> Path:
    """Write the checkpoint in `folder` (config.json, model.safetensors, tokenizer.json) as a CTranslate2 model in `out`.

    Raises ConfigError listing what CTranslate2 cannot hold.
    """
    require("ctranslate2", "exporting to CTranslate2", "serve")
    from safetensors.numpy import load_file

    config = ModelConfig.from_dict(read_json(folder / "config.json"))
    raise_all(ConfigError, "this model does not fit CTranslate2", obstacles(config))
    stored = load_file(folder / "model.safetensors")
    weights = {name: np.array(tensor, dtype=np.float32) for name, tensor in stored.items()}
    spec = _specification(config, weights)
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    tokens = [tokenizer.token_of(number) for number in range(config.vocab_size)]
    spec.register_source_vocabulary(tokens)
    spec.register_target_vocabulary(tokens)
    spec.config.unk_token, spec.config.bos_token, spec.config.eos_token = UNK, BOS, EOS
    spec.config.decoder_start_token = BOS
    spec.config.layer_norm_epsilon = config.norm_epsilon
    spec.validate()
    spec.optimize(quantization=quantization)
    out.mkdir(parents=True, exist_ok=True)
    spec.save(str(out))
    return out


def obstacles(config: ModelConfig) -> list[str]:
    """Why CTranslate2 cannot hold a model of this configuration; empty when it can."""
    problems = []
    if config.shape != "encoder-decoder":
        problems.append(f"shape={config.shape}: only encoder-decoder is exported so far")
    return problems


def _specification(config: ModelConfig, weights: Weights) -> Any:
    from ctranslate2 import specs

    activation = {
        "relu": specs.Activation.RELU,
        "gelu": specs.Activation.GELU,
        "silu": specs.Activation.SWISH,
    }[config.activation]
    options: dict[str, Any] = {
        "num_heads": config.num_heads,
        "pre_norm": config.norm_place == "before",
        "activation": activation,
        "ffn_glu": config.feed_forward == "gated",
        "rms_norm": config.norm == "rms",
        "num_heads_kv": config.num_kv_heads if config.num_kv_heads != config.num_heads else None,
    }
    if config.positions == "rotary":
        options |= {
            "rotary_dim": config.head_size,
            "rotary_interleave": False,
            "rotary_base": config.rotary_base,
        }
    encoder = specs.TransformerEncoderSpec(config.num_encoder_layers, **options)
    decoder = specs.TransformerDecoderSpec(config.num_decoder_layers, **options)
    for side, name in ((encoder, "encoder"), (decoder, "decoder")):
        fill_side(side, name, config, weights)
    output = weights["embedding.weight"] if config.tie_embeddings else weights["output.weight"]
    decoder.projection.weight = output.copy()
    return specs.TransformerSpec(encoder, decoder)


def fill_side(side: Any, name: str, config: ModelConfig, weights: Weights) -> None:
    """Put one side's weights ("encoder" or "decoder") into its CTranslate2 specification."""
    embeddings = side.embeddings[0] if isinstance(side.embeddings, list) else side.embeddings
    embeddings.weight = weights["embedding.weight"].copy()
    side.scale_embeddings = config.scale_embeddings
    if config.positions == "rotary":
        if hasattr(side, "position_encodings"):
            del side.position_encodings
    else:
        side.position_encodings.encodings = _positions(config, weights, name)
    if config.norm_place == "before":
        _fill_norm(side.layer_norm, weights, f"{name}.norm")
    for number, layer in enumerate(side.layer):
        here = f"{name}.layers.{number}"
        _fill_norm(layer.self_attention.layer_norm, weights, f"{here}.attention_norm")
        _fill_linear(layer.self_attention.linear[0], weights, f"{here}.attention.query_key_value")
        _fill_linear(layer.self_attention.linear[1], weights, f"{here}.attention.output")
        if hasattr(layer, "attention"):
            _fill_norm(layer.attention.layer_norm, weights, f"{here}.memory_norm")
            _fill_linear(layer.attention.linear[0], weights, f"{here}.memory_attention.query")
            _fill_linear(layer.attention.linear[1], weights, f"{here}.memory_attention.key_value")
            _fill_linear(layer.attention.linear[2], weights, f"{here}.memory_attention.output")
        _fill_feed_forward(layer.ffn, weights, f"{here}.feed_forward", gated=config.feed_forward == "gated")
        _fill_norm(layer.ffn.layer_norm, weights, f"{here}.feed_forward_norm")


def _fill_feed_forward(spec: Any, weights: Weights, name: str, *, gated: bool) -> None:
    if gated:
        _fill_linear(spec.linear_0, weights, f"{name}.up", lambda x: x[: len(x) // 2])
        _fill_linear(spec.linear_0_noact, weights, f"{name}.up", lambda x: x[len(x) // 2 :])
    else:
        _fill_linear(spec.linear_0, weights, f"{name}.up")
    _fill_linear(spec.linear_1, weights, f"{name}.down")


def _fill_linear(
    spec: Any,
    weights: Weights,
    name: str,
    part: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]] = lambda x: x,
) -> None:
    spec.weight = part(weights[f"{name}.weight"]).copy()
    if f"{name}.bias" in weights:
        spec.bias = part(weights[f"{name}.bias"]).copy()


def _fill_norm(spec: Any, weights: Weights, name: str) -> None:
    spec.gamma = weights[f"{name}.weight"].copy()
    if f"{name}.bias" in weights:
        spec.beta = weights[f"{name}.bias"].copy()


def _positions(config: ModelConfig, weights: Weights, side: str) -> npt.NDArray[np.float32]:
    """The table that is added to the embeddings: (positions, D)."""
    if config.positions == "learned":
        return weights[f"{side}.position_embedding.weight"].copy()
    return sinusoids(config.max_positions, config.hidden_size)
