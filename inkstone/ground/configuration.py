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

from inkstone.ground.errors import Collected, ConfigError, not_known, raise_all

T = TypeVar("T")
_REPAIRS = 4  # rounds of leaving out what is wrong, as one value may hide another
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


def build_collecting(kind: type[T], values: Mapping[str, Any], found: Collected) -> T | None:
    """As `build`, with what is wrong left out and put into `found`; None where too little is left for a record."""
    kept: dict[str, Any] = dict(values)
    for _ in range(_REPAIRS):
        try:
            return build(kind, kept, found.title)
        except ConfigError as error:
            found.errors.append(error)
            kept = _without_problems(kind, kept)
    return None


def _without_problems(kind: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values without unknown names, without those that pydantic complains of, and without records that refuse."""
    from pydantic import TypeAdapter, ValidationError

    kept = _known(kind, values)
    for name, record in _records(kind).items():
        if isinstance(kept.get(name), Mapping):
            inside = _without_problems(record, kept[name])
            kept[name] = inside
            try:
                TypeAdapter(record).validate_python(_over_defaults(kind, {name: inside})[name])
            except ConfigError:
                if inside == values[name]:  # else what it does not like is still to be said
                    del kept[name]
            except ValidationError:
                pass  # pruned below, by its place
    try:
        TypeAdapter(kind).validate_python(_over_defaults(kind, kept))
    except ValidationError as error:
        for problem in error.errors():
            kept = _pruned(kept, problem["loc"])
    except ConfigError:
        pass  # of the whole record: the caller leaves it out
    return kept


def _records(kind: Any) -> dict[str, Any]:
    """The fields that hold a record (or None), with the kind of it."""
    found = {}
    for name, hint in get_type_hints(kind).items():
        inner = [one for one in (hint, *get_args(hint)) if is_dataclass(one)]
        if inner:
            found[name] = inner[0]
    return found


def _known(kind: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in values.items() if name in names}


def _pruned(values: dict[str, Any], path: Sequence[Any]) -> dict[str, Any]:
    """The values without the one at this path; a part of the path that is not there ends it."""
    name, rest = path[0], path[1:]
    if name not in values:
        return values
    inside = values[name]
    if rest and isinstance(inside, Mapping) and rest[0] in inside:
        return {**values, name: _pruned(dict(inside), rest)}
    return {key: value for key, value in values.items() if key != name}


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
    except ConfigError as error:  # a record inside does not like its values
        if not problems:
            raise
        problems += error.problems or (str(error),)
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
