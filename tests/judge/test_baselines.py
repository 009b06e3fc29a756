"""The baselines learn what there is to learn, refuse what cannot be, and give the known figures."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest

from inkstone.ground.errors import DataError
from inkstone.ground.records import Pair
from inkstone.judge.baselines import (
    TfidfLinear,
    WordDictionary,
    copy_source,
    label_baselines,
    majority,
    mostly_unspaced,
    translation_baselines,
)

NOUNS = {"cat": "Katze", "dog": "Hund", "house": "Haus", "tree": "Baum", "bird": "Vogel"}
VERBS = {"sees": "sieht", "loves": "liebt", "finds": "findet"}


def language_pairs(count: int = 200) -> tuple[list[str], list[str]]:
    """Sentences of a subject, verb and object; in the target language the verb comes last."""
    rng = np.random.default_rng(0)
    drawn = [(*rng.choice(list(NOUNS), 2), rng.choice(list(VERBS))) for _ in range(count)]
    return (
        [f"the {a} {v} the {b} ." for a, b, v in drawn],
        [f"xx {NOUNS[a]} xx {NOUNS[b]} {VERBS[v]} ." for a, b, v in drawn],
    )


def test_the_dictionary_finds_which_word_means_which() -> None:
    sources, targets = language_pairs()
    dictionary = WordDictionary("en", "de", tokenised=True).fit(sources, targets)
    assert {word: dictionary.best[word] for word in NOUNS | VERBS} == NOUNS | VERBS
    assert dictionary.pairs_used == len(sources)
    found = dictionary.translate(["the Dog finds the zebra ."])
    assert found[0].split()[1:3] == ["Hund", "findet"]
    assert found[0].split()[4] == "zebra"  # never seen: copied


def test_model_1_agrees_with_the_plain_algorithm() -> None:
    """Expectation maximisation with loops and dictionaries, as in the textbook (Koehn, 2010, fig. 4.3)."""
    sources, targets = language_pairs(12)
    pairs = [(["", *s.split()], t.split()) for s, t in zip(sources, targets, strict=True)]
    chance = {(s, t): 1.0 for source, target in pairs for s in source for t in target}
    for _ in range(5):
        counts = dict.fromkeys(chance, 0.0)
        for source, target in pairs:
            for t in target:
                total = sum(chance[s, t] for s in source)
                for s in source:
                    counts[s, t] += chance[s, t] / total
        totals: dict[str, float] = {}
        for (s, _t), count in counts.items():
            totals[s] = totals.get(s, 0.0) + count
        chance = {(s, t): count / totals[s] for (s, t), count in counts.items()}
    best = WordDictionary("en", "de", tokenised=True).fit(sources, targets).best
    for word, translation in best.items():
        top = max(p for (s, _), p in chance.items() if s == word)
        assert chance[word, translation] == pytest.approx(top)


def test_the_dictionary_writes_each_language_its_way() -> None:
    english = ["cats sleep.", "dogs sleep.", "cats eat.", "dogs eat."] * 3
    chinese = ["猫睡觉。", "狗睡觉。", "猫吃饭。", "狗吃饭。"] * 3
    to_chinese = WordDictionary("en", "zh").fit(english, chinese)
    (found,) = to_chinese.translate(["Cats sleep Python 3."])
    assert " " not in found.replace("Python 3", "")
    assert "Python 3" in found  # two Latin words stay apart
    (back,) = WordDictionary("zh", "en").fit(chinese, english).translate(["猫睡觉。"])
    assert "cat" in back.split()[0]
    assert back.endswith(".")
    assert " ." not in back


def test_too_many_words_leave_the_shortest_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inkstone.judge.baselines._MAX_LINKS", 20)
    dictionary = WordDictionary("en", "de", tokenised=True)
    dictionary.fit(["a b c d e f g", "x", "y z"], ["1 2 3 4 5 6 7", "8", "9 0"])
    assert dictionary.pairs_used == 2
    assert set(dictionary.best) == {"x", "y", "z"}


def test_empty_sides_do_no_harm() -> None:
    dictionary = WordDictionary("en", "de", tokenised=True).fit(["a", "", "b"], ["", "x", "y"])
    assert dictionary.best == {"b": "y"}
    assert WordDictionary("en", "de").fit([""], [""]).translate(["", "a"]) == ["", "a"]
    with pytest.raises(DataError, match="needs pairs"):
        dictionary.fit([], [])


def test_copying_scores_where_languages_share_words() -> None:
    assert copy_source(["a", ""]) == ["a", ""]
    found = translation_baselines([Pair("a cat", "ein Kater", "en", "de")], ["a cat"])
    assert found["copy"] == ["a cat"]
    assert found["dictionary"] != ["a cat"]
    with pytest.raises(DataError, match="no training pairs"):
        translation_baselines([], ["a"])


def test_majority_is_the_most_frequent_label_set() -> None:
    assert majority([("a",), ("b", "c"), ("c", "b")], 2) == [("b", "c")] * 2
    with pytest.raises(DataError, match="no labelled texts"):
        majority([], 1)


TEXTS = ["good food", "bad food", "good service", "bad service", "good place", "bad place"]
LABELS = [("positive",), ("negative",)] * 3


def test_tfidf_linear_learns_words() -> None:
    model = TfidfLinear().fit(TEXTS, LABELS)
    assert model.by_characters is False
    assert model.predict(["a good dog", "BAD!"]) == [("positive",), ("negative",)]
    found = label_baselines(TEXTS, LABELS, ["good", "good"])
    assert found["tfidf-linear"] == [("positive",)] * 2
    assert set(found) == {"majority", "tfidf-linear"}


def test_tfidf_linear_learns_characters_of_chinese() -> None:
    texts = ["味道很好", "味道很差", "服务很好", "服务很差", "真好", "真差"]
    model = TfidfLinear().fit(texts, LABELS)
    assert model.by_characters is True
    assert model.predict(["好吃", "差劲"]) == [("positive",), ("negative",)]
    assert mostly_unspaced(["我用 Python"]) is False
    assert mostly_unspaced(["我们都用 Python"]) is True


def test_tfidf_linear_gives_several_labels_or_none() -> None:
    labels = [
        ("review", *row, *(["food"] if "food" in text else []))
        for text, row in zip(TEXTS, LABELS, strict=True)
    ]
    model = TfidfLinear().fit([*TEXTS, "nothing here"], [*labels, ("review",)])
    assert model.predict(["good food"]) == [("food", "positive", "review")]
    assert model.predict(["nothing"]) == [("review",)]


def test_what_cannot_be_learnt_is_refused() -> None:
    with pytest.raises(DataError, match="at least two labels; the data has 1: a"):
        TfidfLinear().fit(["x", "y"], [("a",), ("a",)])
    with pytest.raises(DataError, match="every text is empty"):
        TfidfLinear().fit(["", " "], [("a",), ("b",)])
    with pytest.raises(DataError, match="no words"):
        TfidfLinear().fit(["...", "--"], [("a",), ("b",)])
    with pytest.raises(DataError, match="2 texts were given with 1 label sets"):
        TfidfLinear().fit(["x", "y"], [("a",)])
    with pytest.raises(DataError, match="before it was fitted"):
        TfidfLinear().predict(["x"])


@pytest.mark.skipif("INKSTONE_DATA" not in os.environ, reason="set INKSTONE_DATA to the folder of data sets")
def test_trec_gives_the_known_figure() -> None:
    folder = Path(os.environ["INKSTONE_DATA"]) / "kimcnn_sentences"
    with gzip.open(folder / "trec.train.jsonl.gz", "rt", encoding="utf-8") as file:
        training = [json.loads(line) for line in file]
    test = [json.loads(line) for line in (folder / "trec.test.jsonl").read_text("utf-8").splitlines()]
    model = TfidfLinear().fit([r["text"] for r in training], [(r["label"],) for r in training])
    found = model.predict([r["text"] for r in test])
    right = sum(row == (r["label"],) for row, r in zip(found, test, strict=True))
    assert right / len(test) == pytest.approx(0.908, abs=0.0021)  # one question more or less by the solver
