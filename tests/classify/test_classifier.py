"""The classifier: served = trained, saved = unsaved, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_texts import chinese, english

from inkstone.apps.classify import Classifier
from inkstone.ground.errors import BundleError, ConfigError, DataError, OutputError
from inkstone.learn.bag import BagOptions, FitOptions
from inkstone.learn.classifier import ClassifierOptions, reserved_share
from inkstone.learn.labelled import LabelSpace, batch_logits
from inkstone.learn.loop import TrainingOptions
from inkstone.learn.token_classifier import TokenOptions
from inkstone.metrics.statistics import Measured
from inkstone.ship.classify import torch_logits

QUICK_BAG = BagOptions(fit=FitOptions(iterations=20))
QUICK_ENCODER = TokenOptions(
    model={"hidden_size": 32, "num_heads": 2, "feed_forward_size": 48, "num_encoder_layers": 1},
    vocab_size=400,
    max_length=24,
    training=TrainingOptions(epochs=4, tokens_per_batch=512, learning_rate=0.01, warmup_steps=5),
)


def options(architecture: str, **more: object) -> ClassifierOptions:
    return ClassifierOptions(
        architecture=architecture,  # type: ignore[arg-type]
        bag=QUICK_BAG,
        transformer=QUICK_ENCODER,
        **more,  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def bag() -> Classifier:
    return Classifier().fit(*english(), options=options("bag"))


@pytest.fixture(scope="module")
def encoder() -> Classifier:
    return Classifier().fit(*english(), options=options("transformer"))


PROBES = ["will it rain in oslo", "play a queen song", "", "完全不同", "snow " * 40, "ROCK"]


def test_the_bag_in_numpy_is_the_bag_in_torch(bag: Classifier) -> None:
    assert bag.choice is not None
    trained = torch_logits(bag.choice.best.model, bag.engine.encode(PROBES))
    assert np.abs(trained - bag.engine.logits(PROBES)).max() < 0.01  # float16 embeddings


def test_the_encoder_in_ctranslate2_is_the_encoder_in_torch(encoder: Classifier, tmp_path: Path) -> None:
    from inkstone.generate.classify_encoder import EncoderEngine
    from inkstone.ship.classify import export_encoder

    assert encoder.choice is not None
    encoder.write(tmp_path)
    exact = EncoderEngine(tmp_path, export_encoder(tmp_path, tmp_path / "exact", quantization="float32"))
    short = [text for text in PROBES if len(exact.encode([text])[0]) <= exact.longest]
    assert len(short) >= 4
    trained = torch_logits(encoder.choice.best.model, exact.encode(short))
    assert np.abs(trained - exact.logits(short)).max() < 1e-4
    served = encoder.engine.logits(short)
    assert (served.argmax(1) == trained.argmax(1)).all()


@pytest.mark.parametrize("kind", ["bag", "encoder"])
def test_batched_is_single(kind: str, request: pytest.FixtureRequest) -> None:
    classifier: Classifier = request.getfixturevalue(kind)
    together = classifier.predict(PROBES)
    for text, one in zip(PROBES, together, strict=True):
        (alone,) = classifier.predict([text])
        assert alone.text == one.text == text
        assert alone.labels == one.labels
        assert alone.scores == pytest.approx(one.scores, abs=1e-3)


@pytest.mark.parametrize("kind", ["bag", "encoder"])
def test_saved_is_unsaved(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    classifier: Classifier = request.getfixturevalue(kind)
    classifier.save(tmp_path / "mine")
    opened = Classifier(tmp_path / "mine")
    assert (opened.name, opened.labels, opened.multi_label) == ("mine", ("music", "weather"), False)
    assert opened.predict(PROBES) == classifier.predict(PROBES)
    opened.save(tmp_path / "again", name="other")
    assert Classifier(tmp_path / "again").predict(PROBES) == opened.predict(PROBES)
    with pytest.raises(OutputError, match="already exists"):
        classifier.save(tmp_path / "mine")


@pytest.mark.parametrize("kind", ["bag", "encoder"])
def test_it_learns_and_probabilities_add_up(kind: str, request: pytest.FixtureRequest) -> None:
    classifier: Classifier = request.getfixturevalue(kind)
    texts, labels = ["is there hail over cairo today", "put on a folk song by bach"], ["weather", "music"]
    found = classifier.predict(texts)
    assert [one.label for one in found] == labels
    for one in found:
        assert sum(one.scores.values()) == pytest.approx(1, abs=1e-5)
        assert list(one.scores.values()) == sorted(one.scores.values(), reverse=True)
    measured = classifier.evaluate(texts, labels)
    assert measured["accuracy"] == Measured(1.0, 1.0, 1.0)


def test_chinese_and_auto(tmp_path: Path) -> None:
    classifier = Classifier().fit(*chinese(), options=options("auto"), run=tmp_path / "run")
    assert classifier.choice is not None
    assert set(classifier.choice.measures) == {"bag", "transformer"}
    best = max(classifier.choice.measures.values())
    assert classifier.choice.best.valid_measure == best
    assert classifier.description["languages"] == ["zh"]
    assert [one.label for one in classifier.predict(["这家面馆的汤面很好吃", "送得又慢又难吃"])] == [
        "好",
        "差",
    ]


def test_long_texts_are_read_to_their_end(encoder: Classifier) -> None:
    """Windows: the mean over all tokens, so the second half of a long text counts as the first does."""
    front = "play some jazz from queen " * 8
    back = "will it rain in oslo tomorrow " * 8
    one, other, both = encoder.engine.logits([front, back, front + back])
    assert np.abs(both - one).max() > 0.05
    assert np.abs(both - other).max() > 0.05
    assert min(one[0], other[0]) < both[0] < max(one[0], other[0])


def test_multi_label(tmp_path: Path) -> None:
    texts, single = english()
    rows = [
        [label, "short"] if len(text) < 25 else [label] for text, label in zip(texts, single, strict=True)
    ]
    texts, rows = [*texts, "hm", "well"], [*rows, [], []]
    classifier = Classifier().fit(texts, rows, options=options("bag"))
    assert classifier.multi_label
    assert classifier.labels == ("music", "short", "weather")
    found = classifier.predict(["play some rock from adele right now please", "is it"])
    assert "music" in found[0].labels
    assert all(0 <= score <= 1 for one in found for score in one.scores.values())
    assert {"accuracy", "macro_f1", "micro_f1"} <= set(classifier.evaluate(texts, rows))
    classifier.save(tmp_path / "mine")
    assert Classifier(tmp_path / "mine").predict(texts[:3]) == classifier.predict(texts[:3])


def test_the_same_seed_gives_the_same_model_and_a_finished_run_is_not_trained_again(
    bag: Classifier, tmp_path: Path
) -> None:
    again = Classifier().fit(*english(), options=options("bag"), run=tmp_path / "run")
    assert (again.engine.logits(PROBES) == bag.engine.logits(PROBES)).all()
    resumed = Classifier().fit(*english(), options=options("bag"), run=tmp_path / "run")
    assert (resumed.engine.logits(PROBES) == bag.engine.logits(PROBES)).all()


def test_batches_of_feature_numbers_equal_single_texts(bag: Classifier) -> None:
    assert bag.choice is not None
    rows = bag.engine.encode(PROBES)
    model = bag.choice.best.model
    assert np.abs(batch_logits(model, rows) - torch_logits(model, rows)).max() < 1e-5


def test_out_of_scope_is_caught_by_a_reserve() -> None:
    space = LabelSpace(("a", "b", "oos"), False)
    sure, unsure = [0.9, 0.08, 0.02], [0.4, 0.35, 0.25]
    shares = np.array([sure] * 100 + [unsure] * 10)
    labels = [("a",)] * 100 + [("oos",)] * 10
    reserve = reserved_share(shares, labels, space, "oos")
    assert 0.15 < reserve < 0.9  # above what unsure texts need, below what sure ones bear
    assert reserved_share(shares[:100], labels[:100], space, "oos") == 0  # nothing out of scope to learn from
    assert reserved_share(shares, [("a",)] * 100 + [("oos",)] * 10, space, "oos", cost=1.0) == 1.0


def test_a_reserve_only_ever_turns_labels_into_out_of_scope() -> None:
    texts, labels = english()
    texts, labels = (
        [*texts, "purple hats sing", "stones are kind", "the tax of mice"],
        [*labels, "oos", "oos", "oos"],
    )
    held = (
        ["play jazz by queen", "will it snow in rome", "mice and stones", "a kind hat"],
        ["music", "weather", "oos", "oos"],
    )
    classifier = Classifier().fit(texts, labels, valid=held, options=options("bag"))
    assert classifier.description["out_of_scope"] == "oos"
    probes = [*PROBES, "hats of mice"]
    before = {}
    for reserved in (0.0, 0.3):
        classifier.description["reserved"] = reserved
        found = classifier.predict(probes)
        assert all(sum(one.scores.values()) == pytest.approx(1, abs=1e-5) for one in found)
        before[reserved] = [one.label for one in found]
    assert all(after in (first, "oos") for first, after in zip(before[0.0], before[0.3], strict=True))


@pytest.mark.parametrize(
    ("texts", "labels", "said"),
    [
        (["a b", "c d"], ["x", "x"], "at least two different labels"),
        ([], [], "no texts"),
        (["a"], ["x", "y"], "1 texts were given with 2 labels"),
        (["a", 3], ["x", "y"], "text 1 is not a string but int"),
        (["a", "b"], ["x", ""], "non-empty strings"),
        (["a", "b"], ["x", 5], "label of text 1"),
        (["", "  "], ["x", "y"], "every text is blank"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused(texts: list[str], labels: list[str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        Classifier().fit(texts, labels, options=options("bag"))


def test_other_mistakes_are_refused(bag: Classifier, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Call fit first"):
        Classifier().predict(["a"])
    with pytest.raises(ConfigError, match="Call fit first"):
        Classifier().save(tmp_path / "x")
    with pytest.raises(ConfigError, match="list of texts"):
        bag.predict("a text")
    with pytest.raises(ConfigError, match="architecture"):
        options("tree")
    with pytest.raises(DataError, match="knows none of these labels: sport"):
        bag.evaluate(["a"], ["sport"])
    with pytest.raises(DataError, match="validation texts have labels that no training text has: sport"):
        Classifier().fit(*english(), valid=(["a"], ["sport"]), options=options("bag"))
    with pytest.raises(DataError, match="out-of-scope label 'nothing'"):
        Classifier().fit(*english(), options=options("bag", out_of_scope="nothing"))
    assert bag.predict([]) == []


def test_unknown_labels_in_a_test_count_as_errors(
    bag: Classifier, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = bag.evaluate(["play jazz by queen", "goal"], ["music", "sport"])
    assert measured["accuracy"].value == 0.5
    assert "sport" in capsys.readouterr().err


def test_an_altered_bundle_is_refused(bag: Classifier, tmp_path: Path) -> None:
    bag.save(tmp_path / "mine")
    file = tmp_path / "mine" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(BundleError, match=r"model\.safetensors"):
        Classifier(tmp_path / "mine")


def test_a_saved_bag_needs_neither_torch_nor_ctranslate2(bag: Classifier, tmp_path: Path) -> None:
    bag.save(tmp_path / "mine")
    code = (
        "import sys; from inkstone import Classifier; "
        f"print(Classifier({str(tmp_path / 'mine')!r}).predict(['play jazz'])[0].label, "
        "[m for m in ('torch', 'ctranslate2', 'sklearn', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split(maxsplit=1)[1].strip() == "[]"
