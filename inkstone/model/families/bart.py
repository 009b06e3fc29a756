"""BART and Marian (Lewis et al., 2020; Junczys-Dowmunt et al., 2018): the encoder-decoders with norms after the sums.

BART learns its positions (the first two rows of each table stand for none) and normalises its embeddings; Marian adds
sinusoids to scaled embeddings, as the first Transformer did. They share one table of names.
"""

from __future__ import annotations

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


def _names() -> dict[str, Theirs]:
    names: dict[str, Theirs] = {
        "embedding.weight": "model.shared.weight",
        "output.weight": "lm_head.weight",
        "output_bias": "final_logits_bias",
    }
    for side in ("encoder", "decoder"):
        ours, theirs = f"{side}.layers.{{n}}.", f"model.{side}.layers.{{n}}."
        names[f"{side}.position_embedding.weight"] = f"model.{side}.embed_positions.weight"
        for kind in ("weight", "bias"):
            names |= {
                f"{side}.embedding_norm.{kind}": f"model.{side}.layernorm_embedding.{kind}",
                f"{ours}attention.query_key_value.{kind}": (
                    f"{theirs}self_attn.q_proj.{kind}",
                    f"{theirs}self_attn.k_proj.{kind}",
                    f"{theirs}self_attn.v_proj.{kind}",
                ),
                f"{ours}attention.output.{kind}": f"{theirs}self_attn.out_proj.{kind}",
                f"{ours}attention_norm.{kind}": f"{theirs}self_attn_layer_norm.{kind}",
                f"{ours}memory_attention.query.{kind}": f"{theirs}encoder_attn.q_proj.{kind}",
                f"{ours}memory_attention.key_value.{kind}": (
                    f"{theirs}encoder_attn.k_proj.{kind}",
                    f"{theirs}encoder_attn.v_proj.{kind}",
                ),
                f"{ours}memory_attention.output.{kind}": f"{theirs}encoder_attn.out_proj.{kind}",
                f"{ours}memory_norm.{kind}": f"{theirs}encoder_attn_layer_norm.{kind}",
                f"{ours}feed_forward.up.{kind}": f"{theirs}fc1.{kind}",
                f"{ours}feed_forward.down.{kind}": f"{theirs}fc2.{kind}",
                f"{ours}feed_forward_norm.{kind}": f"{theirs}final_layer_norm.{kind}",
            }
    return names


def _read(options: Options, architecture: Architecture) -> dict[str, Any]:
    take = options.take
    heads, forward = take("encoder_attention_heads", int), take("encoder_ffn_dim", int)
    options.only("decoder_attention_heads", heads, "as many as the encoder")
    options.only("decoder_ffn_dim", forward, "as wide as the encoder's")
    for name in ("normalize_before", "add_bias_logits", "static_position_embeddings", "extra_pos_embeddings"):
        options.read.add(name)  # of older files; what they stood for is what the family always does
    options.only("normalize_before", False)
    eos = options.id("eos_token_id", 0)
    return {
        "vocab_size": take("vocab_size", int),
        "hidden_size": take("d_model", int),
        "num_heads": heads,
        "num_kv_heads": heads,
        "feed_forward_size": forward,
        "num_encoder_layers": take("encoder_layers", int),
        "num_decoder_layers": take("decoder_layers", int),
        "max_positions": take("max_position_embeddings", int),
        "activation": options.choose("activation_function", ACTIVATIONS, "gelu"),
        "scale_embeddings": take("scale_embedding", bool, False),
        "tie_embeddings": take("tie_word_embeddings", bool, True),
        "dropout": take("dropout", float, 0.1),
        "pad_id": options.id("pad_token_id", eos),
        "bos_id": options.id("decoder_start_token_id", eos),
        "eos_id": eos,
    }


def _read_bart(options: Options, architecture: Architecture) -> dict[str, Any]:
    options.read |= {"bos_token_id", "normalize_embedding", "add_final_layer_norm"}
    options.only("normalize_embedding", True)
    options.only("add_final_layer_norm", False)
    return _read(options, architecture)


def _read_marian(options: Options, architecture: Architecture) -> dict[str, Any]:
    options.read |= {"bos_token_id"}
    options.only("share_encoder_decoder_embeddings", True)
    options.only("decoder_vocab_size", options.values.get("vocab_size"), "as many as the encoder's")
    options.only("normalize_embedding", False)
    options.only("add_final_layer_norm", False)
    return _read(options, architecture)


def _write(config: ModelConfig) -> dict[str, Any]:
    return {
        "vocab_size": config.vocab_size,
        "d_model": config.hidden_size,
        "encoder_attention_heads": config.num_heads,
        "decoder_attention_heads": config.num_heads,
        "encoder_ffn_dim": config.feed_forward_size,
        "decoder_ffn_dim": config.feed_forward_size,
        "encoder_layers": config.num_encoder_layers,
        "decoder_layers": config.num_decoder_layers,
        "max_position_embeddings": config.max_positions,
        "activation_function": their_activation(config),
        "scale_embedding": config.scale_embeddings,
        "normalize_before": False,  # CTranslate2's converter asks for it
        "tie_word_embeddings": config.tie_embeddings,
        "dropout": config.dropout,
        "is_encoder_decoder": True,
        "pad_token_id": config.pad_id,
        "decoder_start_token_id": config.bos_id,
        "bos_token_id": config.bos_id,
        "eos_token_id": config.eos_id,
        "forced_eos_token_id": config.eos_id,
    }


def _write_marian(config: ModelConfig) -> dict[str, Any]:
    return {
        **_write(config),
        "decoder_vocab_size": config.vocab_size,
        "share_encoder_decoder_embeddings": True,
    }


FIXED = {
    "shape": "encoder-decoder",
    "norm": "layer",
    "norm_place": "after",
    "norm_epsilon": 1e-5,
    "feed_forward": "plain",
    "bias": "all",
    "output_bias": True,
}
_COPIES = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight")
BART = Family(
    model_type="bart",
    architectures={"BartForConditionalGeneration": Architecture("language")},
    read=_read_bart,
    write=_write,
    names=_names(),
    prefix="model.",
    ignored=(*_COPIES, "model.encoder.version", "model.decoder.version"),
    fixed={**FIXED, "positions": "learned", "position_offset": 2, "embedding_norm": True},
)
MARIAN = Family(
    model_type="marian",
    architectures={"MarianMTModel": Architecture("language")},
    read=_read_marian,
    write=_write_marian,
    names=_names(),
    prefix="model.",
    ignored=(*_COPIES, "model.encoder.embed_positions.weight", "model.decoder.embed_positions.weight"),
    fixed={**FIXED, "positions": "sinusoidal"},
)
