"""Files to pairs of texts that belong together: translations, questions and answers, titles and texts.

    {"question": "…", "answer": "…"}                     {"query": "…", "passage": "…", "negatives": ["…", "…"]}
    {"en": "…", "zh": "…", "kind": "example"}            two columns of a TSV

Unlike `read_pairs` this asks for no languages: either side may be in any. First match wins: what the caller says, then
the names in `NAMES`, then two columns named by language codes, then the two columns of a TSV without a header. A side may
be made of several fields ("title+question", joined by a line break), and `where` takes only the rows whose fields have
one of some values, which is how a fold is left out of training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from inkstone.corpus.read import AMBIGUOUS, Part, Reading, Source
from inkstone.corpus.tables import Row, Table, open_table
from inkstone.ground.errors import ConfigError, DataError, not_known
from inkstone.ground.records import Related
from inkstone.text.language import language_code

NAMES = (
    ("source", "target"),
    ("question", "answer"),
    ("query", "passage"),
    ("anchor", "positive"),
    ("sentence1", "sentence2"),
    ("text1", "text2"),
)
NEGATIVES = ("negatives", "negative")
ROLES = ("source", "target", "negatives")
JOIN = "+"


@dataclass(frozen=True, slots=True)
class RelatedData:
    """A file of pairs, and what is to be taken of it. where: {field: values}, such as {fold: [0, 1, 2]}."""

    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    file: str
    fields: dict[str, str] | None = None
    where: dict[str, list[Any]] = field(default_factory=dict)

    def __str__(self) -> str:
        taken = ", ".join(f"{name} in {values}" for name, values in self.where.items())
        return f"{self.file} ({taken})" if taken else self.file


def read_related(
    data: Sequence[str | Path | RelatedData],
    *,
    fields: Mapping[str, str] | None = None,
    strict: bool = False,
) -> Reading[Related]:
    """Pairs of texts from any number of files. fields: for the files that do not say their own.

    Raises DataError for a file that holds no pairs, ConfigError for a field that cannot be.
    """
    if not data:
        raise ConfigError("no file was given. Give at least one.")
    items = [one if isinstance(one, RelatedData) else RelatedData(str(one)) for one in data]
    return Reading([_part(one, one.fields or dict(fields or {})) for one in items], strict)


def _part(data: RelatedData, fields: Mapping[str, str]) -> Part[Related]:
    for role in fields:
        if role not in ROLES:
            raise ConfigError(not_known("field", role, ROLES))
    if fields and not {"source", "target"} <= set(fields):
        raise ConfigError("fields must name both source and target, such as source=question,target=answer.")
    asked = frozenset(name for value in fields.values() for name in value.split(JOIN))
    table = open_table(Path(data.file), asked | frozenset(data.where))
    chosen = dict(fields) or _chosen(table)
    sides = {role: tuple(value.split(JOIN)) for role, value in chosen.items()}
    for column in (*(name for names in sides.values() for name in names), *data.where):
        if column not in table.columns:
            raise DataError(f"{table.head.path}: {not_known('field', column, table.columns or ['none'])}")

    def make(row: Row, origin: str) -> Related | str | None:
        if any(row.get(name) not in values for name, values in data.where.items()):
            return None
        source, target = (_text(row, sides[role]) for role in ("source", "target"))
        negatives = _several(row, sides["negatives"][0]) if "negatives" in sides else ()
        if source is None or target is None or negatives is None:
            names = sides["source"] if source is None else sides["target"] if target is None else NEGATIVES
            return f"{JOIN.join(names)} is no text, or empty"
        return Related(source, target, negatives, origin)

    note = ", ".join(f"{name} in {values}" for name, values in data.where.items())
    packed = "gzip" if table.head.packed else ""
    source = Source(str(table.head.path), table.format, packed, table.head.encoding, chosen, (), note)
    return Part(source, table.rows, make)


def _chosen(table: Table) -> dict[str, str]:
    """The columns of a table that says nothing of them but their names."""
    known = {column.strip().lower(): column for column in table.columns}
    found = [known[name] for name in NEGATIVES if name in known]
    given = {"negatives": found[0]} if found else {}
    for one, other in NAMES:
        if one in known and other in known:
            return {"source": known[one], "target": known[other], **given}
    coded = [column for column in table.columns if language_code(column)]
    if len(coded) > 2:
        coded = [column for column in coded if language_code(column) not in AMBIGUOUS]
    if len(coded) == 2:
        return {"source": coded[0], "target": coded[1], **given}
    if table.format == "tsv" and not table.header and len(table.columns) == 2:
        return {"source": "1", "target": "2"}
    named = ", ".join(table.columns) or "none"
    pairs = "; ".join(f"{one} and {other}" for one, other in NAMES)
    raise DataError(
        f"{table.head.path} ({table.format}) has the columns {named}, where two texts that belong together are needed "
        f"({pairs}; or two language codes). Name them with --fields source=…,target=…"
    )


def _text(row: Row, names: Sequence[str]) -> str | None:
    values = [row.get(name) for name in names]
    texts = [value for value in values if isinstance(value, str)]
    joined = "\n".join(text for text in texts if text.strip())
    return joined if len(texts) == len(values) and joined else None


def _several(row: Row, name: str) -> tuple[str, ...] | None:
    value = row.get(name)
    if value is None:
        return ()
    values = value if isinstance(value, list) else [value]
    return tuple(values) if all(isinstance(one, str) and one.strip() for one in values) else None
