"""Training that begins with something: a translator learning on, whole or through an adapter, and word vectors."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from made_corpus import PEOPLE, made_pairs, quick_recipe, write_pairs

torch = pytest.importorskip("torch", reason="training needs torch")

from safetensors.torch import load_file, save_file  # noqa: E402

from inkstone.apps.translate import Translator  # noqa: E402
from inkstone.cli import main  # noqa: E402
from inkstone.generate.engine import GenerationOptions  # noqa: E402
from inkstone.ground.errors import TrainingError  # noqa: E402
from inkstone.ground.files import sha256  # noqa: E402
from inkstone.ground.manifest import problems, read_json, seal  # noqa: E402
from inkstone.learn.objectives import OBJECTIVES, sequence_to_sequence  # noqa: E402
from inkstone.model.bundle import open_bundle  # noqa: E402
from inkstone.model.checkpoint import load_model  # noqa: E402
from inkstone.model.lora import LoraConfig  # noqa: E402
from inkstone.recipes.beginning import FINE_TUNING_LORA  # noqa: E402
from inkstone.recipes.translate import load_recipe, train_translator  # noqa: E402
from inkstone.recipes.translator_recipe import TranslateRecipe  # noqa: E402

if TYPE_CHECKING:
    from conftest import Trained

TRAINING = {"epochs": 4, "tokens_per_batch": 1024, "learning_rate": 1e-2, "warmup_steps": 5, "threads": 1,
            "precision": "float32", "save_every_s": 0.0, "preflight": "skip"}  # fmt: skip
TEXTS = ["我喜欢这本书。", "他们不买两个苹果。", "汤姆看见一只狗。"]


def twice(count: int) -> list[tuple[str, str]]:
    """What the base has not learnt: to say everything twice."""
    return [(zh, f"{en} {en}") for zh, en in made_pairs(count)]


def further(base: Path, data: Path, **more: Any) -> TranslateRecipe:
    """A quick recipe that begins with a bundle and goes into English only."""
    from inkstone.learn.loop import TrainingOptions

    training = TrainingOptions(**{**TRAINING, **more.pop("training", {})})
    return TranslateRecipe(name="more", data=(str(data),), base=str(base), max_length=48, beam_size=2,
                           training=training, **more)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("twice") / "pairs.tsv", twice(400))


@pytest.fixture(scope="module")
def adapted(trained: Trained, data: Path) -> Path:
    """A bundle whose adapter was trained through the command line."""
    out = data.parent / "adapted"
    settings = [f"training.{name}={value}" for name, value in TRAINING.items()]
    settings += ["lora.rank=4", "lora.targets=['*attention.*', '*.feed_forward.*']", "beam_size=2"]
    command = ["train", "translate", "--data", str(data), "--base", str(trained.bundle), "--lora", "--name", "more",
               "--set", "max_length=48", "--out", str(out), "--json"]  # fmt: skip
    assert main([*command, *(part for one in settings for part in ("--set", one))]) == 0
    return out


class TestAnAdapter:
    def test_the_bundle_has_merged_weights_and_the_adapter(self, trained: Trained, adapted: Path) -> None:
        assert problems(adapted) == []
        before, after = load_model(trained.bundle), load_model(adapted)
        assert after.config == before.config
        learnt = {
            name
            for name, tensor in after.state_dict().items()
            if not torch.equal(tensor, before.state_dict()[name])
        }
        assert learnt == {
            name for name in before.state_dict() if "attention." in name or ".feed_forward." in name
        } - {name for name in before.state_dict() if name.endswith("bias")}
        assert sha256(adapted / "tokenizer.json") == sha256(trained.bundle / "tokenizer.json")
        config = read_json(adapted / "adapter" / "adapter_config.json")
        assert (config["peft_type"], config["r"], config["base_model_name_or_path"]) == ("LORA", 4, "made")
        assert open_bundle(adapted).description["directions"] == [["zh", "en"]]

    def test_base_and_adapter_say_what_the_bundle_says(self, trained: Trained, adapted: Path) -> None:
        merged = Translator(adapted, engine="torch", threads=1).translate(TEXTS, to="en")
        both = Translator(trained.bundle, adapters={"more": adapted / "adapter"}, threads=1)
        found = both.translate(TEXTS, to="en", options=GenerationOptions(adapter="more"))
        for one, other in zip(found, merged, strict=True):
            assert one.translation == other.translation
            assert one.score == pytest.approx(other.score, abs=1e-4)
        assert found != both.translate(TEXTS, to="en")

    def test_it_is_not_put_on_other_weights(self, adapted: Path, capsys: pytest.CaptureFixture[str]) -> None:
        command = ["translate", TEXTS[0], "--to", "en", "--model", str(adapted)]
        assert main([*command, "--adapter", str(adapted / "adapter")]) == 2
        assert "is an adapter on made" in capsys.readouterr().err

    def test_it_learnt_what_the_base_does_not_know(self, trained: Trained, adapted: Path) -> None:
        (result,) = read_json(adapted / "report.json")["results"]
        assert result["metrics"]["chrf"]["value"] > result["baselines"]["before"]["chrf"]["value"] + 5
        card = (adapted / "README.md").read_text("utf-8")
        assert "the model it began with" in card and "**Begun with** | made" in card
        facts = read_json(adapted / "report.json")["training"]
        assert facts["begun_with"] == "made" and 0 < facts["learnt_parameters"] < facts["parameters"] / 2
        made = read_json(adapted / "manifest.json")["made"]
        assert made["base"] == {"name": "made", "sha256": sha256(trained.bundle / "model.safetensors")}
        assert str(trained.bundle.parent) not in json.dumps(made)

    def test_it_verifies_and_translates(self, adapted: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["verify", str(adapted)]) == 0
        assert main(["translate", TEXTS[0], "--to", "en", "--model", str(adapted)]) == 0
        assert capsys.readouterr().out.strip()

    def test_defaults_are_laid_under_what_is_given(self, adapted: Path) -> None:
        recipe, _ = load_recipe(adapted.with_name("adapted.run"))
        assert recipe.lora == LoraConfig(rank=4, targets=("*attention.*", "*.feed_forward.*"))
        assert recipe.training.learning_rate == 1e-2 != FINE_TUNING_LORA["training"]["learning_rate"]

    def test_a_resumed_run_is_exact(
        self, trained: Trained, data: Path, adapted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Stopped by an error twice, then to the end: weights and adapter are those of the run that nothing disturbed."""
        recipe, _ = load_recipe(adapted.with_name("adapted.run"))
        for most in (4, 9):
            with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
                patch.setitem(OBJECTIVES, "sequence-to-sequence", stopping(most))
                train_translator(recipe, tmp_path / "again")
        assert main(["train", "resume", str(tmp_path / "again.run"), "--json"]) == 0
        for file in ("model.safetensors", "adapter/adapter_model.safetensors"):
            assert sha256(tmp_path / "again" / file) == sha256(adapted / file), file

    def test_another_base_is_another_run(
        self, trained: Trained, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        base = tmp_path / "base"
        shutil.copytree(trained.bundle, base)
        recipe = further(base, data, lora=LoraConfig(rank=2))
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setitem(OBJECTIVES, "sequence-to-sequence", stopping(3))
            train_translator(recipe, tmp_path / "out")
        with pytest.raises(TrainingError, match="begun with other data or another configuration"):
            train_translator(replace(recipe, lora=LoraConfig(rank=2, alpha=9)), tmp_path / "out")
        weights = load_file(base / "model.safetensors")
        weights["embedding.weight"][5, 0] += 1
        save_file(weights, base / "model.safetensors")
        seal(base, {})
        with pytest.raises(TrainingError, match="begun with other data or another configuration"):
            train_translator(recipe, tmp_path / "out")


def stopping(most: int) -> Any:
    """The objective, until an error after so many steps."""
    steps = 0

    def objective(model: Any, batch: Any, smoothing: float = 0.0) -> Any:
        nonlocal steps
        steps += 1
        if steps > most:
            raise KeyboardInterrupt
        return sequence_to_sequence(model, batch, smoothing)

    return objective


def test_whole_fine_tuning_goes_on_from_the_base(trained: Trained, data: Path, tmp_path: Path) -> None:
    recipe = further(trained.bundle, data, model={"dropout": 0.0}, training={"learning_rate": 2e-3})
    result = train_translator(recipe, tmp_path / "out")
    before, after = load_model(trained.bundle).state_dict(), load_model(tmp_path / "out").state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == set(before)
    assert load_model(tmp_path / "out").config == replace(load_model(trained.bundle).config, dropout=0.0)
    assert not (tmp_path / "out" / "adapter").exists()
    name = "held out zh-en"
    assert result["metrics"][name]["chrf"] > result["baseline"][name]["before"]["chrf"] + 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--lora"], "lora is an adapter beside weights that are there: give --base MODEL too"),
        (["--base", "BASE", "--size", "tiny"], "size=tiny: the base decides that"),
        (["--base", "BASE", "--architecture", "rnn"], "architecture=rnn: the base decides that"),
        (["--base", "BASE", "--set", "model.hidden_size=8"], "model.hidden_size=8: the base decides that"),
        (["--base", "BASE", "--vectors", "v.txt"], "vectors begin a new embedding"),
        (["--base", "BASE", "--set", "script=traditional"], "script=traditional: the base was made with script=None"),
        (["--base", "BASE", "--set", "lora.rnak=4"], 'Did you mean "lora.rank"?'),
        (["--base", "BASE", "--set", "lora.rank=0"], "rank=0 must be at least 1"),
        (["--base", "BASE", "--lora", "--set", "lora.targets=['*.q_proj']"], 'target="*.q_proj" is not known'),
        (["--base", "BASE", "--from", "de", "--to", "en"], "which was trained for"),
        (["--base", "intents-en"], "is a model for task 'classify'"),
        (["--base", "nowhere"], "there is no folder of this name"),
        (["--vectors", "nowhere.txt"], "nowhere.txt does not exist"),
    ],
)  # fmt: skip
def test_said_at_the_door(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    data = tmp_path / "pairs.tsv"
    pairs = made_pairs(250)
    data.write_text("".join(f"{zh}\t{en}\n" for zh, en in pairs), "utf-8")
    given = [str(trained.bundle) if one == "BASE" else one for one in arguments]
    given += [] if "--from" in given else ["--from", "zh", "--to", "en"]
    assert main(["train", "translate", "--data", str(data), "--out", str(tmp_path / "out"), *given]) == 2
    out, said = capsys.readouterr()
    assert words in said and "Traceback" not in said and out == ""
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.run").exists()


def test_a_foreign_checkpoint_is_no_base(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "marian"}), "utf-8")
    data = write_pairs(tmp_path / "pairs.tsv", made_pairs(250))
    command = ["train", "translate", "--data", str(data), "--out", str(tmp_path / "out")]
    assert main([*command, "--base", str(tmp_path)]) == 2
    assert "is a checkpoint of another program" in capsys.readouterr().err


