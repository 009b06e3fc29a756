"""How a public checkpoint asks to be generated from: its `generation_config.json` as `GenerationOptions`.

    options = options_of(Path("models/Qwen3-0.6B"), max_length=200)

What is not said there is as `transformers` would have it: greedy search, and where it draws (`do_sample`), from the 50
likeliest. Of several end marks every one ends a text. No torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inkstone.generate.engine import GenerationOptions
from inkstone.ground.errors import BundleError, raise_all
from inkstone.ground.manifest import read_json

FILE = "generation_config.json"
# Their names and ours; what is drawn with counts only where something is drawn, and a beam draws nothing.
_ALWAYS = {
    "num_beams": "beam_size",
    "num_return_sequences": "alternatives",
    "length_penalty": "length_penalty",
    "max_new_tokens": "max_length",
    "no_repeat_ngram_size": "no_repeat_ngram",
    "repetition_penalty": "repetition_penalty",
}
_DRAWING = {"temperature": "temperature", "top_k": "top_k", "top_p": "top_p", "min_p": "min_p"}
_THEIR_DEFAULTS = {"num_beams": 1, "temperature": 1.0, "top_k": 50}
_WHOLE = ("num_beams", "num_return_sequences", "max_new_tokens", "no_repeat_ngram_size", "top_k")


def options_of(folder: Path, **more: Any) -> GenerationOptions:
    """The options of the checkpoint in a folder; those of transformers where it has no generation_config.json.

    more: fields of `GenerationOptions` laid over them. Raises BundleError listing every value that is no number,
    ConfigError for numbers that cannot be.
    """
    given = read_json(folder / FILE) if (folder / FILE).is_file() else {}
    values = {**_THEIR_DEFAULTS, **{name: value for name, value in given.items() if value is not None}}
    names = {**_ALWAYS, **(_DRAWING if values.get("do_sample") is True else {})}
    ends = values.get("eos_token_id", [])
    ends = ends if isinstance(ends, list) else [ends]
    problems = [
        f"{name}={values[name]!r} must be {'a whole number' if name in _WHOLE else 'a number'}"
        for name in names
        if name in values and not _is_number(values[name], whole=name in _WHOLE)
    ]
    problems += [
        f"eos_token_id={end!r} must be the id of a token" for end in ends if not _is_number(end, whole=True)
    ]
    raise_all(BundleError, f"{folder / FILE} cannot be used", problems)
    found = {ours: values[name] for name, ours in names.items() if name in values}
    return GenerationOptions(**{**found, "end_ids": tuple(ends), **more})


def _is_number(value: object, *, whole: bool) -> bool:
    return isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
