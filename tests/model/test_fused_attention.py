"""The fused kernel, which long rows on a GPU go through, gives what the written-out products give; here on a CPU."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="models need torch")

from inkstone.model import attention  # noqa: E402
from inkstone.model.attention import fused_on, fuses  # noqa: E402
from inkstone.model.config import preset  # noqa: E402
from inkstone.model.transformer import Transformer  # noqa: E402

AXES: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped, window": {"num_kv_heads": 2, "window": 5},
    "relative": {"positions": "relative"},
    "unscaled": {"scale_scores": False},
}


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("packed", [False, True])
def test_fused_equals_written_out(axes: str, packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """States and gradients, of padded and of packed rows."""
    monkeypatch.setattr(attention, "FUSED_FROM", 8)
    config = preset("tiny", 40, "decoder", {"dropout": 0.0, "num_decoder_layers": 2, **AXES[axes]})
    model = Transformer(config, torch.Generator().manual_seed(1))
    ids_BT = torch.randint(4, 40, (3, 12), generator=torch.Generator().manual_seed(2))
    segments_BT = torch.tensor([[1] * 5 + [2] * 7] * 3) if packed else None
    slopes_BTD = torch.randn(3, 12, config.hidden_size, generator=torch.Generator().manual_seed(3))
    found = []
    for device in ("cuda", "cpu"):  # "cuda": not here, so written out
        model.zero_grad()
        with fused_on(device):
            states_BTD = model.decode(ids_BT, segments_BT=segments_BT)
        (states_BTD * slopes_BTD).sum().backward()
        found.append(
            [states_BTD.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]
        )
    for written, fused in zip(*found, strict=True):
        torch.testing.assert_close(fused, written, rtol=1e-4, atol=1e-4 * float(written.abs().max()))


def test_only_long_rows_on_a_gpu() -> None:
    short, long = torch.zeros(1, 1, 1, 4), torch.zeros(1, 1, attention.FUSED_FROM, 4)
    assert not fuses(long, long) and not fuses(short, short)
    with fused_on("cpu"):
        assert fuses(long, long) and not fuses(short, short)
