"""Configurations: typed records with good defaults, overlaid by a YAML file and by `--set a.b=1`.

The records are ordinary frozen dataclasses; pydantic checks what is laid over them, and all problems of a
configuration are said at once. What results is saved with every run, and the run can be repeated from it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from inkstone.ground.errors import ConfigError, not_known, raise_all

T = TypeVar("T")
_VARIABLE = re.compile(r"\$\{(\w+)\}")


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping a YAML file holds, with $VARIABLES of the environment filled in. Raises ConfigError."""
    import yaml

    try:
        text = Path(path).read_text("utf-8")
        value = yaml.safe_load(text)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}. Give the path of a YAML file."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    except RecursionError:
        raise ConfigError(f"{path} is not valid YAML: it is nested too deeply.") from None
    if not isinstance(value, dict):
        raise ConfigError(
            f"{path} holds a {type(value).__name__}. A configuration is a mapping of names to values."
        )
    filled: dict[str, Any] = _filled(value, str(path))
    return filled


def _filled(value: Any, path: str) -> Any:
    if isinstance(value, str):
        for name in _VARIABLE.findall(value):
            if name not in os.environ:
                raise ConfigError(f"{path} needs the environment variable {name}, which is not set.")
        return os.path.expandvars(value)
    if isinstance(value, dict):
        return {key: _filled(item, path) for key, item in value.items()}
    return [_filled(item, path) for item in value] if isinstance(value, list) else value


def from_settings(settings: Sequence[str]) -> dict[str, Any]:
    """A nested mapping from settings such as "training.epochs=3"; values are read as YAML."""
    import yaml

    result: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise ConfigError(
                f'--set "{setting}" has no name or no value. Write --set name=value, as in training.epochs=3'
            )
        here = result
        *path, last = name.split(".")
        for step in path:
            here = here.setdefault(step, {})
            if not isinstance(here, dict):
                raise ConfigError(f'--set "{setting}" goes into {step}, which another --set made a value.')
        try:
            here[last] = yaml.safe_load(value)
        except (yaml.YAMLError, RecursionError) as error:
            raise ConfigError(f'--set "{setting}": the value is not valid YAML: {error}') from error
    return result


def overlay(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Later layers over earlier ones; mappings inside are merged, everything else is replaced."""
    result: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            both = isinstance(value, Mapping) and isinstance(result.get(name), Mapping)
            result[name] = overlay(result[name], value) if both else value
    return result


def build(kind: type[T], values: Mapping[str, Any], title: str, *, complete: bool = False) -> T:
    """A record of this kind from plain values; what is not given is as in the defaults, in records inside it too.

    complete: the values are those of a record that was saved by `plain`; a mapping in it is all there was, and is not
    laid over a default. Raises ConfigError listing every unknown name and wrong value.
    """
    from pydantic import TypeAdapter, ValidationError

    problems = _unknown(kind, values, "")
    try:
        record = TypeAdapter(kind).validate_python(dict(values) if complete else _over_defaults(kind, values))
    except ValidationError as error:
        problems += [
            f"{'.'.join(str(part) for part in problem['loc'])}={problem['input']!r}: {_plainly(problem['msg'])}"
            if problem["type"] != "missing"
            else f"{'.'.join(str(part) for part in problem['loc'])} is missing"
            for problem in error.errors()
        ]
    raise_all(ConfigError, title, problems)
    return record


def _over_defaults(kind: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, where they describe a record in part laid over its default: one record's own default for a field may
    differ from that of the field's kind."""
    filled = dict(values)
    for field in fields(kind):
        factory = field.default_factory
        if (
            isinstance(filled.get(field.name), Mapping)
            and factory is not MISSING
            and is_dataclass(default := factory())
        ):
            filled[field.name] = overlay(plain(default), filled[field.name])
    return filled


def _plainly(message: str) -> str:
    """What pydantic calls by Python's names, in those of YAML."""
    for theirs, ours in (
        ("valid tuple", "list, such as [a, b]"),
        ("valid dictionary", "mapping, such as {a: b}"),
    ):
        message = message.replace(theirs, ours)
    return message


def _unknown(kind: Any, values: Mapping[str, Any], where: str) -> list[str]:
    hints = get_type_hints(kind)
    known = [field.name for field in fields(kind)]
    problems = []
    for name, value in values.items():
        if name not in known:
            problems.append(not_known("configuration key", f"{where}{name}", [f"{where}{k}" for k in known]))
        elif isinstance(value, Mapping):
            for inner in (hints[name], *get_args(hints[name])):  # a record, or a record or None
                if is_dataclass(inner):
                    problems += _unknown(inner, value, f"{where}{name}.")
    return problems


def plain(record: Any) -> dict[str, Any]:
    """A configuration as plain values, to be saved as YAML or JSON."""
    values: dict[str, Any] = _listed(asdict(record))
    return values


def _listed(value: Any) -> Any:
    """Tuples and sets as lists."""
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_listed(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    return value
