"""Files as lines, whatever they are packed in, and never more than a line in memory.

A file is told by its first bytes, not by its name: gzip by its magic number, Parquet by its own, UTF-8
with or without a byte order mark. What is not text is refused by name (a PNG image, a ZIP archive,
UTF-16) with the command that would turn it into text. GB18030, in which Chinese spreadsheets are often
saved, is read where the bytes leave little doubt, and the report says so.

A line longer than the limit is not held in memory: it is skipped to its end and reported, so a file of
one line of a gigabyte costs a megabyte. Lines that are not valid in the file's encoding, and lines with
NUL bytes, are reported the same way. Nobody's problems stop the reading; `--strict` belongs to the reader
above.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from inkstone.ground.errors import DataError

LINE_LIMIT = 1 << 20  # bytes
_HEAD = 1 << 17  # bytes looked at to tell what a file is
_CHUNK = 1 << 18
_BOM = b"\xef\xbb\xbf"
_BINARY = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a ZIP archive (or a Word or Excel file)",
    b"BZh": "a bzip2 archive; run bunzip2 first",
    b"\xfd7zXZ": "an xz archive; run unxz first",
    b"\x28\xb5\x2f\xfd": "a zstd archive; run unzstd first",
    b"SQLite format 3": "an SQLite database",
    b"\x7fELF": "a program",
    b"\x93NUMPY": "a NumPy array",
}
_WIDE_UNICODE = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_CONTROLS = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_VALID = "JSON Lines, CSV, TSV, Parquet or plain text in UTF-8, gzipped or not"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a file that could not be used: where, and what is wrong with it."""

    file: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}"


@dataclass(frozen=True, slots=True)
class Head:
    """What a file is, told from its beginning. `lines`: the first, decoded, without a broken last one."""

    path: Path
    packed: bool  # gzip
    encoding: str
    lines: tuple[str, ...]
    parquet: bool = False


Report = Callable[[int, str], None]


def look(path: Path) -> Head:
    """Tell what a file is. Raises DataError when it is missing, empty, binary or in an unknown encoding."""
    if not path.exists():
        raise DataError(f"{path} does not exist. Check the path.")
    if path.is_dir():
        raise DataError(f"{path} is a folder. Give the files in it.")
    if not path.is_file():  # what `look` takes from a pipe would be missing from the records
        raise DataError(
            f"{path} is a pipe or a device, which can be read only once. Save it in a file first."
        )
    try:
        with path.open("rb") as raw:
            start = raw.read(8)
        packed = start.startswith(b"\x1f\x8b")
        with _opened(path, packed) as file:
            head = file.read(_HEAD)
            if head.startswith(b"{") and b"\n" not in head:  # a book in a line of JSON: half of it is none
                head += file.readline(LINE_LIMIT - len(head))
    except PermissionError as error:
        raise DataError(f"{path} may not be read: permission denied.") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is a damaged gzip file ({error}). Copy it again.") from error
    if not head:
        raise DataError(f"{path} is empty. Give a file with records in it.")
    if head.startswith(b"PAR1"):
        if packed:
            raise DataError(f"{path} is a gzipped Parquet file. Run gunzip on it first.")
        return Head(path, False, "parquet", (), parquet=True)
    whole = len(head) < _HEAD
    encoding = _encoding_of(path, head, whole)
    text = head.removeprefix(_BOM).decode(encoding, "replace")
    lines = text.replace("\r\n", "\n").split("\n")
    if not whole and len(lines) > 1:
        lines.pop()
    if lines and not lines[-1]:
        lines.pop()
    if not any(line.strip() for line in lines):
        raise DataError(f"{path} holds only white space. Give a file with records in it.")
    return Head(path, packed, encoding, tuple(lines))


def read_lines(head: Head, report: Report) -> Iterator[tuple[int, str]]:
    """Number (from 1) and text of each usable line, without its end; the others are given to `report`."""
    for number, line in _raw_lines(head, report):
        if b"\0" in line:
            report(number, "holds a NUL byte, so it is not text")
            continue
        try:
            yield number, line.decode(head.encoding)
        except UnicodeDecodeError as error:
            bad = line[error.start : error.start + 1].hex()
            report(number, f"is not valid {head.encoding.upper()}: byte 0x{bad} at position {error.start}")


