"""The preflight: it changes nothing, tries the largest batch before any step, and refuses what will not fit."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

import reversing  # noqa: E402
from reversing import collate, examples, run, sha256_of, small_model, validate  # noqa: E402

from inkstone.ground.errors import TrainingError  # noqa: E402
from inkstone.learn import preflight as module  # noqa: E402
from inkstone.learn.data.batches import Batch, Plan, Planned  # noqa: E402
from inkstone.learn.data.documents import PackedFeed  # noqa: E402
from inkstone.learn.loop import TrainingOptions  # noqa: E402
from inkstone.learn.objectives import OBJECTIVES, sequence_to_sequence  # noqa: E402
from inkstone.learn.objectives.loss import Loss  # noqa: E402
from inkstone.learn.preflight import DryRun, cells, preflight  # noqa: E402
from inkstone.model.config import preset  # noqa: E402
from inkstone.model.transformer import Transformer  # noqa: E402


def options(**more: Any) -> TrainingOptions:
    return TrainingOptions(**{**reversing.OPTIONS, **more})


def feed(budget: int = 300) -> Planned:
    rows = examples()
    return Planned(Plan(rows, tokens_per_batch=budget, seed=1), rows, collate)


def rehearse(
    place: Path, model: Any = None, objective: Any = sequence_to_sequence, **more: Any
) -> dict[str, Any]:
    chosen = options(**more)
    model = small_model() if model is None else model
    return preflight(model, objective, feed(chosen.tokens_per_batch), validate, chosen, place)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_it_changes_nothing(tmp_path: Path, optimizer: str) -> None:
    _, without = run(tmp_path / "without", optimizer=optimizer)
    model = small_model()
    before, state = sha256_of(model), torch.get_rng_state()
    rehearse(tmp_path / "with", model, optimizer=optimizer)
    assert sha256_of(model) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())
    _, after = run(tmp_path / "with", model=model, optimizer=optimizer)
    assert after == without != before


def test_what_it_says_is_what_happens(tmp_path: Path) -> None:
    report = rehearse(tmp_path)
    outcome, _ = run(tmp_path)
    assert report["steps"] == outcome.steps
    assert report["parameters"] == sum(one.numel() for one in small_model().parameters())
    assert report["tokens_per_epoch"] == sum(sum(example.lengths()) for example in examples())
    assert report["validations"] == len(outcome.curve)
    assert sum(report["memory"].values()) == report["memory_bytes"]
    assert report["memory_bytes"] == pytest.approx(outcome.peak_memory_bytes, rel=0.15)
    assert sum(report["time"].values()) == pytest.approx(report["seconds"], abs=0.05)
    kept = sum(one.stat().st_size for one in (tmp_path / "checkpoints").rglob("*") if one.is_file())
    assert kept <= report["run_bytes"] < 3 * kept
    assert json.loads((tmp_path / "preflight.json").read_text()) == report


def test_the_largest_batch_comes_before_any_other_of_its_size(tmp_path: Path) -> None:
    seen: list[int] = []

    def watched(model: Any, batch: Batch, smoothing: float = 0.0) -> Loss:
        seen.append(cells(batch))
        return sequence_to_sequence(model, batch, smoothing)

    rehearse(tmp_path, objective=watched)
    plan = feed().plan
    sizes = [int(plan.lengths[rows].max(0).sum()) * len(rows) for rows in plan.epoch(0)]
    longest = plan.lengths[plan.largest()].max(0).sum() * len(plan.largest())
    assert seen[2] == longest  # after two of a few rows, which tell how much it will take
    assert max(seen[:2]) < longest / 4
    assert max(seen) <= max(sizes)


def test_memory_that_will_not_do_is_refused_before_the_batch_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "available_bytes", lambda device: 2_000_000)
    seen: list[int] = []

    def watched(model: Any, batch: Batch, smoothing: float = 0.0) -> Loss:
        seen.append(cells(batch))
        return sequence_to_sequence(model, batch, smoothing)

    with pytest.raises(TrainingError, match=r"needs .* of memory .* can be had") as refused:
        rehearse(tmp_path, objective=watched, tokens_per_batch=6000)
    assert max(seen) < 6000 / 4
    advised = re.search(r"tokens_per_batch to ([\d,]+)", str(refused.value))
    assert advised and "training.preflight=force" in str(refused.value)
    budget = int(advised.group(1).replace(",", ""))
    assert 100 < budget < 6000
    assert not list(tmp_path.iterdir())
    rehearse(tmp_path, tokens_per_batch=6000, preflight="force")


def test_without_room_for_one_row_a_smaller_model_is_advised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "available_bytes", lambda device: 1000)
    with pytest.raises(TrainingError, match=r"--size.*--lora"):
        rehearse(tmp_path)


def test_memory_that_runs_out_while_it_is_tried_is_said_as_such(tmp_path: Path) -> None:
    def full(model: Any, batch: Batch, smoothing: float = 0.0) -> Loss:
        if len(batch.source_BS) > 8:  # type: ignore[union-attr]
            raise MemoryError
        return sequence_to_sequence(model, batch, smoothing)

    with pytest.raises(TrainingError, match="not enough memory"):
        rehearse(tmp_path, objective=full)


def test_a_dry_run_ends_there_and_a_run_that_goes_on_is_not_looked_at_again(tmp_path: Path) -> None:
    with pytest.raises(DryRun) as done:
        rehearse(tmp_path, preflight="only")
    assert done.value.report["steps"] and not list(tmp_path.iterdir())
    report = rehearse(tmp_path)
    run(tmp_path)

    def never(*arguments: Any) -> Loss:
        raise AssertionError

    assert rehearse(tmp_path, objective=never) == report


def test_of_packed_documents_a_full_batch_is_tried(tmp_path: Path) -> None:
    documents = [[2, *row, 3] for row in ([5, 6, 7] * 5, [8, 9] * 20, [4, 5, 6, 7])] * 10
    packed = PackedFeed(documents, block=16, tokens_per_batch=64, seed=1, pad_id=0)
    sizes = {
        "hidden_size": 32,
        "num_heads": 2,
        "num_kv_heads": 2,
        "feed_forward_size": 64,
        "num_decoder_layers": 1,
    }
    model = Transformer(
        preset("tiny", 16, "decoder", {**sizes, "max_positions": 16}), torch.Generator().manual_seed(1)
    )
    report = preflight(model, OBJECTIVES["causal"], packed, lambda model: {}, options(), tmp_path)
    assert report["largest_cells"] == max(make().ids_BT.numel() for make in packed.epoch(0))  # type: ignore[union-attr]
