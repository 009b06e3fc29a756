"""Clean a corpus: read, normalise, judge by the rules, write what stays and, beside it, what went and why.

    OUT                    the records that stay, JSON Lines (gzipped when OUT ends in .gz)
    OUT-stem.dropped.jsonl every record that went, with the rule, the reason and where it came from

Both appear whole, or not at all. One pass; memory holds the sketches and hashes of what was kept, not the
corpus.
"""

from __future__ import annotations

import gzip
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any, cast

from inkstone.corpus.lines import Problem
from inkstone.corpus.read import Reading, Source, read_documents, read_labelled, read_pairs, task_of
from inkstone.corpus.rules import Dropped, Settings, held_out_keys, judge, make_rules, sides
from inkstone.ground.errors import ConfigError, DataError, not_known
from inkstone.ground.files import whole_file
from inkstone.ground.records import Labelled, Pair, Record, Related
from inkstone.text.language import checked_code
from inkstone.text.normalize import Script, normalize

TASKS = ("pairs", "labelled", "documents")
Progress = Callable[[int, int], None]  # records read, records kept
_SHOWN_EVERY = 1000
_encode = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True, slots=True)
class Cleaning:
    """What a run was asked for."""

    task: str | None = None  # one of TASKS; None: told from the first file
    source_language: str | None = None
    target_language: str | None = None
    fields: Mapping[str, str] | None = None
    strict: bool = False
    script: Script | None = None
    entities: bool = True  # resolve &lt; and the like before judging markup
    near_duplicates: bool = True
    held_out: Sequence[str | Path] = ()
    settings: Settings = field(default_factory=Settings)


@dataclass(frozen=True, slots=True)
class Summary:
    """What came of a run."""

    task: str
    out: str
    dropped_out: str
    read: int
    kept: int
    dropped: dict[str, int]  # per rule, in the order of the rules
    problem_count: int
    problems: list[Problem]
    sources: list[Source]
    seconds: float
    size_bytes: int  # UTF-8 text read

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def clean(
    paths: Sequence[str | Path],
    out: str | Path,
    ask: Cleaning | None = None,
    progress: Progress | None = None,
) -> Summary:
    """Clean `paths` into `out` and say what went. Raises DataError when nothing is left."""
    ask, out, began = ask or Cleaning(), Path(out), time.perf_counter()
    if not out.name or (out.exists() and not out.is_file() and not out.is_dir()):
        raise ConfigError(
            f'"{out}" cannot be the output: two files are written, side by side. Give the name of a file.'
        )
    task = ask.task or task_of(paths, ask.fields)
    dropped_out = dropped_path(out)
    refuse_own_input(paths, (out, dropped_out))
    reading = open_reading(paths, task, ask)
    _refuse_mixture(reading)
    multi_label = any("labels" in source.fields for source in reading.sources)
    rules = make_rules(_with_held_out(task, ask))
    if not ask.near_duplicates:
        del rules["near-duplicate"]

    counts, kept, size_bytes = Counter(dict.fromkeys(rules, 0)), 0, 0
    with _both_files(out, dropped_out) as (keep, drop):
        for seen, judged in enumerate(judge(_normalized(reading, ask), rules), 1):
            record = judged.record if isinstance(judged, Dropped) else judged
            size_bytes += sum(len(text.encode("utf-8")) for text in sides(record))
            if isinstance(judged, Dropped):
                counts[judged.rule] += 1
                why = {"rule": judged.rule, "reason": judged.reason, "origin": record.origin}
                _write(drop, {**as_row(record, multi_label), **why})
            else:
                kept += 1
                _write(keep, as_row(record, multi_label))
            if progress is not None and seen % _SHOWN_EVERY == 0:
                progress(seen, kept)
        if kept == 0:
            worst = ", ".join(f"{rule} {count:,}" for rule, count in counts.most_common(3) if count)
            raise DataError(
                f"nothing is left after cleaning ({worst}). Nothing was written; loosen these rules."
            )

    return Summary(
        task=task,
        out=str(out),
        dropped_out=str(dropped_out),
        read=kept + counts.total(),
        kept=kept,
        dropped=dict(counts),
        problem_count=reading.problem_count,
        problems=reading.problems,
        sources=reading.sources,
        seconds=time.perf_counter() - began,
        size_bytes=size_bytes,
    )


