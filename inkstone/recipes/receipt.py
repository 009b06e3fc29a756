"""The receipt that a bundle's manifest holds: what went in, how it was asked for, and how the training began.

    files       every source with its sha256 and its number of records
    recipe      the resolved recipe stands beside it in the manifest; here its sha256
    command     as it was typed, every path shortened to folder and name
    training    seeds, order, steps, tokens, surroundings and the first losses (`learn.receipt`)
    code        the version of Inkstone and the sha256 of its source

`inkstone rerun` repeats a training from it.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import inkstone
from inkstone.recipes.run import short_path
from inkstone.recipes.sources import SourceFile, as_json

FORMAT = 1


def receipt(
    recipe: Mapping[str, Any], files: Iterable[SourceFile], training: Mapping[str, Any]
) -> dict[str, Any]:
    """For the manifest. recipe: as the manifest has it. training: of `learn.receipt`."""
    return {
        "format": FORMAT,
        "command": command(sys.argv),
        "recipe_sha256": digest(recipe),
        "files": as_json(files),
        "training": dict(training),
        "code": {"inkstone": version("inkstone"), "sha256": code_digest()},
        "system": {"name": platform.system(), "python": platform.python_version()},
    }


def digest(value: Any) -> str:
    """The sha256 of plain values, however they are laid out in a file."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


@cache
def code_digest() -> str:
    """The sha256 of every source file of this package."""
    root = Path(inkstone.__file__).parent
    found = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        found.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    return found.hexdigest()


def command(arguments: list[str]) -> list[str]:
    """A command line without what it tells of the machine; of a program other than ours only the name.

    >>> command(["/usr/bin/inkstone", "train", "classify", "--data=/home/me/reviews/train.jsonl", "--out", "models/mine"])
    ['inkstone', 'train', 'classify', '--data=reviews/train.jsonl', '--out', 'models/mine']
    """
    program = Path(arguments[0] if arguments else "").name
    if program not in ("inkstone", "__main__.py"):
        return [program]
    return ["inkstone", *(_shortened(argument) for argument in arguments[1:])]


def _shortened(argument: str) -> str:
    name, equals, value = argument.partition("=")
    if not equals or "/" in name:  # no option with a value
        name, equals, value = "", "", argument
    return f"{name}{equals}{short_path(value) if '/' in value else value}"
