"""`inkstone evaluate` from files to figures, with small fakes in place of the two applications."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import sacrebleu
import typer
from typer.testing import CliRunner

from inkstone.cli.evaluate import evaluate as command
from inkstone.ground.errors import BundleError, ConfigError, DataError
from inkstone.model.bundle import new_bundle
from inkstone.recipes.evaluate import Evaluation, Options, evaluate

SENTENCES = [(f"Ich sehe {n} Katzen im Garten.", f"I see {n} cats in the garden.") for n in range(60)]
REVIEWS = [(f"{word} number {n}", word) for n in range(40) for word in ("good", "bad", "strange")]


@dataclass
class Translation:
    translation: str


@dataclass
class Classification:
    labels: tuple[str, ...]


class FakeTranslator:
    """Knows the sentences by heart; the model called "worse" says "dogs" in every other one, unless it has company."""

    def __init__(self, bundle: Path, beside: Sequence[Path] = ()) -> None:
        self.worse = bundle.name == "worse" and not beside

    def translate(
        self, texts: Sequence[str], *, to: str | None = None, source: str | None = None, options: Any = None
    ) -> list[Translation]:
        assert (source, to) == ("de", "en")
        answers = [dict(SENTENCES)[text] for text in texts]
        if self.worse:
            answers = [a.replace("cats", "dogs") if n % 2 else a for n, a in enumerate(answers)]
        return [Translation(answer) for answer in answers]


class FakeClassifier:
    """Labels a review by its first word; the model called "worse" takes bad for good, unless it has company."""

    def __init__(self, bundle: Path, beside: Sequence[Path] = ()) -> None:
        self.worse = bundle.name == "worse" and not beside

    def predict(self, texts: Sequence[str]) -> list[Classification]:
        words = [text.split()[0] for text in texts]
        return [Classification(("good" if self.worse and word == "bad" else word,)) for word in words]


@pytest.fixture(autouse=True)
def applications(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, kind in (("translate", FakeTranslator), ("classify", FakeClassifier)):
        module = ModuleType(f"inkstone.apps.{name}")
        setattr(module, {"translate": "Translator", "classify": "Classifier"}[name], kind)
        monkeypatch.setitem(sys.modules, module.__name__, module)


def make_bundle(path: Path, task: str) -> Path:
    description: dict[str, Any] = {"name": path.name, "task": task, "languages": ["de", "en"]}
    if task == "translate":
        description |= {"directions": [["en", "de"], ["de", "en"]]}
    if task == "classify":
        description |= {"labels": ["good", "bad", "strange"], "multi_label": False, "out_of_scope": "strange"}
    if task == "embed":
        description |= {"dimensions": [4]}
    with new_bundle(path, description, {}):
        pass
    return path


@pytest.fixture
def translator(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "better", "translate")


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    file = tmp_path / "test.jsonl"
    lines = [json.dumps({"de": source, "en": target}) for source, target in SENTENCES]
    file.write_text("\n".join(lines) + "\n", "utf-8")
    return file


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    file = tmp_path / "reviews.jsonl"
    lines = [json.dumps({"text": text, "label": label}) for text, label in REVIEWS]
    file.write_text("\n".join(lines) + "\n", "utf-8")
    return file


def test_a_translator_is_measured(translator: Path, pairs: Path) -> None:
    found = evaluate(translator, [pairs])
    assert (found.task, found.model, found.n, found.direction) == ("translate", "better", 60, "de-en")
    assert found.metrics["bleu"].value == pytest.approx(100)
    assert "tok:13a" in found.signatures["bleu"]
    value = found.as_json()
    assert (value["against"], value["difference"], value["verdict"]) == (None, None, None)
    assert value["metrics"]["chrf"].keys() == {"value", "low", "high"}


@pytest.mark.parametrize("task", ["translate", "classify"])
def test_several_models_are_measured_as_one(task: str, pairs: Path, reviews: Path, tmp_path: Path) -> None:
    worse, better = (make_bundle(tmp_path / name, task) for name in ("worse", "better"))
    data = pairs if task == "translate" else reviews
    found = evaluate(worse, [data], beside=[better], against=worse)
    assert (found.model, found.against_model, found.n) == (
        "worse + better",
        "worse",
        evaluate(better, [data]).n,
    )
    assert found.metrics == evaluate(better, [data]).metrics
    assert found.against == evaluate(worse, [data]).metrics  # the rival answers alone
    assert found.comparison is not None
    assert found.comparison.verdict == "promote"


def test_other_tasks_have_no_several(tmp_path: Path, pairs: Path) -> None:
    encoder = make_bundle(tmp_path / "encoder", "embed")
    with pytest.raises(
        ConfigError, match="encoder is of task embed: only translators and classifiers answer"
    ):
        evaluate(encoder, [pairs], beside=[encoder])
    with pytest.raises(BundleError, match="task"):
        evaluate(make_bundle(tmp_path / "t", "translate"), [pairs], beside=[encoder])


def test_two_translators_are_compared_on_the_same_sentences(translator: Path, pairs: Path) -> None:
    worse = make_bundle(translator.parent / "worse", "translate")
    found = evaluate(worse, [pairs], against=translator)
    hypotheses = [
        t.translation
        for t in FakeTranslator(worse).translate([s for s, _ in SENTENCES], to="en", source="de")
    ]
    expected = sacrebleu.corpus_bleu(hypotheses, [[t for _, t in SENTENCES]]).score
    assert found.metrics["bleu"].value == pytest.approx(expected)
    value = found.as_json()
    assert value["verdict"] == "reject"
    assert value["against"]["bleu"]["value"] == pytest.approx(100)
    assert value["difference"]["bleu"]["value"] == pytest.approx(expected - 100)
    assert evaluate(translator, [pairs], against=worse).as_json()["verdict"] == "promote"
    assert evaluate(translator, [pairs], against=translator).as_json()["verdict"] == "undecided"


def test_the_same_command_gives_the_same_figures(translator: Path, pairs: Path) -> None:
    worse = make_bundle(translator.parent / "worse", "translate")

    def figures(seed: int) -> Evaluation:
        return evaluate(worse, [pairs], options=Options(seed=seed))

    assert figures(1).metrics == figures(1).metrics
    assert figures(1).metrics["bleu"].low != figures(2).metrics["bleu"].low


def test_a_classifier_is_measured_with_its_out_of_scope_label(tmp_path: Path, reviews: Path) -> None:
    worse = make_bundle(tmp_path / "worse", "classify")
    found = evaluate(worse, [reviews])
    assert found.n == 120
    assert found.metrics["accuracy"].value == pytest.approx(2 / 3)
    assert found.metrics["in_scope_accuracy"].value == pytest.approx(1 / 2)
    assert found.metrics["out_of_scope_recall"].value == 1
    better = make_bundle(tmp_path / "better", "classify")
    assert evaluate(better, [reviews], against=worse).as_json()["verdict"] == "promote"


def test_labels_the_model_does_not_know_are_reported_or_refused(tmp_path: Path) -> None:
    model = make_bundle(tmp_path / "better", "classify")
    file = tmp_path / "new.jsonl"
    rows = [{"text": "good one", "label": "good"}, {"text": "bad one", "label": "awful"}]
    file.write_text("\n".join(map(json.dumps, rows)) + "\n", "utf-8")
    found = evaluate(model, [file])
    assert found.metrics["accuracy"].value == 0.5
    assert found.notes == ("1 examples have labels that better does not know (awful); they count as errors.",)
    file.write_text(json.dumps(rows[1]) + "\n", "utf-8")
    with pytest.raises(DataError, match="knows none of the labels of the data: awful"):
        evaluate(model, [file])


def test_bad_lines_are_counted_and_strict_stops(translator: Path, pairs: Path) -> None:
    with pairs.open("a", encoding="utf-8") as file:
        file.write("{broken\n")
    found = evaluate(translator, [pairs])
    assert found.n == 60
    assert "1 lines of the data could not be used" in found.notes[0]
    assert "test.jsonl" in found.notes[0]
    with pytest.raises(DataError, match=r"test\.jsonl"):
        evaluate(translator, [pairs], options=Options(strict=True))


def test_what_does_not_fit_is_refused(tmp_path: Path, translator: Path, pairs: Path, reviews: Path) -> None:
    with pytest.raises(BundleError, match="task 'classify'"):
        evaluate(translator, [pairs], against=make_bundle(tmp_path / "other", "classify"))
    with pytest.raises(DataError, match="text, label"):
        evaluate(translator, [reviews])
    mixed = tmp_path / "mixed.jsonl"
    mixed.write_text('{"fr": "Bonjour.", "en": "Hello."}\n', "utf-8")
    with pytest.raises(DataError, match=r"one translation direction; it holds: de to en, fr to en"):
        evaluate(translator, [pairs, mixed])


def run_command(*arguments: object) -> Any:
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_command_prints_one_json_document(translator: Path, pairs: Path) -> None:
    worse = make_bundle(translator.parent / "worse", "translate")
    result = run_command(worse, "--data", pairs, "--against", translator, "--json")
    assert result.exit_code == 0, result.output
    value = json.loads(result.stdout)
    assert {"task", "model", "n", "metrics", "against", "difference", "verdict"} <= value.keys()
    assert value["difference"]["bleu"].keys() == {"value", "low", "high", "p"}


def test_the_command_prints_a_table_for_people(tmp_path: Path, reviews: Path) -> None:
    worse, better = (make_bundle(tmp_path / name, "classify") for name in ("worse", "better"))
    result = run_command(better, "--data", reviews, "--against", worse)
    assert result.exit_code == 0, result.output
    assert "100.0 %" in result.stdout
    assert "+33.3" in result.stdout
    assert "Verdict: promote." in result.stdout
    assert "reviews.jsonl" in result.stderr


def test_the_command_refuses_a_tokenisation_it_does_not_know(translator: Path, pairs: Path) -> None:
    result = run_command(translator, "--data", pairs, "--tokenize", "13b")
    assert isinstance(result.exception, ConfigError)
    assert 'Did you mean "13a"?' in str(result.exception)


def test_data_in_another_language_than_it_claims_is_said(
    tmp_path: Path, translator: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    french = [f"Il y a {n} petites maisons blanches dans cette rue tranquille." for n in range(60)]
    file = tmp_path / "test.jsonl"
    rows = [{"de": source, "en": target} for (_, target), source in zip(SENTENCES, french, strict=True)]
    file.write_text("\n".join(map(json.dumps, rows)) + "\n", "utf-8")
    monkeypatch.setattr(FakeTranslator, "translate", lambda *_, **__: [Translation("a") for _ in french])
    found = evaluate(translator, [file])
    (note,) = found.notes
    assert "60 of 60 test pairs looked at are in another language than they claim" in note
    assert "test.jsonl:1: fr (" in note and "where de is claimed" in note


def test_a_few_foreign_sentences_are_nothing_to_speak_of(translator: Path, pairs: Path) -> None:
    """Names, quotations: one pair in twenty may be in another language."""
    with pairs.open("a", encoding="utf-8") as file:
        for _ in range(2):
            file.write(
                json.dumps({"de": "Il y a une maison blanche dans la rue.", "en": SENTENCES[0][1]}) + "\n"
            )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FakeTranslator, "translate", lambda _, texts, **__: [Translation("a") for _ in texts])
        assert evaluate(translator, [pairs]).notes == ()
