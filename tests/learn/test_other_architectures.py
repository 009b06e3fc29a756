"""The loop and its exactness hold for recurrent and convolutional models as for the Transformer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from reversing import run  # noqa: E402

from inkstone.model import convolutional_config, recurrent_config  # noqa: E402
from inkstone.model.checkpoint import build_model  # noqa: E402

SIZES: dict[str, Any] = {"embedding_size": 16, "hidden_size": 32, "num_decoder_layers": 1, "dropout": 0.2}
KINDS: dict[str, Any] = {
    "lstm-luong": lambda: recurrent_config.preset("tiny", 12, "encoder-decoder", SIZES),
    "gru-bahdanau": lambda: recurrent_config.preset(
        "tiny", 12, "encoder-decoder", {**SIZES, "cell": "gru", "attention": "bahdanau"}
    ),
    "cnn": lambda: convolutional_config.preset("tiny", 12, SIZES),
}


def made(kind: str, seed: int = 1) -> Any:
    return build_model(KINDS[kind](), torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_that_died_ends_with_the_same_weights(tmp_path: Path, kind: str, precision: str) -> None:
    from reversing import collate

    calls = 0

    def dying(rows: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 6:
            raise RuntimeError("the power went")
        return collate(rows)

    whole = run(tmp_path / "whole", model=made(kind), epochs=1, precision=precision)[1]
    with pytest.raises(RuntimeError, match="the power went"):
        run(tmp_path / "cut", model=made(kind), epochs=1, precision=precision, collate=dying, save_every_s=0)
    torch.manual_seed(99)  # nothing of the process before may matter
    assert run(tmp_path / "cut", model=made(kind, 8), epochs=1, precision=precision)[1] == whole


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_to_say_rows_backwards(tmp_path: Path, kind: str) -> None:
    values = {name: value for name, value in KINDS[kind]().to_dict().items() if name != "model_type"}
    config = type(KINDS[kind]())(**{**values, "dropout": 0.0})
    model = build_model(config, torch.Generator().manual_seed(1))
    outcome, _ = run(tmp_path, model=model, epochs=14, learning_rate=1e-2, validate_every=20)
    assert max(point["valid_accuracy"] for point in outcome.curve) > 0.75  # a sixth by chance
