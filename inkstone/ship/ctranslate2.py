"""A checkpoint as a CTranslate2 model (github.com/OpenNMT/CTranslate2), written through its specification API.

Encoders, decoders and encoder-decoders, of our own and of the foreign families. The tensors go into the specification
by name; CTranslate2 checks their shapes, then quantises the matrices to int8 row by row if asked to. `optimize` changes
arrays in place, so it gets copies. What CTranslate2 cannot hold is refused here, all reasons at once, instead of giving
a model that runs and is wrong.

Two axes have no word of their own there and are said in others. Scaled rotary rates, whatever the scaling, are written
as the factor each rate is divided by (its "Su" scaling), because its own linear and Llama 3 scalings know fewer
parameters and it has no YaRN. What YaRN makes larger, queries and keys alike, goes into the scale of the queries.

Every token of the vocabulary needs a name of its own there: those that the tokenizer does not name get a made one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from inkstone.ground.errors import ConfigError, raise_all, require
from inkstone.ground.manifest import read_json
from inkstone.model.config import ModelConfig
from inkstone.model.positions import sinusoids
from inkstone.text.foreign_files import has_tokenizer
from inkstone.text.reader import TextReader
from inkstone.text.tokenizer import UNK

Quantization = Literal["float32", "int8"]
Weights = Mapping[str, npt.NDArray[np.float32]]
Part = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
ACTIVATIONS = {"relu": "RELU", "gelu": "GELU", "gelu-tanh": "GELUTanh", "silu": "SWISH"}


def export_ctranslate2(folder: Path, out: Path, *, quantization: Quantization) -> Path:
    """Write the checkpoint in `folder`, ours or a foreign one, as a CTranslate2 model in `out`.

    Raises ConfigError listing what CTranslate2 cannot hold.
    """
    require("ctranslate2", "exporting to CTranslate2", "serve")
    config, weights, tokens = _checkpoint(folder)
    write_ctranslate2(config, weights, tokens, out, quantization=quantization)
    return out


def write_ctranslate2(
    config: ModelConfig, weights: Weights, tokens: Sequence[str], out: Path, *, quantization: Quantization
) -> None:
    """Write a model in `out`. tokens: their names, by number; fewer than the vocabulary are made up for.

    Raises ConfigError listing what CTranslate2 cannot hold.
    """
    raise_all(ConfigError, "this model does not fit CTranslate2", obstacles(config))
    spec = _specification(config, weights)
    names = distinct(tokens, config.vocab_size)
    if config.shape == "encoder-decoder":
        spec.register_source_vocabulary(names)
        spec.register_target_vocabulary(names)
        spec.config.decoder_start_token = names[config.bos_id]
    else:
        spec.register_vocabulary(names)
    spec.config.unk_token = UNK if UNK in names else names[config.pad_id]
    spec.config.bos_token, spec.config.eos_token = names[config.bos_id], names[config.eos_id]
    spec.config.layer_norm_epsilon = config.norm_epsilon
    for name, value in marks(config).items():
        spec.config.add_attribute(name, value)
    spec.validate()
    spec.optimize(quantization=quantization)
    out.mkdir(parents=True, exist_ok=True)
    spec.save(str(out))


def obstacles(config: ModelConfig) -> list[str]:
    """Why CTranslate2 cannot hold a model of this configuration; empty when it can."""
    problems = []
    if config.shape == "encoder" and not config.num_encoder_layers:
        problems.append("num_encoder_layers=0: its encoders have layers")
    if config.prediction_head:
        problems.append("prediction_head=True: an encoder gives states there, no scores over the vocabulary")
    if 0 < config.window < config.max_positions:
        problems.append(f"window={config.window}: it misreads prompts that are longer than the window")
    if config.query_key_norm and config.shape == "encoder-decoder":
        problems.append(
            "query_key_norm=True: it does not norm the queries and keys of attention to the memory"
        )
    if config.positions == "relative" and config.shape == "decoder":
        problems.append("positions=relative with shape=decoder: it places the tokens after a prompt wrongly")
    return problems


def marks(config: ModelConfig) -> dict[str, int]:
    """What the engine has to know besides, kept in CTranslate2's own config.json: ids, and how long a text may be.

    max_positions: 0 where there is no limit.
    """
    return {"bos_id": config.bos_id, "eos_id": config.eos_id, "max_positions": config.position_limit}


def distinct(tokens: Sequence[str], size: int) -> list[str]:
    """A name for each number below size: the token's own, or a made one where it has none or it is taken."""
    names: list[str] = []
    taken = set(tokens)
    seen: set[str] = set()
    for number in range(size):
        name = tokens[number] if number < len(tokens) else ""
        while not name or name in seen or (number >= len(tokens) and name in taken):
            name = f"<token {number}>" if not name else f"{name}'"
        names.append(name)
        seen.add(name)
    return names


