"""The report card: to JSON and back, to Markdown, to pictures, and never a quote that is not allowed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inkstone.ground.errors import ConfigError, DataError, OutputError
from inkstone.judge.facts import (
    CurvePoint,
    DataDescription,
    Result,
    Sample,
    TrainingFacts,
    metric_title,
    shown_measured,
)
from inkstone.judge.plot import MOST_CLASSES, plot_confusion, plot_learning_curve
from inkstone.judge.report import CARD_FILE, CURVE_FILE, JSON_FILE, MOST_SAMPLES, ReportCard
from inkstone.metrics.classification import Confusion
from inkstone.metrics.statistics import Measured

CURVE = tuple(
    CurvePoint(step, step / 2, 5 / step, {"bleu": 20 - 1000 / step, "loss": 2.0} if step % 200 == 0 else {})
    for step in range(100, 1001, 100)
)
TRANSLATOR = ReportCard(
    name="tiny",
    task="translate",
    languages=("zh", "en"),
    data=(DataDescription("proverbs", {"train": 900, "test": 100}, {"duplicate": 12}, "CC BY 4.0", True),),
    results=(
        Result(
            "proverbs",
            100,
            {"bleu": Measured(25.34, 24.1, 26.6), "chrf": Measured(44.0, 43.0, 45.0)},
            {"copy": {"bleu": Measured(0.1, 0.0, 0.2)}, "dictionary": {"bleu": Measured(6.0, 5.5, 6.6)}},
            "zh-en",
            {"bleu": "tok:13a|version:2.6.0"},
        ),
    ),
    training=TrainingFacts(725.0, 1000, 12.5, 4_600_000, 10_234.0, 1_400_000_000, "CPU"),
    curve=CURVE,
    samples=tuple(Sample(f"原文{n}", f"reference {n}", f"output {n}", "zh-en") for n in range(20)),
    parity={"identical outputs": "200 of 200"},
    good_at="Proverbs.",
    bad_at="Contracts.",
    licence="Apache-2.0",
    size_bytes=9_800_000,
)
CLASSIFIER = ReportCard(
    name="intents",
    task="classify",
    languages=("en",),
    labels=("bill", "card"),
    results=(
        Result(
            "clinic",
            50,
            {"accuracy": Measured(0.908, 0.884, 0.934), "macro_f1": Measured(0.9, 0.88, 0.92)},
            {"majority": {"accuracy": Measured(0.5, 0.45, 0.55)}},
            confusions=(Confusion("bill", "card", 7),),
        ),
    ),
)


@pytest.mark.parametrize("card", [TRANSLATOR, CLASSIFIER])
def test_a_card_survives_json(card: ReportCard) -> None:
    value = json.loads(json.dumps(card.to_json()))
    assert ReportCard.from_json(value).to_json() == card.to_json()
    assert ReportCard.from_json(value) == replace(card, samples=card.shown_samples)


def test_a_damaged_card_is_refused() -> None:
    with pytest.raises(DataError, match="not a report card of format 1"):
        ReportCard.from_json({})
    value = TRANSLATOR.to_json()
    del value["results"][0]["metrics"]["bleu"]["low"]
    with pytest.raises(DataError, match="damaged: KeyError: 'low'"):
        ReportCard.from_json(value)


def test_the_card_says_what_a_reader_needs() -> None:
    card = TRANSLATOR.to_markdown()
    assert card.startswith("# tiny\n\nTranslates between Chinese and English.")
    assert "its BLEU is **25.3**; the best simple baseline, word-by-word dictionary, reaches 6.0." in card
    assert "| **tiny** | 25.3 (24.1-26.6) | 44.0 (43.0-45.0) |" in card
    assert "| copying the input | 0.1 (0.0-0.2) |  |" in card
    for fact in (
        "Proverbs.",
        "Contracts.",
        "zh → en",
        "12 min 5 s",
        "1.40 GB",
        "10,234",
        "4,600,000",
        "9.8 MB",
    ):
        assert fact in card
    assert "| proverbs | duplicate | 12 |" in card
    assert "| identical outputs | 200 of 200 |" in card
    assert "`tok:13a|version:2.6.0`" in card
    assert f"]({CURVE_FILE})" in card


def test_shares_are_shown_in_percent_with_what_is_mixed_up() -> None:
    card = CLASSIFIER.to_markdown()
    assert "Sorts English texts into 2 classes." in card
    assert "| **intents** | 90.8 % (88.4-93.4) | 90.0 % (88.0-92.0) |" in card
    assert "| bill | card | 7 |" in card
    assert "## Examples" not in card
    assert "How it was trained" not in card


def test_a_model_that_was_not_measured_says_so() -> None:
    assert "has not been measured" in replace(CLASSIFIER, results=()).to_markdown()


def test_sentences_are_quoted_only_where_the_licence_allows_it() -> None:
    allowed = TRANSLATOR.to_markdown()
    assert allowed.count("原文") == MOST_SAMPLES
    secret = replace(TRANSLATOR, data=(*TRANSLATOR.data, DataDescription("private notes", {"train": 5})))
    for text in (secret.to_markdown(), json.dumps(secret.to_json(), ensure_ascii=False)):
        assert "原文" not in text
        assert "reference 0" not in text
    assert "licence of the data does not allow" in secret.to_markdown()
    assert replace(TRANSLATOR, data=()).shown_samples == ()


def test_no_mark_up_of_the_data_comes_to_life() -> None:
    nasty = Sample("a | b\nc", "<script>x</script>", "*star* [link](http://x) `code`")
    row = next(
        line for line in replace(TRANSLATOR, samples=(nasty,)).to_markdown().splitlines() if "star" in line
    )
    assert row.startswith("| a \\| b c | ")
    assert "<" not in row
    assert "\\*star\\* \\[link\\]" in row
    assert "\\`code\\`" in row


def test_saving_writes_the_card_its_json_and_the_picture(tmp_path: Path) -> None:
    TRANSLATOR.save(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([CARD_FILE, JSON_FILE, CURVE_FILE])
    assert ReportCard.from_json(json.loads((tmp_path / JSON_FILE).read_text("utf-8"))).name == "tiny"
    assert (tmp_path / CARD_FILE).read_text("utf-8") == TRANSLATOR.to_markdown()
    with pytest.raises(OutputError, match="the folder does not exist"):
        TRANSLATOR.save(tmp_path / "nowhere")


def size_and_colours(path: Path) -> tuple[tuple[int, ...], int]:
    from matplotlib.image import imread

    pixels = imread(path)
    return pixels.shape, len(np.unique((pixels * 255).astype(int).reshape(-1, pixels.shape[-1]), axis=0))


def test_the_learning_curve_is_drawn(tmp_path: Path) -> None:
    plot_learning_curve(CURVE, tmp_path / "with.png")
    plot_learning_curve([replace(point, valid={}) for point in CURVE[:1]], tmp_path / "without.png")
    (high, _, _), colours = size_and_colours(tmp_path / "with.png")
    (low, _, _), _ = size_and_colours(tmp_path / "without.png")
    assert high > low  # a panel for each validation figure
    assert colours > 20
    with pytest.raises(ConfigError, match="at least one point"):
        plot_learning_curve([], tmp_path / "none.png")


def test_confusion_is_drawn_for_few_classes_in_any_script(tmp_path: Path) -> None:
    counts = np.array([[30, 2], [1, 40]])
    plot_confusion(counts, ["好评", "差评"], tmp_path / "chinese.png")
    plot_confusion(counts, ["good", "bad"], tmp_path / "english.png")
    assert size_and_colours(tmp_path / "english.png")[1] > 20
    many = MOST_CLASSES + 1
    with pytest.raises(ConfigError, match="2 to 20 classes"):
        plot_confusion(
            np.zeros((many, many), dtype=np.int64), [str(n) for n in range(many)], tmp_path / "x.png"
        )


def test_metrics_are_named_for_people() -> None:
    assert metric_title("macro_f1/long") == "macro-F1 (long)"
    assert shown_measured("bleu", Measured(40.06, 39.0, 41.0)) == "40.1 (39.0-41.0)"


def test_reading_a_report_loads_nothing_heavy() -> None:
    heavy = ("torch", "sklearn", "sacrebleu", "matplotlib", "transformers", "rjieba")
    code = f"""
import sys
import inkstone.judge.baselines, inkstone.judge.compare, inkstone.judge.evaluate, inkstone.judge.report
print([name for name in {heavy!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
