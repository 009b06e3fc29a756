"""Llama, Mistral, Qwen2 and Qwen3: decoders with rotary positions, RMS norms and gated feed-forward.

They share one table of names (Touvron et al., 2023; Jiang et al., 2023; Yang et al., 2024; Yang et al., 2025).
"""

from __future__ import annotations

import math
from typing import Any

from inkstone.model.config import ModelConfig
from inkstone.model.families.family import (
    ACTIVATIONS,
    Architecture,
    Family,
    Options,
    Theirs,
    their_activation,
)

_LAYER = "model.layers.{n}."
NAMES: dict[str, Theirs] = {
    "embedding.weight": "model.embed_tokens.weight",
    "decoder.norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
    "decoder.layers.{n}.attention_norm.weight": _LAYER + "input_layernorm.weight",
    "decoder.layers.{n}.attention.query_key_value.weight": (
        _LAYER + "self_attn.q_proj.weight",
        _LAYER + "self_attn.k_proj.weight",
        _LAYER + "self_attn.v_proj.weight",
    ),
    "decoder.layers.{n}.attention.query_key_value.bias": (
        _LAYER + "self_attn.q_proj.bias",
        _LAYER + "self_attn.k_proj.bias",
        _LAYER + "self_attn.v_proj.bias",
    ),
    "decoder.layers.{n}.attention.query_norm.weight": _LAYER + "self_attn.q_norm.weight",
    "decoder.layers.{n}.attention.key_norm.weight": _LAYER + "self_attn.k_norm.weight",
    "decoder.layers.{n}.attention.output.weight": _LAYER + "self_attn.o_proj.weight",
    "decoder.layers.{n}.attention.output.bias": _LAYER + "self_attn.o_proj.bias",
    "decoder.layers.{n}.feed_forward_norm.weight": _LAYER + "post_attention_layernorm.weight",
    "decoder.layers.{n}.feed_forward.up.weight": (
        _LAYER + "mlp.gate_proj.weight",
        _LAYER + "mlp.up_proj.weight",
    ),
    "decoder.layers.{n}.feed_forward.up.bias": (_LAYER + "mlp.gate_proj.bias", _LAYER + "mlp.up_proj.bias"),
    "decoder.layers.{n}.feed_forward.down.weight": _LAYER + "mlp.down_proj.weight",
    "decoder.layers.{n}.feed_forward.down.bias": _LAYER + "mlp.down_proj.bias",
}
FIXED = {
    "shape": "decoder",
    "num_encoder_layers": 0,
    "positions": "rotary",
    "norm": "rms",
    "feed_forward": "gated",
}


def _shared(options: Options) -> dict[str, Any]:
    """What all four say in the same words."""
    take = options.take
    heads, hidden = take("num_attention_heads", int), take("hidden_size", int)
    eos = options.id("eos_token_id", 0)
    return {
        "vocab_size": take("vocab_size", int),
        "hidden_size": hidden,
        "num_heads": heads,
        "num_kv_heads": take("num_key_value_heads", int, heads),
        "head_size": take("head_dim", int, hidden // max(1, heads)),
        "feed_forward_size": take("intermediate_size", int),
        "num_decoder_layers": take("num_hidden_layers", int),
        "max_positions": take("max_position_embeddings", int),
        "norm_epsilon": take("rms_norm_eps", float, 1e-6),
        "activation": options.choose("hidden_act", ACTIVATIONS, "silu"),
        "tie_embeddings": take("tie_word_embeddings", bool, False),
        "dropout": 0.0,
        "pad_id": options.id("pad_token_id", eos),
        "bos_id": options.id("bos_token_id", eos),
        "eos_id": eos,
        **_rotary(options),
    }


def _rotary(options: Options) -> dict[str, Any]:
    """The rotary axes, from `rope_parameters` or from the older `rope_theta` and `rope_scaling`."""
    given = options.take("rope_parameters", dict, {}) or options.take("rope_scaling", dict, {})
    options.read |= {"rope_parameters", "rope_scaling", "rope_theta"}
    own = Options({"rope_type": given.get("type"), "rope_theta": options.values.get("rope_theta"), **given})
    own.read |= {"type"}
    longest = options.values.get("max_position_embeddings", 1)
    kind = own.choose(
        "rope_type", {"default": "none", "linear": "linear", "llama3": "llama3", "yarn": "yarn"}, "default"
    )
    axes = {"rotary_base": own.take("rope_theta", float, 10_000.0), "rotary_scaling": kind}
    if kind != "none":
        axes["rotary_factor"] = own.take("factor", float)
    if kind in ("llama3", "yarn"):
        axes["rotary_trained"] = own.take("original_max_position_embeddings", int, longest)
    if kind == "llama3":
        axes |= {
            "rotary_slow": own.take("low_freq_factor", float),
            "rotary_fast": own.take("high_freq_factor", float),
        }
    if kind == "yarn":
        axes |= {
            "rotary_slow": own.take("beta_slow", float, 1.0),
            "rotary_fast": own.take("beta_fast", float, 32.0),
        }
        axes["rotary_magnitude"] = own.take(
            "attention_factor", float, 0.1 * math.log(axes["rotary_factor"]) + 1
        )
        own.only("truncate", True)
    own.read |= {"original_max_position_embeddings"}
    options.problems += [f"rope: {problem}" for problem in own.left()]
    return axes


def _write(config: ModelConfig) -> dict[str, Any]:
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rotary_base}
    if config.rotary_scaling != "none":
        rope |= {"rope_type": config.rotary_scaling, "factor": config.rotary_factor}
    if config.rotary_scaling in ("llama3", "yarn"):
        rope["original_max_position_embeddings"] = config.rotary_trained
    if config.rotary_scaling == "llama3":
        rope |= {"low_freq_factor": config.rotary_slow, "high_freq_factor": config.rotary_fast}
    if config.rotary_scaling == "yarn":
        rope |= {"beta_slow": config.rotary_slow, "beta_fast": config.rotary_fast}
        rope["attention_factor"] = config.rotary_magnitude
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_size,
        "intermediate_size": config.feed_forward_size,
        "num_hidden_layers": config.num_decoder_layers,
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.norm_epsilon,
        "hidden_act": their_activation(config, "gelu_pytorch_tanh"),
        "tie_word_embeddings": config.tie_embeddings,
        "pad_token_id": config.pad_id,
        "bos_token_id": config.bos_id,
        "eos_token_id": config.eos_id,
        "rope_parameters": rope,
        # The older words, for readers that know no others.
        "rope_theta": config.rotary_base,
        "rope_scaling": rope if config.rotary_scaling != "none" else None,
    }


