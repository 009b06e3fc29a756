"""ROUGE beside the package that others use, and the longest common subsequence beside the table of the textbook."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from inkstone.ground.errors import DataError
from inkstone.judge.baselines import lead
from inkstone.metrics.rouge import longest_common_subsequence, rouge, rouge_words

MEASURES = ("rouge1", "rouge2", "rougeL")
WORDS = (
    "The",
    "cat's",
    "model,",
    "model_2",
    "(GPU)",
    "isn't",
    "fast;",
    "3.5",
    "than",
    "BERT-base:",
    "why?",
    "yes",
    "no",
)


def sentence(random_: random.Random) -> str:
    return " ".join(random_.choices(WORDS, k=random_.randint(0, 25)))


def test_every_example_is_as_the_usual_package_says() -> None:
    """Of texts in ASCII: with one reference, with several, with none of the words, empty."""
    theirs = rouge_scorer.RougeScorer(list(MEASURES))
    random_ = random.Random(1)
    for _ in range(300):
        summary = sentence(random_)
        references = [sentence(random_) for _ in range(random_.randint(1, 3))]
        expected = theirs.score_multi(references, summary)
        found = rouge([summary], [references])
        for name in MEASURES:
            assert found[name].value == pytest.approx(100 * expected[name].fmeasure), (summary, references)


def test_many_examples_are_the_mean() -> None:
    summaries, references = ["a b c", "d"], [["a b"], ["e", "d e"]]
    found = rouge(summaries, references)
    for name in MEASURES:
        alone = [
            rouge([one], [several])[name].value for one, several in zip(summaries, references, strict=True)
        ]
        assert found[name].value == pytest.approx(np.mean(alone))
    assert rouge(["d"], [["e", "d e"]])["rouge1"].value == pytest.approx(100 * 2 / 3)


def test_chinese_counts_by_characters_and_words_keep_their_letters() -> None:
    assert rouge_words("双核CPU的 Naïve_Bayes") == ["双", "核", "cpu", "的", "naïve", "bayes"]
    found = rouge(
        ["显存不足"], [["显存足够"]]
    )  # 显 存 足 shared of four and four; 显存 one pair of three and three
    assert found["rouge1"].value == pytest.approx(75)
    assert found["rouge2"].value == pytest.approx(100 / 3)
    assert found["rougeL"].value == pytest.approx(75)


@given(st.lists(st.sampled_from("abcd"), max_size=90), st.lists(st.sampled_from("abcd"), max_size=90))
def test_the_longest_common_subsequence_is_the_tables(one: list[str], other: list[str]) -> None:
    before = [0] * (len(other) + 1)
    for word in one:
        row = [0]
        for place, wanted in enumerate(other):
            row.append(before[place] + 1 if word == wanted else max(before[place + 1], row[place]))
        before = row
    assert longest_common_subsequence(one, other) == before[-1]


def test_nothing_to_measure_is_said() -> None:
    with pytest.raises(DataError, match="no summaries"):
        rouge([], [])
    with pytest.raises(DataError, match="1 summaries were given for 2"):
        rouge(["a"], [["b"], ["c"]])
    with pytest.raises(DataError, match="without a reference"):
        rouge(["a"], [[]])


def test_the_lead_is_the_first_sentence() -> None:
    texts = ["Mr. Smith paid. He left.", "  价格上涨了。人们不满。", "no end"]
    assert lead(texts) == ["Mr. Smith paid.", "价格上涨了。", "no end"]
