"""Classifiers beside each other say the mean of what each says, and only where they speak of the same labels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from small_texts import chinese, english

pytest.importorskip("torch", reason="training needs torch")

from inkstone.apps.classify import Classifier
from inkstone.cli import main
from inkstone.ground.errors import ConfigError
from inkstone.learn.bag import BagOptions, FitOptions
from inkstone.learn.classifier import ClassifierOptions

OPTIONS = ClassifierOptions(architecture="bag", bag=BagOptions(fit=FitOptions(iterations=5)))
PROBES = ["will it rain in oslo", "play a queen song", ""]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two classifiers of the same labels: the second learnt from other texts."""
    folder = tmp_path_factory.mktemp("together")
    texts, labels = english()
    Classifier().fit(texts, labels, options=OPTIONS).save(folder / "one")
    Classifier().fit(texts[::3], labels[::3], options=OPTIONS).save(folder / "two")
    return folder / "one", folder / "two"


def test_their_probabilities_are_the_mean(bundles: tuple[Path, Path]) -> None:
    one, two = (Classifier(bundle) for bundle in bundles)
    both = Classifier(bundles[0], beside=[bundles[1]])
    assert both.name == "one + two"
    for first, second, found in zip(*(each.predict(PROBES) for each in (one, two, both)), strict=True):
        assert sum(found.scores.values()) == pytest.approx(1)
        for label, share in found.scores.items():
            assert share == pytest.approx((first.scores[label] + second.scores[label]) / 2)
        assert found.label == max(found.scores, key=lambda label: found.scores[label])


def test_labels_are_told_by_name(bundles: tuple[Path, Path]) -> None:
    both = Classifier(bundles[0], beside=[bundles[1]])
    usual = both.predict(PROBES)
    other = both._beside[0]
    other.description["labels"] = other.description["labels"][::-1]
    logits = other.engine.logits
    other.engine.logits = lambda texts: np.ascontiguousarray(logits(texts)[:, ::-1])  # type: ignore[method-assign]
    assert [one.scores for one in both.predict(PROBES)] == [pytest.approx(one.scores) for one in usual]


def test_only_of_the_same_labels_and_not_saved(bundles: tuple[Path, Path], tmp_path: Path) -> None:
    Classifier().fit(*chinese(), options=OPTIONS).save(tmp_path / "zh")
    with pytest.raises(ConfigError, match=r"zh has other labels: .*cannot be averaged with those of one"):
        Classifier(bundles[0], beside=[tmp_path / "zh"])
    with pytest.raises(ConfigError, match="several models, and a bundle holds one"):
        Classifier(bundles[0], beside=[bundles[1]]).save(tmp_path / "both")


def test_on_the_command_line(bundles: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    one, two = map(str, bundles)
    assert main(["classify", *PROBES[:2], "--model", one, "--model", two, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"] == "one + two"
    assert [row["label"] for row in found["results"]] == ["weather", "music"]


def test_together_they_are_measured(
    bundles: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts, labels = english()
    data = tmp_path / "data.jsonl"
    data.write_text(
        "".join(json.dumps({"text": t, "label": one}) + "\n" for t, one in zip(texts, labels, strict=True)),
        "utf-8",
    )
    one, two = map(str, bundles)
    assert main(["evaluate", one, "--beside", two, "--data", str(data), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    both = Classifier(one, beside=[two]).predict(texts)
    right = sum(found.label == label for found, label in zip(both, labels, strict=True))
    assert found["model"] == "one + two"
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(right / len(texts))
