"""generation_config.json: what transformers would do with it is what we are told to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from inkstone.generate.engine import GenerationOptions
from inkstone.generate.foreign_options import FILE, options_of
from inkstone.ground.errors import BundleError, ConfigError


def said(folder: Path, **values: Any) -> Path:
    (folder / FILE).write_text(json.dumps(values))
    return folder


def test_a_chat_model_draws_and_has_two_ends(tmp_path: Path) -> None:
    qwen = said(
        tmp_path, do_sample=True, temperature=0.6, top_k=20, top_p=0.95, eos_token_id=[7, 5], bos_token_id=5
    )
    wanted = GenerationOptions(beam_size=1, temperature=0.6, top_k=20, top_p=0.95, end_ids=(7, 5))
    assert options_of(qwen) == wanted
    assert options_of(qwen, max_length=9, temperature=0.2).max_length == 9


def test_a_translator_searches_and_what_it_would_draw_with_is_idle(tmp_path: Path) -> None:
    marian = said(tmp_path, num_beams=6, temperature=0.5, top_k=3, eos_token_id=0, max_new_tokens=None)
    assert options_of(marian) == GenerationOptions(beam_size=6, end_ids=(0,))


def test_nothing_said_is_as_in_transformers(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="the reference is transformers; install the dev extra")
    from transformers import GenerationConfig

    assert options_of(tmp_path) == GenerationOptions(beam_size=1)
    theirs = GenerationConfig(do_sample=True)
    theirs.save_pretrained(tmp_path)
    found = options_of(tmp_path)
    wanted = {"temperature": 1.0, "top_k": 50, "top_p": 1.0}
    defaults = theirs._get_default_generation_params()
    assert (
        {name: getattr(found, name) for name in wanted} == {name: defaults[name] for name in wanted} == wanted
    )


def test_what_cannot_be_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"(?s)3 problems.*num_beams='4'.*top_p='a'.*eos_token_id=-?True"):
        options_of(said(tmp_path, do_sample=True, num_beams="4", top_p="a", eos_token_id=[True]))
    with pytest.raises(ConfigError, match="beam_size=1000 must be between"):
        options_of(said(tmp_path, num_beams=1000))
