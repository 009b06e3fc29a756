"""Files written whole or not at all.

A file is written beside its place under a temporary name, flushed to the disk, and renamed: a reader sees the old
file or the new one, never half of one, and a crash or a full disk leaves the old one. A folder is made the same way:
everything is written to a hidden sibling, flushed, and the sibling takes the name in one rename.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, Any

from inkstone.ground.errors import OutputError

_REASONS = {
    errno.ENOSPC: "the disk is full. Free some space and run the command again",
    errno.EDQUOT: "the disk quota is used up. Free some space and run the command again",
    errno.EACCES: "permission denied. Choose a place that may be written to",
    errno.EPERM: "permission denied. Choose a place that may be written to",
    errno.EROFS: "the file system is read-only. Choose a place that may be written to",
    errno.ENOENT: "the folder does not exist. Create it first",
    errno.ENOTDIR: "a part of the path is a file, not a folder. Choose another path",
    errno.EEXIST: "a part of the path is a file, not a folder. Choose another path",
    errno.EISDIR: "this is a folder. Give the name of a file",
    errno.ENOTEMPTY: "the folder is not empty. Choose a new name, or remove the folder first",
    errno.ENAMETOOLONG: "the name is too long for the file system. Choose a shorter one",
    errno.EFBIG: "the file grew larger than the system allows. Choose another place, or raise the limit",
}

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write `path` into an OutputError that says what to do."""
    try:
        yield
    except OSError as error:
        place = _absolute(path)  # tempfile names files absolutely where the caller did not
        named = place if error.filename is None else _absolute(os.fsdecode(error.filename))
        if place.parent not in named.parents and named not in place.parents:
            raise  # somebody else's file
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        raise OutputError(f"cannot write {path}: {reason}.") from error


def _absolute(path: str | Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100  resolve() would follow the link that is to be replaced


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def whole_file(path: str | Path, *, compress: bool = False) -> Iterator[IO[bytes]]:
    """Open `path` for writing bytes; it appears (or is replaced) only when the block ends without an error.

    compress: gzip what is written (without a time stamp, so equal content gives equal files). A device or a pipe
    (/dev/null, /dev/stdout) is written to as it is: replacing it by a file would take it from everybody.
    Raises OutputError when the place cannot be written.
    """
    import gzip

    path = Path(path)
    with explained(path):
        is_device = path.exists() and not path.is_file() and not path.is_dir()
    if is_device:
        with (
            explained(path),
            path.open("wb") as out,
            gzip.open(out, "wb") if compress else nullcontext(out) as file,
        ):
            yield file  # type: ignore[misc]
        return
    temporary: Path | None = None
    try:
        with explained(path):
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "is a folder")
            handle, name = tempfile.mkstemp(prefix=f".{path.name[:80]}.", suffix=".part", dir=path.parent)
            temporary = Path(name)
            with os.fdopen(handle, "wb") as raw:
                if compress:
                    with gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as packed:
                        yield packed  # type: ignore[misc]
                else:
                    yield raw
                raw.flush()
                os.fsync(raw.fileno())
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
            temporary = None
            _flush_folder(path.parent)
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text whole or not at all."""
    with whole_file(path) as out:
        out.write(text.encode("utf-8"))


def write_json(path: str | Path, value: Any) -> None:
    """Write a JSON document, readable by people, whole or not at all."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


@contextmanager
def whole_folder(path: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty hidden sibling of `path`; rename it to `path` when the block ends without an error.

    replace: an existing folder of that name gives way (kept until the new one stands). Without it an existing,
    non-empty folder is refused before anything is written.
    Raises OutputError when the place cannot be written, also for what fails inside the block for want of space.
    Nothing is left after an error, not even the folders above that did not exist.
    """
    path = Path(path)
    with explained(path):
        if not replace and path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise OutputError(f"{path} already exists. Choose a new name, or remove it first.")
        absent = [folder for folder in path.parents if not folder.exists()]  # the innermost first
        path.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{path.name[:80]}.", suffix=".part", dir=path.parent))
    try:
        with _explained_inside(path, staging):
            yield staging
        with explained(path):
            staging.chmod(0o777 & ~_umask())
            for file in sorted(staging.rglob("*")):
                if file.is_file():
                    file.chmod(0o666 & ~_umask())  # some libraries write for the owner alone
                    with file.open("rb") as handle:
                        os.fsync(handle.fileno())
            for folder in [*(f for f in staging.rglob("*") if f.is_dir()), staging]:
                _flush_folder(folder)
            if path.exists():
                old = path.with_name(f".{path.name[:80]}.{staging.name[-12:]}.old")
                path.rename(old)
                try:
                    staging.rename(path)
                except OSError:
                    old.rename(path)
                    raise
                shutil.rmtree(old, ignore_errors=True)
            else:
                staging.rename(path)
            _flush_folder(path.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        with suppress(OSError):  # folders that were made for it go with it; one that is in use stays
            for folder in absent:
                folder.rmdir()


@contextmanager
def _explained_inside(path: Path, staging: Path) -> Iterator[None]:
    """As `explained`, for errors that name a file of the staging folder, or no file but a full disk."""
    try:
        yield
    except OSError as error:
        inside = error.filename is not None and staging in Path(os.fsdecode(error.filename)).parents
        if not inside and (error.filename is not None or error.errno not in _NO_SPACE):
            raise
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        raise OutputError(f"cannot write {path}: {reason}.") from error


def sha256(path: Path) -> str:
    """The sha256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
