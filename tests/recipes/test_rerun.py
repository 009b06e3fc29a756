"""A training is repeated from its receipt: equal where it is the same, and what is not the same is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from made_corpus import made_labelled, made_pairs, quick_recipe, write_pairs

pytest.importorskip("torch", reason="training needs torch")

from inkstone.cli import main
from inkstone.ground.errors import BundleError, ConfigError, DataError
from inkstone.ground.files import sha256
from inkstone.ground.records import Labelled, Pair
from inkstone.learn.loop import TrainingOptions
from inkstone.learn.token_classifier import TokenOptions
from inkstone.model.bundle import open_bundle
from inkstone.recipes.classify import ClassifyRecipe, train_classifier
from inkstone.recipes.preflight import contradictions, language_findings, length_findings
from inkstone.recipes.pretrain import pretrain
from inkstone.recipes.pretrain_recipe import PretrainRecipe
from inkstone.recipes.receipt import command, digest
from inkstone.recipes.rerun import TOLERANCE, Rerun, rerun
from inkstone.recipes.run import run_folder
from inkstone.recipes.sequences import learn
from inkstone.recipes.translate import train_translator

if TYPE_CHECKING:
    from conftest import Trained, TrainedClassifier

SMALL = {"hidden_size": 32, "num_encoder_layers": 1, "num_decoder_layers": 1, "feed_forward_size": 64}
TRAINING = TrainingOptions(epochs=2, tokens_per_batch=1024, warmup_steps=5, threads=1, precision="float32")


def named(found: Rerun) -> dict[str, Any]:
    return {check.name: check for check in found.checks}


def changed(bundle: Path, place: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """A copy of a bundle whose manifest says something else of how it was made."""
    shutil.copytree(bundle, place)
    manifest = json.loads((place / "manifest.json").read_text("utf-8"))
    change(manifest["made"])
    (place / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    return place


def elsewhere(made: dict[str, Any]) -> None:
    """As if the model had been trained on another processor."""
    made["receipt"]["training"]["surroundings"]["processor"] = "Z80"


class TestTheReceipt:
    def receipt(self, bundle: Path) -> dict[str, Any]:
        found: dict[str, Any] = open_bundle(bundle).manifest["made"]["receipt"]
        return found

    def test_says_what_went_in(self, trained: Trained) -> None:
        found = self.receipt(trained.bundle)
        data = Path(trained.recipe.data[0])
        assert found["files"] == [
            {
                "use": "data",
                "file": f"{data.parent.name}/{data.name}",
                "bytes": data.stat().st_size,
                "sha256": sha256(data),
                "records": len(made_pairs()),
                "bad_lines": 0,
            }
        ]
        assert found["recipe_sha256"] == digest(open_bundle(trained.bundle).manifest["made"]["recipe"])

    def test_says_how_the_training_went(self, trained: Trained) -> None:
        training = self.receipt(trained.bundle)["training"]
        assert training["steps"] == trained.result["steps"] and training["resumed"] == 0
        assert len(training["first"]) == 50 and training["tokens"] > 1000
        assert all(0 < float.fromhex(one["loss"]) < 10 for one in training["first"])
        assert len({one["batch_sha256"] for one in training["first"]}) == 50
        assert training["order"]["by"] == "Planned" and training["order"]["seed"] == 1
        here = training["surroundings"]
        assert here["threads"] == 1 and here["precision"] == "float32" and here["device"] == "cpu"

    def test_says_nothing_of_where_things_lay(self, trained: Trained) -> None:
        root = str(trained.bundle.parent.parent)
        assert root not in (trained.bundle / "manifest.json").read_text("utf-8")

    def test_findings_in_the_report_name_files_by_folder_and_name(self) -> None:
        pairs = [
            Pair(f"Satz {n}", f"sentence {n}", "de", "en", f"/home/me/data/a.tsv:{n}") for n in range(30)
        ]
        long = [*pairs, Pair("lang " * 400, "long " * 400, "de", "en", "/home/me/data/a.tsv:31")]
        wrong = [replace(one, source="Il y a une petite maison blanche dans la rue.") for one in pairs]
        labelled = [Labelled("a text", (label,), f"/home/me/data/b.tsv:{label}") for label in "12"]
        found = [*length_findings(long, "pairs"), *language_findings(wrong), *contradictions(labelled)]
        assert len(found) == 3
        assert all("/home" not in one and ("data/a.tsv:" in one or "data/b.tsv:" in one) for one in found), (
            found
        )

    def test_of_a_run_that_was_killed_is_that_of_one_that_was_not(
        self, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from inkstone.learn import loop

        class Killed(BaseException):
            pass

        taken, step = 0, loop._Keeper.step

        def dying(keeper: Any, *arguments: Any) -> None:
            nonlocal taken
            taken += 1
            if taken == 20:
                raise Killed
            step(keeper, *arguments)

        recipe = replace(trained.recipe, training=replace(trained.recipe.training, epochs=1, save_every_s=0))
        for name in ("cut", "whole"):
            (tmp_path / name).mkdir()
        with monkeypatch.context() as patch:
            patch.setattr(loop._Keeper, "step", dying)
            with pytest.raises(Killed):
                learn(recipe, tmp_path / "cut")
        cut, whole = (learn(recipe, tmp_path / name).outcome.receipt for name in ("cut", "whole"))
        assert (cut.pop("resumed"), whole.pop("resumed")) == (1, 0)
        assert cut == whole and len(cut["first"]) > 20

    @pytest.mark.parametrize(
        ("typed", "kept"),
        [
            (["/opt/bin/inkstone", "train", "x", "--data", "/home/me/my data/a.tsv"], ["--data", "my data/a.tsv"]),
            (["inkstone", "train", "x", "--set", "model.dropout=0.1"], ["--set", "model.dropout=0.1"]),
            (["/w/inkstone/__main__.py", "train", "x", "--test", "news=/d/e/f.tsv"], ["--test", "news=e/f.tsv"]),
            (["inkstone", "train", "x", "/a=b/c/d.tsv"], ["c/d.tsv"]),
        ],
    )  # fmt: skip
    def test_shortens_the_command(self, typed: list[str], kept: list[str]) -> None:
        assert command(typed) == ["inkstone", "train", "x", *kept]

    def test_tells_nothing_of_another_program(self) -> None:
        assert command(["/home/me/secret.py", "--token", "abc"]) == ["secret.py"]


class TestATranslator:
    def test_comes_out_the_same(self, trained: Trained) -> None:
        found = rerun(trained.bundle)
        assert (found.passed, found.equal, found.steps) == (True, True, 50)
        assert (found.largest_difference, found.tolerance) == (0.0, 0.0)
        assert set(named(found)) == {
            "files", "recipe", "code", "surroundings", "tokenizer", "batches", "losses"
        }  # fmt: skip

    def test_without_the_folder_of_its_run(
        self, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By the name in the manifest: in a folder that is given, or from here, or below $INKSTONE_DATA."""
        shutil.copytree(trained.bundle, tmp_path / "moved")
        data = Path(trained.recipe.data[0])
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("INKSTONE_DATA", raising=False)
        with pytest.raises(DataError, match=rf"{data.parent.name}/{data.name} is missing"):
            rerun("moved", steps=2)
        assert rerun("moved", steps=2, data=[data.parent]).equal
        monkeypatch.setenv("INKSTONE_DATA", str(data.parent.parent))
        assert rerun("moved", steps=2).equal

    def test_with_workers(self, trained: Trained, tmp_path: Path) -> None:
        def change(made: dict[str, Any]) -> None:
            made["recipe"]["training"]["workers"] = 2

        place = changed(trained.bundle, tmp_path / "workers", change)
        found = rerun(place, steps=3, data=[Path(trained.recipe.data[0]).parent])
        assert found.equal and not named(found)["recipe"].passed  # and that somebody altered it is said

    def test_a_changed_file_is_named(self, trained: Trained, tmp_path: Path) -> None:
        shutil.copytree(trained.bundle, tmp_path / "model")
        data = Path(trained.recipe.data[0])
        other = tmp_path / data.parent.name / data.name
        other.parent.mkdir()
        content = data.read_bytes()
        other.write_bytes(content.replace(b"cat", b"hat", 1))
        with pytest.raises(
            DataError, match=rf"{data.name} has changed: .*was trained on {len(content):,} bytes"
        ):
            rerun(tmp_path / "model", data=[tmp_path])
        other.write_bytes(content)
        assert rerun(tmp_path / "model", steps=1, data=[tmp_path]).equal

    def test_a_changed_loss_fails(self, trained: Trained, tmp_path: Path) -> None:
        def change(made: dict[str, Any]) -> None:
            one = made["receipt"]["training"]["first"][2]
            one["loss"] = (float.fromhex(one["loss"]) * (1 + 2**-50)).hex()

        place = changed(trained.bundle, tmp_path / "model", change)
        found = rerun(place, steps=4, data=[Path(trained.recipe.data[0]).parent])
        assert not found.passed and not found.equal and 0 < found.largest_difference < 1e-12
        assert named(found)["batches"].passed
        assert named(found)["losses"].detail.startswith("step 3: ")

    def test_other_batches_fail(self, trained: Trained, tmp_path: Path) -> None:
        def change(made: dict[str, Any]) -> None:
            made["recipe"]["training"]["seed"] = 2

        place = changed(trained.bundle, tmp_path / "model", change)
        found = rerun(place, steps=2, data=[Path(trained.recipe.data[0]).parent])
        assert not found.passed
        assert not named(found)["batches"].passed and not named(found)["losses"].passed

    def test_changed_weights_are_refused(self, trained: Trained, tmp_path: Path) -> None:
        shutil.copytree(trained.bundle, tmp_path / "model")
        weights = tmp_path / "model" / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
        with pytest.raises(BundleError, match=r"model\.safetensors is altered"):
            rerun(tmp_path / "model")

    def test_elsewhere_it_may_be_a_little_apart(self, trained: Trained, tmp_path: Path) -> None:
        def off(by: float) -> Callable[[dict[str, Any]], None]:
            def change(made: dict[str, Any]) -> None:
                elsewhere(made)
                one = made["receipt"]["training"]["first"][0]
                one["loss"] = (float.fromhex(one["loss"]) + by).hex()

            return change

        data = [Path(trained.recipe.data[0]).parent]
        near = rerun(changed(trained.bundle, tmp_path / "near", off(TOLERANCE / 2)), steps=2, data=data)
        assert near.passed and not near.equal and near.tolerance == TOLERANCE
        assert (
            "processor" in named(near)["surroundings"].detail and "Z80" in named(near)["surroundings"].detail
        )
        far = rerun(changed(trained.bundle, tmp_path / "far", off(2 * TOLERANCE)), steps=2, data=data)
        assert not far.passed

    def test_bad_steps(self, trained: Trained) -> None:
        for steps in (0, 51):
            with pytest.raises(ConfigError, match=rf"steps={steps}: .* has 50\. Give 1 to 50"):
                rerun(trained.bundle, steps=steps)
        with pytest.raises(ConfigError, match="is no folder"):
            rerun(trained.bundle, data=[Path("/nowhere")])

    def test_a_model_without_a_receipt(self, trained: Trained, tmp_path: Path) -> None:
        place = changed(trained.bundle, tmp_path / "old", lambda made: made.pop("receipt"))
        with pytest.raises(BundleError, match="has no receipt of its training: it was trained before"):
            rerun(place)

    def test_parallel_files_a_base_and_named_tests(self, trained: Trained, tmp_path: Path) -> None:
        """Every kind of path that a recipe may hold is found again; an adapter learns the same."""
        from inkstone.model.lora import LoraConfig

        pairs = made_pairs(200)
        for code, side in (("zh", 0), ("en", 1)):
            (tmp_path / f"train.{code}").write_text("".join(f"{pair[side]}\n" for pair in pairs), "utf-8")
        recipe = replace(
            quick_recipe(tmp_path / "train.{zh,en}", training={"epochs": 1}, size="small", model={}),
            valid=(str(write_pairs(tmp_path / "valid.tsv", made_pairs(230)[200:])),),
            test={"a": (str(write_pairs(tmp_path / "test.tsv", made_pairs(250)[230:])),)},
            base=str(trained.bundle),
            lora=LoraConfig(rank=2),
            vocab_size=8000,
        )
        out = tmp_path / "model"
        train_translator(recipe, out)
        uses = [file["use"] for file in open_bundle(out).manifest["made"]["receipt"]["files"]]
        assert uses == ["test a", "valid", "data", "data", "base", "base", "base"]
        assert rerun(out, steps=3).equal
        shutil.rmtree(run_folder(out))
        (tmp_path / "train.en").unlink()
        (tmp_path / "test.tsv").write_text("zh\ten\n我\tI\n", "utf-8")
        with pytest.raises(DataError, match="3 problems") as error:  # the base is not below this folder
            rerun(out, data=[tmp_path])
        for words in (
            "train.en is missing",
            "test.tsv has changed",
            f"{trained.bundle.parent.name}/{trained.bundle.name} is missing",
        ):
            assert words in str(error.value)