def _checkpoint(folder: Path) -> tuple[ModelConfig, Weights, list[str]]:
    """What there is to write: the configuration, the weights by our names, the names of the tokens."""
    from safetensors.numpy import load_file

    values = read_json(folder / "config.json")
    if values.get("model_type", "inkstone-transformer") != "inkstone-transformer":
        return _foreign(folder)
    config = ModelConfig.from_dict(values)
    raise_all(ConfigError, "this model does not fit CTranslate2", obstacles(config))  # before the work
    stored = load_file(folder / "model.safetensors")
    weights = {name: np.array(tensor, dtype=np.float32) for name, tensor in stored.items()}
    inner = TextReader.load(folder).tokenizer.inner
    return config, weights, [inner.id_to_token(number) or "" for number in range(config.vocab_size)]


def _foreign(folder: Path) -> tuple[ModelConfig, Weights, list[str]]:
    from inkstone.model.families.folder import read_folder
    from inkstone.text.foreign_tokenizer import ForeignTokenizer

    model = read_folder(folder)
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    tokens: list[str] = []
    if has_tokenizer(folder):
        inner = ForeignTokenizer.load(folder).inner
        tokens = [inner.id_to_token(number) or "" for number in range(inner.get_vocab_size())]
    return model.config, weights, tokens


def _specification(config: ModelConfig, weights: Weights) -> Any:
    """The model as CTranslate2 describes it."""
    from ctranslate2 import specs

    if not config.has_decoder:
        pooled = config.pooler and config.pooling == "first"
        spec = specs.TransformerEncoderModelSpec(_encoder(config, weights), pooling_layer=pooled)
        if pooled:
            _fill_linear(spec.pooler_dense, weights, "pooler")
        return spec
    decoder = _decoder(config, weights)
    if config.has_encoder:
        return specs.TransformerSpec(_encoder(config, weights), decoder)
    return specs.TransformerDecoderModelSpec(decoder)


def _options(config: ModelConfig) -> dict[str, Any]:
    """What both sides are told."""
    from ctranslate2 import specs

    options: dict[str, Any] = {
        "num_heads": config.num_heads,
        "pre_norm": config.norm_place == "before",
        "activation": getattr(specs.Activation, ACTIVATIONS[config.activation]),
        "ffn_glu": config.feed_forward == "gated",
        "rms_norm": config.norm == "rms",
        "layernorm_embedding": config.embedding_norm,
        "num_heads_kv": config.num_kv_heads if config.num_kv_heads != config.num_heads else None,
        "head_dim": config.head_size if config.head_size * config.num_heads != config.hidden_size else None,
        "relative_attention_bias": config.positions == "relative",
        "qk_norm": config.query_key_norm,
    }
    if config.positions == "rotary":
        from ctranslate2.specs.attention_spec import RotaryScalingType

        options |= {
            "rotary_dim": config.head_size,
            "rotary_interleave": False,
            "rotary_base": config.rotary_base,
            "rotary_scaling_type": None if config.rotary_scaling == "none" else RotaryScalingType.Su,
        }
    return options


def _encoder(config: ModelConfig, weights: Weights) -> Any:
    from ctranslate2 import specs

    options = _options(config)
    if config.token_types:
        options |= {"num_source_embeddings": 2, "embeddings_merge": specs.EmbeddingsMerge.ADD}
    encoder = specs.TransformerEncoderSpec(config.num_encoder_layers, **options)
    fill_side(encoder, "encoder", config, weights)
    if config.token_types:
        # It scales the sum of both tables, where we scale that of the tokens.
        scale = config.hidden_size**0.5 if config.scale_embeddings else 1.0
        encoder.embeddings[1].weight = weights["encoder.type_embedding.weight"] / np.float32(scale)
    return encoder


