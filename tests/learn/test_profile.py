"""`training.profile`: a trace that a viewer reads, a table that adds up, work that is counted right, the same weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from reversing import run  # noqa: E402

from inkstone.learn.data.documents import causal_batch  # noqa: E402
from inkstone.learn.objectives import OBJECTIVES  # noqa: E402
from inkstone.learn.profile import KINDS, TRACED, WARM, ceiling, spent  # noqa: E402
from inkstone.model.config import preset  # noqa: E402
from inkstone.model.transformer import Transformer  # noqa: E402


def test_it_traces_some_steps_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inkstone.learn.profile.CEILING_S", 0.02)
    _, without = run(tmp_path / "without", tokens_per_batch=150)
    _, traced = run(tmp_path / "traced", tokens_per_batch=150, profile=True)
    assert traced == without
    events = json.loads((tmp_path / "traced" / "profile.trace.json").read_text())["traceEvents"]
    named = [event["name"] for event in events if event.get("ph") == "X"]
    assert named.count("Optimizer.step#AdamW.step") == TRACED
    assert named.count("inkstone: batch building") in (TRACED, TRACED + 1)
    table = json.loads((tmp_path / "traced" / "profile.json").read_text())
    assert list(table["seconds_by_kind"]) == list(KINDS)
    assert sum(table["seconds_by_kind"].values()) == pytest.approx(table["seconds"], rel=1e-6)
    for kind in ("matrix products", "attention", "dropout", "loss", "optimiser", "batch building"):
        assert table["seconds_by_kind"][kind] > 0, kind
    assert 0 < table["share_of_ceiling"] < 1
    said = capsys.readouterr().err
    assert "of the ceiling in float32" in said and "matrix products" in said


def test_a_run_that_is_over_too_soon_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, epochs=0.1, profile=True)
    assert f"the first {WARM} warm up; nothing was traced" in capsys.readouterr().err
    assert not (tmp_path / "profile.trace.json").exists()


def test_the_work_of_a_decoder_is_six_times_its_matrices_and_attention() -> None:
    width, length, layers, rows, words = 64, 32, 2, 4, 96
    sizes = {
        "hidden_size": width,
        "num_heads": 2,
        "num_kv_heads": 2,
        "feed_forward_size": 128,
        "dropout": 0.0,
    }
    overlay = {**sizes, "num_decoder_layers": layers, "max_positions": length}
    model = Transformer(preset("tiny", words, "decoder", overlay), torch.Generator().manual_seed(1))
    ids = torch.randint(4, words, (rows, length + 1), generator=torch.Generator().manual_seed(1))
    batch = causal_batch([[row] for row in ids.tolist()], 0)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], with_flops=True) as trace:
        OBJECTIVES["causal"](model, batch).mean.backward()
    _, flops = spent(trace.events(), 1.0, cuda=False)
    matrices = sum(p.numel() for n, p in model.named_parameters() if p.dim() == 2 and "embedding" not in n)
    assert model.config.tied_embeddings if hasattr(model.config, "tied_embeddings") else True
    per_token = 6 * (matrices + words * width) + 12 * layers * width * length
    assert flops / (rows * length) == pytest.approx(per_token, rel=0.02)


def test_a_ceiling_is_above_what_a_small_product_reaches() -> None:
    left = torch.ones(8, 8)
    import time

    started = time.perf_counter()
    for _ in range(100):
        left @ left
    reached = 100 * 2 * 8**3 / (time.perf_counter() - started)
    assert ceiling(torch.device("cpu"), torch.float32) > reached
