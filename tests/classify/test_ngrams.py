"""Features of texts: which there are, and that a vocabulary comes back from the disk as it was."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from inkstone.ground.errors import BundleError, ConfigError, DataError
from inkstone.text.ngrams import FeatureVocabulary, NgramOptions, ngrams

WORDS_ONLY = NgramOptions(longest_words=2, longest_gap=0, opening_words=0, longest_piece=0, longest_han=0)


def test_words_and_pairs_with_the_ends_marked() -> None:
    assert ngrams("Is it ink?", WORDS_ONLY) == [
        *("1is", "1it", "1ink", "1?"),
        *("2<s> is", "2is it", "2it ink", "2ink ?", "2? </s>"),
    ]


def test_pairs_with_a_gap_and_openings_with_later_words() -> None:
    apart = [feature for feature in ngrams("is it ink ?", NgramOptions(longest_gap=1)) if feature[0] in "_&"]
    gaps = ["_1<s> it", "_1is ink", "_1it ?", "_1ink </s>"]
    assert apart == [*gaps, "&is ink", "&is ?", "&is it ink", "&is it ?"]


def test_a_cap_keeps_or_drops_equals_together() -> None:
    """Which texts come first must not decide which rare features are known."""
    options = NgramOptions(longest_words=1, longest_gap=0, opening_words=0, longest_piece=0)
    texts = ["rain a", "rain b", "snow c", "snow d"]
    for order in (texts, texts[::-1]):
        vocabulary, _ = FeatureVocabulary.train(order, options, most=4)
        assert set(vocabulary.names) == {"1rain", "1snow"}


def test_a_feature_counts_once() -> None:
    found = ngrams("ha ha ha ha 哈哈哈哈", NgramOptions())
    assert len(found) == len(set(found))


def test_case_does_not_matter() -> None:
    assert ngrams("What IS Ink", NgramOptions()) == ngrams("what is ink", NgramOptions())


def test_pieces_are_of_the_asked_lengths_and_never_the_whole_word() -> None:
    options = NgramOptions(
        longest_words=1, longest_gap=0, opening_words=0, shortest_piece=3, longest_piece=8, longest_han=0
    )
    pieces = [feature[1:] for feature in ngrams("ink", options) if feature[0] == "~"]
    assert pieces == ["<in", "ink", "nk>", "<ink", "ink>"]


def test_chinese_runs_stay_inside_a_run_of_han() -> None:
    options = NgramOptions(longest_words=1, longest_gap=0, opening_words=0, longest_piece=0, longest_han=2)
    runs = [feature[1:] for feature in ngrams("味道，不错", options) if feature[0] == "字"]
    assert runs == ["味", "道", "味道", "不", "错", "不错"]


@pytest.mark.parametrize("text", ["", "   ", "\n", "\x00", "🙂", "a" * 50_000, "́", "İstanbul", "<s> </s>"])
def test_any_text_has_features_or_none(text: str) -> None:
    assert all(len(feature) > 1 for feature in ngrams(text, NgramOptions()))


def test_weights_are_inverse_document_frequencies_and_pieces_weigh_less() -> None:
    options = NgramOptions(longest_words=1, longest_gap=0, opening_words=0, piece_weight=0.5)
    vocabulary, weights = FeatureVocabulary.train(["rain", "rain snow", "sun"], options)
    numbers = dict(zip(vocabulary.names, weights[1:], strict=True))
    assert weights[0] == 0
    assert numbers["1rain"] == pytest.approx(1 + math.log(4 / 3))
    assert numbers["1sun"] == pytest.approx(1 + math.log(4 / 2))
    assert numbers["~<ra"] == pytest.approx(0.5 * numbers["1rain"])


def test_unknown_features_are_left_out_and_rare_ones_too() -> None:
    vocabulary, _ = FeatureVocabulary.train(["rain rain", "rain", "snow"], WORDS_ONLY, min_count=2)
    assert set(vocabulary.names) >= {"1rain"}
    assert "1snow" not in vocabulary.names
    assert vocabulary.encode("hail") == []
    capped, weights = FeatureVocabulary.train(["a b c d e f"], WORDS_ONLY, most=3)
    assert len(capped) == len(weights) == 4


def test_a_vocabulary_comes_back_as_it_was(tmp_path: Path) -> None:
    texts = ["play jazz", "味道不错", 'a "quoted" \\ text']
    vocabulary, _ = FeatureVocabulary.train(texts, NgramOptions())
    vocabulary.save(tmp_path / "features.json")
    again = FeatureVocabulary.load(tmp_path / "features.json")
    assert (again.names, again.options) == (vocabulary.names, vocabulary.options)
    assert [again.encode(text) for text in texts] == [vocabulary.encode(text) for text in texts]


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"format": 2}', '{"format": 1, "features": ["a"], "options": {"x": 1}}']
)
def test_another_file_is_refused_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "features.json").write_text(content)
    with pytest.raises(BundleError, match=r"features\.json"):
        FeatureVocabulary.load(tmp_path / "features.json")


def test_texts_without_a_word_and_options_out_of_range_are_refused() -> None:
    with pytest.raises(DataError, match="no words"):
        FeatureVocabulary.train([], WORDS_ONLY)
    with pytest.raises(ConfigError, match="longest_words=0"):
        NgramOptions(longest_words=0)


def test_numpy_weights_are_float32() -> None:
    _, weights = FeatureVocabulary.train(["a b"], WORDS_ONLY)
    assert weights.dtype == np.float32
