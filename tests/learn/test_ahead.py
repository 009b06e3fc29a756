"""Batches made ahead: with any number of workers the same ones in the same order, and nobody stays behind."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
if not hasattr(os, "fork"):
    pytest.skip("workers are forked", allow_module_level=True)


import reversing  # noqa: E402
from reversing import run, small_model  # noqa: E402

from inkstone.ground.errors import ConfigError, TrainingError  # noqa: E402
from inkstone.learn.data.ahead import ahead  # noqa: E402
from inkstone.learn.data.batches import Batch, PairBatch, Plan, Planned, TokenExample, Varied, pair_batch  # noqa: E402
from inkstone.learn.data.corruption import Masking  # noqa: E402
from inkstone.learn.data.documents import PackedFeed  # noqa: E402
from inkstone.learn.data.recut import Cuts, Recut, WordsExample  # noqa: E402
from inkstone.learn.data.shares import Steps  # noqa: E402
from inkstone.learn.loop import Interrupted, TrainingOptions  # noqa: E402
from inkstone.learn.objectives import sequence_to_sequence  # noqa: E402
from inkstone.text.tokenizer import Tokenizer  # noqa: E402


class Died(Exception):
    """Stands for whatever goes wrong in a batch."""


def pairs(collate: Any = reversing.collate) -> Planned:
    examples = reversing.examples()
    return Planned(Plan(examples, tokens_per_batch=300, seed=1), examples, collate)


def packed() -> PackedFeed:
    """Rows of several documents; the number of batches differs from epoch to epoch."""
    lengths = [3 + n % 17 for n in range(120)]
    return PackedFeed(
        [list(range(4, 4 + n)) for n in lengths], block=16, tokens_per_batch=64, seed=1, pad_id=0
    )


def hidden() -> Varied:
    parts = [TokenExample([2, *range(5, 8 + n % 9), 3], [-1, *range(3 + n % 9), -1]) for n in range(90)]
    hide = Masking(0, 4, torch.arange(5, 20).numpy(), 0.3)
    return Varied(parts, hide, tokens_per_batch=120, seed=1)


def recut() -> Varied:
    made = Tokenizer.train(["one two three four five", "eins zwei drei vier"], vocab_size=300)
    cuts = Cuts(made, 0.3, 1)
    texts = ["one two three", "four", "five four two", "one three five two four"] * 9
    words = [np.array(cuts.words(text), np.int32) for text in texts]
    examples = [WordsExample(one, one, (len(one), len(one) + 1)) for one in words]
    collate = partial(pair_batch, pad_id=0, bos_id=2, eos_id=3)
    return Varied(examples, Recut(cuts.table(), 64, collate), tokens_per_batch=60, seed=1)


FEEDS = {"pairs": pairs, "packed": packed, "hidden": hidden, "recut": recut}


def same(one: Batch, other: Batch) -> bool:
    """Whether two batches are alike: kind, types, shapes and every value."""
    if type(one) is not type(other):
        return False
    for field in fields(one):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if isinstance(mine, torch.Tensor):
            if mine.dtype != theirs.dtype or not torch.equal(mine, theirs):
                return False
        elif mine != theirs:
            return False
    return True


def children() -> set[int]:
    listed = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    return {int(word) for word in listed.read_text().split()} if listed.exists() else set()


@pytest.fixture(autouse=True)
def nobody_stays() -> Any:
    before = children()
    yield
    assert children() <= before


@pytest.mark.parametrize("name", FEEDS)
@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("place", [(0, 0), (0, 3), (2, 1)])
def test_the_batches_and_their_places_are_the_same(name: str, workers: int, place: tuple[int, int]) -> None:
    feed = Steps(FEEDS[name]())
    count = 2 * len(feed.epoch(0)) + 2  # over two ends of epochs
    with ahead(feed, *place, count, 0) as plain, ahead(feed, *place, count, workers) as turns:
        pairs = list(zip(plain, turns, strict=True))
    assert len(pairs) == count
    for one, other in pairs:
        assert (one.place, one.after) == (other.place, other.after)
        assert same(one.portions[0].batch, other.portions[0].batch)
    assert all(one.after == two.place for (one, _), (two, _) in itertools.pairwise(pairs))
    assert pairs[0][0].place == place


def test_where_a_batch_stands_is_what_the_feed_says() -> None:
    feed = Steps(packed())
    sizes = [len(feed.epoch(number)) for number in range(3)]
    expected = [(epoch, index) for epoch, size in enumerate(sizes) for index in range(size)]
    with ahead(feed, 0, 0, len(expected), 2) as turns:
        found = list(turns)
    assert [turn.place for turn in found] == expected
    assert same(found[sizes[0] + 1].portions[0].batch, feed.epoch(1)[1]()[0].batch)


@pytest.mark.parametrize("count", [0, 1, 3])
def test_more_workers_than_batches(count: int) -> None:
    with ahead(Steps(pairs()), 0, 0, count, 8) as turns:
        assert len(list(turns)) == count


def test_batches_can_be_written_to() -> None:
    """Tensors of a batch are the training's own, not views of what was received."""
    with ahead(Steps(pairs()), 0, 0, 1, 1) as turns:
        batch = next(turns).portions[0].batch
        assert isinstance(batch, PairBatch)
        batch.source_BS.add_(1)


