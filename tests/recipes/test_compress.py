"""`inkstone compress` from end to end: what is measured, what is written, what is refused, that the last word is kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from made_corpus import made_labelled, made_pairs, write_pairs

pytest.importorskip("torch", reason="compression needs torch")

from inkstone import Classifier, Translator
from inkstone.cli import main
from inkstone.ground.errors import ConfigError
from inkstone.ground.manifest import problems, sha256
from inkstone.model.bundle import open_bundle
from inkstone.model.checkpoint import load_model
from inkstone.recipes.compress import footprint, trial
from inkstone.recipes.compress.run import made_of
from inkstone.recipes.verify import verify

if TYPE_CHECKING:
    from conftest import Trained, TrainedClassifier


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure in this process: what costs seconds a row otherwise. `TestFootprint` sees to the processes."""

    def measure(folder: Path, engine: str, inputs: list[Any], **more: Any) -> footprint.Footprint:
        asked = {"architecture": "", "timed": 2, "beam_size": 2, "threads": 1, **more, "folder": str(folder)}
        found = footprint._answered({**asked, "engine": engine, "inputs": inputs})
        return footprint.Footprint(size_bytes=footprint.size_of(folder, engine), **found)

    monkeypatch.setattr(trial, "measure", measure)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [{"text": f"{text} {n}", "label": label} for n in range(8, 12) for text, label in made_labelled()]
    file = tmp_path_factory.mktemp("labelled") / "test.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return file


def run(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> tuple[dict[str, Any], str]:
    capsys.readouterr()
    assert main(["compress", *words, "--json", "--set", "timed=2", "--set", "beam_size=2"]) == code
    out, err = capsys.readouterr()
    return json.loads(out), err


def test_what_a_model_was_made_from_is_found_again(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = open_bundle(trained.bundle).manifest["made"]["recipe"]
    files = [*recipe["data"], *(file for some in recipe["test"].values() for file in some)]
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("a\tb\n")
    monkeypatch.setenv("INKSTONE_DATA", str(tmp_path))
    found = made_of(trained.bundle)
    assert [*found["data"], *found["test"]] == [str(tmp_path / file) for file in files]
    assert found.get("source") == recipe["source"] and found.get("fields") == recipe["fields"]
    (tmp_path / files[0]).unlink()
    with pytest.raises(ConfigError, match=f"Give --data FILE .*{Path(files[0]).name}.*not found here"):
        made_of(trained.bundle)


class TestTranslator:
    def test_int8_keeps_the_weights_and_writes_a_bundle_of_its_own(
        self, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str], quick: None
    ) -> None:
        data, out = write_pairs(tmp_path / "test.tsv", made_pairs(60)), tmp_path / "small"
        found, _ = run(
            capsys, str(trained.bundle), "--data", str(data), "-o", str(out), "--torch", "--limit", "20%"
        )
        assert [row["name"] for row in found["rows"]] == [
            "original: float32, torch", "as shipped: ctranslate2-int8", "new: ctranslate2-int8", "new: torch-int8",
        ]  # fmt: skip
        original, _, served, torch_int8 = found["rows"]
        assert found["written"] and found["n"] == 120 and found["metric"] == "bleu" and found["limit"] == 0.2
        assert original["smaller"] == original["faster"] == 1 and original["loss"] == {"bleu": 0, "chrf": 0}
        assert served["size_bytes"] == footprint.size_of(out, "served") < original["size_bytes"] / 2
        assert torch_int8["size_bytes"] < original["size_bytes"]
        loss = (original["metrics"]["bleu"] - served["metrics"]["bleu"]) / original["metrics"]["bleu"]
        assert served["loss"]["bleu"] == pytest.approx(loss, abs=1e-5)
        assert not problems(out) and all(check.passed for check in verify(out))
        bundle = open_bundle(out)
        assert bundle.name == "small" and bundle.description["directions"] == [["zh", "en"], ["en", "zh"]]
        made = bundle.manifest["made"]
        assert made["from"]["name"] == "made"
        assert made["from"]["manifest_sha256"] == sha256(trained.bundle / "manifest.json")
        assert str(tmp_path) not in json.dumps(made)  # where files lay is nobody's business
        assert "## How it was made small" in bundle.card and "| new: ctranslate2-int8 |" in bundle.card
        assert json.loads((out / "parity.json").read_text())["float32_identical"] > 0
        assert Translator(out)("我看见这只猫。", to="en")

    def test_fewer_heads_columns_and_layers_and_a_healing(
        self, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str], quick: None
    ) -> None:
        data, out = write_pairs(tmp_path / "pairs.tsv", made_pairs(400)), tmp_path / "small"
        learn = [
            "training.epochs=2",
            "training.tokens_per_batch=1024",
            "training.precision=float32",
            "most=20",
        ]
        words = [
            str(trained.bundle),
            "--data",
            str(data),
            "-o",
            str(out),
            "--prune",
            "0.25",
            "--limit",
            "100%",
        ]
        found, _ = run(capsys, *words, "--quantize", "int4", *(w for one in learn for w in ("--set", one)))
        assert [row["name"] for row in found["rows"]][2:] == ["new: ctranslate2-int8", "new: torch-int4"]
        small, whole = load_model(out).config, load_model(trained.bundle).config
        assert (small.num_heads, small.feed_forward_size, small.head_size) == (3, 96, whole.head_size)
        assert all(check.passed for check in verify(out))
        assert found["rows"][2]["size_bytes"] < found["rows"][1]["size_bytes"]
        assert any("healed" in step for step in found["steps"])
        assert not out.with_name("small.run").exists()
        # the healed model still translates: it has lost less than half
        assert found["rows"][2]["metrics"]["chrf"] > 0.5 * found["rows"][0]["metrics"]["chrf"]

    def test_what_breaks_the_limit_is_shown_and_not_written(
        self, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str], quick: None
    ) -> None:
        data, out = write_pairs(tmp_path / "pairs.tsv", made_pairs(400)), tmp_path / "small"
        words = ["--prune", "0.9", "--prune-what", "weights", "--set", "score=magnitude", "--set", "most=20"]
        found, err = run(capsys, str(trained.bundle), "--data", str(data), "-o", str(out), *words, code=2)
        assert not found["written"] and found["bundle"] is None
        assert found["rows"][2]["loss"]["bleu"] > 0.01
        assert "nothing was written: more than 1 % of the BLEU would be lost" in err
        assert "new: ctranslate2-int8 loses" in err
        assert [path.name for path in tmp_path.iterdir()] == ["pairs.tsv"]

    def test_a_student_is_taught(
        self, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str], quick: None
    ) -> None:
        data, out = write_pairs(tmp_path / "pairs.tsv", made_pairs(400)), tmp_path / "small"
        sizes = ["student.hidden_size=32", "student.num_encoder_layers=1", "student.num_decoder_layers=1"]
        learn = [
            *sizes,
            "training.epochs=1",
            "training.precision=float32",
            "most=10",
            "distillation.hidden=0.1",
        ]
        words = ["--distill", "tiny", "--limit", "100%", *(w for one in learn for w in ("--set", one))]
        found, err = run(capsys, str(trained.bundle), "--data", str(data), "-o", str(out), *words)
        assert found["steps"][0] == "a student of size tiny taught by made"
        assert "sources have an output of the teacher" in err
        assert load_model(out).config.hidden_size == 32
        assert load_model(out).config.vocab_size == load_model(trained.bundle).config.vocab_size


