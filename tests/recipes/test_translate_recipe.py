"""The recipe of the translator from pairs to bundle: what it keeps, what it reports, and that a kill changes nothing."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from made_corpus import made_pairs, quick_recipe, write_pairs

pytest.importorskip("torch", reason="training needs torch")

from inkstone.apps.translate import Translator
from inkstone.cli import main
from inkstone.ground.configuration import plain
from inkstone.ground.errors import ConfigError, DataError, OutputError
from inkstone.ground.manifest import problems, sha256
from inkstone.model.bundle import open_bundle
from inkstone.model.checkpoint import load_model
from inkstone.recipes.pairs import Corpus, both, encode, evenly, read_corpus, spread
from inkstone.recipes.run import run_folder
from inkstone.recipes.sequences import learn
from inkstone.recipes.translate import load_recipe, train_translator
from inkstone.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from conftest import Trained


class TestTheBundle:
    def test_what_train_prints(self, trained: Trained) -> None:
        result = json.loads(json.dumps(trained.result))
        assert {"bundle", "metrics", "baseline", "seconds", "tokens_per_second", "peak_memory_bytes"} <= set(
            result
        )
        assert result["bundle"] == str(trained.bundle)
        assert set(result["metrics"]) == set(result["baseline"]) == {"held out zh-en", "held out en-zh"}
        for measured in result["metrics"].values():
            assert {"bleu", "chrf"} <= set(measured) and all(0 <= value <= 100 for value in measured.values())
        for name, baselines in result["baseline"].items():
            assert set(baselines) == {"copy", "dictionary"}
            assert result["metrics"][name]["chrf"] > baselines["copy"]["chrf"]
        assert result["seconds"] > 0 and result["tokens_per_second"] > 100
        assert 50_000_000 < result["peak_memory_bytes"] < 8_000_000_000

    def test_every_file_is_there_and_vouched_for(self, trained: Trained) -> None:
        bundle = open_bundle(trained.bundle, task="translate")
        files = {
            file.relative_to(trained.bundle).as_posix()
            for file in trained.bundle.rglob("*")
            if file.is_file()
        }
        assert {
            "config.json", "model.safetensors", "tokenizer.json", "inkstone.json", "manifest.json", "parity.json",
            "report.json", "README.md", "learning_curve.png", "ctranslate2-int8/model.bin",
        } <= files  # fmt: skip
        assert (bundle.name, bundle.languages) == ("made", ("en", "zh"))
        assert sorted(bundle.description["directions"]) == [["en", "zh"], ["zh", "en"]]
        assert (trained.bundle / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
        assert "made" in bundle.card and "BLEU" in bundle.card.upper()
        assert bundle.report["results"]

    def test_the_manifest_says_how_it_was_made(self, trained: Trained) -> None:
        made = json.dumps(open_bundle(trained.bundle).manifest["made"])
        for words in ('"seed"', "torch", "vocab_size", "learning_rate"):
            assert words in made

    def test_the_run_keeps_its_log_and_no_checkpoints(self, trained: Trained) -> None:
        run = run_folder(trained.bundle)
        assert (run / "log.jsonl").stat().st_size > 0 and any((run / "tensorboard").iterdir())
        assert not (run / "checkpoints").exists()

    def test_model_and_tokenizer_fit(self, trained: Trained) -> None:
        tokenizer = Tokenizer.load(trained.bundle)
        assert load_model(trained.bundle).config.vocab_size == tokenizer.vocab_size
        assert tokenizer.specials[4:] == ("<2en>", "<2zh>")

    def test_it_verifies(self, trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["verify", str(trained.bundle), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["passed"] and {"files", "engine", "certified output"} <= {
            c["name"] for c in found["checks"]
        }


class TestTheCorpus:
    def corpus(self, tmp_path: Path, pairs: list[tuple[str, str]], **overlay: Any) -> Corpus:
        return read_corpus(quick_recipe(write_pairs(tmp_path / "pairs.tsv", pairs), **overlay))

    def test_held_out_pairs_are_held_out_and_always_the_same(self, tmp_path: Path) -> None:
        pairs = made_pairs(400)
        one = self.corpus(tmp_path, pairs)
        other = self.corpus(tmp_path, pairs[::-1])
        sets = [one.train, one.valid, one.tests["held out"]]
        assert [len(s) for s in sets] == [360, 20, 20]
        assert {p.source for p in one.valid} == {p.source for p in other.valid}
        assert {p.source for p in one.tests["held out"]} == {p.source for p in other.tests["held out"]}
        sides = [{side for pair in s for side in (pair.source, pair.target)} for s in sets]
        assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]
        more = self.corpus(tmp_path, [*pairs, *made_pairs(440)[400:]])
        assert len({p.source for p in more.valid} & {p.source for p in one.valid}) >= 10, (
            "most stay where they were"
        )

    def test_what_stands_in_a_given_test_or_validation_set_is_not_trained_on(self, tmp_path: Path) -> None:
        pairs = made_pairs(300)
        test = [
            (pairs[0][0], "something else"),
            ("别的。", pairs[1][1].upper() + "!"),
        ]  # either side, case aside
        files = {
            name: str(write_pairs(tmp_path / f"{name}.tsv", some))
            for name, some in (("t", test), ("v", pairs[5:9]))
        }
        corpus = self.corpus(tmp_path, pairs, test={"t": (files["t"],)}, valid=(files["v"],))
        assert corpus.dropped["overlap"] == 6
        trained_on = {pair.source for pair in corpus.train}
        assert len(trained_on) == 294 and not trained_on & {zh for zh, _ in [*pairs[:2], *pairs[5:9]]}
        assert [pair.target for pair in corpus.tests["t"]] == [en for _, en in test]

    def test_what_is_dropped_is_counted_by_rule(self, tmp_path: Path) -> None:
        pairs = [
            *made_pairs(300),
            made_pairs(1)[0],
            ("OK", "OK"),
            ("短", "far too long for so short a source " * 9),
        ]
        dropped = self.corpus(tmp_path, pairs).dropped
        assert (dropped["duplicate"], dropped["identical"], dropped["ratio"]) == (1, 1, 1)

    def test_in_both_directions_every_pair_stands_twice(self, tmp_path: Path) -> None:
        corpus = self.corpus(tmp_path, made_pairs(250))
        turned = both(corpus.valid, [("zh", "en"), ("en", "zh")])
        assert len(turned) == 2 * len(corpus.valid)
        assert [p.reversed() for p in turned[::2]] == turned[1::2]
        assert both(corpus.valid, [("zh", "en")]) == corpus.valid
        assert both(corpus.valid, [("en", "zh")]) == turned[1::2] and both(corpus.valid, [("de", "en")]) == []

    def test_what_is_looked_at_is_taken_from_every_direction(self, tmp_path: Path) -> None:
        pairs = self.corpus(tmp_path, made_pairs(600)).train
        for most in (10, 100, 540):
            some = spread(pairs, [("zh", "en"), ("en", "zh")], most)
            assert [pair.target_language for pair in some] == ["en"] * (most // 2) + ["zh"] * (most // 2)
        assert spread(pairs, [("zh", "en"), ("en", "de")], 10) == evenly(pairs, 10)

    def test_pairs_of_both_ways_are_learnt_as_they_stand(self, tmp_path: Path) -> None:
        there = write_pairs(tmp_path / "there.tsv", made_pairs(300)[:150])
        back = tmp_path / "back.tsv"
        back.write_text("en\tzh\n" + "".join(f"{en}\t{zh}\n" for zh, en in made_pairs(300)[150:]), "utf-8")
        options = replace(quick_recipe(there).training, preflight="skip", stop_after=1)
        recipe = replace(quick_recipe(there), data=(str(there), str(back)), training=options)
        for both_ways, times in ((False, 1), (True, 2)):
            (tmp_path / str(times)).mkdir()
            learnt = learn(replace(recipe, both_directions=both_ways), tmp_path / str(times))
            assert sorted(learnt.directions) == [("en", "zh"), ("zh", "en")]
            assert len(learnt.examples) == times * len(learnt.corpus.train)

    def test_too_long_pairs_are_counted(self, tmp_path: Path, trained: Trained) -> None:
        pairs = self.corpus(tmp_path, made_pairs(250)).train
        long = replace(pairs[0], source=pairs[0].source * 50)
        examples, left_out = encode(Tokenizer.load(trained.bundle), [*pairs, long], 48)
        assert (len(examples), left_out) == (len(pairs), 1)


class TestMistakes:
    def test_too_few_pairs(self, tmp_path: Path) -> None:
        recipe = quick_recipe(write_pairs(tmp_path / "pairs.tsv", made_pairs(150)))
        with pytest.raises(
            DataError, match=r"150 pairs .*are too few to hold out 40.*Give --valid and --test"
        ):
            train_translator(recipe, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_nothing_left_after_cleaning(self, tmp_path: Path) -> None:
        same = write_pairs(tmp_path / "same.tsv", made_pairs(30))
        recipe = quick_recipe(same, valid=(str(same),), test={"t": (str(same),)})
        with pytest.raises(DataError, match=r"no pair to train on is left after cleaning \(overlap 30\)"):
            train_translator(recipe, tmp_path / "out")

    def test_positions_that_are_too_few(self, tmp_path: Path) -> None:
        recipe = quick_recipe(
            write_pairs(tmp_path / "pairs.tsv", made_pairs(250)), model={"max_positions": 16}
        )
        with pytest.raises(ConfigError, match="max_length=48 is more than the model's max_positions=16"):
            train_translator(recipe, tmp_path / "out")

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--set", "trainig.epochs=3"], 'Did you mean "training"?'),
            (["--set", "training.epoch=3"], 'Did you mean "training.epochs"?'),
            (["--set", "training.epochs=many"], "training.epochs='many'"),
            (["--set", "training.schedule=cosin"], "training.schedule='cosin'"),
            (["--set", "training.smoothing=2"], "smoothing=2.0 must be below 1"),
            (["--set", "model.hidden_sise=3"], 'Did you mean "hidden_size"?'),
            (["--set", "vocab_size=5"], "vocab_size=5 is too small"),
            (["--set", "bpe_dropout=1"], "bpe_dropout=1.0 must be at least 0 and below 1"),
            (
                ["--set", "bpe_dropout=0.1", "--set", "tokenizer=unigram"],
                '"unigram" is not known. Valid: bpe',
            ),
            (["--size", "huge"], 'size="huge" is not known'),
            (["--set", "training"], "has no name or no value"),
            (["--data", "nowhere.tsv"], "nowhere.tsv"),
        ],
    )
    def test_said_at_the_door_with_code_2(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
    ) -> None:
        data = write_pairs(tmp_path / "pairs.tsv", made_pairs(250))
        given = ["--data", str(data)] if "--data" not in arguments else []
        assert main(["train", "translate", *given, "--out", str(tmp_path / "out"), *arguments]) == 2
        out, said = capsys.readouterr()
        assert words in said and "Traceback" not in said and out == ""
        assert not (tmp_path / "out").exists()

    def test_a_place_that_is_taken(self, trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
        data = trained.recipe.data[0]
        assert main(["train", "translate", "--data", data, "--out", str(trained.bundle)]) == 2
        assert "already exists" in capsys.readouterr().err
        assert problems(trained.bundle) == []


def test_the_recipe_kept_is_the_recipe_run(trained: Trained) -> None:
    assert load_recipe(run_folder(trained.bundle)) == (trained.recipe, trained.bundle)


@pytest.fixture(scope="module")
def three_languages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A model of all directions between three languages, of which no two share a file; and what was printed.

    The third is English written backwards, under the code of Welsh.
    """
    folder = tmp_path_factory.mktemp("three")
    pairs = made_pairs(900)
    sides = {
        "zh": [zh for zh, _ in pairs],
        "en": [en for _, en in pairs],
        "cy": [en[::-1] for _, en in pairs],
    }
    for one, other in (("zh", "en"), ("en", "cy"), ("zh", "cy")):
        for code in (one, other):
            (folder / f"{one}{other}.{code}").write_text("\n".join(sides[code]) + "\n", "utf-8")
    data = tuple(str(folder / f"{a}{b}.{{{a},{b}}}") for a, b in (("zh", "en"), ("en", "cy"), ("zh", "cy")))
    recipe = replace(quick_recipe(folder), data=data, name="three")
    return folder / "three", train_translator(recipe, folder / "three")


