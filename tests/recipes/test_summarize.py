"""A summariser of made documents, from files to a served bundle, and everything that can be done with it."""

from __future__ import annotations

import io
import json
import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from made_corpus import DEEDS, PEOPLE, THINGS

pytest.importorskip("torch", reason="training needs torch")

from inkstone.apps.summarize import Summarizer
from inkstone.cli import main
from inkstone.generate.engine import GenerationOptions
from inkstone.ground.errors import BundleError, ConfigError, DataError
from inkstone.learn.listening import Listener, listening
from inkstone.learn.loop import TrainingOptions
from inkstone.recipes.evaluate import Options, evaluate
from inkstone.recipes.pairs import read_corpus
from inkstone.recipes.rerun import rerun
from inkstone.recipes.summarize import load_recipe, train_summarizer
from inkstone.recipes.summarizer_recipe import SummarizeRecipe
from inkstone.recipes.verify import verify

FILLER = {"en": "It rains a lot here.", "zh": "这里常常下雨。"}
Capture = pytest.CaptureFixture[str]


def made_documents() -> list[dict[str, Any]]:
    """Documents of three sentences, of which one, never the first, says what somebody does; its summary says so too."""
    rows: list[dict[str, Any]] = []
    for who, who_zh in PEOPLE.items():
        for does, does_zh in DEEDS.items():
            for what, what_zh in THINGS.items():
                english, chinese = f"{who} {does} {what}.", f"{who_zh}{does_zh}{what_zh}。"
                rows.append({"document": f"{FILLER['en']} Today {english}", "summary": [english]})
                rows.append({"document": f"{FILLER['zh']}今天{chinese}", "summary": [chinese, "别的说法"]})
    random.Random(2).shuffle(rows)
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")
    return str(path)


class Made(NamedTuple):
    """A finished run, its recipe, its bundle and its test data."""

    recipe: SummarizeRecipe
    bundle: Path
    result: dict[str, Any]
    test: Path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("summaries")
    rows = made_documents()
    write(folder / "train.jsonl", [{**row, "summary": row["summary"][:1]} for row in rows[:860]])
    test = Path(write(folder / "test.jsonl", rows[860:940]))
    recipe = SummarizeRecipe(
        name="gist",
        data=(str(folder / "train.jsonl"),),
        valid=(write(folder / "valid.jsonl", rows[940:]),),
        test={"unseen": (str(test),)},
        vocab_size=420,
        size="tiny",
        model={"hidden_size": 64, "num_encoder_layers": 1, "num_decoder_layers": 1, "feed_forward_size": 128,
               "max_positions": 64, "dropout": 0.0},
        max_length=32,
        beam_size=2,
        training=TrainingOptions(epochs=8, tokens_per_batch=1024, learning_rate=8e-3, warmup_steps=20, threads=1,
                                 precision="float32"),
    )  # fmt: skip
    return Made(recipe, folder / "gist", train_summarizer(recipe, folder / "gist"), test)


def test_it_learns_and_its_card_says_how_well(made: Made) -> None:
    assert set(made.result["metrics"]) == {"unseen en", "unseen zh"}
    for language in ("en", "zh"):
        found, lead = (made.result[part][f"unseen {language}"] for part in ("metrics", "baseline"))
        assert found["rougeL"] > 80 > 50 > lead["lead"]["rougeL"]
        assert found["token_accuracy"] > 0.9
        assert 0 < found["token_loss"] < 0.5
    card = (made.bundle / "README.md").read_text("utf-8")
    assert "Writes summaries of English and Chinese texts." in card
    assert "the best simple baseline, the first sentence, reaches" in card


def test_summaries_in_python(made: Made) -> None:
    summarizer = Summarizer(made.bundle)
    english, chinese = summarizer.summarize(
        ["It rains a lot here. Today Tom buy the book.", "这里常常下雨。今天汤姆买这本书。"]
    )
    assert (english.summary, english.language) == ("Tom buy the book.", "en")
    assert chinese.language == "zh"
    assert "汤姆" in chinese.summary
    assert summarizer("这里常常下雨。今天我需要一只狗。") == "我需要一只狗。"


