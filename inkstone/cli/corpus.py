"""`inkstone corpus clean`: raw files in, a clean corpus out, and every drop with its reason."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from inkstone.ground.errors import ConfigError

if TYPE_CHECKING:
    from inkstone.recipes.clean import Summary

app = typer.Typer(help="Work on a corpus.", no_args_is_help=True)
_SHOWN_PROBLEMS = 10


@app.callback()
def corpus() -> None:
    """Work on a corpus."""


@app.command()
def clean(
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="JSON Lines, CSV, TSV, Parquet or text, gzipped or not; 'corpus.{en,de}.gz' for two; - for stdin.",
            metavar="IN...",
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Where the clean records go: JSON Lines, or .jsonl.gz.")
    ],
    task: Annotated[
        Literal["pairs", "labelled", "documents"] | None,
        typer.Option(help="What the files hold. Default: told from the first."),
    ] = None,
    source_language: Annotated[
        str | None, typer.Option("--from", help="Language of the source side.")
    ] = None,
    target_language: Annotated[str | None, typer.Option("--to", help="Language of the target side.")] = None,
    fields: Annotated[str | None, typer.Option(help="Field names, such as source=en,target=zh.")] = None,
    held_out: Annotated[
        list[Path] | None,
        typer.Option(help="A test set; records that stand in it are dropped. May be repeated."),
    ] = None,
    script: Annotated[
        Literal["simplified", "traditional"] | None, typer.Option(help="Write all Chinese in one script.")
    ] = None,
    min_chars: Annotated[int, typer.Option(help="Fewest characters of a text.")] = 1,
    max_chars: Annotated[
        int | None, typer.Option(help="Most characters of a text. Default: 5000; documents have no limit.")
    ] = None,
    min_tokens: Annotated[int, typer.Option(help="Fewest words; each Han character is one.")] = 0,
    max_tokens: Annotated[int, typer.Option(help="Most words; 0 for no limit.")] = 0,
    max_ratio: Annotated[float, typer.Option(help="How many times longer one side of a pair may be.")] = 4.0,
    near_duplicates: Annotated[bool, typer.Option(help="Drop what is almost an earlier record.")] = True,
    near_similarity: Annotated[float, typer.Option(help="From which similarity that is so, 0 to 1.")] = 0.85,
    strict: Annotated[bool, typer.Option(help="Stop at the first bad line.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Normalise records, drop bad ones with a reason, and write what stays."""
    from inkstone.corpus.rules import Settings
    from inkstone.recipes.clean import Cleaning
    from inkstone.recipes.clean import clean as run

    ask = Cleaning(
        task=task,
        source_language=source_language,
        target_language=target_language,
        fields=parse_fields(fields),
        strict=strict,
        script=script,
        near_duplicates=near_duplicates,
        held_out=tuple(held_out or ()),
        settings=Settings(
            min_chars=min_chars,
            max_chars=max_chars,
            min_tokens=min_tokens,
            max_tokens=max_tokens,
            max_ratio=max_ratio,
            near_similarity=near_similarity,
        ),
    )
    with with_standard_input(inputs) as files:
        summary = run(files, out, ask, _show_progress if sys.stderr.isatty() else None)
    for problem in summary.problems[:_SHOWN_PROBLEMS]:
        print(f"bad line: {problem}", file=sys.stderr)
    if summary.problem_count > _SHOWN_PROBLEMS:
        print(f"… and {summary.problem_count - _SHOWN_PROBLEMS:,} bad lines more", file=sys.stderr)
    if as_json:
        print(json.dumps(summary.as_json(), ensure_ascii=False, indent=2))
    else:
        print(table(summary))


@contextmanager
def with_standard_input(inputs: list[str]) -> Iterator[list[str]]:
    """The inputs with - made a temporary file of standard input: telling a format takes reading it twice."""
    if "-" not in inputs:
        yield inputs
        return
    with TemporaryDirectory(prefix="inkstone-") as folder:
        copy = Path(folder, "standard-input")
        with copy.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        yield [str(copy) if name == "-" else name for name in inputs]


def named_tests(given: list[str]) -> dict[str, list[str]]:
    """Test sets by name: NAME=FILE, or FILE called by its own name. Raises ConfigError for a name used twice."""
    tests: dict[str, list[str]] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if not equals or "/" in name:
            name, path = Path(text).name.split(".{")[0], text
        if not name or not path:
            raise ConfigError(f'--test "{text}" names no file. Write --test FILE or --test NAME=FILE.')
        if name in tests:
            raise ConfigError(f'two test sets are called "{name}". Name them apart: --test NAME=FILE.')
        tests[name] = [path]
    return tests


def parse_fields(text: str | None) -> dict[str, str] | None:
    """ "source=en,target=zh" as a dictionary. Raises ConfigError when it is written otherwise."""

    if text is None:
        return None
    fields: dict[str, str] = {}
    for item in text.split(","):
        role, sign, name = item.partition("=")
        if not (role.strip() and sign and name.strip()):
            raise ConfigError(
                f'--fields "{text}" is not understood. Write role=column, such as source=en,target=zh.'
            )
        fields[role.strip()] = name.strip()
    return fields


def table(summary: Summary) -> str:
    """The summary as a table for people."""
    lines = [source.describe() for source in summary.sources]
    rows: list[tuple[str, Any]] = [("read", summary.read), ("bad lines", summary.problem_count)]
    rows += [(f"dropped: {rule}", count) for rule, count in summary.dropped.items()]
    rows += [("kept", summary.kept)]
    width = max(len(name) for name, _ in rows)
    base = max(1, summary.read)
    lines += ["", *(f"{name:<{width}}  {count:>10,}  {count / base:>7.2%}" for name, count in rows), ""]
    speed = summary.size_bytes / 1e6 / max(summary.seconds, 1e-9)
    lines.append(
        f"{summary.out} and {summary.dropped_out} written in {summary.seconds:.1f} s ({speed:.1f} MB/s)"
    )
    return "\n".join(lines)


def _show_progress(read: int, kept: int) -> None:
    print(f"\r{read:,} read, {kept:,} kept", end="", file=sys.stderr, flush=True)