def count_lines(head: Head) -> int:
    """How many lines a file has; a last line without an end counts."""
    count, last = 0, b"\n"
    try:
        with _opened(head.path, head.packed) as file:
            while chunk := file.read(_CHUNK):
                count += chunk.count(b"\n")
                last = chunk[-1:]
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{head.path} is a damaged gzip file ({error}). Copy it again.") from error
    return count + (last != b"\n")


def _opened(path: Path, packed: bool) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path, "rb")) if packed else path.open("rb")


def _raw_lines(head: Head, report: Report) -> Iterator[tuple[int, bytes]]:
    """Lines as bytes; a line over the limit is reported and passed over."""
    number, rest, skipped = 1, b"", 0
    with _opened(head.path, head.packed) as file:
        while True:
            try:
                chunk = file.read(_CHUNK)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise DataError(
                    f"{head.path} is damaged after line {number - 1} ({error}). Copy it again."
                ) from error
            if not chunk:
                break
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if skipped or len(line) > LINE_LIMIT:
                    report(number, _too_long(skipped + len(line)))
                    skipped = 0
                else:
                    yield number, _trimmed(line, number)
                number += 1
            if len(rest) > LINE_LIMIT:
                skipped += len(rest)
                rest = b""
            elif skipped:
                skipped, rest = skipped + len(rest), b""
    if skipped:
        report(number, _too_long(skipped))
    elif rest:
        yield number, _trimmed(rest, number)


def _trimmed(line: bytes, number: int) -> bytes:
    if number == 1:
        line = line.removeprefix(_BOM)
    return line[:-1] if line.endswith(b"\r") else line


def _too_long(size_bytes: int) -> str:
    return f"is too long: {size_bytes:,} bytes, where at most {LINE_LIMIT:,} are allowed"


def _encoding_of(path: Path, head: bytes, whole: bool) -> str:
    for magic, name in _WIDE_UNICODE.items():
        if head.startswith(magic):
            raise DataError(
                f"{path} is written in {name}. Valid: UTF-8. "
                f"Run: iconv -f {name} -t UTF-8 {path.name} > new-file"
            )
    for magic, name in _BINARY.items():
        if head.startswith(magic):
            raise DataError(f"{path} is {name}, not text. Valid: {_VALID}.")
    if len(_CONTROLS.findall(head)) > 0.01 * len(head):
        raise DataError(f"{path} is a binary file, not text. Valid: {_VALID}.")
    lines = head.split(b"\n")
    if not whole:
        lines = lines[:-1] or [head[: head.rfind(b" ") + 1] or head[:-4]]
    bad = [line for line in lines if not _decodes(line, "utf-8")]
    if len(bad) <= 0.1 * len(lines) or (len(bad) == 1 and len(lines) > 1):
        return "utf-8"  # the few bad lines are reported one by one
    if all(_decodes(line, "gb18030") for line in lines) and _looks_chinese(b"\n".join(lines)):
        return "gb18030"
    raise DataError(
        f"{path} is in an unknown encoding: {len(bad)} of its first {len(lines)} lines are not UTF-8. "
        f"Find out which it is (Big5? Latin-1?) and run: iconv -f ENCODING -t UTF-8 {path.name} > new-file"
    )


def _decodes(line: bytes, encoding: str) -> bool:
    try:
        line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _looks_chinese(data: bytes) -> bool:
    """Whether most of what is not ASCII are the 3,755 common characters and the punctuation of GB 2312."""
    foreign = [character.encode("gb18030") for character in data.decode("gb18030") if not character.isascii()]
    common = sum(len(code) == 2 and (0xB0 <= code[0] <= 0xD7 or code[0] in (0xA1, 0xA3)) for code in foreign)
    return common > 0.8 * len(foreign)
