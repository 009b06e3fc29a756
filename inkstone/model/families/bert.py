"""BERT and RoBERTa (Devlin et al., 2019; Liu et al., 2019): encoders with learned positions and norms after the sums.

RoBERTa counts positions from the id of its padding on, and names its heads otherwise; the rest is the same.
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

_OURS = "encoder.layers.{n}."


def _names(base: str, prediction: dict[str, str], labels: dict[str, str]) -> dict[str, Theirs]:
    layer, embeddings = f"{base}encoder.layer.{{n}}.", f"{base}embeddings."
    names: dict[str, Theirs] = {
        "embedding.weight": f"{embeddings}word_embeddings.weight",
        "encoder.position_embedding.weight": f"{embeddings}position_embeddings.weight",
        "encoder.type_embedding.weight": f"{embeddings}token_type_embeddings.weight",
    }
    for kind in ("weight", "bias"):
        names |= {
            f"encoder.embedding_norm.{kind}": f"{embeddings}LayerNorm.{kind}",
            f"{_OURS}attention.query_key_value.{kind}": (
                f"{layer}attention.self.query.{kind}",
                f"{layer}attention.self.key.{kind}",
                f"{layer}attention.self.value.{kind}",
            ),
            f"{_OURS}attention.output.{kind}": f"{layer}attention.output.dense.{kind}",
            f"{_OURS}attention_norm.{kind}": f"{layer}attention.output.LayerNorm.{kind}",
            f"{_OURS}feed_forward.up.{kind}": f"{layer}intermediate.dense.{kind}",
            f"{_OURS}feed_forward.down.{kind}": f"{layer}output.dense.{kind}",
            f"{_OURS}feed_forward_norm.{kind}": f"{layer}output.LayerNorm.{kind}",
            **{f"{ours}.{kind}": f"{theirs}.{kind}" for ours, theirs in {**prediction, **labels}.items()},
        }
    return names


def _read(options: Options, architecture: Architecture) -> dict[str, Any]:
    take, heads = options.take, options.take("num_attention_heads", int)
    options.only("position_embedding_type", "absolute")
    pad = options.id("pad_token_id", 0)
    prediction, labels = architecture.head == "prediction", architecture.head == "labels"
    return {
        "vocab_size": take("vocab_size", int),
        "hidden_size": take("hidden_size", int),
        "num_heads": heads,
        "num_kv_heads": heads,
        "feed_forward_size": take("intermediate_size", int),
        "num_encoder_layers": take("num_hidden_layers", int),
        "max_positions": take("max_position_embeddings", int),
        "token_types": take("type_vocab_size", int, 2) or 1,  # they always add a row
        "norm_epsilon": take("layer_norm_eps", float, 1e-12),
        "activation": options.choose("hidden_act", ACTIVATIONS, "gelu"),
        "tie_embeddings": take("tie_word_embeddings", bool, True),
        "dropout": take("hidden_dropout_prob", float, 0.1),
        "prediction_head": prediction,
        "output_bias": prediction,
        "num_labels": options.labels() if labels else 0,
        "pooler": labels or any("pooler.dense" in name for name in options.stored),
        "pad_id": pad,
        "bos_id": options.id("bos_token_id", pad),
        "eos_id": options.id("eos_token_id", pad),
    }


def _read_roberta(options: Options, architecture: Architecture) -> dict[str, Any]:
    axes = _read(options, architecture)
    offset = axes["pad_id"] + 1
    return {**axes, "position_offset": offset, "max_positions": max(1, axes["max_positions"] - offset)}


def _write(config: ModelConfig) -> dict[str, Any]:
    labels = {str(number): f"LABEL_{number}" for number in range(config.num_labels)}
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.feed_forward_size,
        "num_hidden_layers": config.num_encoder_layers,
        "max_position_embeddings": config.max_positions + config.position_offset,
        "type_vocab_size": config.token_types,
        "position_embedding_type": "absolute",  # CTranslate2's converter asks for it
        "layer_norm_eps": config.norm_epsilon,
        "hidden_act": their_activation(config),
        "tie_word_embeddings": config.tie_embeddings,
        "hidden_dropout_prob": config.dropout,
        "pad_token_id": config.pad_id,
        "bos_token_id": config.bos_id,
        "eos_token_id": config.eos_id,
        **({"id2label": labels} if labels else {}),
    }


FIXED = {
    "shape": "encoder",
    "num_decoder_layers": 0,
    "positions": "learned",
    "norm": "layer",
    "norm_place": "after",
    "embedding_norm": True,
    "feed_forward": "plain",
    "bias": "all",
    "pooling": "first",
}
BERT = Family(
    model_type="bert",
    architectures={
        "BertModel": Architecture(bare=True),
        "BertForMaskedLM": Architecture("prediction"),
        "BertForSequenceClassification": Architecture("labels"),
    },
    read=_read,
    write=_write,
    names={
        **_names(
            "bert.",
            {
                "prediction_head.linear": "cls.predictions.transform.dense",
                "prediction_head.norm": "cls.predictions.transform.LayerNorm",
            },
            {"pooler": "bert.pooler.dense", "classifier": "classifier"},
        ),
        "output_bias": "cls.predictions.bias",
        "output.weight": "cls.predictions.decoder.weight",
    },
    prefix="bert.",
    ignored=(
        "bert.embeddings.position_ids",
        "cls.predictions.decoder.bias",  # the same as cls.predictions.bias
        "cls.seq_relationship.*",  # next-sentence prediction: no model of ours asks it
    ),
    fixed=FIXED,
)
ROBERTA = Family(
    model_type="roberta",
    architectures={
        "RobertaModel": Architecture(bare=True),
        "RobertaForMaskedLM": Architecture("prediction"),
        "RobertaForSequenceClassification": Architecture(
            "labels",
            names={"pooler.weight": "classifier.dense.weight", "pooler.bias": "classifier.dense.bias"},
        ),
    },
    read=_read_roberta,
    write=_write,
    names={
        **_names(
            "roberta.",
            {"prediction_head.linear": "lm_head.dense", "prediction_head.norm": "lm_head.layer_norm"},
            {"pooler": "roberta.pooler.dense", "classifier": "classifier.out_proj"},
        ),
        "output_bias": "lm_head.bias",
        "output.weight": "lm_head.decoder.weight",
    },
    prefix="roberta.",
    ignored=("roberta.embeddings.position_ids", "lm_head.decoder.bias"),
    fixed=FIXED,
)
