"""`inkstone train classify` from end to end: what is written, what is counted, what goes on after it was stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_texts import chinese, english, write_jsonl

from inkstone import Classifier
from inkstone.cli import main
from inkstone.ground.errors import DataError
from inkstone.ground.manifest import problems, read_json
from inkstone.learn import loop
from inkstone.learn.bag import BagOptions, FitOptions
from inkstone.learn.classifier import ClassifierOptions
from inkstone.learn.token_classifier import TokenOptions
from inkstone.recipes.classify import ClassifyRecipe, train_classifier

QUICK = ClassifierOptions(architecture="bag", bag=BagOptions(fit=FitOptions(iterations=20)))
SMALL = ClassifierOptions(
    architecture="transformer",
    transformer=TokenOptions(
        model={"hidden_size": 16, "num_heads": 2, "feed_forward_size": 24, "num_encoder_layers": 1},
        vocab_size=300,
        max_length=24,
        training=loop.TrainingOptions(epochs=2, tokens_per_batch=512, save_every_s=0.0),
    ),
)


def recipe(data: Path, **more: Any) -> ClassifyRecipe:
    return ClassifyRecipe(**{"name": "mine", "data": (str(data),), "options": QUICK, **more})


@pytest.mark.parametrize(("texts", "language"), [(english, "en"), (chinese, "zh")])
def test_from_file_to_bundle(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    texts: Callable[[], tuple[list[str], list[str]]],
    language: str,
) -> None:
    data = write_jsonl(tmp_path / "data.jsonl", *texts())
    quick = ["--set", "options.bag.hidden_size=8", "--set", "options.bag.fit.iterations=20"]
    command = [
        "train",
        "classify",
        "--data",
        str(data),
        "--out",
        str(tmp_path / "mine"),
        "--architecture",
        "bag",
    ]
    assert main([*command, *quick, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {"bundle", "metrics", "baseline", "seconds", "tokens_per_second", "peak_memory_bytes"} <= set(
        result
    )
    assert result["metrics"]["accuracy"]["value"] > result["baseline"]["majority"]["accuracy"]["value"]
    bundle = tmp_path / "mine"
    assert problems(bundle) == []
    assert not (tmp_path / "mine.run").exists()
    assert read_json(bundle / "inkstone.json")["languages"] == [language]
    assert str(tmp_path) not in (bundle / "manifest.json").read_text("utf-8")
    card = (bundle / "README.md").read_text("utf-8")
    assert "TF-IDF and a linear classifier" in card
    assert "None are shown: the licence" in card  # nobody said that the data may be quoted
    text = texts()[0][0]
    assert main(["classify", text, "--model", str(bundle), "--json"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["results"]
    assert answer["label"] == texts()[1][0]
    assert sum(answer["scores"].values()) == pytest.approx(1, abs=1e-4)
    assert main([*command, "--json"]) == 2
    assert "already exists" in capsys.readouterr().err


def test_a_file_is_classified_text_by_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts, labels = english()
    Classifier().fit(texts, labels, options=QUICK).save(tmp_path / "mine")
    file = write_jsonl(tmp_path / "new.jsonl", texts[:3], labels[:3])
    assert main(["classify", str(file), "--model", str(tmp_path / "mine"), "--json", "--top", "1"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["model"] == "mine"
    assert [one["text"] for one in answer["results"]] == texts[:3]
    assert all(len(one["scores"]) == 1 for one in answer["results"])


def test_what_stands_in_the_test_set_is_not_learnt_from(tmp_path: Path) -> None:
    texts, labels = english()
    data = write_jsonl(tmp_path / "data.jsonl", [*texts, texts[-1].upper()], [*labels, labels[-1]])
    test = write_jsonl(tmp_path / "test.jsonl", texts[:10], labels[:10])
    train_classifier(recipe(data, test=(str(test),)), tmp_path / "mine")
    (source,) = read_json(tmp_path / "mine" / "report.json")["data"]
    assert source["cleaning"] == {"duplicate": 1, "overlap": 10}
    assert source["counts"] == {"train": len(texts) - 10, "valid": 0, "test": 10}


def test_labels_only_the_test_set_has_are_refused_or_count_as_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_jsonl(tmp_path / "data.jsonl", *english())
    test = write_jsonl(tmp_path / "test.jsonl", ["a goal", "play a jazz tune"], ["sport", "music"])
    with pytest.raises(DataError, match="sport"):
        train_classifier(recipe(data, test=(str(test),)), tmp_path / "mine")
    asked = recipe(data, test=(str(test),), unmatched_labels="accept")
    result = train_classifier(asked, tmp_path / "mine")
    assert result["metrics"]["accuracy"]["value"] == 0.5
    assert "sport" in capsys.readouterr().err
    assert "sport" not in Classifier(tmp_path / "mine").labels


def test_a_stopped_run_ends_as_if_it_had_not_been_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_jsonl(tmp_path / "data.jsonl", *english())
    train_classifier(recipe(data, options=SMALL), tmp_path / "whole")

    class Killed(BaseException):
        pass

    step, taken = loop._Keeper.step, 0

    def stumbling(self: Any, *arguments: Any) -> None:
        nonlocal taken
        taken += 1
        if taken in (2, 6):
            raise Killed
        step(self, *arguments)

    monkeypatch.setattr(loop._Keeper, "step", stumbling)
    stopped = 0
    for _ in range(5):
        try:
            train_classifier(recipe(data, options=SMALL), tmp_path / "halting")
            break
        except Killed:
            stopped += 1
            assert (tmp_path / "halting.run" / "recipe.yaml").exists()
            assert not (tmp_path / "halting").exists()
    assert stopped == 2
    whole, halting = (
        Classifier(tmp_path / name).engine.logits(english()[0]) for name in ("whole", "halting")
    )
    assert (whole == halting).all()


def test_multi_label_from_a_file(tmp_path: Path) -> None:
    texts, labels = english()
    rows = [
        {"text": t, "labels": [y, "long"] if len(t) > 25 else [y]} for t, y in zip(texts, labels, strict=True)
    ]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    result = train_classifier(recipe(tmp_path / "data.jsonl"), tmp_path / "mine")
    assert "micro_f1" in result["metrics"]
    assert Classifier(tmp_path / "mine").multi_label


@pytest.mark.parametrize(
    ("labels", "said"),
    [(["x"] * 40, "at least two different labels"), (["x", "y"] * 2, "too few to hold some out")],
)
def test_data_that_cannot_be_learnt_from(tmp_path: Path, labels: list[str], said: str) -> None:
    data = write_jsonl(tmp_path / "data.jsonl", [f"text {n}" for n in range(len(labels))], labels)
    with pytest.raises(DataError, match=said):
        train_classifier(recipe(data), tmp_path / "mine")
    assert not list(tmp_path.glob("mine*"))


def test_a_bag_does_not_depend_on_the_seed_nor_on_the_order_of_the_texts() -> None:
    texts, labels = english()
    one = Classifier().fit(texts, labels, options=QUICK)
    other = Classifier().fit(texts[::-1], labels[::-1], options=replace(QUICK, seed=2))
    probes = ["play jazz", "will it rain"]
    assert np.allclose(
        one.engine.logits(probes), other.engine.logits(probes), atol=0.01
    )  # float16 embeddings


@pytest.mark.slow
def test_trec_trained_from_nothing() -> None:
    """The figure of the benchmark; with any seed, for a fit does not depend on it."""
    if "INKSTONE_DATA" not in os.environ:
        pytest.skip("INKSTONE_DATA is not set: the folder with kimcnn_sentences")
    import gzip

    folder = Path(os.environ["INKSTONE_DATA"]) / "kimcnn_sentences"
    sets = []
    for content in (
        gzip.decompress((folder / "trec.train.jsonl.gz").read_bytes()),
        (folder / "trec.test.jsonl").read_bytes(),
    ):
        rows = [json.loads(line) for line in content.splitlines()]
        sets.append(([row["text"] for row in rows], [row["label"] for row in rows]))
    classifier = Classifier().fit(*sets[0], options=ClassifierOptions(architecture="bag"))
    assert classifier.evaluate(*sets[1])["accuracy"].value >= 0.908


def test_what_an_earlier_run_left_in_its_folder_does_not_count(tmp_path: Path) -> None:
    """The model removed, another is trained in its place: tokenizer and log are its own, the logs of both stay."""
    import shutil

    first = write_jsonl(tmp_path / "first.jsonl", *english())
    train_classifier(recipe(first, options=SMALL), tmp_path / "mine")
    run = tmp_path / "mine.run" / "transformer"
    lines = len((run / "log.jsonl").read_text("utf-8").splitlines())
    assert lines and not (run / "checkpoints").exists()
    shutil.rmtree(tmp_path / "mine")
    second = write_jsonl(tmp_path / "second.jsonl", *chinese())
    train_classifier(recipe(second, options=SMALL), tmp_path / "mine")
    vocabulary = read_json(tmp_path / "mine" / "tokenizer.json")["model"]["vocab"]
    assert any("\u4e00" <= token[-1] <= "\u9fff" for token in vocabulary)
    steps = [json.loads(line)["step"] for line in (run / "log.jsonl").read_text("utf-8").splitlines()]
    assert steps == sorted(steps) and steps, "of the second run alone"
