"""A search finds what is best, stops what is poor, and goes on where it was killed; the rate finder changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="tuning needs torch")
pytest.importorskip("optuna", reason="searching needs optuna")

import reversing  # noqa: E402

from inkstone.ground.errors import ConfigError, TrainingError  # noqa: E402
from inkstone.learn.data.batches import Plan, Planned  # noqa: E402
from inkstone.learn.listening import Listener, listening  # noqa: E402
from inkstone.learn.loop import TrainingOptions  # noqa: E402
from inkstone.learn.objectives import sequence_to_sequence  # noqa: E402
from inkstone.learn.rate_curve import RateCurve, find_rate  # noqa: E402
from inkstone.learn.space import Choices, Range, Space, nested, read_space  # noqa: E402
from inkstone.learn.tune import Judge, Parameters, best_of, search  # noqa: E402

SPACE: Space = {"x": Range(-4.0, 4.0), "kind": Choices(("near", "far"))}


def hill(parameters: Parameters, judge: Judge) -> float:
    """A run of five validations that ends at -(x - 1)^2, and far below that for what is far."""
    x: Any = parameters["x"]
    height = -((x - 1) ** 2) - (10 if parameters["kind"] == "far" else 0)
    for validation in range(1, 6):
        judge.validated({}, height - (5 - validation))
    judge.ended(height)
    return height


def searched(folder: Path, run: Any = hill, trials: int = 20, **options: Any) -> list[Any]:
    return search(SPACE, folder, run, trials=trials, only_trained=False, **{"seed": 1, **options})


def tried(found: list[Any]) -> list[Any]:
    return [(one.state, one.value, one.parameters, one.validations) for one in found]


def test_it_finds_the_top_and_stops_what_is_poor(tmp_path: Path) -> None:
    found = searched(tmp_path, trials=25)
    best = best_of(found)
    assert best.parameters["kind"] == "near" and abs(best.parameters["x"] - 1) < 0.7
    assert [one.number for one in found] == list(range(1, 26))
    stopped = [one for one in found if one.state == "pruned"]
    assert stopped and all(one.validations < 5 and one.value <= best.value for one in stopped)
    assert len({one.parameters["x"] for one in found[:4]}) == 4, "and it does not try the same four times"


def test_killed_it_goes_on_and_comes_to_the_same_trials(tmp_path: Path) -> None:
    whole = tried(searched(tmp_path / "whole", trials=12))
    count = 0

    def dying(parameters: Parameters, judge: Judge) -> float:
        nonlocal count
        count += 1
        if count in (3, 9):
            raise KeyboardInterrupt
        return hill(parameters, judge)

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            searched(tmp_path / "cut", dying, trials=12)
    assert tried(searched(tmp_path / "cut", dying, trials=12)) == whole
    assert tried(searched(tmp_path / "cut", None, trials=12)) == whole, "and a finished search is finished"
    assert tried(searched(tmp_path / "other", trials=12, seed=2)) != whole


def test_what_was_tried_is_not_trained_again(tmp_path: Path) -> None:
    trained: list[Parameters] = []

    def run(parameters: Parameters, judge: Judge) -> float:
        trained.append(parameters)
        return 1.0 if parameters["kind"] == "far" else 0.0

    found = search({"kind": SPACE["kind"]}, tmp_path, run, trials=8, seed=1, only_trained=False)
    assert len(trained) == 2 and len(found) == 8 and best_of(found).parameters == {"kind": "far"}


def test_what_cannot_be_trained_is_told_and_passed_over(tmp_path: Path) -> None:
    def run(parameters: Parameters, judge: Judge) -> float:
        if parameters["kind"] == "far":
            raise TrainingError("the loss became nan")
        return hill(parameters, judge)

    found = searched(tmp_path / "some", run, trials=8)
    failed = [one for one in found if one.state == "failed"]
    assert failed and all(one.problem == "the loss became nan" and one.value is None for one in failed)
    assert best_of(found).parameters["kind"] == "near"

    def never(parameters: Parameters, judge: Judge) -> float:
        raise ConfigError("heads do not divide the width")

    with pytest.raises(
        TrainingError, match="not one of 2 trials could be trained; the first: heads do not divide"
    ):
        searched(tmp_path / "none", never, trials=2)


def test_a_file_that_is_no_study_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_text("not a database, but long enough to be taken for one" * 100)
    with pytest.raises(ConfigError, match=r"study.db cannot be opened as a study"):
        searched(tmp_path)


class TestSpace:
    def test_what_can_be_written(self) -> None:
        values = {
            "training.learning_rate": {
                "low": "1e-4",
                "high": 1e-2,
                "log": True,
            },  # YAML reads 1e-4 as a string
            "training.warmup_steps": {"low": 10, "high": 100, "step": 10},
            "model.dropout": [0.1, "2e-1", None],
            "training.optimizer": ["adamw", "muon"],
        }
        space, problems = read_space(values, "space.yaml")
        assert not problems
        assert space == {
            "training.learning_rate": Range(1e-4, 1e-2, log=True),
            "training.warmup_steps": Range(10, 100, step=10),
            "model.dropout": Choices((0.1, 0.2, None)),
            "training.optimizer": Choices(("adamw", "muon")),
        }
        assert nested("a.b.c", 3) == {"a": {"b": {"c": 3}}}

    def test_every_problem_is_named(self) -> None:
        values = {
            "a": {"low": 2, "high": 1},
            "b": {"low": 0, "high": 1, "log": True},
            "c": {"lwo": 0, "high": "much"},
            "d": [1],
            "e": [[1], [2]],
            "f": 3,
            "g": {"low": 1, "high": 5, "step": 0},
            "h": [1, 1],
            4: [1, 2],
        }
        space, problems = read_space(values, "space.yaml")
        assert not space
        said = "\n".join(problems)
        for part in (
            "a: low=2 must be below high=1", "b: low=0 must be above 0 for log", 'c: entry of a range="lwo" is not known',
            "c: low is missing", "c: high='much' is not a number", "d: [1] leaves no choice", "e: [1] is no single value",
            "f=3 is one value", "g: step=0 must be above 0", "h: [1, 1] names a value twice", "4 is not the name",
        ):  # fmt: skip
            assert part in said
        assert read_space({}, "space.yaml")[1] == ["space.yaml names nothing to search through"]


class TestRateFinder:
    def found(self, model: Any, **overlay: Any) -> RateCurve:
        data = reversing.examples(400)
        feed = Planned(Plan(data, tokens_per_batch=300, seed=1), data, reversing.collate)
        options = TrainingOptions(**{**reversing.OPTIONS, "smoothing": 0.0})
        return find_rate(model, sequence_to_sequence, feed, options, **{"high": 10.0, "steps": 60, **overlay})

    def test_the_curve_falls_and_rises_and_the_suggestion_lies_where_it_falls(self) -> None:
        curve = self.found(reversing.small_model(dropout=0.0))
        lowest = min(curve.losses)
        assert list(curve.rates) == sorted(curve.rates)
        assert curve.losses[0] > 1.05 * lowest < curve.losses[-1]
        assert 1e-4 < curve.suggestion < curve.lowest
        assert curve.suggestion == pytest.approx(curve.lowest / 10, rel=0.5)

    def test_nothing_is_changed(self) -> None:
        model = reversing.small_model().eval()
        before = reversing.sha256_of(model)
        torch.manual_seed(5)
        wanted = torch.rand(3)
        torch.manual_seed(5)
        self.found(model)
        assert torch.equal(torch.rand(3), wanted)
        assert reversing.sha256_of(model) == before and not model.training
        assert all(parameter.grad is None for parameter in model.parameters())

    def test_rates_that_do_not_rise_are_refused(self) -> None:
        with pytest.raises(ConfigError, match="rates rise from"):
            self.found(reversing.small_model(), low=1.0, high=0.1)


def test_the_loop_tells_who_listens(tmp_path: Path) -> None:
    heard: list[Any] = []

    class Noting(Listener):
        def begins(self, model: Any, objective: Any, feed: Any, options: Any) -> None:
            heard.append("begins")
            assert not (tmp_path / "checkpoints").exists()

        def validated(self, measures: dict[str, float], value: float) -> None:
            heard.append(value)
            assert value == -measures["loss"]

        def ended(self, value: float) -> None:
            heard.append(("ended", value))

    with listening(Noting()):
        outcome, _ = reversing.run(tmp_path, metric="loss", epochs=1, validate_every=3)
    values = [-point["valid_loss"] for point in outcome.curve]
    assert heard == ["begins", *values, ("ended", max(values))]
    reversing.run(tmp_path / "unheard", epochs=0.2)
    assert len(heard) == len(values) + 2