def _read_llama(options: Options, architecture: Architecture) -> dict[str, Any]:
    attention = options.take("attention_bias", bool, False)
    everywhere = options.take("mlp_bias", bool, False)
    if everywhere and not attention:
        options.problems.append("mlp_bias=True is supported only with attention_bias=True")
    return {**_shared(options), "bias": "all" if everywhere else "attention" if attention else "none"}


def _write_llama(config: ModelConfig) -> dict[str, Any]:
    return {
        **_write(config),
        "attention_bias": config.bias in ("attention", "all"),
        "mlp_bias": config.bias == "all",
    }


def _read_mistral(options: Options, architecture: Architecture) -> dict[str, Any]:
    return {**_shared(options), "window": options.take("sliding_window", int, 0)}


def _write_mistral(config: ModelConfig) -> dict[str, Any]:
    return {**_write(config), "sliding_window": config.window or None}


def _windowed(options: Options, layers: int) -> int:
    """The window of Qwen's models, where all layers have it."""
    width = options.take("sliding_window", int, 0)
    first = options.take("max_window_layers", int, 0)
    used = options.take("use_sliding_window", bool, False) and width
    kinds = set(options.take("layer_types", list, []))
    if kinds == {"full_attention", "sliding_attention"} or (used and not kinds and 0 < first < layers):
        options.problems.append("a window in some layers and not in others is not supported")
    elif not kinds <= {"full_attention", "sliding_attention"}:
        options.problems.append(f"layer_types={sorted(map(str, kinds))} are not all known")
    return width if used and kinds != {"full_attention"} and first < layers else 0


def _write_window(config: ModelConfig) -> dict[str, Any]:
    layers = config.num_decoder_layers
    return {
        "use_sliding_window": bool(config.window),
        "sliding_window": config.window or None,
        "max_window_layers": 0 if config.window else layers,
        "layer_types": ["sliding_attention" if config.window else "full_attention"] * layers,
    }


def _read_qwen2(options: Options, architecture: Architecture) -> dict[str, Any]:
    axes = _shared(options)
    return {**axes, "bias": "query-key-value", "window": _windowed(options, axes["num_decoder_layers"])}


def _write_qwen2(config: ModelConfig) -> dict[str, Any]:
    return {**_write(config), **_write_window(config)}


def _read_qwen3(options: Options, architecture: Architecture) -> dict[str, Any]:
    axes = _shared(options)
    return {
        **axes,
        "query_key_norm": True,
        "bias": "attention" if options.take("attention_bias", bool, False) else "none",
        "window": _windowed(options, axes["num_decoder_layers"]),
    }


def _write_qwen3(config: ModelConfig) -> dict[str, Any]:
    return {**_write(config), **_write_window(config), "attention_bias": config.bias == "attention"}


def _family(name: str, architecture: str, read: Any, write: Any) -> Family:
    return Family(
        model_type=name,
        architectures={architecture: Architecture("language")},
        read=read,
        write=write,
        names=NAMES,
        prefix="model.",
        ignored=("model.layers.*.self_attn.rotary_emb.inv_freq",),
        fixed=FIXED,
    )


LLAMA = _family("llama", "LlamaForCausalLM", _read_llama, _write_llama)
MISTRAL = _family("mistral", "MistralForCausalLM", _read_mistral, _write_mistral)
QWEN2 = _family("qwen2", "Qwen2ForCausalLM", _read_qwen2, _write_qwen2)
QWEN3 = _family("qwen3", "Qwen3ForCausalLM", _read_qwen3, _write_qwen3)