def test_of_a_long_document_every_part_is_summarised(made: Made) -> None:
    summarizer = Summarizer(made.bundle)
    sentences = [f"It rains a lot here. Today {who} need the cat." for who in PEOPLE]
    (found,) = summarizer.summarize([" ".join(sentences)])
    assert len(found.parts) > 1
    assert " ".join(part.text for part in found.parts) == " ".join(sentences)  # nothing is cut off
    assert all(len(summarizer.tokenizer.encode(part.text)) <= summarizer.most for part in found.parts)
    assert found.summary == " ".join(part.summary for part in found.parts)
    coverage = found.as_json()["coverage"]
    assert [one["section"] for one in coverage] == list(range(1, len(found.parts) + 1))
    assert sum(one["share"] for one in coverage) == pytest.approx(1, abs=1e-3)
    (endless,) = summarizer.summarize(["need " * 300])  # not even a sentence to part it at
    assert len(endless.parts) > 5


def test_what_it_cannot_do_is_said(made: Made) -> None:
    summarizer = Summarizer(made.bundle)
    with pytest.raises(ConfigError, match="gist writes en, zh, not fr"):
        summarizer.summarize(["x"], language="fr")
    with pytest.raises(DataError, match="document 2 of 2 has no text"):
        summarizer.summarize(["x", " \n"])
    with pytest.raises(ConfigError, match="document 1 looks like French"):
        summarizer.summarize(["Le vieux pont sera fermé jusqu'au printemps."])
    with pytest.raises(ConfigError, match="a list of documents"):
        summarizer.summarize("x")
    with pytest.raises(BundleError, match="task"):
        Summarizer("zh-en")


def test_a_summary_that_ends_at_the_limit_says_so(made: Made) -> None:
    summarizer = Summarizer(made.bundle)
    text = "It rains a lot here. Today I need the cat."
    whole, short = (
        summarizer.summarize([text], options=GenerationOptions(max_length=most))[0] for most in (32, 2)
    )
    assert (whole.cut, whole.as_json()["cut"]) == (False, False)
    assert (short.cut, short.as_json()["cut"]) == (True, True)


def test_documents_too_long_to_validate_with_stop_nothing(
    made: Made, tmp_path: Path, capsys: Capture
) -> None:
    rows = [json.loads(line) for line in Path(made.recipe.valid[0]).read_text("utf-8").splitlines()]
    rows[::2] = [{**row, "document": f"{row['document']} " * 40} for row in rows[::2]]
    valid = write(tmp_path / "valid.jsonl", rows)
    training = replace(made.recipe.training, epochs=0.1)
    recipe = replace(made.recipe, valid=(valid,), test={"long": (valid,)}, training=training)
    result = train_summarizer(recipe, tmp_path / "out")
    assert "are too long to prove the engine on" in capsys.readouterr().err
    assert result["metrics"]["long en"]["rougeL"] >= 0
    assert "documents, which are longer than max_length" in (tmp_path / "out" / "README.md").read_text(
        "utf-8"
    )


def test_what_is_held_out_is_held_out_with_all_of_its_summaries(tmp_path: Path) -> None:
    rows = [
        {**row, "summary": [f"{word} {row['summary'][0]}" for word in "abc"]}
        for row in made_documents()[:300]
    ]
    recipe = SummarizeRecipe(name="x", data=(write(tmp_path / "a.jsonl", rows),))
    corpus = read_corpus(recipe)
    parts = [{pair.source for pair in some} for some in (corpus.train, corpus.valid, *corpus.tests.values())]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 300
    assert all(len(some) == 3 * len(texts) for some, texts in zip(
        (corpus.train, corpus.valid, *corpus.tests.values()), parts, strict=True))  # fmt: skip


def test_texts_that_stay_together_leave_something_for_every_use(tmp_path: Path) -> None:
    """Few documents of many summaries: a border moves to the next document, and the one after it moves along."""
    rows = [
        {"document": f"Document {n} is about something.", "summary": [f"{n} is {m}." for m in range(40)]}
        for n in range(20)
    ]
    recipe = SummarizeRecipe(name="x", data=(write(tmp_path / "a.jsonl", rows),), language="en")
    corpus = read_corpus(recipe)
    assert [len(some) for some in (corpus.valid, *corpus.tests.values())] == [40, 40]
    assert len(corpus.train) == 18 * 40
    many = [{"document": "The same.", "summary": [f"It is {m}." for m in range(400)]}]
    with pytest.raises(DataError, match="1 different texts are too few to hold some out: those of one text"):
        read_corpus(replace(recipe, data=(write(tmp_path / "c.jsonl", many),)))


