"""ModelConfig: all its problems at once, presets, and the way to a file and back."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from inkstone.ground.errors import ConfigError
from inkstone.model.config import PRESETS, ModelConfig, bag, base, preset, small, tiny


def test_the_base_preset_is_that_of_attention_is_all_you_need() -> None:
    config = base()
    assert (config.hidden_size, config.num_heads, config.feed_forward_size) == (512, 8, 2048)
    assert (config.num_encoder_layers, config.num_decoder_layers) == (6, 6)
    assert (config.max_positions, config.vocab_size) == (512, 10_000)
    assert (config.positions, config.norm, config.norm_place) == ("sinusoidal", "layer", "after")
    assert (config.feed_forward, config.activation, config.scale_embeddings) == ("plain", "relu", True)
    assert set(PRESETS) == {"bag", "tiny", "small", "base"}


def test_only_an_encoder_that_predicts_nothing_may_have_no_layers() -> None:
    assert bag(500).num_encoder_layers == 0
    heads = ({"num_labels": 2}, {"prediction_head": True})
    for wrong in ({"shape": "decoder"}, {"shape": "encoder-decoder"}, *heads):
        with pytest.raises(ConfigError, match="layers=0 does not go with shape"):
            bag(500, **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "config", [bag(500), tiny(500), small(500, "encoder", num_labels=3), base(400, "decoder")]
)
def test_through_a_file_and_back(config: ModelConfig) -> None:
    assert ModelConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_all_wrong_choices_and_sizes_are_listed_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        replace(tiny(100), positions="rotry", norm="lyer", num_heads=0, vocab_size=-1)  # type: ignore[arg-type]
    for words in ('Did you mean "rotary"?', 'norm="lyer"', "num_heads=0", "vocab_size=-1", "4 problems"):
        assert words in str(error.value)


@pytest.mark.parametrize(
    ("overlay", "words"),
    [
        ({"num_heads": 3, "num_kv_heads": 3}, "multiple of num_heads=3"),
        ({"num_heads": 4, "num_kv_heads": 3}, "multiple of num_kv_heads=3"),
        ({"hidden_size": 12, "num_heads": 4}, "even head size, not 3"),
        ({"num_encoder_layers": 0}, "does not go with shape=encoder-decoder"),
        ({"num_decoder_layers": 0}, "does not go with shape=encoder-decoder"),
        ({"dropout": 1.0}, "dropout=1.0"),
        ({"dropout": -0.1}, "dropout=-0.1"),
        ({"num_labels": 2}, "needs shape=encoder"),
        ({"eos_id": 100}, "below vocab_size=100"),
        ({"pad_id": -1}, "pad_id=-1"),
        (
            {"positions": "sinusoidal", "hidden_size": 2, "num_heads": 1, "num_kv_heads": 1},
            "even hidden_size",
        ),
        ({"norm_epsilon": 0.0}, "norm_epsilon=0.0 must be above 0"),
        ({"hidden_size": "wide"}, "hidden_size='wide' must be of type int"),
        ({"dropout": "1e-1"}, "dropout='1e-1' must be of type float"),
        ({"tie_embeddings": 1}, "tie_embeddings=1 must be of type bool"),
        ({"num_heads": True}, "num_heads=True must be of type int"),
        ({"hiden_size": 8}, 'Did you mean "hidden_size"?'),
    ],
)
def test_what_does_not_go_together_is_said(overlay: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=r"model configuration") as error:
        preset("tiny", 100, "encoder-decoder", overlay)
    assert words in str(error.value)


def test_an_unknown_size_is_said() -> None:
    with pytest.raises(ConfigError, match=r'size="smal" is not known.*Did you mean "small"'):
        preset("smal", 100, "encoder-decoder")


def test_a_foreign_config_json_is_refused_with_everything_wrong_in_it() -> None:
    values = tiny(100).to_dict()
    del values["hidden_size"]
    values |= {"num_heads": "4", "n_layer": 12, "tie_embeddings": 0}
    with pytest.raises(ConfigError) as error:
        ModelConfig.from_dict(values)
    for words in ("hidden_size is missing", "num_heads='4'", 'key="n_layer"', "tie_embeddings=0"):
        assert words in str(error.value)
