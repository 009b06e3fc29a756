"""GPT-2 (Radford et al., 2019): a decoder with learned positions and layer norms; its matrices are stored transposed."""

from __future__ import annotations

from typing import Any

from inkstone.model.config import ModelConfig
from inkstone.model.families.family import (
    ACTIVATIONS,
    Architecture,
    Family,
    Options,
    their_activation,
)

_LAYER = "transformer.h.{n}."
_OURS = "decoder.layers.{n}."
_LINEAR = {
    "attention.query_key_value": "attn.c_attn",
    "attention.output": "attn.c_proj",
    "feed_forward.up": "mlp.c_fc",
    "feed_forward.down": "mlp.c_proj",
}
_NORMS = {"attention_norm": "ln_1", "feed_forward_norm": "ln_2"}
NAMES = {
    "embedding.weight": "transformer.wte.weight",
    "decoder.position_embedding.weight": "transformer.wpe.weight",
    "decoder.norm.weight": "transformer.ln_f.weight",
    "decoder.norm.bias": "transformer.ln_f.bias",
    "output.weight": "lm_head.weight",
    **{
        f"{_OURS}{ours}.{kind}": f"{_LAYER}{theirs}.{kind}"
        for ours, theirs in {**_LINEAR, **_NORMS}.items()
        for kind in ("weight", "bias")
    },
}


def _read(options: Options, architecture: Architecture) -> dict[str, Any]:
    take = options.take
    hidden, heads = take("n_embd", int), take("n_head", int)
    options.only("scale_attn_by_inverse_layer_idx", False)
    eos = options.id("eos_token_id", 0)
    return {
        "vocab_size": take("vocab_size", int),
        "hidden_size": hidden,
        "num_heads": heads,
        "num_kv_heads": heads,
        "feed_forward_size": take("n_inner", int, 4 * hidden),
        "num_decoder_layers": take("n_layer", int),
        "max_positions": take("n_positions", int),
        "norm_epsilon": take("layer_norm_epsilon", float, 1e-5),
        "activation": options.choose("activation_function", ACTIVATIONS, "gelu_new"),
        "scale_scores": take("scale_attn_weights", bool, True),
        "tie_embeddings": take("tie_word_embeddings", bool, True),
        "dropout": 0.1,
        "pad_id": options.id("pad_token_id", eos),
        "bos_id": options.id("bos_token_id", eos),
        "eos_id": eos,
    }


def _write(config: ModelConfig) -> dict[str, Any]:
    return {
        "vocab_size": config.vocab_size,
        "n_embd": config.hidden_size,
        "n_head": config.num_heads,
        "n_inner": config.feed_forward_size,
        "n_layer": config.num_decoder_layers,
        "n_positions": config.max_positions,
        "layer_norm_epsilon": config.norm_epsilon,
        "activation_function": their_activation(config),
        "scale_attn_weights": config.scale_scores,
        "tie_word_embeddings": config.tie_embeddings,
        "pad_token_id": config.pad_id,
        "bos_token_id": config.bos_id,
        "eos_token_id": config.eos_id,
    }


GPT2 = Family(
    model_type="gpt2",
    architectures={"GPT2LMHeadModel": Architecture("language")},
    read=_read,
    write=_write,
    names=NAMES,
    prefix="transformer.",
    transposed=frozenset(f"{_OURS}{ours}.weight" for ours in _LINEAR),
    ignored=("transformer.h.*.attn.bias", "transformer.h.*.attn.masked_bias"),
    fixed={
        "shape": "decoder",
        "num_encoder_layers": 0,
        "positions": "learned",
        "norm": "layer",
        "norm_place": "before",
        "feed_forward": "plain",
        "bias": "all",
    },
)
