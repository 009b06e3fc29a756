"""The space that a search looks through, as a mapping from the names of a recipe's entries to what they may be.

training.learning_rate: {low: 1e-4, high: 1e-2, log: true}     numbers in between; whole ones where both ends are
training.clip_norm: {low: 0.5, high: 2.0, step: 0.5}
model.dropout: [0.1, 0.2, 0.3]                                 one of these
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from inkstone.ground.errors import ConfigError, not_known, raise_all

Value = float | int | str | bool | None
_EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")  # YAML 1.1 takes 1e-4, without a point, for a string


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from low to high, both included; whole ones where both ends are. log: even by order of magnitude."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def ends(self) -> tuple[Value, ...]:
        """What a recipe must be able to take."""
        return self.low, self.high


@dataclass(frozen=True, slots=True)
class Choices:
    """Some values."""

    values: tuple[Value, ...]

    @property
    def ends(self) -> tuple[Value, ...]:
        """What a recipe must be able to take."""
        return self.values


Space = dict[str, Range | Choices]


def read_space(values: Mapping[Any, Any], title: str) -> tuple[Space, list[str]]:
    """The space that a file's mapping describes, as far as it can be understood, and what is wrong with the rest."""
    space: Space = {}
    problems = [] if values else [f"{title} names nothing to search through"]
    for name, described in values.items():
        if not isinstance(name, str):
            problems.append(f"{name!r} is not the name of an entry, such as training.learning_rate")
        elif isinstance(described, Mapping):
            wrong = _wrong_range(described)
            problems += [f"{name}: {problem}" for problem in wrong]
            if not wrong:
                space[name] = Range(**{key: _number(value) for key, value in described.items()})
        elif isinstance(described, list):
            wrong = _wrong_choices(described)
            problems += [f"{name}: {problem}" for problem in wrong]
            if not wrong:
                space[name] = Choices(tuple(_number(value) for value in described))
        else:
            problems.append(
                f"{name}={described!r} is one value: write a list of several, or {{low: ..., high: ...}}"
            )
    return space, problems


def check_space(space: Space, problems: list[str], title: str) -> None:
    """Raise one ConfigError with all problems."""
    raise_all(ConfigError, title, problems)
    assert space, "a space without problems is not empty"


def nested(name: str, value: Value) -> dict[str, Any]:
    """The entry as it stands in a recipe: "training.epochs" and 3 as {"training": {"epochs": 3}}."""
    found: Any = value
    for part in reversed(name.split(".")):
        found = {part: found}
    mapping: dict[str, Any] = found
    return mapping


def _number(value: Any) -> Any:
    return float(value) if isinstance(value, str) and _EXPONENT.fullmatch(value) else value


def _wrong_range(described: Mapping[str, Any]) -> list[str]:
    known = ("low", "high", "log", "step")
    problems = [not_known("entry of a range", key, known) for key in described if key not in known]
    problems += [f"{key} is missing" for key in ("low", "high") if key not in described]
    found = {key: _number(value) for key, value in described.items()}
    for key in ("low", "high", "step"):
        value = found.get(key, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
            problems.append(f"{key}={value!r} is not a number")
    if not isinstance(found.get("log", False), bool):
        problems.append(f"log={found['log']!r} must be true or false")
    if problems:
        return problems
    if not found["low"] < found["high"]:
        problems.append(f"low={found['low']} must be below high={found['high']}")
    if found.get("log") and not found["low"] > 0:
        problems.append(f"low={found['low']} must be above 0 for log: true")
    if "step" in found and (found.get("log") or not found["step"] > 0):
        problems.append(f"step={found['step']} must be above 0, and does not go with log: true")
    whole = isinstance(found["low"], int) and isinstance(found["high"], int)
    if "step" in found and whole and not isinstance(found["step"], int):
        problems.append(f"step={found['step']} of whole numbers must be whole")
    return problems


def _wrong_choices(described: list[Any]) -> list[str]:
    problems = [] if len(described) > 1 else [f"{described!r} leaves no choice: give two values or more"]
    problems += [
        f"{value!r} is no single value, such as a number, a word or true"
        for value in described
        if not isinstance(value, str | int | float | bool | None)
    ]
    if not problems and len({repr(_number(value)) for value in described}) < len(described):
        problems.append(f"{described!r} names a value twice")
    return problems
