"""Arrays that several processes work on at once, without locks (Hogwild: Recht et al., 2011).

Word vectors are learned by small steps that touch a few rows each, so processes may write into one matrix without
waiting for each other: now and then a step is lost, and the next thousand make up for it. One process loses none, and
the same seed gives the same vectors.

The arrays are files that every process maps into its memory, in /dev/shm where that has the room (a container's often
has 64 MB: writing past it would kill the process, so the room is claimed beforehand), else in the folder for
temporary files. Processes are started afresh (`spawn`), which works on every system and beside threads. Even a single
worker is such a process, because only before numpy is loaded can its matrix products be told to use one thread; with
more, products as small as these would wait for each other.

Nothing stays behind, however it ends: once every worker has mapped the files their names are taken away, and the system
frees them with the last process; a worker whose parent is gone goes too.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inkstone.ground.errors import ConfigError, TrainingError

Array = NDArray[Any]
Place = tuple[str, tuple[int, ...], str]  # file, shape, type
Work = Callable[[Mapping[str, Array], Any, int, int], None]  # arrays, settings, number of this worker, of all

DONE = "done_W"  # the shared array in which each worker notes how far it is
_READY = "ready_W"  # that in which it notes that it has found the others
MOST_WORKERS = 256
_POLL_S = 0.1
_ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_SHM = Path("/dev/shm")


class SharedArrays:
    """Named arrays in files; `places` tells another process where they are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.arrays: dict[str, Array] = {}

    @property
    def places(self) -> dict[str, Place]:
        """What `attach` needs."""
        return {
            name: (str(self.folder / name), array.shape, array.dtype.str)
            for name, array in self.arrays.items()
        }

    def forget_names(self) -> None:
        """Nobody else can attach from now on, and nothing is left when the last process has ended."""
        for name in self.arrays:
            (self.folder / name).unlink(missing_ok=True)

    def add(self, name: str, array: Array) -> Array:
        """Copy an array to where all can reach it. Raises TrainingError when there is no room."""
        file = self.folder / name
        try:
            with file.open("wb") as out:
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(out.fileno(), 0, max(1, array.nbytes))
                else:
                    out.truncate(max(1, array.nbytes))
        except OSError as error:
            raise TrainingError(
                f"{array.nbytes / 1e6:,.0f} MB for {name} could not be had in {self.folder.parent} "
                f"({error.strerror}). Set TMPDIR to a folder with more room."
            ) from error
        shared = attach({name: (str(file), array.shape, array.dtype.str)})[name]
        shared[...] = array
        self.arrays[name] = shared
        return shared


def attach(places: Mapping[str, Place]) -> dict[str, Array]:
    """The arrays that another process shares."""
    return {
        name: np.asarray(np.memmap(file, np.dtype(kind), "r+", shape=shape))
        if 0 not in shape
        else np.zeros(shape, np.dtype(kind))
        for name, (file, shape, kind) in places.items()
    }


@contextmanager
def shared_arrays(arrays: Mapping[str, Array]) -> Iterator[SharedArrays]:
    """Share copies of these arrays until the block ends."""
    size = sum(array.nbytes for array in arrays.values())
    in_memory = (
        _SHM.is_dir() and os.access(_SHM, os.W_OK) and shutil.disk_usage(_SHM).free > 1.2 * size + (1 << 20)
    )
    with tempfile.TemporaryDirectory(prefix="inkstone-", dir=_SHM if in_memory else None) as folder:
        shared = SharedArrays(Path(folder))
        for name, array in arrays.items():
            shared.add(name, array)
        try:
            yield shared
        finally:
            shared.arrays.clear()


def check_workers(workers: int) -> None:
    """Raise ConfigError for a number of processes that cannot be, or that would bring a machine down."""
    if not 1 <= workers <= MOST_WORKERS:
        wrong = "below 1" if workers < 1 else f"above {MOST_WORKERS}"
        raise ConfigError(f"workers={workers} is {wrong}. Give the number of processes to train with.")


def run_workers(
    work: Work,
    shared: SharedArrays,
    settings: Any,
    workers: int,
    advance: Callable[[int], None] | None = None,
) -> None:
    """Run `work` in this many fresh processes and wait for all; `advance` is told the sum of what they did.

    work: a function of a module (it is found again by name). Raises TrainingError when a worker is killed.
    """
    check_workers(workers)
    done_W, told = shared.add(DONE, np.zeros(workers, np.int64)), 0
    ready_W = shared.add(_READY, np.zeros(workers, np.int64))
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_worker, args=(work, shared.places, settings, number, workers), daemon=True)
        for number in range(workers)
    ]
    try:
        with _one_thread():
            for process in processes:
                process.start()
        while any(process.is_alive() for process in processes):
            next(process for process in processes if process.is_alive()).join(_POLL_S)
            for number, process in enumerate(processes):
                if process.exitcode:
                    _raise_died(number, process.exitcode)
            if ready_W.all():
                shared.forget_names()
            if advance is not None and int(done_W.sum()) > told:
                told = int(done_W.sum())
                advance(told)
        for number, process in enumerate(processes):
            if process.exitcode:
                _raise_died(number, process.exitcode)
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
                process.join()
        del shared.arrays[DONE], shared.arrays[_READY]


def _raise_died(number: int, code: int) -> None:
    if code == -signal.SIGKILL:
        raise TrainingError(
            f"worker {number} was killed, most likely for want of memory. Train with fewer --workers, "
            "a smaller vocabulary (--min-count, --max-words) or fewer --dimensions."
        )
    raise RuntimeError(f"worker {number} ended with code {code}; what it said stands above")


def _worker(work: Work, places: Mapping[str, Place], settings: Any, number: int, workers: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, who ends us
    threading.Thread(target=_end_with_parent, daemon=True).start()
    arrays = attach(places)
    arrays[_READY][number] = 1
    work(arrays, settings, number, workers)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker was started by nobody"
    parent.join()
    os._exit(1)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Children started inside do their matrix products in one thread."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(_ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
