"""A bundle: one trained model as a folder, every file of it vouched for.

    config.json  model.safetensors  tokenizer.json      the checkpoint
    inkstone.json                                       what it is: task, languages, directions or labels
    ctranslate2-int8/  parity.json                      the derived engine and the proof that it agrees
    report.json  learning_curve.png  README.md          the report card, and the model card written from it
    manifest.json                                       sha256 of every file above, and how the model was made

The manifest is written last, and a folder without a valid one is not a bundle. Opening a bundle hashes every file
(megabytes, so milliseconds): a truncated, altered, missing or foreign file is refused by name. Nothing in a bundle is
code, and nothing in it is unpickled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from inkstone.ground.errors import BundleError, not_known, raise_all
from inkstone.ground.files import whole_folder, write_json
from inkstone.ground.manifest import FORMAT, MANIFEST, problems, read_json, seal

DESCRIPTION = "inkstone.json"
BUNDLED = Path(__file__).parent.parent / "bundles"  # the models that come with Inkstone

LANGUAGE_MODELS = ("causal", "masked", "span")  # what a language model was trained to foresee
Task = Literal["translate", "summarize", "classify", "language-model", "embed"]
TASKS: tuple[Task, ...] = ("translate", "summarize", "classify", "language-model", "embed")


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle: its place, and its description (`inkstone.json`)."""

    path: Path
    description: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The model's name, which a request may give."""
        return str(self.description["name"])

    @property
    def task(self) -> Task:
        """What the model is for."""
        return self.description["task"]  # type: ignore[no-any-return]

    @property
    def languages(self) -> tuple[str, ...]:
        """The language codes the model was trained on."""
        return tuple(self.description["languages"])

    @property
    def manifest(self) -> dict[str, Any]:
        """The manifest: hashes, and how the model was made."""
        return read_json(self.path / MANIFEST)

    @property
    def report(self) -> dict[str, Any]:
        """The report card, as measured when the model was made; empty when it was never measured."""
        file = self.path / "report.json"
        return read_json(file) if file.exists() else {}

    @property
    def card(self) -> str:
        """The model card, in Markdown."""
        file = self.path / "README.md"
        return file.read_text("utf-8") if file.exists() else ""

    @property
    def size_bytes(self) -> int:
        """The size of all files together."""
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())


def open_bundle(where: str | Path, *, task: Task | None = None) -> Bundle:
    """Open the bundle at a path, or the bundled model of that name, after checking every file.

    Raises BundleError naming every file that is missing, altered or foreign, or a task other than the one asked for.
    """
    path = _place(where)
    if not path.is_dir():
        raise BundleError(
            f"{path} is a file. A model is a folder with {MANIFEST}, as `inkstone train` writes it."
        )
    raise_all(BundleError, f"{path} is not a usable bundle", problems(path))
    bundle = Bundle(path, read_json(path / DESCRIPTION))
    wrong = _description_problems(bundle.description)
    raise_all(BundleError, f"{path}: {DESCRIPTION} is not valid", wrong)
    if task is not None and bundle.task != task:
        raise BundleError(f"{path} is a model for task {bundle.task!r}, but {task!r} is needed here.")
    return bundle


def list_bundles(folder: str | Path = BUNDLED) -> list[Path]:
    """The bundle folders directly inside a folder (or the folder itself, when it is one), sorted by name."""
    folder = Path(folder)
    if (folder / MANIFEST).exists():
        return [folder]
    return sorted(path.parent for path in folder.glob(f"*/{MANIFEST}")) if folder.is_dir() else []


@contextmanager
def new_bundle(path: str | Path, description: Mapping[str, Any], made: Mapping[str, Any]) -> Iterator[Path]:
    """Yield an empty folder to put the model's files into; at the end it gets its description and manifest and its name.

    description: task, name, languages and what the task needs (labels, directions). made: how it came about (data and
    code hashes, seeds, versions, the resolved configuration). Raises OutputError when the place is taken.
    """
    with whole_folder(path) as folder:
        yield folder
        describe(folder, description, made)


def describe(folder: Path, description: Mapping[str, Any], made: Mapping[str, Any]) -> None:
    """Write the description and the manifest of a folder; from then on `open_bundle` opens it.

    `new_bundle` does so at its end. A recipe that measures its model does it before, to measure what will be served.
    """
    write_json(folder / DESCRIPTION, {"format": FORMAT, **description})
    seal(folder, made)


def _place(where: str | Path) -> Path:
    path = Path(where)
    if path.exists():
        return path
    if (BUNDLED / str(where) / MANIFEST).exists() and path.name == str(where):
        return BUNDLED / str(where)
    names = [bundle.name for bundle in list_bundles()]
    valid = not_known("model", where, names) if names else f'model="{where}" is not known.'
    raise BundleError(
        f"there is no folder of this name, and no bundled model. {valid} Give the folder of a model."
    )


def _description_problems(description: Mapping[str, Any]) -> list[str]:
    problems = []
    if description.get("task") not in TASKS:
        problems.append(not_known("task", description.get("task"), TASKS))
    if not isinstance(description.get("name"), str):
        problems.append("name is missing")
    languages = description.get("languages")
    if not isinstance(languages, list) or not all(isinstance(code, str) for code in languages):
        problems.append("languages must be a list of language codes")
    wanted = {"translate": ("directions", _is_direction, "pairs of language codes"),
              "classify": ("labels", lambda label: isinstance(label, str), "names"),
              "embed": ("dimensions", lambda size: isinstance(size, int) and size > 0, "whole numbers")}  # fmt: skip
    for field, fits, what in [wanted[description["task"]]] if description.get("task") in wanted else []:
        found = description.get(field)
        if not isinstance(found, list) or not found or not all(map(fits, found)):
            problems.append(f"{field} must be a list of {what}")
    if description.get("task") == "language-model":
        if description.get("objective") not in LANGUAGE_MODELS:
            problems.append(not_known("objective", description.get("objective"), LANGUAGE_MODELS))
        if "block" not in description:
            problems.append("block is missing")
    for field in ("comfortable_tokens", "max_tokens", "beam_size", "block"):
        if not isinstance(value := description.get(field, 1), int) or value < 1:
            problems.append(f"{field}={value!r} must be a whole number above 0")
    return problems


def _is_direction(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(code, str) for code in value)
