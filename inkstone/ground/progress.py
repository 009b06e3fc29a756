"""Progress of long work, on stderr: a live bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from inkstone.ground.processes import leads

LINE_EVERY_S = 30.0


class Progress(Protocol):
    """What long work reports to: `advance` to a number of steps done, and a few words on how it goes."""

    def advance(self, done: int, words: str = "") -> None:
        """So many steps are done by now."""
        ...


class _Silence:
    """For a process that is not the one to speak."""

    def advance(self, done: int, words: str = "") -> None:
        pass


class _Lines:
    """One line at most every half minute, for logs."""

    def __init__(self, title: str, total: int) -> None:
        self.title, self.total = title, total
        self.started = self.last = time.monotonic()
        self.first_done: int | None = None

    def advance(self, done: int, words: str = "") -> None:
        now = time.monotonic()
        if self.first_done is None:
            self.first_done, self.started = done, now
        if now - self.last < LINE_EVERY_S and done < self.total:
            return
        self.last = now
        left = (now - self.started) / max(1, done - self.first_done) * (self.total - done)
        print(f"{self.title}: {done}/{self.total}  {words}  {_clock(left)} left", file=sys.stderr, flush=True)


class _Bar:
    """A live bar with the time left."""

    def __init__(self, title: str, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self.bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[words]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=Console(stderr=True),
        )
        self.task = self.bar.add_task(title, total=total, words="")
        self.bar.start()

    def advance(self, done: int, words: str = "") -> None:
        self.bar.update(self.task, completed=done, words=words)


@contextmanager
def progress(title: str, total: int) -> Iterator[Progress]:
    """Report on `total` steps of work until the block ends."""
    if not leads():
        yield _Silence()
        return
    if not sys.stderr.isatty():
        yield _Lines(title, total)
        return
    bar = _Bar(title, total)
    try:
        yield bar
    finally:
        bar.bar.stop()


def say(words: str) -> None:
    """A line for the person who waits, on stderr. Of several processes, only the leader speaks."""
    if leads():
        print(words, file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
