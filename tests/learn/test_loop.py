"""The training loop: it learns, it stops when it should, and a run that was stopped anyhow ends as if it had not been."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

import reversing  # noqa: E402
from reversing import run, sha256_of, small_model  # noqa: E402

from inkstone.ground.errors import ConfigError, InkstoneError, OutputError, TrainingError  # noqa: E402
from inkstone.learn import state as state_module  # noqa: E402
from inkstone.learn.data.batches import PairBatch, Plan  # noqa: E402
from inkstone.learn.loop import Interrupted, TrainingOptions  # noqa: E402
from inkstone.learn.objectives import sequence_to_sequence  # noqa: E402
from inkstone.learn.objectives.loss import Loss  # noqa: E402
from inkstone.learn.state import Checkpoints  # noqa: E402

STEPS_AN_EPOCH = len(Plan(reversing.examples(), tokens_per_batch=300, seed=1).epoch(0))
STEPS = 2 * STEPS_AN_EPOCH


class Died(Exception):
    """Stands for whatever ends a process."""


def dying(at: int, how: Callable[[], None]) -> Callable[[Sequence[Any]], PairBatch]:
    """A collate that does something instead of giving its batch number `at` (from 0)."""
    calls = 0

    def collate(rows: Sequence[Any]) -> PairBatch:
        nonlocal calls
        calls += 1
        if calls == at + 1:
            how()
        return reversing.collate(rows)

    return collate


def die() -> None:
    raise Died


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The sha256 of the weights of a run that nothing disturbed."""
    outcome, digest = run(tmp_path_factory.mktemp("whole"))
    assert outcome.steps == STEPS
    return digest


def names(place: Path) -> list[str]:
    return sorted(p.name for p in (place / "checkpoints").iterdir())


def test_it_learns(tmp_path: Path) -> None:
    outcome, _ = run(
        tmp_path,
        data=reversing.examples(1500),
        model=small_model(dropout=0.0, positions="learned"),
        epochs=4,
        tokens_per_batch=600,
        learning_rate=1e-2,
        smoothing=0.0,
        validate_every=28,
    )
    first, last = outcome.curve[0], outcome.curve[-1]
    assert last["valid_accuracy"] > 0.8 > 0.6 > first["valid_accuracy"]
    assert last["valid_loss"] < first["valid_loss"] / 2
    assert last["train_loss"] < first["train_loss"]
    assert [point["step"] for point in outcome.curve] == [28, 56, 84, 112]
    assert (
        outcome.tokens_per_second > 0 and outcome.peak_memory_bytes > 50_000_000 and not outcome.stopped_early
    )


def test_what_happened_is_logged(tmp_path: Path) -> None:
    run(tmp_path, epochs=6)
    logged = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert {"train/loss", "train/learning_rate", "train/tokens_per_second"} <= set().union(*logged)
    assert {"valid/loss", "valid/accuracy"} <= set().union(*logged)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    shown = {event.step: event.value for event in board.Scalars("valid/accuracy")}
    assert shown == {
        one["step"]: pytest.approx(one["valid/accuracy"]) for one in logged if "valid/accuracy" in one
    }


class TestResuming:
    @pytest.mark.parametrize("at", [1, 7, STEPS_AN_EPOCH, STEPS_AN_EPOCH + 1, STEPS - 1])
    def test_a_run_that_died_ends_with_the_same_weights(
        self, tmp_path: Path, uninterrupted: str, at: int
    ) -> None:
        with pytest.raises(Died):
            run(tmp_path, collate=dying(at, die), save_every_s=0)
        assert f"last-{at:08d}" in names(tmp_path)
        torch.manual_seed(99)  # nothing of the process before may matter
        outcome, digest = run(tmp_path, model=small_model(seed=8))
        assert (outcome.steps, digest) == (STEPS, uninterrupted)

    def test_what_was_done_after_the_last_checkpoint_is_done_again(
        self, tmp_path: Path, uninterrupted: str
    ) -> None:
        with pytest.raises(Died):
            run(tmp_path, collate=dying(4, die), save_every_s=0)
        with pytest.raises(Died):
            run(
                tmp_path, collate=dying(9, die)
            )  # goes on to step 13, past a validation, and saves nothing but the best
        assert [name[:5] for name in names(tmp_path)] == ["best-", "last-"]
        assert names(tmp_path)[1] == "last-00000004"
        assert run(tmp_path, model=small_model(seed=8))[1] == uninterrupted

    def test_in_bfloat16_too(self, tmp_path: Path) -> None:
        whole = run(tmp_path / "whole", precision="bfloat16", epochs=1)[1]
        with pytest.raises(Died):
            run(tmp_path / "cut", precision="bfloat16", epochs=1, collate=dying(5, die), save_every_s=0)
        assert run(tmp_path / "cut", precision="bfloat16", epochs=1)[1] == whole

    def test_with_muon_too(self, tmp_path: Path, uninterrupted: str) -> None:
        whole = run(tmp_path / "whole", optimizer="muon")[1]
        with pytest.raises(Died):
            run(tmp_path / "cut", optimizer="muon", collate=dying(5, die), save_every_s=0)
        assert run(tmp_path / "cut", optimizer="muon", model=small_model(seed=8))[1] == whole != uninterrupted

    def test_a_finished_run_is_finished(self, tmp_path: Path, uninterrupted: str) -> None:
        run(tmp_path)
        outcome, digest = run(tmp_path, collate=dying(0, die), model=small_model(seed=8))
        assert (outcome.steps, digest) == (STEPS, uninterrupted)

    def test_other_data_or_another_model_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(Died):
            run(tmp_path, collate=dying(3, die), save_every_s=0)
        before = names(tmp_path)
        with pytest.raises(TrainingError, match=r"begun with other data.*or another output to begin anew"):
            run(tmp_path, fingerprint="other")
        with pytest.raises(TrainingError, match="weights of another model"):
            run(tmp_path, model=small_model(feed_forward_size=32))
        assert names(tmp_path) == before


