"""Files and folders appear whole or not at all, whatever fails while they are written."""

from __future__ import annotations

import errno
import gzip
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inkstone.ground.errors import OutputError
from inkstone.ground.files import whole_file, whole_folder, write_json, write_text

REFUSALS = [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO]


def listed(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


class FailAt:
    """Lets a call of the system work until the k-th of all watched calls, which fails."""

    def __init__(self, patch: pytest.MonkeyPatch, k: int, number: int) -> None:
        self.k, self.number, self.calls = k, number, 0
        patch.setattr(os, "fsync", self.watched(os.fsync))
        patch.setattr(os, "rename", self.watched(os.rename))
        patch.setattr(os, "replace", self.watched(os.replace))

    def watched(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self.calls += 1
            if self.calls == self.k:
                raise OSError(self.number, os.strerror(self.number))
            return real(*arguments, **named)

        return call


def test_a_file_is_written_and_replaced(tmp_path: Path) -> None:
    for text in ("old", "new 新\n"):
        write_text(tmp_path / "a.txt", text)
        assert (tmp_path / "a.txt").read_text("utf-8") == text
    assert list(listed(tmp_path)) == ["a.txt"]
    write_json(tmp_path / "a.json", {"名": [1, None]})
    assert (tmp_path / "a.json").read_text("utf-8") == '{\n  "名": [\n    1,\n    null\n  ]\n}\n'


def test_equal_content_gives_equal_gzip_files(tmp_path: Path) -> None:
    for name in ("a.gz", "b.gz"):
        with whole_file(tmp_path / name, compress=True) as out:
            out.write("你好\n".encode() * 100)
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    assert gzip.decompress((tmp_path / "a.gz").read_bytes()) == "你好\n".encode() * 100


@pytest.mark.parametrize("compress", [False, True])
def test_an_error_while_writing_leaves_the_old_file(tmp_path: Path, compress: bool) -> None:
    write_text(tmp_path / "a", "old")
    with pytest.raises(ZeroDivisionError), whole_file(tmp_path / "a", compress=compress) as out:
        out.write(b"half of the ne")
        raise ZeroDivisionError
    assert listed(tmp_path) == {"a": b"old"}


@pytest.mark.parametrize("number", REFUSALS)
def test_whichever_call_fails_a_file_is_the_old_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    for k in range(1, 5):
        write_text(tmp_path / "a", "old")
        with monkeypatch.context() as patch:
            watch = FailAt(patch, k, number)
            try:
                write_text(tmp_path / "a", "new")
            except OutputError as error:
                assert str(tmp_path / "a") in str(error)
        assert listed(tmp_path) in ({"a": b"old"}, {"a": b"new"}), k
        if watch.calls < k:
            break
    assert k == 4, "a file takes three calls: fsync, replace, fsync of the folder"


@pytest.mark.parametrize("number", REFUSALS)
@pytest.mark.parametrize("replace", [False, True])
def test_whichever_call_fails_a_folder_is_the_old_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, replace: bool
) -> None:
    place = tmp_path / "model"
    new = {"model/a": b"1", "model/in/b": b"2"}
    old = {"model/a": b"0"} if replace else {}
    for k in range(1, 20):
        for file in [*listed(tmp_path)]:
            (tmp_path / file).unlink()
        if place.exists():
            (place / "in").exists() and (place / "in").rmdir()
            replace or place.rmdir()
        if replace:
            place.mkdir(exist_ok=True)
            (place / "a").write_text("0")
        with monkeypatch.context() as patch:
            watch = FailAt(patch, k, number)
            try:
                with whole_folder(place, replace=replace) as folder:
                    write_text(folder / "a", "1")
                    (folder / "in").mkdir()
                    write_text(folder / "in" / "b", "2")
            except OutputError as error:
                assert place.name in str(error)
            else:
                assert watch.calls < k
        assert listed(tmp_path) in (old, new), k
        if watch.calls < k:
            break
    assert 8 < k < 19


def test_an_existing_folder_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    with whole_folder(tmp_path / "model") as folder:  # an empty one is fine
        write_text(folder / "a", "1")
    began = False
    with (
        pytest.raises(OutputError, match=r"already exists\. Choose a new name"),
        whole_folder(tmp_path / "model"),
    ):
        began = True
    assert not began
    assert listed(tmp_path) == {"model/a": b"1"}


def test_an_error_while_a_folder_is_made_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), whole_folder(tmp_path / "deep" / "model") as folder:
        write_text(folder / "a", "1")
        raise ZeroDivisionError
    assert list(tmp_path.rglob("*")) == []


