"""The files in which word vectors travel: word2vec text and binary, GloVe text; and Inkstone's own folder.

    word2vec         "V D" on the first line, then a line for each word: the word, D numbers
    word2vec-binary  "V D" and a line break, then for each word: the word, a space, D little-endian float32,
                     (word2vec.c, not gensim:) a line break
    glove            the lines alone, without a first line
    inkstone         a folder (`store`)

Which of them a file is, is told from what it holds; gzip is seen through. Words may hold spaces (GloVe's 840B file has
". . ."): the numbers are counted from the end of the line, and what stands before them must not end with a number.
Words that are not UTF-8 and words that come twice are in well-known files; the first vector of a word is kept, and
`Read.notes` says how many lines were passed over and why. Lines with a wrong number of numbers are no such thing: the
first of them are listed and the file is refused.

Written are nine significant digits, which bring back the same float32.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, cast, get_args

import numpy as np

from inkstone.ground.errors import ConfigError, DataError, not_known, raise_all
from inkstone.ground.files import whole_file
from inkstone.vectors.rows import Float
from inkstone.vectors.store import WordVectors, load, refuse_words, save

Format = Literal["inkstone", "word2vec", "word2vec-binary", "glove"]
FORMATS: tuple[str, ...] = get_args(Format)
_SHOWN = 5  # problems of a file
_LONGEST_WORD = 2000  # bytes
_LONGEST_LINE = 1 << 20
_WHAT = "Valid: a folder of `inkstone vectors train`, word2vec text or binary, GloVe text; gzipped or not"


@dataclass(frozen=True, slots=True)
class Read:
    """Vectors from a file, the format it was in, and what was passed over on the way."""

    vectors: WordVectors
    format: Format
    notes: tuple[str, ...] = ()


def read_vectors(path: str | Path) -> Read:
    """Vectors from a file or a folder of any known format.

    Raises DataError or BundleError saying what is wrong: missing, empty, cut off, lines (by number) of another width.
    """
    path = Path(path)
    if path.is_dir():
        return Read(load(path), "inkstone")
    if not path.is_file():
        raise DataError(f"{path} does not exist. {_WHAT}.")
    try:
        with _opened(path) as file:
            return _read_file(path, file)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path} is a damaged gzip file ({error}). Copy it again.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def write_vectors(vectors: WordVectors, path: str | Path, format: Format) -> None:
    """Write vectors in a format; a name that ends in .gz is gzipped. Whole or not at all.

    Raises DataError for words that the format cannot hold, ConfigError for an unknown format.
    """
    path = Path(path)
    if format not in FORMATS:
        raise ConfigError(not_known("format", format, FORMATS))
    if format == "inkstone":
        save(vectors, path)
        return
    refuse_words(vectors.words, " \t\n\r", "white space")
    with whole_file(path, compress=path.suffix == ".gz") as out:
        if format != "glove":
            out.write(f"{len(vectors)} {vectors.dimensions}\n".encode())
        line = " ".join(["%.9g"] * vectors.dimensions)
        for word, row_D in zip(vectors.words, vectors.matrix_VD, strict=True):
            if format == "word2vec-binary":
                out.write(word.encode("utf-8") + b" " + row_D.astype("<f4").tobytes())
            else:
                out.write(f"{word} {line % tuple(row_D.tolist())}\n".encode())


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        if not packed:
            yield raw
            return
        with gzip.open(raw, "rb") as file:
            yield cast("IO[bytes]", file)


def _read_file(path: Path, file: IO[bytes]) -> Read:
    first = file.readline(_LONGEST_LINE)
    if not first.strip():
        raise DataError(f"{path} is empty. {_WHAT}.")
    header = first.split()
    if len(header) == 2 and all(part.isdigit() for part in header):
        size, width = int(header[0]), int(header[1])
        if size < 1 or width < 1:
            raise DataError(f'{path}:1: "{size} {width}" promises no vectors. Give a file with words in it.')
        start = file.readline(_LONGEST_LINE)
        lines = _Lines(path, width, size)
        if _is_text(start):
            lines.add(2, start)
            lines.add_all(file, 3)
            return lines.finish("word2vec")
        return _read_binary(path, file, start, size, width)
    if any(byte < 9 or 13 < byte < 32 or byte == 127 for byte in first) or not _decodes(first):
        raise DataError(f"{path} is a binary file that does not begin with two numbers. {_WHAT}.")
    width = _width(first.decode("utf-8", "replace"))
    if width < 2:
        raise DataError(f"{path}:1: a word followed by numbers is expected, not {first[:60]!r}. {_WHAT}.")
    lines = _Lines(path, width, None)
    lines.add(1, first)
    lines.add_all(file, 2)
    return lines.finish("glove")


def _is_text(line: bytes) -> bool:
    """Whether a line is written in figures and letters: the bytes of numbers hardly ever do without control characters
    and still end in a figure."""
    return not any(byte < 9 or 13 < byte < 32 for byte in line) and line.rstrip()[-1:].isdigit()


def _decodes(line: bytes) -> bool:
    """Whether the first word at least is UTF-8."""
    try:
        line.split(b" ", 1)[0].decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _width(line: str) -> int:
    """How many numbers a line ends with."""
    parts = line.split(" " if "\t" not in line else None)
    count = 0
    for part in reversed([part for part in parts if part.strip()][1:]):
        try:
            float(part)
        except ValueError:
            break
        count += 1
    return count


def _numbers(line: bytes, width: int) -> tuple[bytes, Float] | None:
    """The word of a line and its numbers; None when there are not as many as there should be."""
    parts = line.rstrip().replace(b"\t", b" ").rsplit(b" ", width)
    if (
        len(parts) != width + 1
        or not parts[0]
        or (b" " in parts[0] and _width(parts[0].decode("utf-8", "replace")))
    ):
        return None
    try:
        row_D = np.array(parts[1:]).astype(np.float32)
    except ValueError:
        return None
    return parts[0], row_D


class _Rows:
    """The words and rows of a file so far, and what is odd about them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.words: dict[str, None] = {}
        self.rows: list[Float] = []
        self.twice = self.not_utf8 = 0

    def keep(self, word: bytes, row_D: Float) -> None:
        """Keep a vector, unless its word cannot be used."""
        try:
            text = word.decode("utf-8")
        except UnicodeDecodeError:
            self.not_utf8 += 1
            return
        if text in self.words:
            self.twice += 1
            return
        self.words[text] = None
        self.rows.append(row_D)

    def read(self, format_: Format) -> Read:
        """All of it. Raises DataError for numbers that are not finite, and when no word is left."""
        notes = []
        if self.twice:
            notes.append(f"{self.path}: {self.twice:,} words came again; the first vector of each was kept")
        if self.not_utf8:
            notes.append(f"{self.path}: {self.not_utf8:,} words are not valid UTF-8 and were passed over")
        if not self.rows:
            raise DataError(f"{self.path} holds no usable word. {' '.join(notes)}")
        try:
            return Read(WordVectors(tuple(self.words), np.stack(self.rows)), format_, tuple(notes))
        except DataError as error:
            raise DataError(f"{self.path}: {error}") from error


