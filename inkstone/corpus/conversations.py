"""Files to conversations: messages in the OpenAI form, or an instruction and its answer.

    {"messages": [{"role": "user", "content": "…"}, {"role": "assistant", "content": "…"}]}
    {"instruction": "…", "input": "…", "output": "…"}        the input, where there is one, behind the instruction

A row is taken for what its fields say. What the roles may be, and in which order, is the template's affair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from inkstone.corpus.read import Part, Reading, Source
from inkstone.corpus.tables import Row, Table, open_table
from inkstone.ground.errors import ConfigError, DataError, not_known
from inkstone.ground.records import Conversation

MESSAGES = "messages"
ASKED, GIVEN, ANSWERED = "instruction", "input", "output"


def read_conversations(
    paths: Sequence[str | Path], *, fields: Mapping[str, str] | None = None, strict: bool = False
) -> Reading[Conversation]:
    """Conversations from any number of files. fields: what `messages`, or `instruction` and `output`, are called there.

    Raises DataError for a file that holds none.
    """
    if not paths:
        raise ConfigError("no file was given. Give at least one.")
    for role in fields or ():
        if role not in (MESSAGES, ASKED, GIVEN, ANSWERED):
            raise ConfigError(not_known("field", role, (MESSAGES, ASKED, GIVEN, ANSWERED)))
    names = {role: role for role in (MESSAGES, ASKED, GIVEN, ANSWERED)} | dict(fields or {})
    return Reading([_part(Path(path), names) for path in paths], strict)


def _part(path: Path, names: Mapping[str, str]) -> Part[Conversation]:
    table = open_table(path, frozenset(names.values()))
    if names[MESSAGES] in table.columns:
        roles: tuple[str, ...] = (MESSAGES,)
    elif {names[ASKED], names[ANSWERED]} <= set(table.columns):
        roles = (ASKED, GIVEN, ANSWERED) if names[GIVEN] in table.columns else (ASKED, ANSWERED)
    else:
        raise DataError(
            f"{path} ({table.format}) has the columns {', '.join(table.columns) or 'none'}, where `messages`, or "
            "`instruction` and `output`, are needed. Name them with --fields messages=…"
        )

    def make(row: Row, origin: str) -> Conversation | str | None:
        found = _messages(row, names) if roles == (MESSAGES,) else _instruction(row, names)
        return found if isinstance(found, str) else Conversation(found, origin)

    return Part(_described(table, {role: names[role] for role in roles}), table.rows, make)


def _described(table: Table, fields: dict[str, str]) -> Source:
    packed = "gzip" if table.head.packed else ""
    return Source(str(table.head.path), table.format, packed, table.head.encoding, fields)


def _messages(row: Row, names: Mapping[str, str]) -> tuple[Mapping[str, Any], ...] | str:
    found = row.get(names[MESSAGES])
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        return f'field "{names[MESSAGES]}" is no list of messages, each with role and content'
    if not any(one.get("role") == "assistant" for one in found):
        return "the assistant says nothing in it"
    return tuple(found)


def _instruction(row: Row, names: Mapping[str, str]) -> tuple[Mapping[str, Any], ...] | str:
    asked, given, answered = (row.get(names[role]) or "" for role in (ASKED, GIVEN, ANSWERED))
    for role, text in ((ASKED, asked), (ANSWERED, answered)):
        if not isinstance(text, str) or not text.strip():
            return f'field "{names[role]}" is no text, or empty'
    said = f"{asked}\n\n{given}" if isinstance(given, str) and given.strip() else str(asked)
    return ({"role": "user", "content": said}, {"role": "assistant", "content": answered})
