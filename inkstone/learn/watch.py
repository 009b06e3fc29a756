"""Watching a run: a JSON Lines log always, and whoever else is named, all in the run's folder.

    <run>/log.jsonl        every record, one line each
    <run>/tensorboard/     scalars for TensorBoard
    <run>/wandb/           a run of Weights & Biases; with WANDB_MODE=offline it stays there, until `wandb sync`

Who watches decides nothing about the weights, and is no part of a run's fingerprint.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from inkstone.ground.errors import require


class Watcher(Protocol):
    """Someone who is told named numbers of steps."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Note these."""
        ...

    def close(self) -> None:
        """Nothing more will come."""
        ...


class _TensorBoard:
    def __init__(self, run: Path, title: str) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.board: Any = SummaryWriter(str(run / "tensorboard"))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.board.add_scalar(name, value, step)

    def close(self) -> None:
        self.board.close()


class _WeightsAndBiases:
    """Where it goes is said by its own environment variables: WANDB_MODE, WANDB_PROJECT, WANDB_BASE_URL."""

    def __init__(self, run: Path, title: str) -> None:
        import wandb

        quiet = wandb.Settings(silent=True, console="off", disable_git=True, save_code=False)
        project = os.environ.get("WANDB_PROJECT", "inkstone")
        self.run: Any = wandb.init(
            dir=str(run), name=title, project=project, reinit="create_new", settings=quiet
        )

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def close(self) -> None:
        self.run.finish()


WATCHERS: dict[str, Callable[[Path, str], Watcher]] = {
    "tensorboard": _TensorBoard,
    "wandb": _WeightsAndBiases,
}


# What each needs: the package, and the extra that brings it.
PACKAGES = {"tensorboard": ("tensorboard", "train"), "wandb": ("wandb", "wandb")}


def require_watchers(names: Sequence[str]) -> None:
    """Raise MissingPackage where a package of one of these is not installed."""
    for name in names:
        package, extra = PACKAGES[name]
        require(package, f"watching with {name}", extra)


class Watch:
    """Writes what happens to the log, and tells the watchers of these names.

    title: of the run. anew: it begins, and what an earlier one in this folder left goes.
    """

    def __init__(
        self,
        run: Path,
        names: tuple[str, ...] = ("tensorboard",),
        title: str = "training",
        anew: bool = False,
    ) -> None:
        require_watchers(names)
        run.mkdir(parents=True, exist_ok=True)
        if anew:
            shutil.rmtree(run / "tensorboard", ignore_errors=True)
            (run / "log.jsonl").unlink(missing_ok=True)
        self._watchers = [WATCHERS[name](run, title) for name in dict.fromkeys(names)]
        self._log = (run / "log.jsonl").open("a", encoding="utf-8")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Record named numbers of a step."""
        self._log.write(json.dumps({"step": step, **values}) + "\n")
        self._log.flush()
        for watcher in self._watchers:
            watcher.scalars(step, values)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for watcher in self._watchers:
            watcher.close()
        self._log.close()


class Unwatched:
    """The watch of a process that leaves the watching to another one."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Record nothing."""
