"""A sealed folder vouches for itself: whatever is done to it is found, and named."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inkstone.ground.errors import BundleError
from inkstone.ground.manifest import MANIFEST, check, problems, read_json, seal
from inkstone.model.bundle import list_bundles, new_bundle, open_bundle

FILES = {"config.json": b"{}", "model.safetensors": bytes(range(256)) * 8, "engine/model.bin": b"engine" * 50}


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    for name, content in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    seal(folder, {"seed": 1})
    assert problems(folder) == []
    assert {name for name, _ in check(folder)} == set(FILES)
    return folder


def rewritten(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """The manifest with a change, as somebody hostile would write it."""
    manifest = read_json(folder / MANIFEST)
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", FILES)
def test_a_file_truncated_altered_or_removed_is_named(sealed: Path, name: str) -> None:
    content = FILES[name]
    for spoiled, words in (
        (content[:-1], "truncated or altered"),
        (b"", "truncated or altered"),
        (content + b"\n", "truncated or altered"),
        (bytes([content[0] ^ 1]) + content[1:], "is altered"),
    ):
        (sealed / name).write_bytes(spoiled)
        (problem,) = problems(sealed)
        assert problem.startswith(name) and words in problem
    (sealed / name).unlink()
    assert problems(sealed) == [f"{name} is missing"]


def test_every_flipped_bit_and_every_truncation_is_found(sealed: Path) -> None:
    """500 damages at random places of all files, the manifest's list of files included."""
    random_ = random.Random(5)
    names = [*FILES, MANIFEST]
    for trial in range(500):
        file = sealed / random_.choice(names)
        content = file.read_bytes()
        place = random_.randrange(len(content))
        if trial % 3:
            spoiled = bytearray(content)
            spoiled[place] ^= 1 << random_.randrange(8)
        else:
            spoiled = bytearray(content[:place])
        file.write_bytes(spoiled)
        found = problems(sealed)
        if (
            file.name == MANIFEST and not found
        ):  # a changed date or a comment on how it was made vouches for no file
            assert read_json(file)["files"] == json.loads(content)["files"], trial
        else:
            assert found, (trial, file.name, place)
        file.write_bytes(content)


def test_a_foreign_file_or_link_is_named(sealed: Path) -> None:
    (sealed / "extra.py").write_text("print()")
    (sealed / "engine" / MANIFEST).write_text("{}")
    (sealed / "away").symlink_to("/etc")
    (sealed / "nowhere").symlink_to("/not/there")
    found = problems(sealed)
    assert len(found) == 4
    for name in ("extra.py", f"engine/{MANIFEST}", "away", "nowhere"):
        assert any(problem.startswith(f"{name} does not belong here") for problem in found)


def test_a_file_replaced_by_a_link_out_of_the_folder_is_named(sealed: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(FILES["config.json"])
    (sealed / "config.json").unlink()
    (sealed / "config.json").symlink_to(outside)
    assert problems(sealed) == ["config.json lies outside the folder"]


def test_a_link_to_itself_is_named(sealed: Path) -> None:
    (sealed / "config.json").unlink()
    (sealed / "config.json").symlink_to("config.json")
    (problem,) = problems(sealed)
    assert "config.json" in problem


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/hostname", "engine/../../secret", ".", "", "a\0b", "x" * 300, "\ud800"]
)
def test_a_manifest_that_names_files_elsewhere_is_refused(sealed: Path, name: str) -> None:
    (sealed.parent / "secret").write_text("secret")
    rewritten(sealed, lambda manifest: manifest["files"].update({name: {"bytes": 6, "sha256": ""}}))
    assert len(problems(sealed)) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"format": 2, "files": {}}',
        b'{"format": 1, "files": []}',
    ],
)
def test_a_manifest_that_is_none_is_named(sealed: Path, content: bytes) -> None:
    (sealed / MANIFEST).write_bytes(content)
    (problem,) = problems(sealed)
    assert problem.startswith(MANIFEST)


@pytest.mark.parametrize("entry", [None, 3, "sha256", [], {}, {"bytes": 2}, {"bytes": 2, "sha256": None}])
def test_an_entry_without_a_hash_vouches_for_nothing(sealed: Path, entry: object) -> None:
    rewritten(sealed, lambda manifest: manifest["files"].update({"config.json": entry}))
    (problem,) = problems(sealed)
    assert problem.startswith("config.json")


def test_a_manifest_that_is_missing_or_a_pipe_is_said(sealed: Path) -> None:
    (sealed / MANIFEST).unlink()
    assert "not written by Inkstone" in problems(sealed)[0]
    os.mkfifo(sealed / MANIFEST)
    assert "not written by Inkstone" in problems(sealed)[0]  # and reading it would wait for ever


DESCRIPTION = {"task": "translate", "name": "made", "languages": ["zh", "en"], "directions": [["zh", "en"]]}


def made(place: Path, **overlay: object) -> Path:
    with new_bundle(place, {**DESCRIPTION, **overlay}, {"seed": 1}) as folder:
        (folder / "weights").write_bytes(b"12")
    return place


def test_a_bundle_opens_and_says_what_it_is(tmp_path: Path) -> None:
    bundle = open_bundle(made(tmp_path / "a"), task="translate")
    assert (bundle.name, bundle.task, bundle.languages) == ("made", "translate", ("zh", "en"))
    assert bundle.manifest["made"] == {"seed": 1}
    assert (bundle.report, bundle.card) == ({}, "")
    assert bundle.size_bytes == sum(f.stat().st_size for f in (tmp_path / "a").iterdir())
    made(tmp_path / "b")
    assert list_bundles(tmp_path) == [tmp_path / "a", tmp_path / "b"]
    assert list_bundles(tmp_path / "a") == [tmp_path / "a"]
    assert list_bundles(tmp_path / "none") == []


def test_a_bundle_half_written_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), new_bundle(tmp_path / "a", DESCRIPTION, {}) as folder:
        (folder / "weights").write_bytes(b"12")
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("overlay", "words"),
    [
        ({"task": "translation"}, 'Did you mean "translate"'),
        ({"name": None}, "name is missing"),
        ({"languages": "zh"}, "languages must be a list"),
        ({"languages": [1]}, "languages must be a list"),
    ],
)
def test_a_description_that_says_nothing_is_refused(
    tmp_path: Path, overlay: dict[str, object], words: str
) -> None:
    with pytest.raises(BundleError, match=r"inkstone\.json is not valid") as error:
        open_bundle(made(tmp_path / "a", **overlay))
    assert words in str(error.value)


def test_what_is_no_bundle_is_said(tmp_path: Path) -> None:
    place = made(tmp_path / "a")
    with pytest.raises(BundleError, match="'classify' is needed"):
        open_bundle(place, task="classify")
    with pytest.raises(BundleError, match="is a file"):
        open_bundle(place / "weights")
    with pytest.raises(BundleError, match='model="not-there" is not known'):
        open_bundle("not-there")
    with pytest.raises(BundleError, match=r"manifest\.json is missing"):
        open_bundle(tmp_path)
    for file in place.iterdir():
        if file.name != MANIFEST:
            file.write_bytes(b"")
    with pytest.raises(BundleError, match="2 problems"):  # both named, at once
        open_bundle(place)
