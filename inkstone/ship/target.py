"""What a checkpoint can be exported to, as far as a proof needs to know it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

E = TypeVar("E")  # the kind of engine that runs the export


@dataclass(frozen=True, slots=True)
class Target(Generic[E]):
    """A format, and what runs it.

    name: what folders of it begin with. export(checkpoint, out, quantization=) writes one, shrink(checkpoint, its
    export in float32, out) one in int8, and open(checkpoint, export) runs one.
    """

    name: str
    export: Callable[..., Path]
    shrink: Callable[[Path, Path, Path], Path]
    open: Callable[[Path, Path], E]
