"""The files that a model was made from: noted when it is trained, and found again when the training is to be repeated.

A bundle names them by folder and name, with their sha256, and not by where they lay on the machine. They are looked for
where the caller says, where the run's own recipe says (it stays in `<bundle>.run/`), from here, and below $INKSTONE_DATA;
a file counts as found when its content is the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from inkstone.corpus.augment import AugmentOptions
from inkstone.corpus.read import aligned_files
from inkstone.corpus.related import RelatedData
from inkstone.ground.errors import ConfigError, DataError, InkstoneError, raise_all
from inkstone.ground.files import sha256
from inkstone.model.bundle import BUNDLED
from inkstone.recipes.run import RECIPE, kept_recipe, run_folder, short_path

MODELS = ("base", "augment.back_translate")  # uses of models, which may be named as bundled ones are
IN_PACKAGE = "minilm"  # a base that pip brought, whose version is pinned
MODEL_FILES = (
    "model.safetensors",
    "tokenizer.json",
    "config.json",
)  # what of a model another one begins with


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that decided something. records, bad_lines: None for what is not made of records."""

    use: str  # data, valid, test, or test and its name; vectors; base; what copies of texts are made with
    file: str  # folder and name
    bytes: int
    sha256: str
    records: int | None = None
    bad_lines: int | None = None


class _Read(Protocol):
    @property
    def sources(self) -> Sequence[Any]: ...


def read_files(use: str, reading: _Read) -> list[SourceFile]:
    """The files of a reading that has come to its end. Parallel files have the same records each."""
    return [
        _noted(use, file, source.records, source.problems)
        for source in reading.sources
        for file in members(Path(source.path))
    ]


def other_files(use: str, path: str | Path | None) -> list[SourceFile]:
    """The files of word vectors or of a model that another began with; none for None."""
    return [] if path is None else [_noted(use, file) for file in members(_model(path))]


def _noted(use: str, file: Path, records: int | None = None, bad_lines: int | None = None) -> SourceFile:
    return SourceFile(use, short_path(str(file)), file.stat().st_size, sha256(file), records, bad_lines)


def _model(path: str | Path) -> Path:
    """The folder of a bundled model for its name; else the path itself."""
    bundled = BUNDLED / str(path)
    return bundled if not Path(path).exists() and bundled.is_dir() else Path(path)


def members(path: Path) -> list[Path]:
    """The files that a path stands for: two for `train.{en,de}.gz`, those that count for a folder."""
    if path.is_dir():
        known = [path / name for name in MODEL_FILES if (path / name).is_file()]
        return known or sorted(file for file in path.rglob("*") if file.is_file())
    return aligned_files(path)


def as_json(files: Iterable[SourceFile]) -> list[dict[str, Any]]:
    """For a manifest."""
    return [asdict(file) for file in files]


@dataclass(frozen=True, slots=True)
class Place:
    """Where files are looked for: a folder, or the paths that the run's own recipe has for them."""

    folder: Path | None = None
    kept: Mapping[str, Sequence[str]] | None = None

    def candidates(self, use: str, number: int, short: str) -> Iterator[Path]:
        """Where the file of this use and number may be."""
        if self.kept is not None:
            yield from map(Path, self.kept.get(use, ())[number : number + 1])
        if self.folder is not None:
            yield self.folder / short
            yield self.folder / Path(short).name


def places(bundle: Path, given: Sequence[Path], kind: type[Any]) -> list[Place]:
    """Where the files of a bundle may be, the likeliest first. kind: of its recipe. Raises ConfigError."""
    absent = [str(folder) for folder in given if not folder.is_dir()]
    if absent:
        raise ConfigError(
            f"--data {', '.join(absent)} is no folder. Give the folder that holds the data files."
        )
    found = [Place(folder) for folder in given]
    if (run_folder(bundle) / RECIPE).is_file():
        try:
            recipe, _ = kept_recipe(run_folder(bundle), kind)
            found.append(Place(kept=named_paths(recipe)))
        except InkstoneError:  # of another run or another version: the other places remain
            pass
    root = os.environ.get("INKSTONE_DATA")
    return [*found, Place(Path()), *([Place(Path(root))] if root else [])]


