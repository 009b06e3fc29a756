"""A loss or a gradient that is not finite: the run stops before the step, and the batch is there to look at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

import reversing  # noqa: E402
from reversing import run, sha256_of, small_model  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from inkstone.cli import main  # noqa: E402
from inkstone.ground.errors import ConfigError, TrainingError  # noqa: E402
from inkstone.ground.manifest import problems  # noqa: E402
from inkstone.learn.data.batches import Plan, chunks  # noqa: E402
from inkstone.learn.divergence import read_batch  # noqa: E402
from inkstone.learn.objectives import sequence_to_sequence  # noqa: E402
from inkstone.learn.objectives.loss import Loss  # noqa: E402
from inkstone.learn.state import Checkpoints  # noqa: E402
from inkstone.recipes.run import is_begun  # noqa: E402
from inkstone.text.tokenizer import Tokenizer  # noqa: E402

EXAMPLES = reversing.examples()
PER_EPOCH = Plan(EXAMPLES, tokens_per_batch=300, seed=1).epoch(0)
SECOND = Plan(EXAMPLES, tokens_per_batch=300, seed=1).epoch(1)


class _Worse(torch.autograd.Function):
    """The loss as it is, with a gradient that is infinite."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0] * float("inf")


def diverging(wanted: torch.Tensor, what: str = "loss") -> Any:
    """An objective whose loss is nan (or its gradient infinite) on the batch that asks for this."""

    def objective(model: Any, batch: Any, smoothing: float = 0.0) -> Loss:
        loss = sequence_to_sequence(model, batch, smoothing)
        if not torch.equal(batch.wanted_N, wanted):
            return loss
        mean = loss.mean * float("nan") if what == "loss" else _Worse.apply(loss.mean)
        return Loss(mean, loss.count, loss.correct)

    return objective


def batch_of(numbers: Any) -> Any:
    return reversing.collate(chunks(EXAMPLES, numbers))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("what", "said"), [("loss", "loss became nan"), ("gradient", "norm of the gradient")]
)
def test_the_batch_is_saved_whole_and_met_again(tmp_path: Path, what: str, said: str, workers: int) -> None:
    expected = batch_of(SECOND[2])
    step = len(PER_EPOCH) + 3
    objective = diverging(expected.wanted_N, what)
    place = tmp_path / f"not-finite-{step:08d}"
    with pytest.raises(TrainingError, match=rf"{said}.* at step {step}\. Lower the learning rate") as error:
        run(tmp_path, objective=objective, save_every_s=0, workers=workers)
    assert f"inkstone train look {place}" in str(error.value) and str(place / "batch.json") in str(
        error.value
    )
    assert problems(place) == []
    stored = load_file(place / "batch.safetensors")
    assert stored.keys() == {"source_BS", "target_BT", "counted_N", "wanted_N"}
    assert all(torch.equal(tensor, getattr(expected, name)) for name, tensor in stored.items())
    record = json.loads((place / "batch.json").read_text())
    assert (record["step"], record["epoch"], record["index"]) == (step, 1, 2)
    assert (
        record["tokens"] == expected.tokens and record["texts"][0]["source_BS"] == expected.source_BS.tolist()
    )
    assert {file.suffix for file in place.iterdir()} == {".json", ".safetensors"}

    last = Checkpoints(tmp_path).newest("last")
    assert last is not None and last.name == f"last-{step - 1:08d}"
    model = small_model()
    Checkpoints(tmp_path).load(last, model)
    before = sha256_of(model)
    content = (place / "batch.json").read_bytes()
    with pytest.raises(
        TrainingError, match=f"{said}.* at step {step}"
    ):  # resumed, it comes to the same batch
        run(tmp_path, objective=objective, save_every_s=0, model=small_model(seed=8))
    assert (place / "batch.json").read_bytes() == content
    Checkpoints(tmp_path).load(last, model)
    assert sha256_of(model) == before and all(p.isfinite().all() for p in model.parameters())


def test_a_run_that_diverged_at_once_is_kept(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="at step 1"):
        run(tmp_path, objective=diverging(batch_of(PER_EPOCH[0]).wanted_N))
    assert is_begun(tmp_path)


class TestLooking:
    def saved(self, run_folder: Path) -> Path:
        with pytest.raises(TrainingError):
            run(run_folder, objective=diverging(batch_of(PER_EPOCH[0]).wanted_N))
        return run_folder / "not-finite-00000001"

    def test_at_the_ids(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        place = self.saved(tmp_path)
        capsys.readouterr()
        assert main(["train", "look", str(place), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["what"], found["value"], found["epoch"], found["index"]) == ("loss", "nan", 0, 0)
        first = batch_of(PER_EPOCH[0]).source_BS[0].tolist()
        assert found["rows"][0]["source_BS"] == " ".join(map(str, first))

    def test_at_the_words_where_the_tokenizer_is(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        tokenizer = Tokenizer.train(["a b c d e f g h i j"], kind="bpe", vocab_size=270)
        tokenizer.save(tmp_path / "tokenizer.json")
        place = self.saved(tmp_path)
        row = batch_of(PER_EPOCH[0]).target_BT[0].tolist()
        while row[-1] == tokenizer.pad_id:
            row.pop()
        assert read_batch(place)["rows"][0]["target_BT"] == tokenizer.decode(row, keep_specials=True)
        capsys.readouterr()
        assert main(["train", "look", str(place / "batch.json")]) == 0
        assert "loss nan at step 1: batch 0 of epoch 0" in capsys.readouterr().out

    def test_at_what_is_no_batch(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"holds no saved batch.*Give RUN/not-finite-STEP"):
            read_batch(tmp_path / "nothing")
        place = self.saved(tmp_path)
        (place / "batch.json").write_text("{}")
        with pytest.raises(ConfigError, match=r"batch\.json has 2 bytes"):
            read_batch(place)