def open_reading(paths: Sequence[str | Path], task: str, ask: Cleaning) -> Reading[Any]:
    """The reading of a task's records."""
    if task not in TASKS:
        raise ConfigError(not_known("task", task, TASKS))
    if task == "pairs":
        return read_pairs(
            paths,
            source_language=ask.source_language,
            target_language=ask.target_language,
            fields=ask.fields,
            strict=ask.strict,
        )
    for option, language in (("--from", ask.source_language), ("--to", ask.target_language)):
        if language:
            code = checked_code(language)
            raise ConfigError(f"{option} {code} is for pairs, and these files hold {task}. Leave it out.")
    reader = read_labelled if task == "labelled" else read_documents
    return reader(paths, fields=ask.fields, strict=ask.strict)


@contextmanager
def _both_files(out: Path, dropped_out: Path) -> Iterator[tuple[IO[bytes], IO[bytes]]]:
    """The two files of a run. Both are on the disk to their last byte before the first of them takes its name."""
    with whole_file(out) as keep, whole_file(dropped_out) as drop:
        if out.suffix == ".gz":
            with _packed(keep) as packed, _packed(drop) as packed_drop:
                yield packed, packed_drop
        else:
            yield keep, drop
        for file in (keep, drop):
            file.flush()
            os.fsync(file.fileno())


def _packed(file: IO[bytes]) -> IO[bytes]:
    """Gzip without a time stamp: equal content gives equal files."""
    return cast("IO[bytes]", gzip.GzipFile(fileobj=file, mode="wb", filename="", mtime=0))


def dropped_path(out: Path) -> Path:
    """corpus.jsonl.gz -> corpus.dropped.jsonl.gz"""
    stem = out.name.removesuffix(".gz").removesuffix(".jsonl")
    return out.with_name(f"{stem}.dropped.jsonl{'.gz' if out.suffix == '.gz' else ''}")


def as_row(record: Record, multi_label: bool = False) -> dict[str, Any]:
    """A record as a line of JSON that `corpus.read` understands again."""
    if isinstance(record, Pair):
        return {record.source_language: record.source, record.target_language: record.target}
    if isinstance(record, Labelled):
        if multi_label or len(record.labels) != 1:
            return {"text": record.text, "labels": list(record.labels)}
        return {"text": record.text, "label": record.labels[0]}
    if isinstance(record, Related):
        return {"source": record.source, "target": record.target, "negatives": list(record.negatives)}
    return {"text": record.text}


def _write(file: IO[bytes], row: dict[str, Any]) -> None:
    file.write(_encode(row).encode("utf-8") + b"\n")


def _normalized(reading: Reading[Any], ask: Cleaning) -> Iterator[Record]:
    def spelled(text: str) -> str:
        return normalize(text, script=ask.script, entities=ask.entities)

    for record in reading:
        if isinstance(record, Pair):
            source, target = spelled(record.source), spelled(record.target)
            yield Pair(source, target, record.source_language, record.target_language, record.origin)
        else:
            yield replace(record, text=spelled(record.text))


def _with_held_out(task: str, ask: Cleaning) -> Settings:
    if not ask.held_out:
        return ask.settings
    held_out: list[Record] = []
    for path in ask.held_out:
        own = task_of([path], ask.fields) if task != "documents" else task
        held_out.extend(_normalized(open_reading([path], own, ask if own == task else Cleaning()), ask))
    return replace(ask.settings, held_out=held_out_keys(held_out))


def _refuse_mixture(reading: Reading[Any]) -> None:
    found = {tuple(sorted(source.languages)) for source in reading.sources}
    if len(found) > 1:
        pairs = ", ".join("-".join(languages) for languages in sorted(found))
        raise ConfigError(f"the files hold different language pairs: {pairs}. Clean them one pair at a time.")


def refuse_own_input(paths: Sequence[str | Path], outs: Sequence[Path]) -> None:
    """Raise ConfigError when an output would take the place of an input."""
    for path in map(Path, paths):
        for out in outs:
            if path.exists() and out.exists() and path.samefile(out):
                raise ConfigError(f"{out} is also an input. Choose another name for the output.")
