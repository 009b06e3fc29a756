"""`inkstone tune`: from a space to best.yaml, which `inkstone train` takes; what is wrong is said first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from made_corpus import made_labelled, made_pairs, write_pairs

pytest.importorskip("torch", reason="tuning needs torch")
pytest.importorskip("optuna", reason="searching needs optuna")

from inkstone.cli import main
from inkstone.ground.configuration import build, read_yaml
from inkstone.recipes import tune as tuning
from inkstone.recipes.translator_recipe import TranslateRecipe

SMALL = {"hidden_size": 32, "num_heads": 2, "num_kv_heads": 2, "feed_forward_size": 64}
SMALL |= {"num_encoder_layers": 1, "num_decoder_layers": 1}
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe of a translator of seconds."""
    values: dict[str, Any] = {
        "task": "translate",
        "data": [str(write_pairs(tmp_path / "pairs.tsv", made_pairs(200)))],
        "architecture": "transformer", "size": "tiny", "model": SMALL, "vocab_size": 300,
        "training": {"epochs": 1, "tokens_per_batch": 512, "warmup_steps": 2, "validate_every": 4},
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    return tmp_path / "recipe.yaml"


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    rows = [{"text": f"{text} {n}", "label": label} for n in range(8) for text, label in made_labelled()]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return tmp_path / "data.jsonl"


def space(folder: Path, text: str) -> str:
    (folder / "space.yaml").write_text(text)
    return str(folder / "space.yaml")


def document(capsys: Capture, *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*arguments, "--json"]) == 0, capsys.readouterr().err
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


@pytest.mark.slow
def test_a_translators_recipe_is_searched_and_the_best_can_be_trained(
    recipe: Path, tmp_path: Path, capsys: Capture
) -> None:
    given = space(
        tmp_path, "training.learning_rate: {low: 1e-3, high: 1e-2, log: true}\nmodel.dropout: [0.0, 0.1]"
    )
    command = ["tune", str(recipe), "--space", given, "--out", str(tmp_path / "search")]
    found = document(capsys, *command, "--trials", "2")
    assert (found["task"], found["metric"], len(found["trials"])) == ("translate", "accuracy", 2)
    assert found["best"]["value"] == max(one["value"] for one in found["trials"])
    assert not list((tmp_path / "search").rglob("checkpoints")), "what trials no longer need is gone"
    values = read_yaml(found["recipe"])
    assert values.pop("task") == "translate"
    best = build(TranslateRecipe, values, "best")
    assert best.training.learning_rate == pytest.approx(found["best"]["parameters"]["training.learning_rate"])
    assert best.model == {**SMALL, "dropout": found["best"]["parameters"]["model.dropout"]}
    again = document(capsys, *command, "--trials", "3")
    assert again["trials"][:2] == found["trials"] and len(again["trials"]) == 3
    assert main([*command, "--trials", "3"]) == 0
    printed = capsys.readouterr().out
    assert "best" in printed and "The best recipe is in" in printed
    assert main([*command, "--seed", "2"]) == 2
    assert "a search with another seed is there: give another --out" in capsys.readouterr().err
    trained = document(
        capsys, "train", "translate", "--recipe", found["recipe"], "--out", str(tmp_path / "model")
    )
    assert trained["steps"] > 0


def test_of_classifiers_whatever_the_architecture(texts: Path, tmp_path: Path, capsys: Capture) -> None:
    given = space(
        tmp_path, "options.architecture: [bag, cnn]\noptions.cnn.training.epochs: {low: 1, high: 2}"
    )
    command = ["tune", "classify", "--data", str(texts), "--space", given, "--out", str(tmp_path / "search")]
    found = document(capsys, *command, "--trials", "4", "--set", "options.cnn.size=tiny")
    tried = {one["parameters"]["options.architecture"]: one for one in found["trials"]}
    assert found["metric"] == "measure" and set(tried) == {"bag", "cnn"}
    assert tried["bag"]["validations"] == 0 < tried["cnn"]["validations"]
    assert all(0 <= one["value"] <= 1 for one in found["trials"])


def test_a_trial_begins_from_what_training_would(tmp_path: Path) -> None:
    """An adapter learns at a higher rate than all weights, in a trial as in `train chat --recipe best.yaml`."""
    for task, rates in (("chat", (2e-4, 1e-3)), ("translate", (5e-4, 2e-3))):
        whole, adapter = (
            tuning.TASKS[task]().under({"base": "x", "data": ["y"], **more})["training"]["learning_rate"]
            for more in ({}, {"lora": {"rank": 4}})
        )
        assert (whole, adapter) == rates
    given = {"base": "x", "training": {"learning_rate": 0.5}}
    assert tuning.TASKS["chat"]().under(given)["training"]["learning_rate"] == 0.5
    assert "training" not in tuning.TASKS["translate"]().under({"data": ["y"]})


def test_of_sentence_encoders(tmp_path: Path, capsys: Capture) -> None:
    data = str(write_pairs(tmp_path / "pairs.tsv", made_pairs(200)))
    given = space(tmp_path, "objective.temperature: [0.05, 0.2]\nvocab_size: [300, 400]")
    command = ["tune", "embed", "--data", data, "--space", given, "--out", str(tmp_path / "search")]
    sizes = ["--set", "size=bag", "--set", "model.hidden_size=32", "--set", "pairs_per_batch=64"]
    found = document(capsys, *command, *sizes, "--set", "training.epochs=2", "--trials", "2")
    assert (found["task"], found["metric"], len(found["trials"])) == ("embed", "mrr", 2)
    assert all(0 < one["value"] <= 1 for one in found["trials"])
    assert not list((tmp_path / "search").rglob("model")), "nothing is exported"