class TestErrors:
    @pytest.mark.parametrize("workers", [0, 2])
    def test_of_a_batch_come_in_its_turn(self, workers: int) -> None:
        calls = pairs().plan.epoch(0)
        wrong = pairs().examples[int(calls[5][0])]

        def collate(rows: Sequence[Any]) -> PairBatch:
            if wrong in rows:
                raise Died("the sixth")
            return reversing.collate(rows)

        first = next(
            n for n, numbers in enumerate(calls) if any(pairs().examples[k] == wrong for k in numbers)
        )
        with ahead(Steps(pairs(collate)), 0, 0, len(calls), workers) as turns:
            for _ in range(first):
                next(turns)
            with pytest.raises(Died, match="the sixth") as error:
                next(turns)
        if workers:
            assert "in a process that makes batches" in "".join(error.value.__notes__)

    def test_that_cannot_be_sent_come_in_words(self) -> None:
        class Unsendable(Exception):  # a class inside a function has no name to be sent by
            pass

        def collate(rows: Sequence[Any]) -> PairBatch:
            raise Unsendable("no such row")

        with (
            ahead(Steps(pairs(collate)), 0, 0, 4, 2) as turns,
            pytest.raises(RuntimeError, match="no such row"),
        ):
            next(turns)

    def test_a_worker_that_was_killed_is_named(self) -> None:
        def collate(rows: Sequence[Any]) -> PairBatch:
            os.kill(os.getpid(), signal.SIGKILL)
            return reversing.collate(rows)

        said = pytest.raises(TrainingError, match=r"ended \(signal 9\).*training\.workers=0")
        with ahead(Steps(pairs(collate)), 0, 0, 4, 2) as turns, said:
            next(turns)

    def test_a_system_without_fork(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr(os, "fork")
        with (
            pytest.raises(ConfigError, match="workers=2 needs a system that forks"),
            ahead(Steps(pairs()), 0, 0, 4, 2),
        ):
            pass
        with ahead(Steps(pairs()), 0, 0, 1, 0) as turns:
            assert next(turns).place == (0, 0)


STEPS = 2 * len(pairs().epoch(0))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The sha256 of the weights of a run without workers that nothing disturbed."""
    return run(tmp_path_factory.mktemp("whole"))[1]


def dying_at(step: int) -> Any:
    """An objective that fails when it is asked for the step after this one."""
    calls = 0

    def objective(model: Any, batch: Any, smoothing: float = 0.0) -> Any:
        nonlocal calls
        calls += 1
        if calls > step:
            raise Died
        return sequence_to_sequence(model, batch, smoothing)

    return objective


class TestTraining:
    @pytest.mark.parametrize("workers", [1, 2, 3])
    def test_the_weights_are_the_same(self, tmp_path: Path, uninterrupted: str, workers: int) -> None:
        assert run(tmp_path, workers=workers)[1] == uninterrupted

    @pytest.mark.parametrize(("before", "after"), [(0, 2), (2, 0), (2, 2)])
    def test_a_run_goes_on_with_any_number_from_any_step(
        self, tmp_path: Path, uninterrupted: str, before: int, after: int
    ) -> None:
        for at in range(1, STEPS, 7):
            place = tmp_path / str(at)
            with pytest.raises(Died):
                run(place, objective=dying_at(at), save_every_s=0, workers=before)
            assert (place / "checkpoints" / f"last-{at:08d}").is_dir()
            outcome, digest = run(place, model=small_model(seed=8), workers=after)
            assert (outcome.steps, digest) == (STEPS, uninterrupted), f"from step {at}"

    def test_workers_are_no_part_of_what_a_run_is(self) -> None:
        assert repr(TrainingOptions(workers=2)) == repr(TrainingOptions())
        assert TrainingOptions(workers=2) != TrainingOptions()

    def test_ctrl_c_saves_and_ends_the_workers(self, tmp_path: Path, uninterrupted: str) -> None:
        def press(model: Any, batch: Any, smoothing: float = 0.0) -> Any:
            if not pressed:
                pressed.append(True)
                for number in (os.getpid(), *children()):  # as a terminal does: to all of them
                    os.kill(number, signal.SIGINT)
            return sequence_to_sequence(model, batch, smoothing)

        pressed: list[bool] = []
        with pytest.raises(Interrupted, match="stopped at step 1 of"):
            run(tmp_path, objective=press, workers=2)
        assert run(tmp_path, workers=2)[1] == uninterrupted

    def test_early_stopping_ends_the_workers(self, tmp_path: Path) -> None:
        values = iter([5.0, 1.0, 1.0])
        outcome, _ = run(
            tmp_path, validate=lambda _: {"accuracy": next(values)}, validate_every=2, patience=2, workers=2
        )
        assert (outcome.steps, outcome.stopped_early) == (6, True)  # and `nobody_stays`

    def test_when_the_training_is_killed_they_end_by_themselves(self, tmp_path: Path) -> None:
        program = (
            "import os, sys, signal; sys.path.insert(0, sys.argv[1])\n"
            "from pathlib import Path; import reversing; from test_ahead import children\n"
            "def objective(*_):\n"
            "    print(*children(), flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
            "reversing.run(Path(sys.argv[2]), objective=objective, epochs=2000, workers=2)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, str(Path(__file__).parent), str(tmp_path)],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == -signal.SIGKILL
        crew = [int(word) for word in done.stdout.split()]
        assert len(crew) == 2
        until = time.monotonic() + 20
        while any(_runs(number) for number in crew) and time.monotonic() < until:
            time.sleep(0.05)
        assert not any(_runs(number) for number in crew)


def _runs(number: int) -> bool:
    try:
        state = Path(f"/proc/{number}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state not in "ZX"
