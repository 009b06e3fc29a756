"""T5 (Raffel et al., 2020) and T5 1.1: encoder-decoders with relative positions and RMS norms, scores not scaled.

T5 1.1 has gated feed-forward and an output matrix of its own; the first T5 shares the embedding and scales its states.
Which of both an output is, the files say better than the options: with `lm_head.weight` it is untied.
"""

from __future__ import annotations

from typing import Any

from inkstone.model.config import ModelConfig
from inkstone.model.families.family import Architecture, Family, Options, Theirs


def _names() -> dict[str, Theirs]:
    names: dict[str, Theirs] = {"embedding.weight": "shared.weight", "output.weight": "lm_head.weight"}
    for side, last in (("encoder", 1), ("decoder", 2)):
        ours, theirs = f"{side}.layers.{{n}}.", f"{side}.block.{{n}}.layer."
        names |= {
            f"{side}.norm.weight": f"{side}.final_layer_norm.weight",
            f"{side}.relative.embedding.weight": (
                f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
            ),
            f"{ours}attention_norm.weight": f"{theirs}0.layer_norm.weight",
            f"{ours}attention.query_key_value.weight": (
                f"{theirs}0.SelfAttention.q.weight",
                f"{theirs}0.SelfAttention.k.weight",
                f"{theirs}0.SelfAttention.v.weight",
            ),
            f"{ours}attention.output.weight": f"{theirs}0.SelfAttention.o.weight",
            f"{ours}feed_forward_norm.weight": f"{theirs}{last}.layer_norm.weight",
            f"{ours}feed_forward.down.weight": f"{theirs}{last}.DenseReluDense.wo.weight",
        }
    across, theirs = "decoder.layers.{n}.memory_", "decoder.block.{n}.layer.1."
    return names | {
        f"{across}norm.weight": f"{theirs}layer_norm.weight",
        f"{across}attention.query.weight": f"{theirs}EncDecAttention.q.weight",
        f"{across}attention.key_value.weight": (
            f"{theirs}EncDecAttention.k.weight",
            f"{theirs}EncDecAttention.v.weight",
        ),
        f"{across}attention.output.weight": f"{theirs}EncDecAttention.o.weight",
    }


def _up(*parts: str) -> dict[str, Theirs]:
    """The names of the first feed-forward matrix: one, or gate and value."""
    found: dict[str, Theirs] = {}
    for side, last in (("encoder", 1), ("decoder", 2)):
        theirs = tuple(f"{side}.block.{{n}}.layer.{last}.DenseReluDense.{part}.weight" for part in parts)
        found[f"{side}.layers.{{n}}.feed_forward.up.weight"] = theirs
    return found


FORWARD = {
    "relu": ("plain", "relu"),
    "gelu": ("plain", "gelu"),
    "gelu_new": ("plain", "gelu-tanh"),
    "gated-relu": ("gated", "relu"),
    "gated-silu": ("gated", "silu"),
    "gated-gelu": ("gated", "gelu-tanh"),  # as transformers reads it
}


def _read(options: Options, architecture: Architecture) -> dict[str, Any]:
    take, layers, heads = options.take, options.take("num_layers", int), options.take("num_heads", int)
    options.read |= {"dense_act_fn", "is_gated_act"}  # both follow from feed_forward_proj
    feed_forward, activation = options.choose("feed_forward_proj", FORWARD, "relu")
    tied = take("tie_word_embeddings", bool, True)
    pad = options.id("pad_token_id", 0)
    return {
        "vocab_size": take("vocab_size", int),
        "hidden_size": take("d_model", int),
        "num_heads": heads,
        "num_kv_heads": heads,
        "head_size": take("d_kv", int),
        "feed_forward_size": take("d_ff", int),
        "num_encoder_layers": layers,
        "num_decoder_layers": take("num_decoder_layers", int, layers),
        "max_positions": take("n_positions", int, 512),
        "relative_buckets": take("relative_attention_num_buckets", int, 32),
        "relative_distance": take("relative_attention_max_distance", int, 128),
        "norm_epsilon": take("layer_norm_epsilon", float, 1e-6),
        "feed_forward": feed_forward,
        "activation": activation,
        "scale_output": take("scale_decoder_outputs", bool, tied),
        "tie_embeddings": "lm_head.weight" not in options.stored,
        "dropout": take("dropout_rate", float, 0.1),
        "pad_id": pad,
        "bos_id": options.id("decoder_start_token_id", pad),
        "eos_id": options.id("eos_token_id", 1),
    }


def _write(config: ModelConfig) -> dict[str, Any]:
    forward = {value: name for name, value in reversed(FORWARD.items())}
    return {
        "vocab_size": config.vocab_size,
        "d_model": config.hidden_size,
        "num_heads": config.num_heads,
        "d_kv": config.head_size,
        "d_ff": config.feed_forward_size,
        "num_layers": config.num_encoder_layers,
        "num_decoder_layers": config.num_decoder_layers,
        "n_positions": config.max_positions,
        "relative_attention_num_buckets": config.relative_buckets,
        "relative_attention_max_distance": config.relative_distance,
        "layer_norm_epsilon": config.norm_epsilon,
        "feed_forward_proj": forward.get((config.feed_forward, config.activation), "relu"),
        "tie_word_embeddings": config.scale_output,  # this word decides about the scale, see above
        "dropout_rate": config.dropout,
        "is_encoder_decoder": True,
        "pad_token_id": config.pad_id,
        "decoder_start_token_id": config.bos_id,
        "eos_token_id": config.eos_id,
    }


T5 = Family(
    model_type="t5",
    architectures={"T5ForConditionalGeneration": Architecture("language")},
    read=_read,
    write=_write,
    names={**_names(), **_up("wi")},
    prefix="",
    gated=_up("wi_0", "wi_1"),
    ignored=(
        "encoder.embed_tokens.weight",
        "decoder.embed_tokens.weight",
        "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
    ),
    fixed={
        "shape": "encoder-decoder",
        "positions": "relative",
        "norm": "rms",
        "norm_place": "before",
        "scale_scores": False,
    },
)