def test_a_translator_begins_with_word_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_pairs(tmp_path / "pairs.tsv", made_pairs(300))
    vectors = tmp_path / "vectors.txt"

    def write(seed: int) -> None:
        numbers = np.random.default_rng(seed).standard_normal((len(PEOPLE), 12))
        rows = [
            f"{word} {' '.join(f'{x:.4f}' for x in row)}" for word, row in zip(PEOPLE, numbers, strict=True)
        ]
        vectors.write_text("\n".join(rows) + "\n", "utf-8")

    write(0)
    recipe = quick_recipe(
        data, vectors=str(vectors), training={"epochs": 0.3, "save_every_s": 0.0, "preflight": "skip"}
    )
    result = train_translator(recipe, tmp_path / "with")
    plain = train_translator(replace(recipe, vectors=None), tmp_path / "without")
    assert result["steps"] == plain["steps"]
    weights = [load_model(tmp_path / name).state_dict() for name in ("with", "without")]
    assert not torch.equal(weights[0]["embedding.weight"], weights[1]["embedding.weight"])
    manifest = (tmp_path / "with" / "manifest.json").read_text("utf-8")
    assert f"{tmp_path.name}/vectors.txt" in manifest and str(tmp_path) not in manifest
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setitem(OBJECTIVES, "sequence-to-sequence", stopping(2))
        train_translator(recipe, tmp_path / "again")
    write(1)
    with pytest.raises(TrainingError, match="begun with other data or another configuration"):
        train_translator(recipe, tmp_path / "again")
    write(0)
    train_translator(recipe, tmp_path / "again")
    assert sha256(tmp_path / "again" / "model.safetensors") == sha256(tmp_path / "with" / "model.safetensors")
