"""Activation checkpointing: every block runs twice, and the weights are the very same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

import reversing  # noqa: E402

from inkstone.ground.errors import ConfigError  # noqa: E402
from inkstone.learn.recompute import recomputed  # noqa: E402
from inkstone.model.recurrent import Recurrent  # noqa: E402
from inkstone.model.recurrent_config import preset  # noqa: E402
from inkstone.model.transformer import FeedForward  # noqa: E402


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_checkpointed_equals_plain(tmp_path: Path, precision: Any) -> None:
    """With dropout: the second forward pass draws what the first one drew."""
    plain = reversing.run(tmp_path / "plain", epochs=1, precision=precision)[1]
    again = reversing.run(tmp_path / "again", epochs=1, precision=precision, checkpoint_activations=True)[1]
    assert again == plain


def test_blocks_run_twice_and_only_while_training(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0
    forward = FeedForward.forward

    def counted(self: FeedForward, x_BTD: Any) -> Any:
        nonlocal calls
        calls += 1
        return forward(self, x_BTD)

    monkeypatch.setattr(FeedForward, "forward", counted)
    model = reversing.small_model()
    batch = reversing.collate(reversing.examples(8))
    with recomputed(model, True):
        reversing.sequence_to_sequence(model, batch).mean.backward()
        assert calls == 4, "two blocks, twice"
        with torch.no_grad():
            reversing.sequence_to_sequence(model, batch)
        assert calls == 6, "two blocks, once"
    reversing.sequence_to_sequence(model, batch).mean.backward()
    assert calls == 8, "all is as before"


def test_less_is_kept() -> None:
    batch = reversing.collate(reversing.examples(64))

    def kept(wanted: bool) -> int:
        """Numbers that the forward pass saves for the backward pass."""
        model, found = reversing.small_model(), {}

        def note(tensor: Any) -> Any:
            found[tensor.untyped_storage().data_ptr()] = tensor.numel()
            return tensor

        with recomputed(model, wanted), torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            mean = reversing.sequence_to_sequence(model, batch).mean
        assert mean.requires_grad
        return sum(found.values())

    assert kept(True) < kept(False) / 2


def test_a_model_without_layers_is_refused() -> None:
    model = Recurrent(preset("tiny", 30, "encoder-decoder", {}))
    with (
        pytest.raises(ConfigError, match="checkpoint_activations needs the layers of a Transformer"),
        recomputed(model, True),
    ):
        pass