def test_a_killed_search_goes_on_with_the_trial_that_was_under_way(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Path(space(tmp_path, "training.learning_rate: {low: 0.001, high: 0.01}"))
    values = {"name": "made", **read_yaml(recipe)}
    del values["task"]
    whole = tuning.tune("translate", values, file, tmp_path / "whole", trials=2)
    judge = tuning.Judge.validated
    calls = iter(range(5))

    def dying(self: Any, measures: Any, value: float) -> None:
        judge(self, measures, value)
        if next(calls) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(tuning.Judge, "validated", dying)
    with pytest.raises(KeyboardInterrupt):
        tuning.tune("translate", values, file, tmp_path / "cut", trials=2)
    monkeypatch.setattr(tuning.Judge, "validated", judge)
    cut = tuning.tune("translate", values, file, tmp_path / "cut", trials=2)
    assert [(one.value, one.parameters) for one in cut.trials] == [
        (one.value, one.parameters) for one in whole.trials
    ]


def test_a_learning_rate_is_found_and_nothing_is_left(recipe: Path, texts: Path, capsys: Capture) -> None:
    before = sorted(recipe.parent.rglob("*"))
    found = document(capsys, "tune", str(recipe), "--find-rate")
    assert found["suggestion"] < found["lowest"] and len(found["curve"]) > 10
    assert set(found["curve"][0]) == {"rate", "loss"}
    assert sorted(recipe.parent.rglob("*")) == before
    settings = ["--set", "options.architecture=cnn", "--set", "options.cnn.size=tiny"]
    assert main(["tune", "classify", "--data", str(texts), "--find-rate", *settings]) == 0
    assert "Suggested: training.learning_rate=" in capsys.readouterr().out
    assert (
        main(["tune", "classify", "--data", str(texts), "--find-rate", "--set", "options.architecture=bag"])
        == 2
    )
    assert "has no learning rate to find" in capsys.readouterr().err


class TestWhatIsWrong:
    def test_every_problem_of_a_space_at_once(self, recipe: Path, tmp_path: Path, capsys: Capture) -> None:
        given = space(
            tmp_path,
            """
            training.lerning_rate: [0.1, 0.2]
            training.smoothing: {low: 0.0, high: 1.5}
            training.warmup_steps: {low: 5, high: 2}
            model.dropout: [0.1, 3.0]
            model.num_heads: [2, 3]
            vocab_size: [100, 200]
            training.metric: [loss, accuracy]
            """,
        )
        out = tmp_path / "search"
        assert main(["tune", str(recipe), "--space", given, "--out", str(out)]) == 2
        said = capsys.readouterr().err
        for part in (
            '"training.lerning_rate" is not known', 'Did you mean "training.learning_rate"', "smoothing=1.5",
            "training.warmup_steps: low=5 must be below high=2", "dropout=3.0", "num_heads",
            "vocab_size: it decides what is measured", "training.metric: it decides what is measured", "7 problems",
        ):  # fmt: skip
            assert part in said, said
        assert not out.exists()

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (
                ["sing", "--find-rate"],
                'recipe="sing" is not known. Valid: chat, classify, embed, pretrain, summarize, translate',
            ),
            (
                ["missing.yaml", "--find-rate"],
                "is neither a task (translate, summarize, classify, pretrain, embed, chat) nor",
            ),
            (["translate", "--find-rate"], "there is nothing to train on"),
            (["translate", "--data", "pairs.tsv"], "Give --space FILE and --out FOLDER"),
        ],
    )
    def test_commands(self, arguments: list[str], said: str, capsys: Capture) -> None:
        assert main(["tune", *arguments]) == 2
        assert said in capsys.readouterr().err

    def test_a_folder_with_something_else_in_it(self, recipe: Path, tmp_path: Path, capsys: Capture) -> None:
        given = space(tmp_path, "model.dropout: [0.1, 0.2]")
        assert main(["tune", str(recipe), "--space", given, "--out", str(tmp_path)]) == 2
        assert "holds no search" in capsys.readouterr().err
        (tmp_path / "empty.yaml").write_text("{}")
        command = [
            "tune",
            str(recipe),
            "--space",
            str(tmp_path / "empty.yaml"),
            "--out",
            str(tmp_path / "new"),
        ]
        assert main(command) == 2
        assert "names nothing to search through" in capsys.readouterr().err

    def test_a_recipe_of_another_task(self, recipe: Path, tmp_path: Path, capsys: Capture) -> None:
        said = f"{recipe} says that it is a recipe of task translate, and this command is for summarize"
        assert main(["tune", "summarize", "--recipe", str(recipe), "--find-rate"]) == 2
        assert said in capsys.readouterr().err
        assert main(["train", "summarize", "--recipe", str(recipe), "--out", str(tmp_path / "out")]) == 2
        assert said in capsys.readouterr().err

    def test_a_recipe_that_could_be_of_several_tasks(self, tmp_path: Path, capsys: Capture) -> None:
        (tmp_path / "any.yaml").write_text("data: [a.jsonl]")
        assert main(["tune", str(tmp_path / "any.yaml"), "--find-rate"]) == 2
        assert (
            "can be a recipe of translate, summarize, classify, pretrain, embed. Name the task"
            in capsys.readouterr().err
        )