class TestCtrlC:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_it_saves_and_the_run_goes_on_later(
        self, tmp_path: Path, uninterrupted: str, number: int, capfd: pytest.CaptureFixture[str]
    ) -> None:
        earlier = signal.getsignal(number)
        with pytest.raises(Interrupted, match=f"stopped at step 6 of {STEPS}; everything is saved") as error:
            run(tmp_path, collate=dying(5, lambda: os.kill(os.getpid(), number)))
        assert isinstance(error.value, InkstoneError)
        assert "stopping after this step" in capfd.readouterr().err
        assert names(tmp_path) == ["last-00000006"]
        assert signal.getsignal(number) is earlier, "the program's own handler is back"
        assert run(tmp_path, model=small_model(seed=8))[1] == uninterrupted

    def test_twice_goes_at_once(self, tmp_path: Path) -> None:
        def press() -> None:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, collate=dying(5, press))


class TestStopping:
    def scripted(self, values: list[float], seen: list[str]) -> Callable[[Any], dict[str, float]]:
        """A validation that returns these values in turn, and notes the weights it was shown."""

        def validate(model: torch.nn.Module) -> dict[str, float]:
            seen.append(sha256_of(model))
            return {"loss": values[len(seen) - 1]}

        return validate

    def test_early_and_with_the_best_weights(self, tmp_path: Path) -> None:
        seen: list[str] = []
        validate = self.scripted([5, 3, 4, 3, 9, 9], seen)
        outcome, digest = run(tmp_path, validate=validate, validate_every=2, patience=2, metric="loss")
        assert (outcome.steps, outcome.best_step, outcome.stopped_early, len(seen)) == (8, 4, True, 4)
        assert digest == seen[1]

    def test_killed_after_stopping_early_it_stays_stopped(self, tmp_path: Path) -> None:
        seen: list[str] = []
        validate = self.scripted([5, 3, 4, 3, 1, 1], seen)
        run(tmp_path, validate=validate, validate_every=2, patience=2, metric="loss")
        outcome, digest = run(tmp_path, validate=validate, validate_every=2, patience=2, metric="loss")
        assert (outcome.steps, outcome.stopped_early, digest, len(seen)) == (8, True, seen[1], 4)

    def test_never_without_patience(self, tmp_path: Path) -> None:
        seen: list[str] = []
        values = [1.0, *[2.0] * STEPS]
        validate = self.scripted(values, seen)
        outcome, digest = run(tmp_path, validate=validate, validate_every=5, patience=0, metric="loss")
        assert (outcome.steps, outcome.best_step, digest) == (STEPS, 5, seen[0])

    def test_higher_is_better_for_other_measures(self, tmp_path: Path) -> None:
        values = iter([1.0, 3.0, 2.0, *[0.0] * STEPS])
        outcome, _ = run(
            tmp_path, validate=lambda _: {"accuracy": next(values)}, validate_every=3, patience=0
        )
        assert outcome.best_step == 6

    def test_at_a_loss_that_is_not_finite(self, tmp_path: Path) -> None:
        calls = 0

        def objective(model: Any, batch: Any, smoothing: float = 0.0) -> Loss:
            nonlocal calls
            calls += 1
            loss = sequence_to_sequence(model, batch, smoothing)
            return Loss(loss.mean * float("nan"), loss.count, loss.correct) if calls == 6 else loss

        with pytest.raises(
            TrainingError, match=r"loss became nan at step 6\. Lower the learning rate \(now 0\.005\)"
        ):
            run(tmp_path, objective=objective, save_every_s=0)
        place = Checkpoints(tmp_path).newest("last")
        assert place is not None and place.name == "last-00000005"
        assert all(p.isfinite().all() for p in torch.nn.ParameterList(self.loaded(place)))

    def loaded(self, place: Path) -> list[Any]:
        model = small_model()
        Checkpoints(place.parent.parent).load(place, model)
        return list(model.parameters())

    def test_at_a_measure_that_does_not_exist(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r'metric="accurracy" is not known.*Did you mean "accuracy"'):
            run(tmp_path, metric="accurracy")