def test_on_the_command_line(
    made: Made, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "report.txt"
    file.write_text("这里常常下雨。\n今天我需要一只狗。\n", "utf-8")
    assert main(["summarize", str(file), "--model", str(made.bundle), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["model"] == "gist"
    (one,) = found["results"]
    assert (one["summary"], one["language"], one["cut"]) == ("我需要一只狗。", "zh", False)
    assert one["sentences"] == [{"text": "我需要一只狗。"}]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(file.read_bytes()), "utf-8"))
    assert (
        main(["summarize", "-", "--text", "今天我需要一只狗。", "--to", "zh", "--model", str(made.bundle)])
        == 0
    )
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert main(["summarize", "--model", str(made.bundle)]) == 2
    assert "there is nothing to summarise" in capsys.readouterr().err
    assert main(["summarize", str(file)]) == 2
    assert "give --model FOLDER" in capsys.readouterr().err
    assert main(["summarize", str(tmp_path / "none.txt"), "--model", str(made.bundle)]) == 2
    assert "none.txt cannot be read" in capsys.readouterr().err


def test_evaluate_gives_the_figures_of_the_card(made: Made, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in made.test.read_text("utf-8").splitlines()]
    chinese = write(tmp_path / "zh.jsonl", [row for row in rows if "雨" in row["document"]])
    found = evaluate(made.bundle, [chinese], against=made.bundle, options=Options(beam_size=2))
    card = made.result["metrics"]["unseen zh"]
    for name in ("rouge1", "rouge2", "rougeL"):
        assert found.metrics[name].value == pytest.approx(card[name], abs=1e-4)
    assert found.comparison is not None
    assert found.comparison.differences["rougeL"].value == 0
    both = evaluate(made.bundle, [made.test])
    assert both.n == len(rows)
    french = write(
        tmp_path / "fr.jsonl", [{"document": "Le vieux pont sera fermé jusqu'au printemps.", "summary": "x"}]
    )
    with pytest.raises(DataError, match="gist writes en, zh; the data is in fr too"):
        evaluate(made.bundle, [french])


def test_it_is_verified_and_repeated(made: Made) -> None:
    checks = {check.name: check for check in verify(made.bundle)}
    assert {"files", "engine", "certified output", "float32 parity"} <= set(checks)
    assert all(check.passed for check in checks.values()), checks
    found = rerun(made.bundle, steps=5)
    assert found.passed
    assert found.equal


class Killed(Exception):
    """What a signal would do."""


class Killer(Listener):
    """Ends a run at its second validation."""

    met = 0

    def validated(self, measures: dict[str, float], value: float) -> None:
        self.met += 1
        if self.met == 2:
            raise Killed


def test_a_killed_run_goes_on_to_the_same_weights(made: Made, tmp_path: Path, capsys: Capture) -> None:
    training = replace(made.recipe.training, epochs=0.5, validate_every=4, save_every_s=0.0)
    recipe = replace(made.recipe, training=training)
    train_summarizer(recipe, tmp_path / "whole")
    with pytest.raises(Killed), listening(Killer()):
        train_summarizer(recipe, tmp_path / "parted")
    assert load_recipe(tmp_path / "parted.run") == (recipe, tmp_path / "parted")
    assert main(["train", "resume", str(tmp_path / "parted.run"), "--json"]) == 0
    capsys.readouterr()
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parted")]
    assert weights[0] == weights[1]


def test_learning_on_from_a_summariser(made: Made, tmp_path: Path) -> None:
    training = replace(made.recipe.training, epochs=0.2, learning_rate=1e-4)
    plain = SummarizeRecipe(name="more", data=made.recipe.data, test=made.recipe.test, base=str(made.bundle),
                            max_length=32, training=training)  # fmt: skip
    result = train_summarizer(plain, tmp_path / "more")
    assert result["baseline"]["unseen en"]["before"]["rougeL"] > 80
    with pytest.raises(BundleError, match="translate"):
        train_summarizer(replace(plain, base="zh-en"), tmp_path / "other")
