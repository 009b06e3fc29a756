"""A public checkpoint, brought into the house: fetched (or copied), checked in full, sealed.

    hub id ─ huggingface_hub ─┐
                              ├─ a hidden folder ─ look_into: everything wrong at once ─ manifest ─ its name
    local folder ─ copied ────┘

Only data is fetched: safetensors, JSON, vocabularies, templates. Pickles and code stay where they are. A folder that is
not in order is removed again.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING

from inkstone.ground.errors import BundleError, ConfigError, raise_all, require
from inkstone.ground.files import whole_folder
from inkstone.ground.manifest import MANIFEST, seal
from inkstone.ground.progress import say

if TYPE_CHECKING:
    from inkstone.model.families.folder import Found

WANTED = ("*.safetensors", "*.json", "*.txt", "*.model", "*.spm", "*.jinja", "LICENSE*", "README.md")


@dataclass(frozen=True, slots=True)
class Pulled:
    """A checkpoint that is here and in order."""

    folder: str
    source: str
    family: str
    architecture: str
    parameters: int
    size_bytes: int


def pull(source: str, out: str | Path) -> Pulled:
    """Fetch the checkpoint of a hub id, or copy the one in a local folder, to `out`.

    Raises ConfigError where the source cannot be found, BundleError with everything that is wrong with what came,
    OutputError where `out` is taken. Nothing is left behind then.
    """
    require("torch", "reading checkpoints", "train")
    if not source.strip() or Path(source).is_file():
        raise ConfigError(
            f'"{source}" is {"a file" if source.strip() else "empty"}. Give a hub id (owner/model) or the folder of a '
            "checkpoint."
        )
    local = Path(source).is_dir()
    if local:  # looked at where it is, for what will not be copied too
        raise_all(BundleError, f"{source} cannot be used", _look(Path(source), source).problems)
    with whole_folder(out) as folder:
        (_copy if local else _fetch)(source, folder)
        found = _look(folder, source)
        wrong = [f"tensor {name} holds numbers that are not finite" for name in found.stored.not_finite()]
        raise_all(BundleError, f"{source} cannot be used", found.problems + wrong)
        assert found.family is not None
        seal(folder, {"pulled": Path(source).name if local else source})
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    parameters = sum(math.prod(shape) for shape in found.stored.shapes.values())
    return Pulled(str(out), source, found.family.model_type, found.architecture, parameters, size)


def _look(folder: Path, source: str) -> Found:
    from inkstone.model.families.folder import look_into

    if not (folder / "config.json").is_file():
        raise BundleError(f"{source} has no config.json: it is no checkpoint that can be read here.")
    return look_into(folder)


def _copy(source: str, folder: Path) -> None:
    left = []
    for file in sorted(Path(source).iterdir()):
        if file.is_file() and file.name != MANIFEST and any(fnmatch(file.name, kind) for kind in WANTED):
            shutil.copyfile(file, folder / file.name)
        elif file.name != MANIFEST:
            left.append(file.name)
    if left:
        say(f"not taken from {source}: {', '.join(left)}")


def _fetch(source: str, folder: Path) -> None:
    require("huggingface_hub", "fetching from the hub", "train")
    from huggingface_hub import snapshot_download

    from inkstone.model.families.folder import refuse_unknown

    try:  # what is of no use shows in its config.json, before gigabytes of weights are here
        snapshot_download(source, local_dir=folder, allow_patterns=["config.json"])
        if (folder / "config.json").is_file():
            refuse_unknown(folder, f"{source} cannot be used")
        snapshot_download(source, local_dir=folder, allow_patterns=list(WANTED))
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(
            f"{source} is no folder here, and could not be fetched from the hub as an id: {first.rstrip('.')}. "
            "Check the name (owner/model) and the network, or give the folder of a checkpoint on this machine."
        ) from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)
