"""Watching a run: TensorBoard scalars and a JSON Lines log, both in the run's folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self


class Watch:
    """Writes what happens to `<run>/log.jsonl` and `<run>/tensorboard/`."""

    def __init__(self, run: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        run.mkdir(parents=True, exist_ok=True)
        self._log = (run / "log.jsonl").open("a", encoding="utf-8")
        self._board = SummaryWriter(str(run / "tensorboard"))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Record named numbers of a step."""
        self._log.write(json.dumps({"step": step, **values}) + "\n")
        self._log.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._board.close()
        self._log.close()


class Unwatched:
    """The watch of a process that leaves the watching to another one."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Record nothing."""