class _Lines:
    """A text file of vectors, line by line; its problems are collected."""

    def __init__(self, path: Path, width: int, promised: int | None) -> None:
        self.path, self.width, self.promised = path, width, promised
        self.found = _Rows(path)
        self.lines = 0
        self.problems: list[str] = []
        self.problem_count = 0

    def add_all(self, file: IO[bytes], first_number: int) -> None:
        """Every further line."""
        for number, line in enumerate(file, first_number):
            self.add(number, line)

    def add(self, number: int, line: bytes) -> None:
        """One line; an empty one is none."""
        if not line.strip():
            return
        self.lines += 1
        read = _numbers(line.rstrip(b"\r\n"), self.width)
        if read is not None:
            self.found.keep(*read)
            return
        self.problem_count += 1
        if len(self.problems) < _SHOWN:
            text = line.decode("utf-8", "replace").strip()
            start = text[:30] + ("…" if len(text) > 30 else "")
            self.problems.append(
                f'line {number} ("{start}") has {_width(text)} numbers after its word, where {self.width} are needed'
            )

    def finish(self, format_: Format) -> Read:
        """The vectors, or a DataError that lists the first problems."""
        if self.problem_count > len(self.problems):
            self.problems.append(f"… and {self.problem_count - len(self.problems):,} lines more")
        if self.promised is not None and self.lines != self.promised:
            self.problems.append(
                f"line 1 promises {self.promised:,} words, and there are {self.lines:,}: the file was cut off, or "
                "its first line is wrong"
            )
        raise_all(DataError, f"{self.path} cannot be used", self.problems)
        return self.found.read(format_)


def _read_binary(path: Path, file: IO[bytes], start: bytes, size: int, width: int) -> Read:
    found, data, at = _Rows(path), start, 0
    for number in range(1, size + 1):
        while True:
            space = data.find(b" ", at, at + _LONGEST_WORD)
            if space >= 0 and space + 1 + 4 * width <= len(data):
                break
            if space < 0 and len(data) - at >= _LONGEST_WORD:
                raise DataError(
                    f"{path}: word {number:,} has no end within {_LONGEST_WORD} bytes: this is no word2vec binary "
                    f"file of {size:,} words x {width} dimensions. {_WHAT}."
                )
            more = file.read(max(1 << 20, 4 * width))
            if not more:
                raise DataError(
                    f"{path} is cut off: its first line promises {size:,} words x {width} dimensions, and it ends "
                    f"within word {number:,}. Copy it again."
                )
            data, at = data[at:] + more, 0
        row_D = np.frombuffer(data, "<f4", width, space + 1).astype(np.float32)
        found.keep(data[at:space].lstrip(b"\n"), row_D)
        at = space + 1 + 4 * width
    if (data[at:] + file.read(1)).strip():
        raise DataError(
            f"{path} goes on after the {size:,} words x {width} dimensions that its first line promises. "
            "The first line is wrong, or the file is no word2vec binary file."
        )
    return found.read("word2vec-binary")
