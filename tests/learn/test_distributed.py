"""One run in two processes (gloo, as torchrun starts them) ends where one process ends; so does one that accumulates.

Float32 sums in another order differ in the last bits: gradients by about 1e-6 of their size, weights after twenty steps
by about 3e-6 (seen here); the tests allow ten times that. Where whole batches are dealt out, even dropout is the same.
Muon rounds its steps to bfloat16, which makes 1e-3 of a last bit: it is compared in float32, and as it is to 1e-2.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

import processes  # noqa: E402
import reversing  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from inkstone.ground.errors import ConfigError  # noqa: E402
from inkstone.learn import optim  # noqa: E402
from inkstone.learn.loop import TrainingOptions  # noqa: E402

ACCURATE = 3e-5
PLAIN: dict[str, Any] = {"model": {"dropout": 0.0}}
SHARED: dict[str, dict[str, Any]] = {
    "rows divided": PLAIN,
    "batches dealt": {"accumulate": 2},
    "rows divided, three a step": {**PLAIN, "accumulate": 3},
    "muon": {**PLAIN, "optimizer": "muon", "exact_muon": True},
    "muon as it is": {**PLAIN, "optimizer": "muon"},
    "stops early": {**PLAIN, "validate_every": 2, "patience": 2, "learning_rate": 1e-9},
}
CASES = {
    f"{name}, {parallel}": {**case, "parallel": parallel}
    for name, case in SHARED.items()
    for parallel in ("ddp", "fsdp")
}
CASES["rotary, gated, untied, fsdp"] = {
    "accumulate": 2,
    "parallel": "fsdp",
    "model": {
        "positions": "rotary", "norm": "rms", "feed_forward": "gated", "query_key_norm": True, "tie_embeddings": False,
    },
}  # fmt: skip
CASES["attacked, held together, averaged, ddp"] = {
    **PLAIN, "parallel": "ddp", "adversarial": {"kind": "fgm"}, "regularize": {"r_drop": 1.0},
    "ema": 0.9, "average_last": 3, "validate_every": 4,
}  # fmt: skip
CHANGES: dict[str, dict[str, Any]] = {  # of the number of processes, in the middle of a run
    f"changed, {optimizer}, {parallel}": {
        **PLAIN, "optimizer": optimizer, "exact_muon": True, "parallel": parallel, "save_every_s": 0,
    }
    for optimizer in ("adamw", "muon")
    for parallel in ("ddp", "fsdp")
}  # fmt: skip


def torchrun(cases: dict[str, dict[str, Any]], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run these cases in two processes."""
    file = folder / "cases.json"
    file.write_text(json.dumps(cases))
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    return subprocess.run(
        [*command, str(Path(processes.__file__)), str(file), str(folder)],
        capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def weights(folder: Path, name: str, rank: int = 0) -> dict[str, Any]:
    return load_file(folder / f"{name}.{rank}.safetensors")


def difference(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The largest difference between tensors of the same names."""
    assert one.keys() == other.keys()
    return max(float((tensor - other[name]).abs().max()) for name, tensor in one.items())


@pytest.fixture(scope="module")
def by_one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process makes of all cases. Runs that died in the middle lie in "died in one, ..."."""
    folder = tmp_path_factory.mktemp("one")
    for name, case in CASES.items():
        processes.run_case(name, case, folder)
    for name, case in CHANGES.items():
        processes.run_case(name, case, folder)
        processes.run_case(f"died in one, {name}", {**case, "die_at": 9}, folder)
    return folder


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory, by_one: Path) -> Path:
    """What two processes make of them, and of the runs that died in one."""
    folder = tmp_path_factory.mktemp("two")
    changes = {}
    for name, case in CHANGES.items():
        changes[f"died in two, {name}"] = {**case, "die_at": 9}
        changes[f"resumed in two, {name}"] = {**case, "run": str(by_one / f"died in one, {name}")}
    done = torchrun(CASES | changes, folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("20/20") == done.stderr.count("training: 20/20"), "only one process speaks"
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes_end_as_one(name: str, by_one: Path, by_two: Path) -> None:
    allowed = 1e-2 if "as it is" in name else ACCURATE
    for rank in (0, 1):
        assert difference(weights(by_one, name), weights(by_two, name, rank)) < allowed
    one, both = (json.loads((folder / f"{name}.0.json").read_text()) for folder in (by_one, by_two))
    assert (one["steps"], one["stopped_early"]) == (both["steps"], both["stopped_early"])
    assert both["stopped_early"] is ("stops early" in name)
    for point, other in zip(one["curve"], both["curve"], strict=True):
        assert point["step"] == other["step"]
        assert other["train_loss"] == pytest.approx(
            point["train_loss"], rel=1e-2 if "as it is" in name else 1e-5
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes_step_by_the_gradients_of_one(name: str, by_one: Path, by_two: Path) -> None:
    """Of the first step, after clipping; Muon's are compared before it rounds them."""
    one, *two = (
        load_file(folder / f"{name}.{rank}.gradients.safetensors")
        for folder, rank in ((by_one, 0), (by_two, 0), (by_two, 1))
    )
    assert len(one) == len(weights(by_one, name))
    size = max(float(gradient.abs().max()) for gradient in one.values())
    assert size > 1e-3
    for gradients in two:
        assert difference(one, gradients) < 1e-5 * size


@pytest.mark.slow
def test_the_cases_can_differ(by_one: Path) -> None:
    """What the equality tests allow is far below what a wrong weight would make."""
    plain, three = weights(by_one, "rows divided, ddp"), weights(by_one, "rows divided, three a step, ddp")
    assert difference(plain, three) > 100 * ACCURATE


@pytest.mark.slow
def test_dropout_too_is_the_same_where_batches_are_dealt_out(by_one: Path, by_two: Path) -> None:
    name = "batches dealt, ddp"
    assert difference(weights(by_one, name), weights(by_two, name)) < 1e-6


@pytest.mark.slow
def test_one_process_writes(by_two: Path) -> None:
    for name, case in CASES.items():
        (last,) = (by_two / name / "checkpoints").glob("last-*")
        logs = [json.loads(line) for line in (by_two / name / "log.jsonl").read_text().splitlines()]
        validations = [one["step"] for one in logs if "valid/loss" in one]
        assert validations == sorted(set(validations)), "each is logged once"
        assert (last / "shards").exists() == (case["parallel"] == "fsdp")
        assert len(list((by_two / name / "tensorboard").iterdir())) == 1


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_a_run_goes_on_in_another_number_of_processes(name: str, by_one: Path, by_two: Path) -> None:
    whole = weights(by_one, name)
    assert difference(whole, weights(by_two, f"resumed in two, {name}")) < ACCURATE
    died = by_two / f"died in two, {name}"
    (last,) = (died / "checkpoints").glob("last-*")
    assert last.name == "last-00000008"
    processes.run_case("resumed in one", {**CHANGES[name], "run": str(died)}, by_two)
    assert difference(whole, weights(by_two, "resumed in one")) < ACCURATE


@pytest.mark.slow
def test_a_process_that_fails_ends_all_with_its_message(tmp_path: Path) -> None:
    done = torchrun({"failing": {**PLAIN, "fail_at": 4}}, tmp_path)
    assert done.returncode != 0
    assert "rank 1 said: row 7 is not a row" in done.stderr
    told = "rank 0 said: process 1 of 2 failed: row 7 is not a row"
    assert told in done.stderr or "(SIGTERM)" in done.stderr, "torchrun may be faster"


@pytest.mark.slow
def test_processes_with_other_data_are_refused(tmp_path: Path) -> None:
    done = torchrun({"unlike": {**PLAIN, "fingerprint": "by rank"}}, tmp_path)
    assert done.returncode != 0
    assert "the 2 processes read unlike data" in done.stderr


class TestAccumulation:
    """Of gradients, in one process."""

    def gradients(self, monkeypatch: pytest.MonkeyPatch, place: Path, **options: Any) -> list[Any]:
        """Of the one step of a run over all rows of the toy task."""
        found: list[Any] = []

        class Recorder(torch.optim.SGD):
            def step(self, closure: Any = None) -> None:
                found.append([p.grad.clone() for group in self.param_groups for p in group["params"]])

        def recording(model: Any, *, learning_rate: float, **_: Any) -> optim.Optimizers:
            return optim.Optimizers(Recorder(model.parameters(), lr=learning_rate))

        monkeypatch.setitem(optim.OPTIMIZERS, "adamw", recording)
        model = reversing.small_model(dropout=0.0)
        reversing.run(place, model=model, epochs=1, clip_norm=1e9, **options)
        (only,) = found
        return only

    def test_of_parts_equals_the_whole_batch(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = self.gradients(monkeypatch, tmp_path / "whole", tokens_per_batch=10**6)
        parts = self.gradients(monkeypatch, tmp_path / "parts", tokens_per_batch=300, accumulate=100)
        for one, other in zip(whole, parts, strict=True):
            torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-6 * float(one.abs().max()))

    def test_steps_do_not_cross_epochs(self, tmp_path: Path) -> None:
        per_epoch = reversing.run(tmp_path / "plain", epochs=1)[0].steps
        outcome, _ = reversing.run(tmp_path / "three", epochs=2, accumulate=3)
        assert outcome.steps == 2 * -(-per_epoch // 3)

    def test_draws_unlike_dropout_for_each_batch(self, tmp_path: Path) -> None:
        from inkstone.learn.loop import seed_of

        seeds = {seed_of(1, step, place) for step in range(100) for place in range(100)}
        assert len(seeds) == 10_000 and seed_of(3, 7, 0) == (3 << 32) + 7

    def test_resumes(self, tmp_path: Path) -> None:
        whole = reversing.run(tmp_path / "whole", accumulate=2)[1]
        processes.run_case("cut", {"accumulate": 2, "die_at": 8, "save_every_s": 0}, tmp_path)
        assert reversing.run(tmp_path / "cut", accumulate=2)[1] == whole


def test_wrong_options_are_said() -> None:
    with pytest.raises(
        ConfigError, match=r'accumulate=0 must be at least 1[\s\S]*parallel="dpp".*mean "ddp"'
    ):
        TrainingOptions(accumulate=0, parallel="dpp")  # type: ignore[arg-type]