def test_one_model_for_all_directions_of_its_data(three_languages: tuple[Path, dict[str, Any]]) -> None:
    out, printed = three_languages
    ways = ["zh-en", "en-zh", "en-cy", "cy-en", "zh-cy", "cy-zh"]
    assert open_bundle(out).description["directions"] == [way.split("-") for way in ways]
    assert list(printed["metrics"]) == [f"held out {way}" for way in ways]
    for way, found in printed["metrics"].items():
        assert found["chrf"] > 2 * printed["baseline"][way]["copy"]["chrf"], way
    assert Tokenizer.load(out).specials[4:] == ("<2cy>", "<2en>", "<2zh>")
    translator = Translator(out, threads=1)
    there = translator("我看见这只猫。", to="cy", source="zh")
    assert sum(character in there for character in "tac eht") > 4
    with pytest.raises(ConfigError, match="de"):
        translator("x", to="de")


def test_what_no_training_pair_teaches_is_not_measured(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.tsv", made_pairs(250))
    test = tmp_path / "test.tsv"
    test.write_text("zh\tde\n你好\tHallo\n", "utf-8")
    recipe = quick_recipe(data, test={"other": (str(test),)}, valid=(str(test),))
    with pytest.raises(DataError, match="the data teaches zh-en: 2 problems") as error:
        read_corpus(recipe)
    assert "valid holds zh-de" in str(error.value) and "test other holds zh-de" in str(error.value)


def test_words_cut_in_many_ways_teach_something_else_and_repeat(tmp_path: Path, trained: Trained) -> None:
    recipe = replace(trained.recipe, training=replace(trained.recipe.training, epochs=0.2))
    cut = replace(recipe, bpe_dropout=0.2)
    weights = []
    for number, one in enumerate((recipe, cut, cut)):
        (tmp_path / str(number)).mkdir()
        learnt = learn(one, tmp_path / str(number))
        weights.append(learnt.begun.model.state_dict())
        assert learnt.outcome.steps == math.ceil(0.2 * len(learnt.feed.epoch(0)))
        assert learnt.outcome.receipt["order"]["by"] == ("Varied" if one.bpe_dropout else "Planned")
    plain, once, again = weights
    assert all(tensor.equal(again[name]) for name, tensor in once.items())
    assert not all(tensor.equal(plain[name]) for name, tensor in once.items())


def test_when_the_bundle_cannot_be_written_the_training_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: Trained
) -> None:
    from inkstone.model import checkpoint

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    recipe = replace(trained.recipe, training=replace(trained.recipe.training, epochs=0.02))
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full)
        with pytest.raises(OutputError, match=r"[Nn]o space left|disk is full"):
            train_translator(recipe, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.run"]
    assert any((tmp_path / "out.run" / "checkpoints").glob("best-*"))


@pytest.mark.slow
def test_killed_and_interrupted_the_command_ends_with_the_same_bundle(
    tmp_path: Path, trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL, then Ctrl-C, then to the end: the weights are those of the run that nothing disturbed."""
    out, run = tmp_path / "made", tmp_path / "made.run"
    recipe = replace(trained.recipe, training=replace(trained.recipe.training, save_every_s=0.2))
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(plain(recipe), allow_unicode=True), "utf-8")
    begin = ["translate", "--recipe", str(tmp_path / "recipe.yaml"), "--out", str(out)]
    command = [sys.executable, "-c", "import sys; from inkstone.cli import main; sys.exit(main())"]

    def steps() -> int:
        return max((int(p.name[5:]) for p in (run / "checkpoints").glob("last-*")), default=0)

    def go(arguments: list[str], until: int, number: int) -> subprocess.CompletedProcess[str]:
        going = subprocess.Popen(
            [*command, "train", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        deadline = time.monotonic() + 120
        while going.poll() is None and steps() < until and time.monotonic() < deadline:
            time.sleep(0.02)
        going.send_signal(number)
        said, errors = going.communicate(timeout=60)
        return subprocess.CompletedProcess(going.args, going.returncode, said, errors)

    killed = go(begin, 20, signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    at = steps()
    assert at >= 20
    pressed = go(["resume", str(run)], at + 20, signal.SIGINT)
    assert pressed.returncode == 130, pressed.stderr
    assert f"resuming after step {at} " in pressed.stderr
    assert f"Go on with: inkstone train resume {run}" in pressed.stderr
    assert "Traceback" not in pressed.stderr and pressed.stdout == ""
    assert not out.exists()
    assert main(["train", "resume", str(run), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["bundle"] == str(out) and result["steps"] == trained.result["steps"]
    assert sha256(out / "model.safetensors") == sha256(trained.bundle / "model.safetensors")
