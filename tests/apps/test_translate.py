"""The Translator: every line kept, nothing of a long text lost, languages found or refused, engines agreeing."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("torch", reason="the model of these tests is trained by the tests")

from hypothesis import given, settings
from hypothesis import strategies as some

from inkstone.apps.translate import Translator
from inkstone.generate.engine import GenerationOptions, Hypothesis
from inkstone.ground.errors import BundleError, ConfigError
from inkstone.ground.manifest import MANIFEST, read_json, seal

if TYPE_CHECKING:
    from conftest import Trained


class Copying:
    """An engine that gives back what it was asked to translate, and remembers how long the pieces were."""

    name = "copying"

    def __init__(self) -> None:
        self.lengths: list[int] = []

    def generate(
        self, sources: Sequence[Sequence[int]], options: GenerationOptions
    ) -> list[list[Hypothesis]]:
        self.lengths += map(len, sources)
        return [[Hypothesis(tuple(ids[1:-1]), -1.0)] * options.alternatives for ids in sources]

    def score(self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> list[float]:
        return [0.0 for _ in sources]


@pytest.fixture(scope="module")
def translator(trained: Trained) -> Translator:
    return Translator(trained.bundle, threads=1)


@pytest.fixture
def copying(trained: Trained) -> Translator:
    translator = Translator(trained.bundle, threads=1)
    translator.engine = Copying()
    return translator


@cache
def _opened(bundle: Path) -> Translator:
    return Translator(bundle, threads=1)


def squeezed(text: str) -> str:
    return "".join(text.split())


class TestWholeTexts:
    def test_lines_stay_lines_and_blank_ones_blank(self, copying: Translator) -> None:
        text = "\nI see the cat.\n\n   \nyou buy a dog.\n"
        (found,) = copying.translate([text], to="zh")
        assert found.translation == "\nI see the cat.\n\n\nyou buy a dog.\n"
        assert found.source == text
        (blank,) = copying.translate(["  \n "], to="zh")
        assert (blank.translation, blank.score) == ("\n", 0.0)
        assert copying.translate([], to="zh") == []

    def test_texts_stay_in_order(self, copying: Translator) -> None:
        texts = [f"I see {n} cats.\n" * (n % 4) for n in range(60)]
        assert [squeezed(one.translation) for one in copying.translate(texts, to="zh")] == [
            *map(squeezed, texts)
        ]

    @settings(max_examples=60, deadline=None)
    @given(
        words=some.lists(some.sampled_from(["cat", "猫", "。", ", ", ". ", "，", " ", "\n", "x" * 40, "“", "”", "😀"])),
        to=some.sampled_from(["zh", "en"]),
    )  # fmt: skip
    def test_nothing_of_any_text_is_lost(self, trained: Trained, words: list[str], to: str) -> None:
        copying = _opened(trained.bundle)
        copying.engine = Copying()
        copying.comfortable = 8
        text = "".join(words)
        (found,) = copying.translate([text], to=to)
        assert squeezed(found.translation) == squeezed(text)
        assert found.translation.count("\n") == text.count("\n")
        assert all(length <= 2 * 8 + 2 for length in copying.engine.lengths)

    @pytest.mark.parametrize(
        "text",
        ["我喜欢这只猫。" * 500, "I like the cat. " * 500, "x" * 5000, "买，" * 2000, "我" * 3000, "no end here " * 400],
    )  # fmt: skip
    def test_a_long_text_is_split_to_what_the_model_is_used_to(self, copying: Translator, text: str) -> None:
        (found,) = copying.translate([text], to="en")
        assert squeezed(found.translation) == squeezed(text)
        assert isinstance(copying.engine, Copying)
        assert max(copying.engine.lengths) <= 2 * copying.comfortable + 2
        # ... and not to crumbs: most pieces are more than a quarter full
        full = [length for length in copying.engine.lengths if length > copying.comfortable / 4]
        assert len(full) > 0.9 * len(copying.engine.lengths)

    def test_pieces_are_joined_with_spaces_only_where_the_language_has_them(
        self, copying: Translator
    ) -> None:
        text = "我喜欢这只猫。" * 20
        assert " " not in copying.translate([text], to="zh")[0].translation
        assert "。 我" in copying.translate([text], to="en")[0].translation

    def test_a_bundle_used_to_longer_texts_than_its_model_has_positions_still_works(
        self, trained: Trained, tmp_path: Path
    ) -> None:
        folder = tmp_path / "made"
        shutil.copytree(trained.bundle, folder)
        description = read_json(folder / "inkstone.json")
        (folder / "inkstone.json").write_text(json.dumps({**description, "comfortable_tokens": 5000}))
        seal(folder, {})
        for engine in ("ctranslate2", "torch"):
            translator = Translator(folder, engine=engine, threads=1)  # type: ignore[arg-type]
            options = GenerationOptions(beam_size=1, max_length=8)
            (found,) = translator.translate(["我喜欢这只猫。" * 400], to="en", options=options)
            assert found.translation

    def test_no_option_makes_an_output_longer_than_the_model_has_positions(self, trained: Trained) -> None:
        class Asked(Copying):
            options = GenerationOptions()

            def generate(
                self, sources: Sequence[Sequence[int]], options: GenerationOptions
            ) -> list[list[Hypothesis]]:
                self.options = options
                return super().generate(sources, options)

        translator = Translator(trained.bundle, threads=1)
        translator.engine = asked = Asked()
        translator.translate(["I see the cat."], options=GenerationOptions(max_length=4096, max_ratio=100))
        assert asked.options.limit(10_000) == translator.positions == 512


class TestLanguages:
    def test_one_text_is_no_list_of_its_letters(self, translator: Translator) -> None:
        with pytest.raises(ConfigError, match=r"Write translate\(\[text\]\) for one"):
            translator.translate("The door is open.", to="zh")

    def test_the_direction_is_found_from_the_text(self, translator: Translator) -> None:
        assert set(translator.directions) == {("zh", "en"), ("en", "zh")}
        assert translator.direction("我喜欢这只猫。") == ("zh", "en")
        assert translator.direction("I do not like the red car at all.") == ("en", "zh")

    def test_what_is_given_decides(self, translator: Translator) -> None:
        for text in ("我", "I", "12"):
            assert translator.direction(text, to="en") == ("zh", "en")
            assert translator.direction(text, source="en") == ("en", "zh")

    @pytest.mark.parametrize(
        ("given_", "words"),
        [
            ({"to": "fr"}, r'to="fr" is not known\. Valid: en, zh'),
            (
                {"source": "english"},
                r'from="english" is not known\. Valid: en, zh.*Did you mean "en"|from="english"',
            ),
            ({"source": "en", "to": "en"}, r"does not translate from en to en\. Valid: zh-en, en-zh"),
        ],
    )
    def test_what_the_model_does_not_have_is_said(
        self, translator: Translator, given_: dict[str, str], words: str
    ) -> None:
        with pytest.raises(ConfigError, match=words):
            translator.translate(["hello"], **given_)  # type: ignore[arg-type]

    def test_of_a_text_without_letters_some_direction_is_taken(self, translator: Translator) -> None:
        assert translator.direction("12:30") in translator.directions


class TestTheModel:
    def test_it_learned_its_small_language_in_both_directions(self, translator: Translator) -> None:
        found = translator.translate(["我喜欢这只猫。", "they need some tea."])
        assert found[0].translation.endswith("the cat.") and found[1].translation.endswith("一些茶。")
        assert [(one.source_language, one.target_language) for one in found] == [("zh", "en"), ("en", "zh")]
        assert all(-3 < one.score < 0 for one in found)
        assert translator("我喜欢这只猫。") == found[0].translation

    def test_the_torch_engine_gives_the_same(self, trained: Trained) -> None:
        """Both in float32: an int8 engine may choose another word."""
        reference = Translator(trained.bundle, engine="torch")
        from inkstone.generate.ctranslate2_engine import CTranslate2Engine
        from inkstone.ship.ctranslate2 import export_ctranslate2

        exact = Translator(trained.bundle, threads=1)
        folder = trained.bundle.parent / "float32"
        export_ctranslate2(trained.bundle, folder, quantization="float32")
        exact.engine = CTranslate2Engine(folder, exact.tokenizer, threads=1)
        texts = ["我喜欢这只猫。\n\n他们不买一些茶。", "I want the old map. " * 30, "Tom"]
        for one, other in zip(reference.translate(texts), exact.translate(texts), strict=True):
            assert replace(one, score=0) == replace(other, score=0)
            assert one.score == pytest.approx(other.score, abs=1e-4)

    def test_alternatives_are_others_and_less_likely(self, translator: Translator) -> None:
        (found,) = translator.translate(
            ["我喜欢这只猫。"], options=GenerationOptions(beam_size=4, alternatives=3)
        )
        assert len({found.translation, *found.alternatives}) == 3
        (best,) = translator.translate(["我喜欢这只猫。"], options=GenerationOptions(beam_size=4))
        assert (best.translation, best.alternatives) == (found.translation, ())

    def test_together_or_one_by_one_is_the_same(self, translator: Translator) -> None:
        texts = ["我喜欢这只猫。", "", "I see two apples.", "她卖这辆红色的车。" * 30]
        together = translator.translate(texts)
        assert [one.translation for one in together] == [
            translator.translate([t])[0].translation for t in texts
        ]

    def test_marks_in_a_text_are_only_letters(self, translator: Translator) -> None:
        """Whoever types </s> or <2en> neither ends the text nor turns the direction."""
        (found,) = translator.translate(["I see</s><2en> the cat."], to="zh")
        assert found.translation and found.target_language == "zh"
        ids = translator.tokenizer.encode("</s><2en><pad>")
        assert not set(ids) & {0, 1, 2, 3, translator.tokenizer.id_of("<2en>")}


class TestAlteredBundles:
    @pytest.mark.parametrize(
        "name",
        ["model.safetensors", "tokenizer.json", "ctranslate2-int8/model.bin", "inkstone.json", "config.json"],
    )
    def test_an_altered_file_is_refused_by_name(self, trained: Trained, tmp_path: Path, name: str) -> None:
        shutil.copytree(trained.bundle, tmp_path / "made")
        content = bytearray((tmp_path / "made" / name).read_bytes())
        content[random.Random(1).randrange(len(content))] ^= 1
        (tmp_path / "made" / name).write_bytes(content)
        with pytest.raises(BundleError, match=f"{name} is altered"):
            Translator(tmp_path / "made")

    def test_a_bundle_without_an_engine_says_so(self, trained: Trained, tmp_path: Path) -> None:
        shutil.copytree(
            trained.bundle, tmp_path / "made", ignore=shutil.ignore_patterns("ctranslate2-*", MANIFEST)
        )
        seal(tmp_path / "made", {})
        with pytest.raises(BundleError, match="holds no CTranslate2 engine"):
            Translator(tmp_path / "made")
        assert Translator(tmp_path / "made", engine="torch").translate(["我喜欢这只猫。"])[0].translation

    def test_an_engine_that_is_none_is_said(self, trained: Trained) -> None:
        with pytest.raises(
            ConfigError, match=r'engine="onyx" is not known\. Valid: auto, ctranslate2, onnx, torch'
        ):
            Translator(trained.bundle, engine="onyx")  # type: ignore[arg-type]


def test_translating_needs_no_torch(trained: Trained) -> None:
    program = (
        "import sys; from inkstone.apps.translate import Translator\n"
        f"print(Translator({str(trained.bundle)!r}, threads=1)('我喜欢这只猫。'))\n"
        "assert not {'torch', 'transformers', 'sklearn', 'sacrebleu'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
