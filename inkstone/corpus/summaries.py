"""Files to documents with their summaries.

    {"document": "…", "summary": "…"}                    {"source": ["A sentence.", "…"], "targets": ["One.", "Another."]}

A document is a text, or a list of its sentences; a summary is a text, or a list of several that are as good. First match
wins: what the caller says, then the names in `NAMES`, then the two columns of a TSV without a header. The
language of each is told by its document, from among those that a tenth of the file is in, unless the caller knows it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from inkstone.corpus.read import Part, Reading, Source
from inkstone.corpus.tables import Row, Table, open_table
from inkstone.ground.errors import ConfigError, DataError, not_known
from inkstone.ground.records import Pair, Summarized
from inkstone.text.language import HAN, KANA, UNDETERMINED, checked_code, detect

DOCUMENTS = ("document", "text", "article", "dialogue", "abstract", "body", "content", "source")
SUMMARIES = ("summary", "summaries", "highlights", "targets", "target", "title", "abstract")
ROLES = ("document", "summary")
_SAMPLE, _SHARE = (
    200,
    0.1,
)  # documents that tell a file's languages, and the share of them that a language needs
_SPACELESS = re.compile(f"[{HAN}{KANA}\u3000-\u303f\uff00-\uffef”’…]$")  # text after it needs no space


def read_summaries(
    paths: Sequence[str | Path],
    *,
    language: str | None = None,
    fields: Mapping[str, str] | None = None,
    strict: bool = False,
) -> Reading[Summarized]:
    """Documents with their summaries from any number of files. language: of all of them, where it is known.

    Raises DataError for a file that holds none, ConfigError for a field or a language that cannot be.
    """
    if isinstance(paths, str | Path):
        paths = [paths]
    if not paths:
        raise ConfigError("no file was given. Give at least one.")
    for role in fields or ():
        if role not in ROLES:
            raise ConfigError(not_known("field", role, ROLES))
    if fields and set(fields) != set(ROLES):
        raise ConfigError("fields must name both document and summary, such as document=text,summary=title.")
    code = None if language is None else checked_code(language)
    return Reading([_part(Path(path), dict(fields or {}), code) for path in paths], strict)


def as_pairs(record: Pair | Summarized) -> Iterator[Pair]:
    """The pairs that a record holds: a document with each of its summaries is one."""
    if isinstance(record, Pair):
        yield record
        return
    for summary in record.summaries:
        yield Pair(record.document, summary, record.language, record.language, record.origin)


def _part(path: Path, fields: Mapping[str, str], language: str | None) -> Part[Summarized]:
    table = open_table(path, frozenset(fields.values()))
    document, summary = (fields["document"], fields["summary"]) if fields else _chosen(table)
    for column in (document, summary):
        if column not in table.columns:
            raise DataError(f"{path}: {not_known('field', column, table.columns or ['none'])}")
    languages = (language,) if language else _languages(table, document)

    def make(row: Row, origin: str) -> Summarized | str | None:
        text, several = _joined(row.get(document)), _several(row.get(summary))
        if text is None or several is None:
            return f'field "{document if text is None else summary}" is no text, or empty'
        found = languages[0] if len(languages) == 1 else detect(text).language
        return Summarized(text, several, found if found in languages else languages[0], origin)

    packed = "gzip" if table.head.packed else ""
    chosen = {"document": document, "summary": summary}
    note = ", ".join(languages) + ("" if language else ", told from the text")
    source = Source(str(path), table.format, packed, table.head.encoding, chosen, (), note)
    return Part(source, table.rows, make)


def _chosen(table: Table) -> tuple[str, str]:
    known = {column.strip().lower(): column for column in table.columns}
    for summary in SUMMARIES:
        for document in DOCUMENTS:
            if summary in known and document in known and summary != document:
                return known[document], known[summary]
    if table.format == "tsv" and not table.header and len(table.columns) == 2:
        return "1", "2"
    raise DataError(
        f"{table.head.path} ({table.format}) has the columns {', '.join(table.columns) or 'none'}, where a document "
        f"({', '.join(DOCUMENTS)}) and its summary ({', '.join(SUMMARIES)}) are needed. Name them with "
        "--fields document=…,summary=…"
    )


def _languages(table: Table, document: str) -> tuple[str, ...]:
    """The languages that at least a tenth of the documents are in, the most frequent first."""
    texts = [text for row in _spread(table) if (text := _joined(row.get(document))) is not None]
    votes = Counter(detect(text).language for text in texts)
    votes.pop(UNDETERMINED, None)
    found = tuple(code for code, count in votes.most_common() if count >= _SHARE * votes.total())
    if not found:
        raise ConfigError(
            f'{table.head.path}: the language of "{document}" cannot be told from its text. Give --language.'
        )
    return found


def _spread(table: Table) -> list[Row]:
    """Some rows from all over a table, as far apart from each other: a file may be sorted by language."""
    kept: list[Row] = []
    apart = 1
    for number, (_, row) in enumerate(table.rows(lambda number, what: None)):
        if number % apart == 0:
            kept.append(row)
        if len(kept) == 2 * _SAMPLE:
            kept, apart = kept[::2], 2 * apart
    return kept


def _joined(value: object) -> str | None:
    """A text; the sentences of a list behind each other, with a space between where the writing has spaces."""
    if isinstance(value, list) and value and all(isinstance(one, str) for one in value):
        parts = [one.strip() for one in value if one.strip()]
        value = "".join(
            part if not before or _SPACELESS.search(before) else f" {part}"
            for before, part in zip(["", *parts], parts, strict=False)
        )
    return value if isinstance(value, str) and value.strip() else None


def _several(value: object) -> tuple[str, ...] | None:
    values = value if isinstance(value, list) else [value]
    texts = tuple(one for one in values if isinstance(one, str) and one.strip())
    return texts if texts and len(texts) == len(values) else None
