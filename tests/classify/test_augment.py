"""Changed copies of texts: what may change, what stays, and that the same seed gives the same."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inkstone.apps import back_translation as back
from inkstone.corpus.augment import AugmentOptions, augmented, changed_copies
from inkstone.ground.errors import ConfigError
from inkstone.model.bundle import list_bundles
from inkstone.text.segment import words

EN = "The food here is really good , but the service was slow and the room far too loud ."
ZH = "这家餐厅的服务非常热情，菜也很好吃，就是等的时间太长了。"
ONLY = {"copies": 1, "delete": 0.0, "swap": 0.0, "replace": 0.0}


def copies(text: str, count: int = 200, near: object = None, **options: object) -> list[str]:
    chosen = AugmentOptions(**{**ONLY, **options})  # type: ignore[arg-type]
    return [augmented(text, chosen, np.random.default_rng(seed), near) for seed in range(count)]  # type: ignore[arg-type]


@pytest.mark.parametrize("text", [EN, ZH])
def test_deleted_words_leave_the_others_in_order(text: str) -> None:
    shares = []
    for copy in copies(text, delete=0.2):
        rest = iter(text)
        assert all(any(sign == other for other in rest) for sign in copy)
        assert set(copy) <= set(text) and "  " not in copy
        shares.append(1 - len(copy.replace(" ", "")) / len(text.replace(" ", "")))
    assert 0.1 < np.mean(shares) < 0.3


@pytest.mark.parametrize("text", [EN, ZH])
def test_swapped_words_are_all_there(text: str) -> None:
    changed = copies(text, swap=0.3)
    assert all(Counter(copy) == Counter(text) for copy in changed)
    assert sum(copy != text for copy in changed) > 100
    marks = [[mark for mark in copy if mark in "，。,."] for copy in changed]
    assert all(found == marks[0] for found in marks), "punctuation stays in its order"


def test_replaced_words_are_near() -> None:
    near = {"food": ["meal", "dish"], "slow": ["late"]}
    changed = copies(EN, near=lambda word: near.get(word, []), replace=0.5, vectors="any")
    found = Counter(word for copy in changed for word in words(copy))
    assert found["meal"] > 20 < found["dish"] and found["late"] > 60
    assert all(len(words(copy)) == len(words(EN)) for copy in changed)
    assert set(found) == set(words(EN)) | {"meal", "dish", "late"}


@given(st.text(max_size=60), st.integers(0, 2**31))
def test_of_any_text_something_stays(text: str, seed: int) -> None:
    options = AugmentOptions(copies=1, delete=0.9, swap=0.5)
    found = augmented(text, options, np.random.default_rng(seed))
    assert bool(words(found)) == bool(words(text))
    nothing = AugmentOptions(copies=1, delete=0.0, swap=1e-9)
    assert augmented(text, nothing, np.random.default_rng(seed)) == text.strip()


def test_copies_are_new_and_the_same_every_time() -> None:
    options = AugmentOptions(copies=4)
    texts = [EN, ZH, "好", "", "yes"]
    found = changed_copies(texts, options, seed=3)
    assert found == changed_copies(texts, options, seed=3) != changed_copies(texts, options, seed=4)
    assert found[:2] == changed_copies(texts[:1], options, seed=3)[:2], "whatever the other texts are"
    assert {number for number, _ in found} == {0, 1}, "of one word there is nothing to change"
    assert all(copy != texts[number] for number, copy in found) and len(set(found)) == len(found)


def test_every_problem_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        AugmentOptions(copies=-1, delete=1.0, swap=-0.1, replace=0.5)
    for part in ("copies=-1", "delete=1.0", "swap=-0.1", "replace=0.5 needs word vectors"):
        assert part in str(error.value)
    with pytest.raises(ConfigError, match="nothing would change"):
        AugmentOptions(copies=1, delete=0, swap=0)


class TestInTraining:
    def test_only_texts_to_learn_from_have_copies(self, tmp_path: Path) -> None:
        pytest.importorskip("torch", reason="training needs torch")
        from small_texts import english

        from inkstone.learn.bag import BagOptions, FitOptions
        from inkstone.learn.classifier import ClassifierOptions, choose
        from inkstone.learn.labelled import Texts

        texts, labels = english()
        data = Texts(texts, [(label,) for label in labels])
        bag = BagOptions(fit=FitOptions(iterations=3))
        plain = ClassifierOptions(architecture="bag", bag=bag, refit=False)
        more = ClassifierOptions(architecture="bag", bag=bag, refit=False, augment=AugmentOptions(copies=2))
        chosen, augmented_ = (
            choose(data, None, options, multi_label=False, run=tmp_path / name)
            for name, options in (("plain", plain), ("more", more))
        )
        assert augmented_.valid == chosen.valid and augmented_.train == chosen.train
        assert augmented_.best.examples > 1.5 * chosen.best.examples

    def test_by_the_neighbours_of_word_vectors(self, tmp_path: Path) -> None:
        pytest.importorskip("torch", reason="training needs torch")
        from inkstone.learn.augmented import nearest, with_copies
        from inkstone.learn.labelled import Texts

        (tmp_path / "v.txt").write_text("food 1 0\nmeal 0.9 0.1\nloud 0 1\n")
        near = nearest(str(tmp_path / "v.txt"))
        assert near("Food") == ("meal",) and near("loud") == () == near("unknown")
        options = AugmentOptions(copies=3, delete=0, swap=0, replace=0.9, vectors=str(tmp_path / "v.txt"))
        found = with_copies(Texts([EN], [("bad",)]), options, seed=1)
        assert found.texts == [EN, EN.replace("food", "meal")] and found.labels == [("bad",), ("bad",)]

    def test_on_the_command_line(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        pytest.importorskip("torch", reason="training needs torch")
        from made_corpus import made_labelled

        from inkstone.cli import main

        rows = [{"text": f"{text} {n}", "label": label} for n in range(8) for text, label in made_labelled()]
        (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
        command = [
            "train",
            "classify",
            "--data",
            str(tmp_path / "data.jsonl"),
            "--out",
            str(tmp_path / "model"),
        ]
        assert main([*command, "--architecture", "bag", "--set", "options.augment.copies=2", "--json"]) == 0
        assert "changed copies of" in capsys.readouterr().err
        made = json.loads((tmp_path / "model" / "manifest.json").read_text())["made"]
        assert made["recipe"]["options"]["augment"]["copies"] == 2


class FakeTranslator:
    """Swaps a word for its like on the way to Chinese, and knows nothing else."""

    directions = (("en", "zh"), ("zh", "en"))

    def __init__(self, bundle: str, threads: int = 0) -> None:
        self.asked: list[str] = []
        if bundle == "one-way":
            self.directions = (("en", "zh"),)  # type: ignore[assignment]

    def translate(self, texts: list[str], *, to: str, source: str) -> list[Any]:
        self.asked += texts
        change = str.upper if to == "zh" else str.swapcase
        return [SimpleNamespace(translation=change(text)) for text in texts]


def test_texts_are_translated_there_and_back_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def translator(*arguments: Any, **named: Any) -> FakeTranslator:
        made.append(FakeTranslator(*arguments, **named))
        return made[-1]

    monkeypatch.setattr(back, "Translator", translator)
    assert back.back_translation(AugmentOptions()) is None
    rewrite = back.back_translation(AugmentOptions(back_translate="any"))
    assert rewrite is not None
    german = "Das ist ein ganz gewöhnlicher deutscher Satz über das Wetter."
    found = rewrite([EN, german, EN, ZH])
    assert found == [EN.upper().swapcase(), german, EN.upper().swapcase(), ZH]
    asked = len(made[0].asked)
    assert rewrite([EN, ZH]) == [found[0], found[3]] and len(made[0].asked) == asked
    with pytest.raises(ConfigError, match="translates en-zh, and not back"):
        back.back_translation(AugmentOptions(back_translate="one-way"))


def test_what_comes_back_is_learnt_with_the_text_s_labels() -> None:
    pytest.importorskip("torch", reason="training needs torch")
    from inkstone.learn.augmented import with_copies
    from inkstone.learn.labelled import Texts

    data = Texts([EN, ZH, "same"], [("a",), ("b",), ("c",)])
    options = AugmentOptions(back_translate="any")
    found = with_copies(data, options, 1, lambda texts: [EN.lower(), "  ", "same"])
    assert found.texts == [EN, ZH, "same", EN.lower()]
    assert found.labels == [("a",), ("b",), ("c",), ("a",)]
    both = with_copies(data, replace(options, copies=1, delete=0.5), 1, lambda texts: [EN.lower(), ZH, "x"])
    assert len(both) > len(found) and both.labels[-1] == ("c",) and both.texts[-1] == "x"


@pytest.mark.skipif(not list_bundles(), reason="the bundled models are not here")
def test_the_bundled_translator_says_it_in_other_words() -> None:
    rewrite = back.back_translation(AugmentOptions(back_translate="zh-en"), threads=1)
    assert rewrite is not None
    english, chinese = rewrite(["The children are playing football in the park.", "我昨天买了一本书。"])
    assert "park" in english and "书" in chinese