def named_paths(recipe: Any) -> dict[str, list[str]]:
    """Every path of a recipe, by use: data, valid, test (or each named test), vectors, base, augment.vectors, ..."""
    found = {use: _paths(getattr(recipe, use)) for use in ("data", "valid")}
    if isinstance(recipe.test, dict):
        found |= {f"test {name}": _paths(files) for name, files in recipe.test.items()}
    else:
        found["test"] = _paths(recipe.test)
    options = getattr(recipe, "options", None)  # of a classifier, whose base is further down
    base = getattr(recipe, "base", None) if options is None else options.pretrained.base
    found |= {"vectors": [vectors]} if (vectors := getattr(recipe, "vectors", None)) is not None else {}
    if options is not None:
        found |= {f"augment.{use}": [path] for use, path in augmenting(options.augment).items() if path}
    return found | ({"base": [base]} if base not in (None, IN_PACKAGE) else {})


def augmenting(options: AugmentOptions) -> dict[str, str | None]:
    """What copies of texts are made with, by the option that names it."""
    return {"vectors": options.vectors, "back_translate": options.back_translate}


def _paths(files: Iterable[str | RelatedData]) -> list[str]:
    return [one if isinstance(one, str) else one.file for one in files]


def located(
    wanted: Mapping[str, Sequence[str]], noted: Sequence[Mapping[str, Any]], where: Sequence[Place]
) -> dict[str, list[str]]:
    """The paths of a bundle's recipe as they are here, by use; every file has the content that was noted.

    wanted: by use, the paths as the bundle names them. noted: its `SourceFile`s. Raises DataError with every file that is
    missing or has changed.
    """
    found: dict[str, list[str]] = {}
    problems: list[str] = []
    for use, shorts in wanted.items():
        left = [one for one in noted if one["use"] == use]
        found[use] = []
        for number, short in enumerate(shorts):
            parts, left = _parts(short, left)
            path, problem = _found(use, number, short, parts, where)
            problems += problem
            found[use].append(str(path))
    looked = [str(place.folder.absolute()) for place in where if place.folder is not None]
    advice = f" (looked in {', '.join(dict.fromkeys(looked))}; name another folder with --data)"
    raise_all(DataError, f"the data is not what the model was trained on{advice}", problems)
    return found


def _parts(
    short: str, left: list[Mapping[str, Any]]
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """Of what was noted, in order: the files that this path stands for, and those that come after."""
    names = {short_path(str(file)) for file in aligned_files(Path(short))}
    count = len(names) if left and left[0]["file"] in names else len(left)  # a folder: all of its use
    return left[:count], left[count:]


def _found(
    use: str, number: int, short: str, parts: Sequence[Mapping[str, Any]], where: Sequence[Place]
) -> tuple[Path, list[str]]:
    """Where these files are, or what is wrong with the likeliest of those that are there."""
    likeliest: list[str] = []
    for place in where:
        for candidate in place.candidates(use, number, short):
            path = _model(candidate) if use in MODELS else candidate
            files = members(path)
            if not any(file.is_file() for file in files):
                continue
            wrong = [_difference(file, part) for file, part in zip(files, parts, strict=False)]
            wrong = [one for one in wrong if one]
            if not wrong and len(files) == len(parts):
                return path, []
            likeliest = likeliest or wrong or [f"{short} has other files than it had"]
    named = {short_path(str(file)) for file in aligned_files(Path(short))}
    absent = [part["file"] for part in parts if part["file"] in named] or [
        short
    ]  # of a folder only the folder
    return Path(short), likeliest or [f"{file} is missing" for file in absent]


def _difference(file: Path, part: Mapping[str, Any]) -> str:
    """What of a file is not as it was noted; empty where nothing is."""
    if not file.is_file():
        return f"{part['file']} is missing"
    if (digest := sha256(file)) == part["sha256"]:
        return ""
    now, then = (
        f"{size:,} bytes with sha256 {text[:12]}…"
        for size, text in ((file.stat().st_size, digest), (part["bytes"], part["sha256"]))
    )
    return f"{part['file']} has changed: {now}, where the model was trained on {then}"