def _decoder(config: ModelConfig, weights: Weights) -> Any:
    from ctranslate2 import specs

    decoder = specs.TransformerDecoderSpec(
        config.num_decoder_layers, with_encoder_attention=config.has_encoder, **_options(config)
    )
    fill_side(decoder, "decoder", config, weights)
    output = weights["embedding.weight"] if config.tie_embeddings else weights["output.weight"]
    decoder.projection.weight = output.copy()
    if config.output_bias:
        decoder.projection.bias = weights["output_bias"].copy()
    if config.scale_output:
        decoder.scale_outputs = np.float32(config.hidden_size**-0.5)
    return decoder


def fill_side(side: Any, name: str, config: ModelConfig, weights: Weights) -> None:
    """Put one side's weights ("encoder" or "decoder") into its CTranslate2 specification."""
    embeddings = side.embeddings[0] if isinstance(side.embeddings, list) else side.embeddings
    embeddings.weight = weights["embedding.weight"].copy()
    side.scale_embeddings = config.scale_embeddings
    if config.positions in ("learned", "sinusoidal"):
        side.position_encodings.encodings = _positions(config, weights, name)
    elif hasattr(side, "position_encodings"):
        del side.position_encodings
    if config.embedding_norm:
        _fill_norm(side.layernorm_embedding, weights, f"{name}.embedding_norm")
    if config.norm_place == "before":
        _fill_norm(side.layer_norm, weights, f"{name}.norm")
    for number, layer in enumerate(side.layer):
        here = f"{name}.layers.{number}"
        _fill_norm(layer.self_attention.layer_norm, weights, f"{here}.attention_norm")
        _fill_attention(
            layer.self_attention, weights, f"{here}.attention", ("query_key_value", "output"), config
        )
        _fill_places(layer.self_attention, config, weights, name)
        if hasattr(layer, "attention"):
            _fill_norm(layer.attention.layer_norm, weights, f"{here}.memory_norm")
            parts = ("query", "key_value", "output")
            _fill_attention(layer.attention, weights, f"{here}.memory_attention", parts, config)
        _fill_feed_forward(layer.ffn, weights, f"{here}.feed_forward", gated=config.feed_forward == "gated")
        _fill_norm(layer.ffn.layer_norm, weights, f"{here}.feed_forward_norm")


def _fill_attention(
    spec: Any, weights: Weights, name: str, parts: Sequence[str], config: ModelConfig
) -> None:
    for linear, part in zip(spec.linear, parts, strict=True):
        _fill_linear(linear, weights, f"{name}.{part}")
    if config.query_key_norm:
        _fill_norm(spec.q_norm, weights, f"{name}.query_norm")
        _fill_norm(spec.k_norm, weights, f"{name}.key_norm")
    if not config.scale_scores:
        spec.queries_scale = np.float32(1)


def _fill_places(spec: Any, config: ModelConfig, weights: Weights, side: str) -> None:
    """What self-attention knows of positions: relative biases, scaled rotary rates."""
    if config.positions == "relative":
        spec.relative_attention_bias = weights[f"{side}.relative.embedding.weight"].copy()
        spec.relative_attention_max_distance = np.dtype("int32").type(config.relative_distance)
    if config.positions == "rotary" and config.rotary_scaling != "none":
        from inkstone.model.rotary import rotary_rates

        plain = config.rotary_base ** (-np.arange(0, config.head_size, 2) / config.head_size)
        factors = (plain / rotary_rates(config).numpy()).astype(np.float32)
        spec.rotary_scaling_long_factor, spec.rotary_scaling_short_factor = factors, factors.copy()
    if config.positions == "rotary" and config.rotary_magnitude != 1:
        scale = config.head_size**-0.5 if config.scale_scores else 1.0
        spec.queries_scale = np.float32(config.rotary_magnitude**2 * scale)


def _fill_feed_forward(spec: Any, weights: Weights, name: str, *, gated: bool) -> None:
    if gated:
        _fill_linear(spec.linear_0, weights, f"{name}.up", lambda x: x[: len(x) // 2])
        _fill_linear(spec.linear_0_noact, weights, f"{name}.up", lambda x: x[len(x) // 2 :])
    else:
        _fill_linear(spec.linear_0, weights, f"{name}.up")
    _fill_linear(spec.linear_1, weights, f"{name}.down")


def _fill_linear(spec: Any, weights: Weights, name: str, part: Part = lambda x: x) -> None:
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
        return weights[f"{side}.position_embedding.weight"][config.position_offset :].copy()
    return sinusoids(config.max_positions, config.hidden_size)