def test_a_full_disk_inside_a_folder_is_said_and_other_errors_are_left_alone(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="the disk is full"), whole_folder(tmp_path / "model"):
        raise OSError(
            errno.ENOSPC, "No space left on device"
        )  # as ctranslate2 and file objects raise it, without a name
    with pytest.raises(FileNotFoundError), whole_folder(tmp_path / "model"):
        (tmp_path / "not there").read_text()
    assert listed(tmp_path) == {}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: root / "not there" / "a", "the folder does not exist"),
        (lambda root: root / "a file" / "b", "part of the path is a file"),
        (lambda root: root / "a folder", "this is a folder"),
        (lambda root: root / ("x" * 300), "name is too long"),
    ],
)
def test_places_that_cannot_be_written_are_said(
    tmp_path: Path, make: Callable[[Path], Path], words: str
) -> None:
    (tmp_path / "a file").write_text("")
    (tmp_path / "a folder").mkdir()
    place = make(tmp_path)
    with pytest.raises(OutputError, match=words) as error:
        write_text(place, "new")
    assert str(error.value).startswith(f"cannot write {place}")
    if place.name != "a folder" and place.parent.name != "not there":
        with pytest.raises(OutputError, match=f"cannot write .*{words}"), whole_folder(place):
            pass
    assert set(listed(tmp_path)) == {"a file"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_said(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="permission denied"):
        write_text(tmp_path / "a", "new")
    tmp_path.chmod(0o700)


def test_a_read_only_folder_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / ".a.part"))

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with pytest.raises(OutputError, match=r"permission denied\. Choose a place"):
        write_text(tmp_path / "a", "new")
    with (
        pytest.raises(OutputError, match=r"permission denied\. Choose a place"),
        whole_folder(tmp_path / "b"),
    ):
        pass


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_device_is_written_through_and_stays_a_device(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="the disk is full"):
        write_text("/dev/full", "new")
    write_text("/dev/null", "new")
    assert Path("/dev/full").is_char_device() and Path("/dev/null").is_char_device()


def test_a_real_limit_of_the_system_leaves_the_old_file(tmp_path: Path) -> None:
    """The system itself refuses the write here: a process may write 100,000 bytes and tries more."""
    pytest.importorskip("resource", reason="limits are those of Unix")
    write_text(tmp_path / "a", "old")
    program = f"""
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
from inkstone.ground.errors import OutputError
from inkstone.ground.files import whole_folder, write_text
try:
    write_text({str(tmp_path / "a")!r}, "new" * 100_000)
except OutputError as error:
    print(error)
try:
    with whole_folder({str(tmp_path / "b")!r}) as folder:
        (folder / "c").write_text("new" * 100_000)
except OutputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert re.findall(r"cannot write (\S+): the file grew larger", done.stdout) == [
        str(tmp_path / "a"),
        str(tmp_path / "b"),
    ]
    assert listed(tmp_path) == {"a": b"old"}


def test_folders_made_for_what_failed_go_too(tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    for place in (tmp_path / "new" / "deep" / "a", tmp_path / "used" / "new" / "a"):
        with pytest.raises(ValueError, match="no"), whole_folder(place) as folder:
            (folder / "b").write_text("c")
            raise ValueError("no")
    assert [path.name for path in tmp_path.rglob("*")] == ["used"]
    with whole_folder(tmp_path / "new" / "a") as folder:
        (folder / "b").write_text("c")
    assert (tmp_path / "new" / "a" / "b").read_text() == "c"
