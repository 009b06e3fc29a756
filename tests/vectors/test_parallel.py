"""Workers and the arrays they share: nothing is left behind, a killed parent takes its workers along, errors are said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inkstone.ground.errors import ConfigError, TrainingError
from inkstone.vectors import parallel
from inkstone.vectors.parallel import DONE, run_workers, shared_arrays


def fill(arrays: Mapping[str, Any], settings: Any, number: int, workers: int) -> None:
    """Work for the tests: write one's number."""
    arrays["x"][number::workers] = settings + number
    arrays[DONE][number] = 1


def die(arrays: Mapping[str, Any], settings: Any, number: int, workers: int) -> None:
    """Work for the tests: be killed as by a system without memory."""
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def test_all_write_into_one_array(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(parallel, "_SHM", tmp_path)
    with shared_arrays({"x": np.zeros(7), "none": np.zeros((0, 3))}) as shared:
        assert list(tmp_path.iterdir())
        before = dict(os.environ)
        run_workers(fill, shared, 10, 2)
        assert dict(os.environ) == before
        assert shared.arrays["x"].tolist() == [10, 11, 10, 11, 10, 11, 10]
    assert not list(tmp_path.iterdir())


def test_a_killed_worker_ends_the_others() -> None:
    with (
        shared_arrays({"x": np.zeros(7)}) as shared,
        pytest.raises(TrainingError, match="worker 1 was killed"),
    ):
        run_workers(die, shared, None, 2)
    with shared_arrays({}) as shared, pytest.raises(ConfigError, match="workers=0"):
        run_workers(fill, shared, None, 0)


def test_no_room_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with (
        pytest.raises(TrainingError, match=r"for x could not be had .* Set TMPDIR"),
        shared_arrays({"x": np.ones(9)}),
    ):
        raise AssertionError("there is no room")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks into /proc")
def test_a_killed_parent_leaves_nothing(tmp_path: Path) -> None:
    """Not even when it has no time to clean up."""
    code = (
        "import sys, numpy as np; from pathlib import Path; from inkstone.vectors import parallel;"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r}); parallel._SHM = Path({str(tmp_path)!r});"
        "import test_parallel as t;"
        "context = parallel.shared_arrays({'x': np.zeros(9)}); shared = context.__enter__();"
        "parallel.run_workers(t.die, shared, None, 1)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code])
    try:
        deadline = time.monotonic() + 60
        while (
            not (folders := list(tmp_path.iterdir()))
            or list(folders[0].iterdir())
            or not children(parent.pid)
        ):
            assert time.monotonic() < deadline
            assert parent.poll() is None
            time.sleep(0.05)
        workers = children(parent.pid)
    finally:
        parent.kill()
        parent.wait(20)
    while any(
        Path(f"/proc/{pid}/status").exists() and "zombie" not in Path(f"/proc/{pid}/status").read_text()
        for pid in workers
    ):
        assert time.monotonic() < deadline + 20
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    """The worker processes of a process."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text()]
