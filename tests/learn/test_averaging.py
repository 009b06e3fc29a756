"""Averages of weights: what they are means of, who sees them, and that a killed run ends with the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

import reversing  # noqa: E402
from reversing import run, sha256_of, small_model  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from inkstone.ground.errors import ConfigError, TrainingError  # noqa: E402
from inkstone.learn.averaging import Averages, mean_of  # noqa: E402
from inkstone.learn.loop import TrainingOptions  # noqa: E402


def failing(at: int) -> Callable[[Any], Any]:
    calls = iter(range(at))

    def collate(rows: Any) -> Any:
        if next(calls, None) is None:
            raise ZeroDivisionError
        return reversing.collate(rows)

    return collate


def test_the_moving_average_is_the_sum_written_out() -> None:
    layer = torch.nn.Linear(2, 1, bias=False)
    averages = Averages(layer, 0.5)
    wanted = layer.weight.detach().clone()
    for step in range(1, 12):
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([[step, -step * step]]))
        averages.update(step)
        decay = min(0.5, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * layer.weight.detach()
    torch.testing.assert_close(averages.tensors["weight"], wanted)
    own = layer.weight.detach().clone()
    with averages.shown():
        torch.testing.assert_close(layer.weight.detach(), wanted)
    assert torch.equal(layer.weight, own)


def test_what_is_validated_and_kept_is_the_average_and_training_goes_on_without_it(tmp_path: Path) -> None:
    seen: list[str] = []

    def noted(model: torch.nn.Module) -> dict[str, float]:
        seen.append(sha256_of(model))
        return {"accuracy": float(len(seen))}

    plain_seen: list[str] = []

    def plainly(model: torch.nn.Module) -> dict[str, float]:
        plain_seen.append(sha256_of(model))
        return {"accuracy": float(len(plain_seen))}

    _, digest = run(tmp_path / "ema", validate=noted, ema=0.9)
    _, plain = run(tmp_path / "plain", validate=plainly)
    assert digest == seen[-1] != plain_seen[-1] == plain
    (last,), (plain_last,) = ((tmp_path / one / "checkpoints").glob("last-*") for one in ("ema", "plain"))
    files = [load_file(one / "model.safetensors") for one in (last, plain_last)]
    assert all(torch.equal(files[0][name], files[1][name]) for name in files[1]), (
        "the steps are the very same"
    )
    best = load_file(next((tmp_path / "ema" / "checkpoints").glob("best-*")) / "model.safetensors")
    averages = load_file(last / "averages.safetensors")
    assert all(torch.equal(best[name], averages[name]) for name in averages)


@pytest.mark.parametrize("options", [{"ema": 0.9}, {"average_last": 3}, {"ema": 0.9, "average_last": 2}])
@pytest.mark.parametrize("at", [9])
def test_a_killed_run_ends_with_the_same_weights(tmp_path: Path, options: dict[str, Any], at: int) -> None:
    options = {**options, "validate_every": 2}
    whole = run(tmp_path / "whole", **options)[1]
    with pytest.raises(ZeroDivisionError):
        run(tmp_path / "cut", collate=failing(at), save_every_s=0, **options)
    with pytest.raises(ZeroDivisionError):
        run(
            tmp_path / "cut", collate=failing(5), model=small_model(seed=8), **options
        )  # past validations, unsaved
    outcome, digest = run(tmp_path / "cut", model=small_model(seed=9), **options)
    assert digest == whole
    again, same = run(tmp_path / "cut", model=small_model(seed=9), collate=failing(0), **options)
    assert same == whole and again.curve == outcome.curve, "a finished run comes to the same"


def scripted(values: list[float], seen: list[dict[str, Any]]) -> Callable[[Any], dict[str, float]]:
    def validate(model: torch.nn.Module) -> dict[str, float]:
        seen.append({name: tensor.clone() for name, tensor in model.state_dict().items()})
        return {"accuracy": values[min(len(seen), len(values)) - 1]}

    return validate


def test_the_mean_of_the_last_is_kept_when_it_is_better(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    model = small_model()
    values = [0.1, 0.5, 0.2, 0.3, 0.4, 0.6]  # the sixth is that of the mean
    outcome, _ = run(
        tmp_path, model=model, validate=scripted(values, seen), validate_every=3, epochs=1.5, average_last=3
    )
    validated = len(seen) - 1
    assert outcome.best_step == outcome.steps and outcome.curve[-1]["valid_accuracy"] == 0.6
    for name, tensor in model.state_dict().items():
        mean = torch.stack([one[name] for one in seen[validated - 3 : validated]]).mean(0)
        torch.testing.assert_close(tensor, mean)
    assert len(list((tmp_path / "checkpoints").glob("recent-*"))) == 3


def test_and_the_best_is_kept_when_it_is_not(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []
    model = small_model()
    values = [0.1, 0.5, 0.2, 0.3, 0.4, 0.5]
    outcome, _ = run(
        tmp_path, model=model, validate=scripted(values, seen), validate_every=3, epochs=1.5, average_last=3
    )
    assert outcome.best_step == 6 and len(seen) == 6
    assert all(torch.equal(t, seen[1][n]) for n, t in model.state_dict().items())


def test_of_weights_that_are_no_numbers_the_last_count(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        tensors = {"weight": torch.tensor([float(number)]), "count": torch.tensor([number])}
        save_file(tensors, tmp_path / str(number) / "model.safetensors")
    mean = mean_of([tmp_path / "1", tmp_path / "2"])
    assert mean["weight"].item() == 1.5 and mean["count"].item() == 2


def test_what_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)average_last=-1 must be at least 0.*ema=1 must be below 1"):
        TrainingOptions(ema=1, average_last=-1)
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, collate=failing(3), save_every_s=0)
    with pytest.raises(TrainingError, match="no averages of this model"):
        run(tmp_path, ema=0.9)