class TestDamage:
    """Of the newest checkpoint: the valid one before it is used; without one the run begins anew. Both are said."""

    @pytest.mark.parametrize(
        ("name", "spoil"),
        [
            ("model.safetensors", lambda content: content[: len(content) // 2]),
            ("optimizer.safetensors", lambda content: content[:-1] + bytes([content[-1] ^ 4])),
            ("state.json", lambda content: content.replace(b"3", b"4", 1)),
            ("manifest.json", lambda content: b""),
        ],
    )
    def test_the_earlier_one_is_used(
        self, tmp_path: Path, uninterrupted: str, name: str, spoil: Callable[[bytes], bytes], capfd: Any
    ) -> None:
        with pytest.raises(Died):
            run(tmp_path, collate=dying(3, die), save_every_s=0)
        shutil.copytree(tmp_path / "checkpoints" / "last-00000003", tmp_path / "kept")
        with pytest.raises(Died):
            run(tmp_path, collate=dying(8, die), save_every_s=0)
        (tmp_path / "kept").rename(tmp_path / "checkpoints" / "last-00000003")
        newest = tmp_path / "checkpoints" / "last-00000011"
        (newest / name).write_bytes(spoil((newest / name).read_bytes()))
        with pytest.raises(Died):  # the damaged one is in the way of the one that this run saves at step 11
            run(tmp_path, collate=dying(9, die), save_every_s=0)
        said = capfd.readouterr().err
        assert f"{newest} is damaged and is passed over" in said and "resuming after step 3 " in said
        assert "last-00000012" in names(tmp_path)
        assert run(tmp_path, model=small_model(seed=8))[1] == uninterrupted

    def test_without_an_earlier_one_the_run_begins_anew(
        self, tmp_path: Path, uninterrupted: str, capfd: Any
    ) -> None:
        with pytest.raises(Died):
            run(tmp_path, collate=dying(8, die), save_every_s=0)
        (tmp_path / "checkpoints" / "last-00000008" / "state.json").unlink()
        assert run(tmp_path)[1] == uninterrupted
        assert "state.json is missing" in capfd.readouterr().err

    def test_of_the_best_one_is_no_traceback(self, tmp_path: Path) -> None:
        values = iter([2.0, *[1.0] * STEPS])
        with pytest.raises(TrainingError, match="has lost its best checkpoint"):
            run(
                tmp_path,
                validate=lambda _: {"accuracy": next(values)},
                collate=dying(STEPS - 1, lambda: shutil.rmtree(tmp_path / "checkpoints" / "best-00000007")),
                patience=0,
            )

    def test_a_full_disk_is_said_and_the_run_goes_on_later(
        self, tmp_path: Path, uninterrupted: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as patch:
            calls = 0
            real = state_module.save_file

            def save_file(*arguments: Any) -> None:
                nonlocal calls
                calls += 1
                if calls == 6:
                    raise state_module.SafetensorError("I/O error: No space left on device (os error 28)")
                real(*arguments)

            patch.setattr(state_module, "save_file", save_file)
            with pytest.raises(OutputError, match=r"No space left.*Free some space, then resume"):
                run(tmp_path, save_every_s=0)
        assert names(tmp_path) == ["last-00000002"]
        assert run(tmp_path)[1] == uninterrupted


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked children")
@pytest.mark.parametrize(("seed", "workers"), [(1, 0), (2, 2)])
def test_thirty_kills_lose_nothing(tmp_path: Path, uninterrupted: str, seed: int, workers: int) -> None:
    """SIGKILL at random moments, most of them while a checkpoint is written (Reliability: tests 3 and 21)."""
    program = Path(__file__).with_name("killing.py")
    done = subprocess.run(
        [sys.executable, str(program), str(tmp_path), str(seed), "30", str(workers)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"seed {seed}: {done.stderr}"
    sys.stderr.write(done.stdout)  # the seed, shown when an assertion fails
    found = json.loads(done.stdout)
    assert found["sha256"] == [uninterrupted]
    assert found["leftovers"] == []
    assert found["kills"] == 30 and found["inside"] >= 5


def test_every_wrong_option_is_said_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        TrainingOptions(
            epochs=-1, learning_rate=float("nan"), tokens_per_batch=0, smoothing=1.0, schedule="cosin", seed=-1,  # type: ignore[arg-type]
            clip_norm=0, patience=-1, threads=-1, beta2=1.5, workers=-1, stop_after=-1,
        )  # fmt: skip
    for words in (
        "12 problems", "epochs=-1", "learning_rate=nan", "tokens_per_batch=0", "smoothing=1.0", 'mean "cosine"',
        "seed=-1", "clip_norm=0", "patience=-1", "threads=-1", "beta2=1.5",
        "workers=-1", "stop_after=-1",
    ):  # fmt: skip
        assert words in str(error.value)
