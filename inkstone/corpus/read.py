"""Files to records: pairs for translation, labelled texts for classification, documents for everything
else.

    reading = read_pairs(["corpus.jsonl.gz"], source_language="en", target_language="zh")
    for pair in reading: ...          # lazily, a line at a time
    reading.sources, reading.problems  # what each file was taken for, and what could not be used

Formats are told apart by `tables`; here the fields are chosen. First match wins: what the caller says
(`fields`), then `source`/`target` (`text`/`label` or `labels`, `text`), then two columns named by
language codes, then the two columns of a TSV without a header. Two line-aligned plain files are one path
with braces: `corpus.{en,de}.gz`.

What is wrong with a file as a whole (missing, empty, binary, other columns, no usable record) is a
DataError. What is wrong with one line is a Problem, and the reading goes on; with `strict` the first one
stops it. Blank lines are no problem and no record.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

from inkstone.corpus.lines import Head, Problem, Report, count_lines, look, read_lines
from inkstone.corpus.tables import LINE, Row, Table, open_table
from inkstone.ground.errors import ConfigError, DataError, not_known
from inkstone.ground.records import Conversation, Document, Labelled, Pair, Related, Summarized
from inkstone.text.language import UNDETERMINED, checked_code, detect, language_code

KEPT_PROBLEMS = 1000  # listed one by one; beyond that they are only counted
_SAMPLE = 60
_BRACES = re.compile(r"\{([A-Za-z_-]+),([A-Za-z_-]+)\}")
# Column names that are language codes and, much more often, something else.
AMBIGUOUS = frozenset({"id", "no", "is", "as", "to", "or", "am", "so", "se", "be", "my", "it"})
R = TypeVar("R", Pair, Labelled, Document, Related, Summarized, Conversation)


@dataclass(slots=True)
class Source:
    """What one file was taken for, and what came of it; the counts grow while it is read."""

    path: str
    format: str
    compression: str
    encoding: str
    fields: dict[str, str]
    languages: tuple[str, ...] = ()
    note: str = ""
    records: int = 0
    problems: int = 0

    def describe(self) -> str:
        """One line for the report."""
        packed = f", {self.compression}" if self.compression else ""
        chosen = ", ".join(f"{role}={name}" for role, name in self.fields.items())
        languages = f", {' → '.join(self.languages)}" if self.languages else ""
        note = f" ({self.note})" if self.note else ""
        counts = f"{self.records:,} records, {self.problems:,} bad lines"
        return f"{self.path}: {self.format}{packed}, {self.encoding}; {chosen}{languages}{note}: {counts}"


@dataclass(slots=True)
class Part(Generic[R]):
    """One input: what it is, its rows, and how a row becomes a record (or the sentence that says why not)."""

    source: Source
    rows: Callable[[Report], Iterator[tuple[int, Row]]]
    make: Callable[[Row, str], R | str | None]


@dataclass(slots=True)
class Reading(Generic[R]):
    """Records, read when asked for. After (and during) the reading it knows the sources and the problems.

    Going through it again reads the files again.
    """

    parts: list[Part[R]]
    strict: bool = False
    problems: list[Problem] = field(default_factory=list)
    problem_count: int = 0

    @property
    def sources(self) -> list[Source]:
        """What each input was taken for."""
        return [part.source for part in self.parts]

    def __iter__(self) -> Iterator[R]:
        self.problems, self.problem_count = [], 0
        for part in self.parts:
            part.source.records = part.source.problems = 0
            yield from self._read(part)

    def _read(self, part: Part[R]) -> Iterator[R]:
        source = part.source

        def report(number: int, what: str) -> None:
            problem = Problem(source.path, number, what)
            if self.strict:
                raise DataError(f"{problem}. Mend the line, or leave out --strict to pass over it.")
            source.problems += 1
            self.problem_count += 1
            if len(self.problems) < KEPT_PROBLEMS:
                self.problems.append(problem)

        first = len(self.problems)
        for number, row in part.rows(report):
            made = part.make(row, f"{source.path}:{number}")
            if isinstance(made, str):
                report(number, made)
            elif made is not None:
                source.records += 1
                yield made
        if source.records == 0:
            example = f" First problem: {self.problems[first]}." if len(self.problems) > first else ""
            raise DataError(
                f"{source.path} holds no usable record: {source.problems} bad lines.{example} "
                "Mend the file, or name its fields with --fields."
            )


def read_pairs(
    paths: Sequence[str | Path],
    *,
    source_language: str | None = None,
    target_language: str | None = None,
    fields: Mapping[str, str] | None = None,
    strict: bool = False,
) -> Reading[Pair]:
    """Sentence pairs from any number of files.

    The languages of `source`/`target` fields are told from the text where they are not given, and reported.
    Raises DataError for a file that holds no pairs, ConfigError for a language or field that cannot be.
    """
    wanted = tuple(checked_code(code) if code else None for code in (source_language, target_language))
    if wanted[0] and wanted[0] == wanted[1]:
        raise ConfigError(f"source and target are both {wanted[0]}. Give two different languages.")
    fields = _checked_fields(fields, ("source", "target"))
    parts = []
    for path in _listed(paths):
        if _is_brace_pattern(path):
            parts.append(_aligned_part(path, wanted))
        else:
            parts.append(_pair_part(open_table(path, frozenset(fields.values())), fields, wanted))
    return Reading(parts, strict)


def read_labelled(
    paths: Sequence[str | Path], *, fields: Mapping[str, str] | None = None, strict: bool = False
) -> Reading[Labelled]:
    """Texts with their labels. A `labels` field (a list; in CSV and TSV separated by |) makes them
    multi-label.

    Raises DataError for a file that holds none.
    """
    fields = _checked_fields(fields, ("text", "label", "labels"))
    tables = (open_table(path, frozenset(fields.values())) for path in _listed(paths))
    return Reading([_labelled_part(table, fields) for table in tables], strict)


def read_documents(
    paths: Sequence[str | Path], *, fields: Mapping[str, str] | None = None, strict: bool = False
) -> Reading[Document]:
    """Running text: the `text` field of tables (a list is its lines), each line of plain files.

    Raises DataError where is none.
    """
    fields = _checked_fields(fields, ("text",))
    parts: list[Part[Document]] = []
    for path in _listed(paths):
        table = open_table(path, frozenset(fields.values()))
        column = fields.get("text") or (LINE if table.format == "text" else _column(table, "text"))
        if column is None and table.format == "tsv" and table.columns == ("1",):
            column = "1"
        _must_have(table, [column], "a `text` field")

        def make(row: Row, origin: str, column: str = str(column)) -> Document | str | None:
            text = row.get(column)
            if isinstance(text, list) and text and all(isinstance(line, str) for line in text):
                text = "\n".join(text)
            if not isinstance(text, str):
                return _wrong(row, column, "a text")
            return Document(text, origin) if text.strip() else _blank(column)

        parts.append(Part(_source(table, {"text": str(column)}), table.rows, make))
    return Reading(parts, strict)


def task_of(paths: Sequence[str | Path], fields: Mapping[str, str] | None = None) -> str:
    """What the first file holds: pairs, labelled or documents. Raises DataError where that cannot be told."""
    named = set(fields or ())
    if named & {"label", "labels"}:
        return "labelled"
    if named & {"source", "target"}:
        return "pairs"
    path = _listed(paths)[0]
    if _is_brace_pattern(path):
        return "pairs"
    table = open_table(path)
    if _pair_columns(table, {}, (None, None)) is not None and table.header | (table.format != "tsv"):
        return "pairs"
    if table.format == "tsv" and not table.header and len(table.columns) == 2:
        return "labelled" if _label_first(table) is not None else "pairs"
    if _column(table, "text") and (_column(table, "label") or _column(table, "labels")):
        return "labelled"
    if table.format == "text" or _column(table, "text"):
        return "documents"
    raise DataError(_columns_message(table, "fields that say what it holds", "--task and --fields"))


def aligned_files(path: Path) -> list[Path]:
    """The files that a path names: two for line-aligned ones such as `corpus.{en,de}.gz`, else the one."""
    match = _BRACES.search(str(path))
    if match is None or path.exists():
        return [path]
    return [Path(_BRACES.sub(name, str(path))) for name in match.groups()]


def _listed(paths: Sequence[str | Path]) -> list[Path]:
    if isinstance(paths, str | Path):
        paths = [paths]
    if not paths:
        raise ConfigError("no file was given. Give at least one.")
    return [Path(path) for path in paths]


def _checked_fields(fields: Mapping[str, str] | None, roles: tuple[str, ...]) -> dict[str, str]:
    for role in fields or ():
        if role not in roles:
            raise ConfigError(not_known("field", role, roles))
    return dict(fields or {})


def _column(table: Table, name: str) -> str | None:
    return next((column for column in table.columns if column.strip().lower() == name), None)


def _columns_message(table: Table, need: str, advice: str = "--fields") -> str:
    if table.format == "text":
        return f"{table.head.path} is plain text without columns, where {need} is needed. Give another file."
    columns = ", ".join(table.columns) or "none"
    what = f"{table.head.path} ({table.format}) has the columns {columns}"
    return f"{what}, where {need} is needed. Name them with {advice}."


def _must_have(table: Table, columns: Sequence[str | None], need: str) -> None:
    for column in columns:
        if column is None:
            raise DataError(_columns_message(table, need))
        if column not in table.columns:
            raise DataError(f"{table.head.path}: {not_known('field', column, table.columns or ['none'])}")


def _source(table: Table, fields: dict[str, str], languages: tuple[str, ...] = (), note: str = "") -> Source:
    compression = "gzip" if table.head.packed else ""
    path = str(table.head.path)
    if table.head.encoding == "gb18030":
        note = "; ".join(filter(None, [note, "encoding guessed"]))
    return Source(path, table.format, compression, table.head.encoding, fields, languages, note)


def _wrong(row: Row, column: str, expected: str) -> str:
    if column not in row:
        return f'has no field "{column}"'
    return f'field "{column}" is not {expected} but {_named(row[column])}'


def _blank(column: str) -> str | None:
    return None if column == LINE else f'field "{column}" is empty'


def _named(value: Any) -> str:
    if value is None:
        return "null"
    shown = repr(value)
    return shown if len(shown) <= 40 else shown[:37] + "…"


def _sample(table: Table) -> list[Row]:
    return [row for _, row in islice(table.rows(lambda number, what: None), _SAMPLE)]


# --- pairs


def _pair_columns(
    table: Table, fields: Mapping[str, str], wanted: tuple[str | None, ...]
) -> tuple[str, str, str | None, str | None] | None:
    """The two columns and the languages their names tell."""
    if fields:
        source, target = fields.get("source"), fields.get("target")
        if source is None or target is None:
            raise ConfigError("--fields must name both source and target, such as source=en,target=zh.")
        return source, target, language_code(source), language_code(target)
    source, target = _column(table, "source"), _column(table, "target")
    if source and target:
        return source, target, None, None
    by_code: dict[str, str] = {}
    for column in table.columns:
        code = language_code(column)
        if code:
            by_code.setdefault(code, column)
    if wanted[0] and wanted[1]:
        if wanted[0] in by_code and wanted[1] in by_code:
            return by_code[wanted[0]], by_code[wanted[1]], wanted[0], wanted[1]
    elif len(by_code) > 2:
        by_code = {code: column for code, column in by_code.items() if code not in AMBIGUOUS}
    if len(by_code) == 2 and not (wanted[0] and wanted[1]):
        codes = list(by_code)
        if (wanted[0] or codes[0]) == codes[1] or (wanted[1] or codes[1]) == codes[0]:
            codes.reverse()
        if (wanted[0] or codes[0]) == codes[0] and (wanted[1] or codes[1]) == codes[1]:
            return by_code[codes[0]], by_code[codes[1]], codes[0], codes[1]
    if table.format == "tsv" and not table.header and len(table.columns) == 2:
        return "1", "2", None, None
    return None


def _pair_part(table: Table, fields: Mapping[str, str], wanted: tuple[str | None, ...]) -> Part[Pair]:
    chosen = _pair_columns(table, fields, wanted)
    if chosen is None:
        asked = " and ".join(code for code in wanted if code)
        need = f"`source` and `target`, or two language codes{f' with {asked} among them' if asked else ''},"
        raise DataError(_columns_message(table, need))
    left, right, *named = chosen
    _must_have(table, [left, right], "source and target")
    notes, languages = [], []
    for column, code, known in zip((left, right), wanted, named, strict=True):
        found = code or known
        if found is None:
            found = _language_of([row.get(column) for row in _sample(table)])
            if found is None:
                raise ConfigError(
                    f'{table.head.path}: the language of "{column}" cannot be told from its text. '
                    "Give --from and --to."
                )
            notes.append(f'the language of "{column}" was told from the text')
        languages.append(found)
    source_language, target_language = languages

    def make(row: Row, origin: str) -> Pair | str | None:
        source, target = row.get(left), row.get(right)
        for column, value in ((left, source), (right, target)):
            if not isinstance(value, str):
                return _wrong(row, column, "a text")
            if not value or value.isspace():
                return f'field "{column}" is empty'
        return Pair(str(source), str(target), source_language, target_language, origin)

    described = _source(table, {"source": left, "target": right}, (source_language, target_language))
    described.note = "; ".join(filter(None, [described.note, *notes]))
    return Part(described, table.rows, make)


def _language_of(values: Sequence[Any]) -> str | None:
    """The language most of the values are in."""
    votes: Counter[str] = Counter()
    for value in values:
        if isinstance(value, str):
            found = detect(value)
            votes[found.language] += found.confidence  # type: ignore[assignment]
    votes.pop(UNDETERMINED, None)
    return max(votes, key=lambda code: votes[code]) if votes else None


def _is_brace_pattern(path: Path) -> bool:
    return not path.exists() and _BRACES.search(str(path)) is not None


def _aligned_part(path: Path, wanted: tuple[str | None, ...]) -> Part[Pair]:
    """Two plain files whose lines belong together, named by one path: corpus.{en,de}.gz"""
    match = _BRACES.search(str(path))
    assert match is not None, path
    codes = [checked_code(code) for code in match.groups()]
    heads = {
        code: look(Path(_BRACES.sub(name, str(path))))
        for code, name in zip(codes, match.groups(), strict=True)
    }
    order = (wanted[0] or codes[0], wanted[1] or codes[1])
    if order[0] == order[1] or (wanted[0] == codes[1] and wanted[1] is None):
        order = (codes[1], codes[0])
    for code in (*order, *filter(None, wanted)):
        if code not in heads:
            raise DataError(f"{path}: {not_known('language', code, codes)}")
    left, right = heads[order[0]], heads[order[1]]
    for head in (left, right):
        if head.parquet:
            raise DataError(f"{head.path} is a Parquet file, where a plain text file is needed for {path}.")
    counts = [count_lines(head) for head in (left, right)]
    if counts[0] != counts[1]:
        raise DataError(
            f"{left.path} has {counts[0]:,} lines but {right.path} has {counts[1]:,}. "
            "Line-aligned files must have the same number; find where they part."
        )

    def make(row: Row, origin: str) -> Pair | str | None:
        source, target = row["source"], row["target"]
        if not source.strip() and not target.strip():
            return None
        if not source.strip() or not target.strip():
            return f"is empty in {(left if not source.strip() else right).path.name} only"
        return Pair(source, target, order[0], order[1], origin)

    encoding = " and ".join(dict.fromkeys([left.encoding, right.encoding]))
    described = Source(
        str(path),
        "aligned text",
        "gzip" if left.packed or right.packed else "",
        encoding,
        {"source": left.path.name, "target": right.path.name},
        order,
    )
    return Part(described, lambda report: _aligned_rows(left, right, report), make)


def _aligned_rows(left: Head, right: Head, report: Report) -> Iterator[tuple[int, Row]]:
    """Walk both files by line number, so that a bad line on one side takes its partner with it."""
    ours = read_lines(left, lambda number, what: report(number, f"{left.path.name} {what}"))
    theirs = read_lines(right, lambda number, what: report(number, f"{right.path.name} {what}"))
    one, other = next(ours, None), next(theirs, None)
    while one is not None and other is not None:
        if one[0] == other[0]:
            yield one[0], {"source": one[1], "target": other[1]}
            one, other = next(ours, None), next(theirs, None)
        elif one[0] < other[0]:
            one = next(ours, None)
        else:
            other = next(theirs, None)


# --- labelled texts


def _label_first(table: Table) -> bool | None:
    """Of two columns without a header: True if the first holds labels, None if neither repeats."""
    sample = _sample(table)
    distinct = [len({row[column] for row in sample}) for column in ("1", "2")]
    lengths = [sum(len(row[column]) for row in sample) for column in ("1", "2")]
    if len(sample) < 4 or min(distinct) > 0.5 * len(sample):
        return None
    return distinct[0] < distinct[1] and lengths[0] < lengths[1]


def _labelled_part(table: Table, fields: Mapping[str, str]) -> Part[Labelled]:
    note = ""
    if fields:
        if "text" not in fields or ("label" in fields) == ("labels" in fields):
            raise ConfigError("--fields must name text and label (or labels), such as text=body,label=topic.")
        text, label, role = fields["text"], fields.get("label"), "label"
        if label is None:
            label, role = fields["labels"], "labels"
        _must_have(table, [text, label], "text and label")
        chosen: tuple[str, str] = (text, label)
    elif table.format == "tsv" and not table.header and len(table.columns) == 2:
        first = _label_first(table)
        chosen, role = (("2", "1") if first else ("1", "2")), "label"
        note = f"no header: column {chosen[1]} taken for the label"
    else:
        found, role = _column(table, "label"), "label"
        if found is None:
            found, role = _column(table, "labels"), "labels"
        names = (_column(table, "text"), found)
        _must_have(table, names, "`text` and `label` (or `labels`)")
        chosen = (str(names[0]), str(names[1]))
    text_column, label_column = chosen
    split = table.format in ("csv", "tsv")

    def make(row: Row, origin: str) -> Labelled | str | None:
        text, value = row.get(text_column), row.get(label_column)
        if not isinstance(text, str):
            return _wrong(row, text_column, "a text")
        if not text.strip():
            return f'field "{text_column}" is empty'
        if role == "labels" and split and isinstance(value, str):
            value = [label for label in value.split("|") if label.strip()]
        values = value if isinstance(value, list) else [value]
        if label_column not in row or not all(isinstance(label, str | int) for label in values):
            return _wrong(row, label_column, "a label" if role == "label" else "a list of labels")
        labels = tuple(dict.fromkeys(str(label).strip() for label in values))
        if "" in labels:
            return f'field "{label_column}" is empty'
        return Labelled(text, labels, origin)

    return Part(_source(table, {"text": text_column, role: label_column}, note=note), table.rows, make)
