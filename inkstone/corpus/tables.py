"""Files as rows of named fields: JSON Lines, CSV, TSV, Parquet and plain lines, told apart by what they
hold.

The name of a file is only asked where its content leaves a doubt (a plain text full of commas is no CSV).
A row is a dictionary; columns without a header are called "1", "2", …; the one column of plain text is
called "line".

TSV is read literally, as translation corpora are written: a quotation mark is a quotation mark. CSV
follows RFC 4180, so a quoted field may hold line breaks. A row with too few or too many fields is a
problem of that row.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from inkstone.corpus.lines import Head, Report, look, read_lines
from inkstone.ground.errors import DataError, require
from inkstone.text.language import language_code

Format = Literal["jsonl", "csv", "tsv", "parquet", "text"]
Row = dict[str, Any]
LINE = "line"
_SAMPLE = 50  # lines looked at to tell a format
_KNOWN = (
    {"source", "target"},
    {"text", "label"},
    {"text", "labels"},
    {"text", "summary"},
    {"document", "summary"},
    {"question", "answer"},
)


@dataclass(frozen=True, slots=True)
class Table:
    """A file that has been told: its format, its columns in order, and whether its first line names them."""

    head: Head
    format: Format
    columns: tuple[str, ...]
    header: bool = False
    delimiter: str = ""

    def rows(self, report: Report) -> Iterator[tuple[int, Row]]:
        """Line number and fields of each usable row; what is not usable is given to `report`."""
        if self.format == "jsonl":
            return _json_rows(self.head, report)
        if self.format == "parquet":
            return _parquet_rows(self.head.path)
        if self.format == "text":
            return ((number, {LINE: line}) for number, line in read_lines(self.head, report))
        return _delimited_rows(self, report)


def open_table(path: Path, names: frozenset[str] = frozenset()) -> Table:
    """Tell a file's format and columns. names: columns the caller asks for, which betray a header."""
    head = look(path)
    if head.parquet:
        return Table(head, "parquet", _parquet_columns(path))
    lines = [line for line in head.lines if line.strip()][:_SAMPLE]
    suffixes = {suffix.lower() for suffix in path.suffixes}
    if _is_jsonl(path, lines, bool(suffixes & {".jsonl", ".ndjson", ".json"})):
        return Table(head, "jsonl", _json_columns(lines))
    if ".tsv" in suffixes or sum("\t" in line for line in lines) >= 0.8 * len(lines):
        return _delimited(head, "tsv", "\t", lines, names, sure=False)
    for delimiter in ",;":
        cells = next(csv.reader([lines[0][:100_000]], delimiter=delimiter))  # no header is as long
        if len(cells) > 1 and (".csv" in suffixes or _names_columns(cells, names)):
            return _delimited(head, "csv", delimiter, lines, names, sure=True)
    if ".csv" in suffixes:
        return _delimited(head, "csv", ",", lines, names, sure=True)
    return Table(head, "text", (LINE,))


def _is_jsonl(path: Path, lines: list[str], named: bool) -> bool:
    objects = sum(isinstance(_parsed(line), dict) for line in lines)
    if objects >= 0.5 * len(lines) or (named and objects):
        return True
    start = lines[0].lstrip("\ufeff \t")
    if start.startswith("[") and (named or len(start) == 1 or start[1:].lstrip().startswith("{")):
        raise DataError(
            f"{path} is one JSON document, not JSON Lines. Valid: one object per line. "
            f"Run: jq -c '.[]' {path.name} > new-file.jsonl"
        )
    if named:
        raise DataError(
            f"{path} is not JSON Lines: none of its first {len(lines)} lines is a JSON object. "
            'Valid: one object per line, such as {"text": "…", "label": "…"}.'
        )
    return False


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (json.JSONDecodeError, RecursionError):
        return None