class TestClassifier:
    def test_a_bag_loses_features_and_gets_an_int8_matrix(
        self, trained_classifier: TrainedClassifier, labelled: Path, tmp_path: Path,
        capsys: pytest.CaptureFixture[str], quick: None,
    ) -> None:  # fmt: skip
        out, model = tmp_path / "small", trained_classifier.bundle
        words = [str(model), "--data", str(labelled), "-o", str(out)]
        plain, _ = run(capsys, *words)
        assert [row["name"] for row in plain["rows"]] == [
            "original: float32, torch", "as shipped: numpy", "new: numpy, int8"
        ]  # fmt: skip
        assert plain["rows"][2]["size_bytes"] < plain["rows"][1]["size_bytes"]
        texts = ["play some music", "will it rain"]
        before, after = (Classifier(place).predict(texts) for place in (model, out))
        for one, other in zip(before, after, strict=True):
            assert one.label == other.label
            assert one.scores == pytest.approx(other.scores, abs=0.02)
        shutil.rmtree(out)
        found, _ = run(capsys, *words, "--prune", "0.5", "--limit", "100%")
        count = len(json.loads((model / "features.json").read_text())["features"])
        assert len(json.loads((out / "features.json").read_text())["features"]) == round(count / 2)
        assert found["rows"][2]["size_bytes"] < plain["rows"][2]["size_bytes"]
        assert all(check.passed for check in verify(out))

    def test_steps_that_a_bag_does_not_have_are_refused_together(
        self, trained_classifier: TrainedClassifier, labelled: Path, tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        words = ["--distill", "tiny", "--layers", "1,1", "--quantize", "int4", "--torch"]
        words += ["--prune", "0.5", "--prune-what", "weights"]
        out = ["--data", str(labelled), "-o", str(tmp_path / "small")]
        assert main(["compress", str(trained_classifier.bundle), *out, *words]) == 2
        err = capsys.readouterr().err
        for word in (
            "--distill is for",
            "--layers is for",
            "int4 is for",
            "--torch is for",
            "whole features",
        ):
            assert word in err
        assert not list(tmp_path.iterdir())


class TestFootprint:
    def test_a_process_of_its_own_is_measured(self, trained: Trained) -> None:
        sources = [[4, 20, 21, 3], [5, 30, 3]]
        served = footprint.measure(trained.bundle, "served", sources, timed=2)
        here = footprint._answered(
            {"folder": str(trained.bundle), "engine": "served", "inputs": sources, "architecture": "", "timed": 1,
             "beam_size": 4, "threads": 1}
        )  # fmt: skip
        assert served.answers == here["answers"] and served.engine == "ctranslate2-int8"
        assert 0 < served.latency_s < 5
        # this process has loaded torch, the other has not: memory is of the process that was measured
        assert 10_000_000 < served.memory_bytes < 0.8 * footprint._peak_memory()

    def test_a_failure_says_what_the_process_said(self, trained: Trained) -> None:
        with pytest.raises(RuntimeError, match=r"measuring torch-int9 failed:[\s\S]*torch-int9"):
            footprint.measure(trained.bundle, "torch-int9", [[4, 3]])