class TestOtherTasks:
    def labelled(self, folder: Path) -> Path:
        rows = [{"text": f"{text} {n}", "label": label} for n in range(8) for text, label in made_labelled()]
        (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
        return folder / "data.jsonl"

    def test_a_classifier_that_reads_tokens(self, tmp_path: Path) -> None:
        own = TokenOptions(
            model={"hidden_size": 32, "num_encoder_layers": 1}, vocab_size=300, training=TRAINING
        )
        recipe = ClassifyRecipe("model", (str(self.labelled(tmp_path)),))
        options = replace(recipe.options, architecture="transformer", transformer=own)
        train_classifier(replace(recipe, options=options), tmp_path / "model")
        found = rerun(tmp_path / "model", data=[tmp_path])
        assert found.passed and found.equal and found.steps == 50
        assert {"tokenizer", "batches", "losses"} <= set(named(found))

    def test_a_bag_has_no_steps_and_its_weights_are_compared(
        self, trained_classifier: TrainedClassifier, tmp_path: Path
    ) -> None:
        data = [trained_classifier.bundle.parent]
        found = rerun(trained_classifier.bundle, data=data)
        assert found.passed and found.equal and found.steps == 0
        assert "no steps to repeat" in named(found)["weights"].detail

        def change(made: dict[str, Any]) -> None:
            made["receipt"]["training"]["weights_sha256"] = "0" * 64

        here = rerun(changed(trained_classifier.bundle, tmp_path / "here", change), data=data)
        assert not here.passed and not here.equal

        def there(made: dict[str, Any]) -> None:
            change(made)
            elsewhere(made)

        away = rerun(changed(trained_classifier.bundle, tmp_path / "away", there), data=data)
        assert away.passed and not away.equal and 0 < away.largest_difference <= away.tolerance

    @pytest.mark.parametrize("objective", ["causal", "masked", "span"])
    def test_a_language_model(self, tmp_path: Path, objective: Any) -> None:
        data = tmp_path / "documents.txt"
        data.write_text("\n".join(english for _, english in made_pairs(150)), "utf-8")
        recipe = PretrainRecipe(
            "model", (str(data),), objective=objective, vocab_size=360, size="tiny", block=16, ngram_order=2,
            model={**SMALL, "num_heads": 2},
            training=replace(TRAINING, tokens_per_batch=256, smoothing=0.0, metric="loss"),
        )  # fmt: skip
        shape = {"causal": "num_encoder_layers", "masked": "num_decoder_layers"}.get(objective)
        recipe.model.pop(shape, None)
        pretrain(recipe, tmp_path / "model")
        found = rerun(tmp_path / "model")  # found where the run's own recipe says
        training = open_bundle(tmp_path / "model").manifest["made"]["receipt"]["training"]
        assert found.passed and found.equal and found.steps == min(50, training["steps"]) >= 5


class TestTheCommand:
    def test_prints_one_document(self, trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
        capsys.readouterr()
        assert main(["rerun", str(trained.bundle), "--steps", "3", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["bundle"] == str(trained.bundle) and found["equal"] is True and found["steps"] == 3
        assert {"largest_difference", "tolerance", "checks", "passed"} <= set(found)

    def test_ends_with_2_when_it_does_not_hold(
        self, trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def change(made: dict[str, Any]) -> None:
            made["receipt"]["training"]["first"][0]["loss"] = (1.0).hex()

        place = changed(trained.bundle, tmp_path / "model", change)
        data = str(Path(trained.recipe.data[0]).parent)
        capsys.readouterr()
        assert main(["rerun", str(place), "--steps", "1", "--data", data]) == 2
        assert "FAILED  losses: step 1: " in capsys.readouterr().out