def _json_columns(lines: list[str]) -> tuple[str, ...]:
    columns: dict[str, None] = {}
    for line in lines:
        row = _parsed(line)
        if isinstance(row, dict):
            columns.update(dict.fromkeys(row))
    return tuple(columns)


def _json_rows(head: Head, report: Report) -> Iterator[tuple[int, Row]]:
    for number, line in read_lines(head, report):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if line.strip():
                report(number, f"is not JSON: {error.msg} at character {error.pos + 1}")
            continue
        except RecursionError:
            report(number, "is not usable JSON: nested too deeply")
            continue
        if isinstance(row, dict):
            yield number, row
        else:
            report(number, f"is not a JSON object but a {_kind(row)}")


def _kind(value: Any) -> str:
    names = {list: "list", str: "string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "number")


def _names_columns(cells: list[str], names: frozenset[str]) -> bool:
    """Whether a first row is a header: known names, what the caller asks for, or language codes alone."""
    folded = {cell.strip().lower() for cell in cells}
    if any(known <= folded for known in _KNOWN) or (names and names <= {cell.strip() for cell in cells}):
        return True
    return len(folded) == len(cells) > 1 and all(language_code(cell) for cell in folded)


def _delimited(
    head: Head, format: Format, delimiter: str, lines: list[str], names: frozenset[str], *, sure: bool
) -> Table:
    first = [cell.strip() for cell in next(_cells_of([lines[0].lstrip("\ufeff")], delimiter))]
    if sure or _names_columns(first, names) or [cell.lower() for cell in first] in (["text"], ["line"]):
        repeated = {cell for cell in first if first.count(cell) > 1}
        if repeated:
            raise DataError(f"{head.path} names a column twice: {', '.join(sorted(repeated))}. Rename one.")
        return Table(head, format, tuple(first), header=True, delimiter=delimiter)
    widths = [line.count(delimiter) + 1 for line in lines]
    width = max(set(widths), key=lambda width: (widths.count(width), width))
    return Table(head, format, tuple(str(at + 1) for at in range(width)), delimiter=delimiter)


def _cells_of(lines: Any, delimiter: str) -> Any:
    if delimiter == "\t":
        return csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    return csv.reader(lines, delimiter=delimiter, strict=False)


def _delimited_rows(table: Table, report: Report) -> Iterator[tuple[int, Row]]:
    columns, header, at = table.columns, table.header, 0
    if table.delimiter == "\t":  # no quoting: split is the reader, and a bad line cannot swallow the next
        numbered: Iterator[tuple[int, list[str]]] = (
            (number, line.split("\t")) for number, line in read_lines(table.head, report)
        )
    else:
        numbered = _quoted_rows(table, report)
    for at, cells in numbered:
        if not any(cell.strip() for cell in cells):
            continue
        if header:
            header = False
        elif len(cells) == len(columns):
            yield at, dict(zip(columns, cells, strict=True))
        else:
            report(at, f"has {len(cells)} fields, not {len(columns)} ({', '.join(columns)})")


def _quoted_rows(table: Table, report: Report) -> Iterator[tuple[int, list[str]]]:
    last = 0

    def feed() -> Iterator[str]:
        nonlocal last
        for number, line in read_lines(table.head, report):
            last = number
            yield line + "\n"

    reader, begin = _cells_of(feed(), table.delimiter), 0
    while True:
        begin = last + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            report(begin, f"is not CSV: {error}; perhaps a quotation mark is never closed")
            continue
        yield begin, cells


def _parquet_columns(path: Path) -> tuple[str, ...]:
    require("pyarrow", "reading Parquet", "train")
    import pyarrow
    import pyarrow.parquet

    try:
        return tuple(pyarrow.parquet.read_schema(path).names)
    except pyarrow.ArrowInvalid as error:
        raise DataError(f"{path} is a damaged Parquet file ({error}). Copy it again.") from error


def _parquet_rows(path: Path) -> Iterator[tuple[int, Row]]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} is damaged after row {number} ({error}). Copy it again.") from error
