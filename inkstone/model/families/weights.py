"""Tensors of a Hugging Face folder: one safetensors file, or several with an index. Nothing else is opened.

`model.bin`, `*.pt` and their like are pickles, which run code when they are read; they are refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from inkstone.ground.errors import BundleError, OutputError
from inkstone.ground.files import write_json
from inkstone.ground.manifest import read_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.msgpack", "*.h5")
FLOATS = ("F64", "F32", "F16", "BF16")
OLD_ENDINGS = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}


class StoredTensors:
    """The tensors of a folder: names, shapes, and each when it is asked for.

    `problems` lists what is missing or unreadable; the rest can be used all the same.
    """

    def __init__(self, folder: Path) -> None:
        self.problems: list[str] = []
        self.place: dict[str, tuple[Path, str]] = {}  # name -> file, the name it has there
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.kinds: dict[str, str] = {}  # what their numbers are, as safetensors names it
        for file in self._files(folder):
            try:
                with safe_open(file, framework="pt") as tensors:
                    for stored in tensors.keys():  # noqa: SIM118 - not a mapping
                        name = _renamed(stored)
                        self.place[name] = file, stored
                        tensor = tensors.get_slice(stored)
                        self.shapes[name], self.kinds[name] = tuple(tensor.get_shape()), tensor.get_dtype()
            except (OSError, SafetensorError) as error:
                self.problems.append(f"{file.name} cannot be read: {error}")

    def __getitem__(self, name: str) -> Tensor:
        file, stored = self.place[name]
        try:
            with safe_open(file, framework="pt") as tensors:
                tensor: Tensor = tensors.get_tensor(stored)
                return tensor
        except (OSError, SafetensorError) as error:
            raise BundleError(f"{file} cannot be read: {error}") from error

    def not_finite(self) -> list[str]:
        """The names of tensors with numbers that are infinite or none at all. Reads every byte."""
        return [name for name in self.place if not bool(self[name].isfinite().all())]

    def _files(self, folder: Path) -> Iterator[Path]:
        if (folder / SINGLE).is_file():
            yield folder / SINGLE
            return
        if not (folder / INDEX).is_file():
            pickles = sorted(file.name for pattern in PICKLES for file in folder.glob(pattern))
            self.problems.append(
                f"no {SINGLE}; {', '.join(pickles)} are pickles, which run code when read, and are never opened: "
                "ask for the safetensors files of this model"
                if pickles
                else f"no {SINGLE} and no {INDEX}"
            )
            return
        try:
            mapped = read_json(folder / INDEX).get("weight_map")
        except BundleError as error:
            self.problems.append(str(error))
            return
        if not isinstance(mapped, dict) or not all(isinstance(name, str) for name in mapped.values()):
            self.problems.append(f"{INDEX} has no weight_map from tensors to files")
            return
        for name in sorted(set(mapped.values())):
            if Path(name).name != name or not name.endswith(".safetensors"):
                self.problems.append(
                    f"{INDEX} names {name!r}, which is not a safetensors file of this folder"
                )
            elif not (folder / name).is_file():
                self.problems.append(f"{name}, named in {INDEX}, is missing")
            else:
                yield folder / name


def _renamed(name: str) -> str:
    for old, new in OLD_ENDINGS.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def write_tensors(tensors: Mapping[str, Tensor], folder: Path, *, shard_bytes: int) -> None:
    """Write tensors as one file, or as several of at most so many bytes (a larger tensor has one of its own)."""
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    count = len(shards)
    names = (
        [SINGLE] if count == 1 else [f"model-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)]
    )
    try:
        for file, shard in zip(names, shards, strict=True):
            save_file({n: t.contiguous() for n, t in shard.items()}, folder / file, metadata={"format": "pt"})
    except (OSError, SafetensorError) as error:
        raise OutputError(f"cannot write the weights into {folder}: {error}. Free some space.") from error
    if count > 1:
        mapped: dict[str, Any] = {n: file for file, shard in zip(names, shards, strict=True) for n in shard}
        total = sum(tensor.nbytes for tensor in tensors.values())
        write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": mapped})
