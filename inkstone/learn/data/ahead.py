"""Batches made ahead, in processes of their own, in the order in which one process would have made them.

    steps ─ worker 0: steps 0, 2, 4 ... ─┐ pipes
          ─ worker 1: steps 1, 3, 5 ... ─┴─ taken in turn: 0, 1, 2, 3 ...

What a step reads is a function of its place (epoch, index), so it does not matter who makes it: with any number of
workers a run takes the same steps, bit for bit. Each worker goes through the feed by itself and makes every so many-th
step's batches; nothing is put in order afterwards, and what has been made ahead is no part of a run's state. A pipe that
is full holds its worker back.

Processes, not threads: what makes batches is Python, and a thread that holds the interpreter keeps the training from
sending its next operation (benchmarks/ahead.py shows both). They are forked, so that a feed may hold what cannot be sent,
such as functions made in functions, and millions of examples without a copy. A fork of a process that uses torch is safe
so long as the child keeps to one thread, leaves the GPU alone and ends without tidying up, which is what happens here.

Workers ignore Ctrl-C, which is for the training to answer: it saves first. They end with it, however it ends: they are
killed when the block is left, and where the training itself was killed they find nobody at the end of their pipe.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields, is_dataclass
from itertools import islice
from multiprocessing.connection import Connection, Pipe
from typing import Any, NoReturn

import torch
from torch import Tensor

from inkstone.ground.errors import ConfigError, TrainingError
from inkstone.learn.data.shares import Portion, Steps

AHEAD_BYTES = (
    1 << 20
)  # of batches in a pipe, where the system allows; a batch of 8,192 tokens has some 200,000
POLITE = (signal.SIGINT, signal.SIGTERM)  # the training answers these: it saves


@dataclass(frozen=True, slots=True)
class Turn:
    """What a step reads, where it stands, and where the one after it stands: (epoch, index)."""

    portions: list[Portion]
    place: tuple[int, int]
    after: tuple[int, int]


_Planned = tuple[Callable[[], list[Portion]], tuple[int, int], tuple[int, int]]


@contextmanager
def ahead(steps: Steps, epoch: int, index: int, count: int, workers: int) -> Iterator[Iterator[Turn]]:
    """Yield what `count` steps read from a place on, epoch after epoch; with workers it is made ahead.

    What a batch raises is raised where its turn comes, and once the batches before it were taken.
    Raises TrainingError when a worker dies, ConfigError where processes cannot be forked.
    """
    planned = islice(_planned(steps, epoch, index), count)
    if not workers or not count:
        yield (Turn(make(), place, after) for make, place, after in planned)
        return
    if not hasattr(os, "fork"):
        raise ConfigError(f"training.workers={workers} needs a system that forks processes. Valid here: 0.")
    crew: list[_Worker] = []
    try:
        for number in range(min(workers, count)):
            crew.append(_Worker(islice(planned, number, None, workers), [one.pipe for one in crew]))
        yield (crew[number % len(crew)].take() for number in range(count))
    finally:
        for worker in crew:
            worker.end()


def _planned(steps: Steps, epoch: int, index: int) -> Iterator[_Planned]:
    """Everything from a place on. An epoch is planned when its first batch is asked for."""
    while True:
        calls = steps.epoch(epoch)
        for number in range(index, len(calls)):
            last = number == len(calls) - 1
            yield calls[number], (epoch, number), (epoch + 1, 0) if last else (epoch, number + 1)
        epoch, index = epoch + 1, 0


class _Worker:
    """A process that makes batches, seen from the training."""

    def __init__(self, planned: Iterator[_Planned], others: list[Connection[Any, Any]]) -> None:
        self.pipe, theirs = Pipe(duplex=False)
        with suppress(OSError, AttributeError):  # not Linux, or more than this user may have
            fcntl.fcntl(theirs.fileno(), fcntl.F_SETPIPE_SZ, AHEAD_BYTES)
        sys.stdout.flush()  # or the child would have the same words to say
        sys.stderr.flush()
        before = signal.pthread_sigmask(signal.SIG_BLOCK, POLITE)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads: see the top
            self.id = os.fork()
        if self.id == 0:
            for number in POLITE:
                signal.signal(number, signal.SIG_IGN)
            for pipe in (
                self.pipe,
                *others,
            ):  # a pipe breaks when its last reader is gone: the training alone
                pipe.close()
            _work(planned, theirs)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()

    def take(self) -> Turn:
        """The next batch."""
        try:
            found = self.pipe.recv()
        except EOFError:
            _, status = os.waitpid(self.id, 0)
            self.id = 0
            how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"status {status >> 8}"
            raise TrainingError(
                f"a process that makes batches ended ({how}): was it killed, or is memory short? The last checkpoint is"
                " intact; go on with training.workers=0, which takes the least memory."
            ) from None
        if isinstance(found, BaseException):
            raise found
        packed, place, after = found
        return Turn(_unpacked(packed), place, after)

    def end(self) -> None:
        """Kill it: it holds nothing that is not made again."""
        self.pipe.close()
        if self.id:
            os.kill(self.id, signal.SIGKILL)
            os.waitpid(self.id, 0)
            self.id = 0


def _work(planned: Iterator[_Planned], pipe: Connection[Any, Any]) -> NoReturn:
    """The life of a worker: batch after batch until all are made or nobody takes them; then end, and tidy up nothing."""
    try:
        torch.set_num_threads(1)  # the threads of the process that was forked are not here
        for make, place, after in planned:
            pipe.send((_packed(make()), place, after))
    except BrokenPipeError:
        os._exit(0)
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is the training's
        with suppress(BaseException):
            _send_error(pipe, error)
        os._exit(1)
    os._exit(0)


@dataclass(frozen=True, slots=True)
class _Packed:
    """A record in pieces: its kind and its fields, packed themselves."""

    kind: type[Any]
    values: list[Any]


def _packed(value: Any) -> Any:
    """The same with arrays for tensors, since these would be sent as handles of shared memory."""
    if isinstance(value, Tensor):
        return _Packed(Tensor, [value.numpy()])
    if isinstance(value, list | tuple):
        return type(value)(_packed(one) for one in value)
    if is_dataclass(value) and not isinstance(value, type):
        return _Packed(type(value), [_packed(getattr(value, field.name)) for field in fields(value)])
    return value


def _unpacked(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(_unpacked(one) for one in value)
    if not isinstance(value, _Packed):
        return value
    if value.kind is Tensor:
        return torch.from_numpy(value.values[0])
    return value.kind(*(_unpacked(one) for one in value.values))


def _send_error(pipe: Connection[Any, Any], error: BaseException) -> None:
    """The error itself where it can be sent, else its words; with the worker's traceback as a note."""
    error.add_note("in a process that makes batches:\n" + "".join(traceback.format_exception(error)))
    try:
        pipe.send(error)
    except BrokenPipeError:
        raise
    except Exception:  # noqa: BLE001 - it holds something that cannot be sent
        pipe.send(RuntimeError(f"{type(error).__name__}: {error}"))
