"""The manifest: the sha256 of every file of a folder, written last, so that a folder can vouch for itself.

Bundles and training checkpoints are such folders. One without a valid manifest does not count as existing; one whose
files were truncated, altered, removed or added to is refused with the names of the files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from inkstone.ground.errors import BundleError
from inkstone.ground.files import sha256, write_json

MANIFEST = "manifest.json"
FORMAT = 1


def seal(folder: Path, made: Mapping[str, Any]) -> None:
    """Write the manifest of a folder: the size and sha256 of every file in it, and how it was made."""
    files = {
        file.relative_to(folder).as_posix(): {"bytes": file.stat().st_size, "sha256": sha256(file)}
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file != folder / MANIFEST
    }
    created = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(folder / MANIFEST, {"format": FORMAT, "created": created, "made": dict(made), "files": files})


def check(folder: Path) -> Iterator[tuple[str, str]]:
    """For each file of the folder and of its manifest: (name, what is wrong, or "" when all is well)."""
    if not (folder / MANIFEST).is_file():
        yield MANIFEST, f"{MANIFEST} is missing: this folder was not written by Inkstone, or not to the end"
        return
    try:
        manifest = read_json(folder / MANIFEST)
    except BundleError as error:
        yield MANIFEST, str(error)
        return
    hashes = manifest.get("files")
    if manifest.get("format") != FORMAT or not isinstance(hashes, dict):
        yield MANIFEST, f"{MANIFEST} is not a manifest of format {FORMAT}"
        return
    for found in sorted(f for f in folder.rglob("*") if not f.is_dir() or f.is_symlink()):
        name = found.relative_to(folder).as_posix()
        if name != MANIFEST and name not in hashes:
            yield name, f"{name} does not belong here (it is not in {MANIFEST})"
    for name, expected in hashes.items():
        try:
            problem = _file_problem(folder, name, expected)
        except (OSError, ValueError, RuntimeError) as error:  # unreadable, no name at all, links in a circle
            problem = f"{name!r} cannot be read: {error}"
        yield name, problem


def problems(folder: Path) -> list[str]:
    """What is wrong with a sealed folder; empty when all is well."""
    return [problem for _, problem in check(folder) if problem]


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises BundleError naming the file."""
    try:
        value = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{file.name} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise BundleError(f"{file.name} holds a {type(value).__name__}, not an object")
    return value


def _file_problem(folder: Path, name: str, expected: object) -> str:
    file = folder / name
    if folder.resolve() not in file.resolve().parents:
        return f"{name} lies outside the folder"
    if not file.is_file():
        return f"{name} is missing"
    size, digest = (
        (expected.get("bytes"), expected.get("sha256")) if isinstance(expected, dict) else (None, None)
    )
    if file.stat().st_size != size:
        return f"{name} has {file.stat().st_size:,} bytes where {MANIFEST} says {size}: truncated or altered"
    if sha256(file) != digest:
        return f"{name} is altered (its sha256 is not the one in {MANIFEST})"
    return ""
