"""The plan for large models counts what the code does: parameters, and what the forward pass keeps."""

from __future__ import annotations

import re
import runpy
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from inkstone.learn import layout  # noqa: E402
from inkstone.model.config import preset  # noqa: E402
from inkstone.model.transformer import Transformer  # noqa: E402

ROOT = Path(__file__).parent.parent.parent
CONFIG = preset("tiny", 300, "decoder", {"dropout": 0.0})


@pytest.mark.parametrize("recompute", [False, True])
def test_activations_without_memory_are_those_of_a_real_pass(recompute: bool) -> None:
    real = layout.saved_bytes(Transformer(CONFIG), torch.zeros(3, 40, dtype=torch.long), recompute=recompute)
    planned = layout.activations(CONFIG, 3, 40, recompute=recompute)
    if recompute:  # and the layer that is computed once more
        assert real < planned < layout.activations(CONFIG, 3, 40)
    else:
        assert planned == pytest.approx(real, rel=0.005)


def test_shards_add_up_and_only_they_shrink() -> None:
    count = layout.parameters(Transformer(CONFIG))
    one, eight = (layout.layout(CONFIG, gpus, rows=2, length=32) for gpus in (1, 8))
    assert one.weights + one.gradients + one.moments == 16 * count
    assert 8 * eight.moments == one.moments and eight.activations == one.activations
    assert one.gathered == one.traffic_s == 0 < eight.gathered
    assert eight.tokens_per_second <= 8 * one.tokens_per_second


def test_operations_are_those_that_torch_counts() -> None:
    """By its own counter, over forward and backward pass of states and scores; it knows matrix products alone."""
    from torch.utils.flop_counter import FlopCounterMode

    for tied in (True, False):
        config = replace(CONFIG, tie_embeddings=tied)
        model = Transformer(config)
        with FlopCounterMode(display=False) as counter:
            model(torch.zeros(2, 64, dtype=torch.long)).sum().backward()
        planned = 2 * 64 * layout.flops_per_token(config, layout.parameters(model), 64)
        assert planned == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_the_documentation_shows_what_the_command_prints() -> None:
    """Activations change with every change of attention; what is counted on the model does not."""
    text = (ROOT / "docs" / "scaling.md").read_text("utf-8")
    benchmark = runpy.run_path(str(ROOT / "benchmarks" / "scaling.py"))
    assert benchmark["assumed"]() in text
    for name, config in benchmark["MODELS"].items():
        count = layout.parameters(layout.without_memory(config))
        assert f"**{name}**: {count / 1e9:.2f} billion parameters" in text
        for gpus in benchmark["GPUS"][name]:
            sizes = [4 * count / gpus, 4 * count / gpus, 8 * count / gpus]
            row = " | ".join(f"{size / layout.GIB:.1f}" for size in sizes)
            assert len(re.findall(rf"^\| {gpus} \| {re.escape(row)} \|", text, re.MULTILINE)) == 2
