"""Each rule drops what it is for and spares what it is not for."""

from __future__ import annotations

import random

import pytest

from inkstone.corpus.near_duplicates import NearDuplicates, _shingles, jaccard
from inkstone.corpus.rules import RULES, Dropped, Settings, held_out_keys, judge, key_of, make_rules
from inkstone.ground.errors import ConfigError
from inkstone.ground.records import Document, Labelled, Pair, Record


def pair(source: str, target: str, source_language: str = "en", target_language: str = "zh") -> Pair:
    return Pair(source, target, source_language, target_language)


def reason(name: str, record: Record, settings: Settings | None = None) -> str | None:
    return make_rules(settings, [name])[name](record)


LONG_EN = "The committee will publish its annual report on the state of the rivers next week."
LONG_ZH = "委员会将于下周发布关于河流状况的年度报告。"
LONG_DE = "Der Ausschuss wird nächste Woche seinen Jahresbericht über die Flüsse veröffentlichen."


@pytest.mark.parametrize(
    ("name", "record", "words"),
    [
        ("length", Document(""), "0 characters"),
        ("length", pair("x" * 5001, "好"), "at most 5,000"),
        ("markup", Document("<p>one</p>"), "2 HTML tags"),
        ("markup", pair("fine", "不<br/>好"), "first <br/>"),
        ("markup", Document("a &nbsp; b"), "&nbsp;"),
        ("identical", pair("Hello, World", "hello world!"), "the same"),
        ("ratio", pair("Short.", LONG_ZH * 3), "times as long"),
        ("language", pair(LONG_DE, LONG_ZH), "de .* where en"),
        ("language", pair(LONG_EN, LONG_EN), "en .* where zh"),
        ("language", pair(LONG_ZH, LONG_ZH), "zh .* where en"),
        ("language", pair(LONG_EN, "これは日本語の文章であり、中国語ではありません。"), "ja .* where zh"),
    ],
)
def test_drops(name: str, record: Record, words: str) -> None:
    import re

    why = reason(name, record)
    assert why is not None and re.search(words, why)


@pytest.mark.parametrize(
    "record",
    [
        pair(LONG_EN, LONG_ZH),
        pair("Go.", "走吧。"),
        pair("Yes", "是"),
        pair("OK", "OK了"),
        pair("Tom", "汤姆"),
        pair("See `print()` and `sys.exit()`.", "请参阅 `print()` 和 `sys.exit()`。"),
        pair("if a < b and c > d", "如果 a < b 且 c > d"),
        pair("include <stdio.h>", "包含 <stdio.h>"),
        pair("Tokyo is big.", "東京很大。"),
        pair(LONG_EN, LONG_DE, "en", "de"),
        Document("长" * 50000),
        Labelled("差", ("negative",)),
    ],
)
def test_spares(record: Record) -> None:
    assert list(judge([record], make_rules())) == [record]


def test_lengths_in_tokens_and_settings() -> None:
    settings = Settings(min_tokens=2, max_tokens=4)
    assert reason("length", Document("one"), settings) == "1 tokens, at least 2 wanted"
    assert reason("length", Document("我爱北京呀"), settings) == "5 tokens, at most 4 wanted"
    assert reason("length", Document("one 二 three"), settings) is None
    for wrong in ({"min_chars": 9, "max_chars": 3}, {"max_ratio": 0.5}, {"near_similarity": 1.5}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            Settings(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="near-duplicate"):
        make_rules(names=["near-duplicates"])


def test_duplicates_but_for_case_space_and_punctuation() -> None:
    records: list[Record] = [
        Pair("Hello, world!", "你好，世界！", "en", "zh", "a:1"),
        Pair("hello world", "你好世界", "en", "zh", "a:2"),
        Pair("hello world", "世界你好", "en", "zh", "a:3"),
        Labelled("good", ("pos",)),
        Labelled("Good!", ("pos",)),
        Labelled("good", ("neg",)),  # a contradiction is not a duplicate
        Document("..."),
        Document("!!!"),
    ]
    dropped = [
        judged for judged in judge(records, make_rules(names=["duplicate"])) if isinstance(judged, Dropped)
    ]
    assert [judged.record for judged in dropped] == [records[1], records[4]]
    assert dropped[0].reason == "the same as a:1"
    assert key_of("Ｈello") == key_of("ｈello") and key_of("?!") == "?!"


def test_a_test_set_is_kept_out_by_either_side() -> None:
    settings = Settings(held_out=held_out_keys([pair("The secret test.", "秘密的测试。")]))
    assert reason("overlap", pair("the secret test", "别的"), settings)
    assert reason("overlap", pair("other", "秘密的测试"), settings)
    assert reason("overlap", Labelled("The secret test", ("x",)), settings)
    assert reason("overlap", pair("other", "别的"), settings) is None


def test_rules_are_fresh_for_each_run_and_keep_their_order() -> None:
    assert list(make_rules()) == list(RULES)
    for _ in range(2):
        assert isinstance(next(iter(judge([Document("same text")], make_rules()))), Document)


def planted(count: int, seed: int) -> tuple[list[str], list[str]]:
    """Texts, and copies of them with a few characters changed."""
    chance = random.Random(seed)
    alphabet = [chr(code) for code in range(0x4E00, 0x4E00 + 800)] + list("abcdefghijklmnopqrstuvwxyz") * 20
    texts = ["".join(chance.choices(alphabet, k=150)) for _ in range(count)]
    copies = []
    for text in texts:
        letters = list(text)
        for _ in range(3):
            letters[chance.randrange(len(letters))] = "龘"
        copies.append("".join(letters))
    return texts, copies


def test_near_duplicates_are_found_and_others_left() -> None:
    texts, copies = planted(300, seed=5)
    found = NearDuplicates(threshold=0.85)
    assert all(found.find(text, str(at)) is None for at, text in enumerate(texts))
    hits = [found.find(copy, "copy") for copy in copies]
    true = [jaccard(set(_shingles(a)), set(_shingles(b))) for a, b in zip(texts, copies, strict=True)]
    for at, (hit, similarity) in enumerate(zip(hits, true, strict=True)):
        if hit is not None:  # what is dropped is really so near, to the text it names
            assert hit == (str(at), pytest.approx(similarity)) and similarity >= 0.85
    wanted = [at for at, similarity in enumerate(true) if similarity >= 0.85]
    assert len(wanted) > 200
    assert sum(hits[at] is not None for at in wanted) >= 0.99 * len(wanted)


def test_short_texts_are_never_near_duplicates() -> None:
    rules = make_rules(names=["near-duplicate"])
    records: list[Record] = [pair("He is 20.", "他二十岁。"), pair("He is 21.", "他二十一岁。")]
    assert list(judge(records, rules)) == records
    near = NearDuplicates(shortest=0)
    assert near.find("", "a") is None and near.find("ab", "b") is None
