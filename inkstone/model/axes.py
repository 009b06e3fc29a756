"""What the configurations of all architectures share: how their fields are checked, saved, read and overlaid.

A configuration is a frozen record whose fields are enumerated axes and sizes. Everything wrong with one is said at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from inkstone.ground.errors import ConfigError, not_known, raise_all

C = TypeVar("C")
_KINDS: dict[str, type | tuple[type, ...]] = {"int": int, "float": (int, float), "bool": bool}


def wrong_types(kind: type, values: Mapping[str, Any]) -> list[str]:
    """What is wrong with the types of the given fields of a record of this kind; True is no number here."""
    problems = []
    for field in fields(kind):
        if field.name in values and str(field.type) in (*_KINDS, "str"):
            value, wanted = values[field.name], str(field.type)
            if not isinstance(value, _KINDS.get(wanted, str)) or (
                isinstance(value, bool) and wanted != "bool"
            ):
                problems.append(f"{field.name}={value!r} must be of type {wanted}")
    return problems


def wrong_choices(record: Any, choices: Mapping[str, Sequence[str]]) -> list[str]:
    """The axes whose value is none of their choices."""
    found = {name: getattr(record, name) for name in choices}
    return [
        not_known(name, value, choices[name]) for name, value in found.items() if value not in choices[name]
    ]


def below(record: Any, names: Sequence[str], least: int) -> list[str]:
    """The sizes that are smaller than this."""
    found = {name: getattr(record, name) for name in names}
    return [f"{name}={value} must be at least {least}" for name, value in found.items() if value < least]


def wrong_marks(record: Any, names: Sequence[str] = ("pad_id", "bos_id", "eos_id")) -> list[str]:
    """The marks that are no ids of the vocabulary."""
    size = record.vocab_size
    found = {name: getattr(record, name) for name in names}
    return [
        f"{name}={value} must be at least 0 and below vocab_size={size}"
        for name, value in found.items()
        if not 0 <= value < size
    ]


def wrong_share(record: Any, name: str = "dropout") -> list[str]:
    """A share that is not at least 0 and below 1."""
    value = getattr(record, name)
    return [] if 0 <= value < 1 else [f"{name}={value} must be at least 0 and below 1"]


def from_plain(kind: type[C], values: Mapping[str, Any]) -> C:
    """The configuration that was saved as config.json. Raises ConfigError listing every unknown or missing entry."""
    given = {name: value for name, value in values.items() if name != "model_type"}
    own = fields(kind)  # type: ignore[arg-type]
    known = [field.name for field in own]
    problems = [not_known("model configuration key", name, known) for name in given if name not in known]
    required = [field.name for field in own if field.default is MISSING]
    problems += [f"{name} is missing" for name in required if name not in given]
    problems += wrong_types(kind, given)
    raise_all(ConfigError, "model configuration", problems)
    return kind(**given)


def overlaid(
    presets: Mapping[str, Callable[..., C]],
    kind: type[C],
    size: str,
    overlay: Mapping[str, Any] | None,
    **fixed: Any,
) -> C:
    """The preset of this size with some fields overlaid. fixed: what the preset is called with besides.

    Raises ConfigError for an unknown size or field.
    """
    if size not in presets:
        raise ConfigError(not_known("size", size, presets))
    names = [field.name for field in fields(kind) if field.name not in fixed]  # type: ignore[arg-type]
    unknown = [not_known("model option", name, names) for name in overlay or {} if name not in names]
    raise_all(ConfigError, "model configuration", unknown)
    return presets[size](**fixed, **(overlay or {}))
