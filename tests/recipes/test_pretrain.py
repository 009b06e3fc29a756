"""Pre-training from documents to a bundle: what it keeps, what it reports, what it refuses, and that a kill changes
nothing."""

from __future__ import annotations

import json
import random
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_corpus import made_pairs

torch = pytest.importorskip("torch", reason="training needs torch")

from inkstone.apps.language_model import LanguageModel  # noqa: E402
from inkstone.cli import main  # noqa: E402
from inkstone.generate.engine import GenerationOptions  # noqa: E402
from inkstone.generate.streaming import Completion  # noqa: E402
from inkstone.ground.errors import BundleError  # noqa: E402
from inkstone.ground.manifest import sha256  # noqa: E402
from inkstone.judge.kneser_ney import KneserNey  # noqa: E402
from inkstone.learn.data.batches import Varied  # noqa: E402
from inkstone.learn.data.documents import PackedFeed  # noqa: E402
from inkstone.learn.pretraining import marked  # noqa: E402
from inkstone.model.bundle import open_bundle  # noqa: E402
from inkstone.model.checkpoint import load_model  # noqa: E402
from inkstone.recipes.documents import read_texts  # noqa: E402
from inkstone.recipes.pretrain_bundle import beginning, inside  # noqa: E402
from inkstone.recipes.pretrain_recipe import PretrainRecipe  # noqa: E402
from inkstone.recipes.verify import verify  # noqa: E402
from inkstone.ship.language_model import log_probabilities  # noqa: E402
from inkstone.text.tokenizer import Tokenizer  # noqa: E402

QUICK = {
    "vocab_size": 400,
    "block": 24,
    "model": {"hidden_size": 48, "num_heads": 2, "num_kv_heads": 2, "feed_forward_size": 96},
    "training.epochs": 4,
    "training.tokens_per_batch": 480,
    "training.learning_rate": 1e-2,
    "training.warmup_steps": 10,
    "training.threads": 1,
}
LAYERS = {
    "causal": {"num_decoder_layers": 2},
    "masked": {"num_encoder_layers": 2},
    "span": {"num_encoder_layers": 1, "num_decoder_layers": 1},
}
Capture = pytest.CaptureFixture[str]


def write_documents(path: Path, count: int = 240) -> Path:
    """Texts of one to six sentences in English or in Chinese, as JSON Lines."""
    draw, pairs = random.Random(1), made_pairs()
    lines = []
    for number in range(count):
        some = draw.sample(pairs, draw.randint(1, 6))
        text = "".join(zh for zh, _ in some) if number % 3 == 0 else " ".join(en for _, en in some)
        lines.append(json.dumps({"text": text}, ensure_ascii=False))
    path.write_text("\n".join(lines), "utf-8")
    return path


def settings(objective: str = "causal", **more: Any) -> list[str]:
    values = {**QUICK, "model": {**QUICK["model"], **LAYERS[objective]}, "objective": objective, **more}  # type: ignore[dict-item]
    return [part for name, value in values.items() for part in ("--set", f"{name}={json.dumps(value)}")]


def run(*arguments: str, code: int = 0) -> tuple[str, str]:
    """What a command prints on both streams."""
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        assert main(arguments) == code, err.getvalue()
    return out.getvalue(), err.getvalue()


@dataclass(frozen=True)
class Pretrained:
    """A finished run: its data, its bundle and what the command printed."""

    data: Path
    bundle: Path
    printed: dict[str, Any]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Pretrained:
    folder = tmp_path_factory.mktemp("pretrained")
    data, bundle = write_documents(folder / "texts.jsonl"), folder / "model"
    out, _ = run(
        "pretrain", "--data", str(data), "--out", str(bundle), "--size", "tiny", *settings(), "--json"
    )
    return Pretrained(data, bundle, json.loads(out))


class TestTheBundle:
    def test_it_is_better_than_counting_single_tokens(self, pretrained: Pretrained) -> None:
        bundle = open_bundle(pretrained.bundle, task="language-model")
        recipe = PretrainRecipe("model", (str(pretrained.data),))
        texts, tokenizer = read_texts(recipe), Tokenizer.load(pretrained.bundle)
        single = KneserNey.fit(marked(tokenizer, texts.train), order=1, vocab_size=tokenizer.vocab_size)
        nats = -sum(one.sum() for one in single.score(marked(tokenizer, texts.test)))
        size = sum(len(text.encode()) for text in texts.test)
        assert pretrained.printed["metrics"]["bits_per_byte"]["value"] < nats / np.log(2) / size - 0.1
        assert set(bundle.languages) == {"en", "zh"}

    def test_the_card_says_what_was_measured(self, pretrained: Pretrained) -> None:
        card = (pretrained.bundle / "README.md").read_text("utf-8")
        for metric in ("bits per byte", "perplexity per character", "nats per token"):
            assert metric in card
        assert "Lower is better" in card and "Higher is better everywhere" not in card
        assert "n-gram model" in card and "learning_curve.png" in card
        measured, baseline = (
            pretrained.printed["metrics"],
            pretrained.printed["baseline"]["kneser-ney"],
        )
        assert measured.keys() == baseline.keys()
        for one in (*measured.values(), *baseline.values()):
            assert 0 < one["low"] <= one["value"] <= one["high"]
        assert pretrained.printed["samples"]

    def test_the_figures_are_those_of_the_texts(self, pretrained: Pretrained) -> None:
        """Bits per byte by the trained model in torch, over whole texts: the served engine loses next to nothing."""
        texts = read_texts(PretrainRecipe("model", (str(pretrained.data),))).test
        tokenizer, model = Tokenizer.load(pretrained.bundle), load_model(pretrained.bundle)
        rows = marked(tokenizer, texts)
        short = [n for n, row in enumerate(rows) if len(row) <= 25]
        assert short
        scored = log_probabilities(model.eval(), [rows[n] for n in short])  # type: ignore[arg-type]
        served = LanguageModel(pretrained.bundle).log_probabilities([texts[n] for n in short])
        for mine, theirs in zip(scored, served, strict=True):
            np.testing.assert_allclose(mine, theirs, atol=0.3)
        mean = float(np.mean(np.concatenate(scored) - np.concatenate(served)))
        assert abs(mean) < 0.02

    def test_it_verifies(self, pretrained: Pretrained) -> None:
        found = {check.name: check.passed for check in verify(pretrained.bundle)}
        assert list(found) == ["files", "description", "engine", "certified output", "float32 parity"]
        assert all(found.values())

    def test_evaluate_reads_documents(self, pretrained: Pretrained) -> None:
        where = str(pretrained.bundle)
        found = json.loads(
            run("evaluate", where, "--data", str(pretrained.data), "--against", where, "--json")[0]
        )
        assert found["n"] == 240
        assert found["metrics"] == found["against"]
        assert found["verdict"] == "undecided"
        assert 0 < found["metrics"]["bits_per_byte"]["value"] < 8


class TestGenerate:
    def test_a_stream_is_the_whole_text(self, pretrained: Pretrained) -> None:
        model = LanguageModel(pretrained.bundle)
        for prompt in ("", "you see", "我看见"):
            for options in (
                GenerationOptions(beam_size=1, max_length=12),
                GenerationOptions(beam_size=1, max_length=12, temperature=0.9, seed=4),
            ):
                *pieces, last = model.stream(prompt, options)
                assert isinstance(last, Completion)
                assert "".join(map(str, pieces)) == last.text == model(prompt, options).text

    def test_the_prompt_and_what_comes_after_are_one_text(self, pretrained: Pretrained) -> None:
        """As if both had been decoded together: the space between two words is there."""
        model = LanguageModel(pretrained.bundle)
        for prompt in ("you do not", "you", "我", "Tom buy"):
            found = model(prompt, GenerationOptions(beam_size=1, max_length=10))
            assert found.hypothesis.ids
            whole = model.tokenizer.decode([*model.ids(prompt), *found.hypothesis.ids])
            if (
                "\N{REPLACEMENT CHARACTER}" not in whole
            ):  # bytes that are no text are shown in more than one way
                assert prompt + found.text == whole
        assert model("you do not", GenerationOptions(beam_size=1, max_length=10)).text.startswith(" ")

    def test_on_the_command_line(self, pretrained: Pretrained) -> None:
        where = str(pretrained.bundle)
        options = ("--max-length", "10", "--seed", "3", "--temperature", "0.7")
        text, _ = run("generate", where, "you see", *options)
        found = json.loads(run("generate", where, "you see", *options, "--json")[0])
        assert text == found["results"][0]["text"] + "\n"
        assert (found["model"], found["prompt"]) == ("model", "you see")
        stopped = json.loads(
            run("generate", where, "you see", "--temperature", "0", "--stop", ".", "--json")[0]
        )
        assert stopped["results"][0]["reason"] == "stop"
        assert "." not in stopped["results"][0]["text"]
        several = json.loads(run("generate", where, "you", "--alternatives", "3", *options, "--json")[0])
        assert len({one["text"] for one in several["results"]}) > 1

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("x", "--temperature", "-1"), "temperature=-1.0"),
            (("x", "--temperature", "0", "--top-p", "0.5"), "without a temperature"),
            (("x", "--stop", ""), "stop string is empty"),
            (("word " * 40,), "the model 24 positions: shorten it"),
        ],
    )
    def test_what_is_refused(self, pretrained: Pretrained, arguments: tuple[str, ...], words: str) -> None:
        out, err = run("generate", str(pretrained.bundle), *arguments, code=2)
        assert out == "" and words in err and err.count("inkstone: ") == 1


class Died(Exception):
    """Stands for whatever ends a process."""


@pytest.mark.parametrize("objective", ["causal", "masked", "span"])
def test_a_run_that_died_ends_with_the_same_weights(
    objective: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = str(write_documents(tmp_path / "texts.jsonl", 120))
    more = {"training.epochs": 2, "training.save_every_s": 0, "training.preflight": "skip"}
    command = ["--data", data, "--size", "tiny", *settings(objective, **more), "--json"]
    printed = json.loads(run("pretrain", "--out", str(tmp_path / "whole"), *command)[0])
    assert open_bundle(tmp_path / "whole").description["objective"] == objective
    assert all(check.passed for check in verify(tmp_path / "whole"))
    kind = PackedFeed if objective == "causal" else Varied
    made, calls, at = kind._batch, 0, printed["steps"] // 2 + 2

    def dying(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            raise Died
        return made(*arguments)

    monkeypatch.setattr(kind, "_batch", dying)
    monkeypatch.setattr(Varied, "fixed", lambda feed: _fixed(feed, made))
    with pytest.raises(Died), redirect_stderr(StringIO()):
        main(["pretrain", "--out", str(tmp_path / "cut"), *command])
    monkeypatch.undo()
    assert not (tmp_path / "cut").exists()
    again = json.loads(run("train", "resume", str(tmp_path / "cut.run"), "--json")[0])
    assert again["steps"] == printed["steps"]
    assert again["metrics"] == printed["metrics"]
    one, other = (sha256(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert one == other


def _fixed(feed: Varied, made: Any) -> Any:
    """As `Varied.fixed`, without counting towards the death."""
    from inkstone.learn.data.batches import FIXED

    for index, rows in enumerate(feed.plan.in_order()):
        yield made(feed, FIXED, index, rows)


def test_fill_models_are_measured_beside_frequency(tmp_path: Path) -> None:
    data = str(write_documents(tmp_path / "texts.jsonl"))
    command = ["--data", data, "--size", "tiny", *settings("span"), "--json"]
    printed = json.loads(run("pretrain", "--out", str(tmp_path / "model"), *command)[0])
    found, baseline = printed["metrics"], printed["baseline"]["frequency"]
    assert found["foreseen_loss"]["value"] < baseline["foreseen_loss"]["value"]
    assert found["accuracy"]["value"] > baseline["accuracy"]["value"]
    with pytest.raises(BundleError, match=r"objective=span.*cannot go on with a text"):
        LanguageModel(tmp_path / "model")


REFUSED = {
    "no data": ((), "there is nothing to train on"),
    "missing data": (("--data", "missing.jsonl"), "missing.jsonl does not exist"),
    "too few": (("--data", "two.txt"), "2 documents"),
    "blank": (("--data", "blank.txt"), "only white space"),
    "objective": (
        ("--set", "objective=clausal"),
        "objective='clausal': Input should be 'causal', 'masked' or 'span'",
    ),
    "size": (("--size", "huge"), 'size="huge"'),
    "key": (("--set", "blok=3"), 'Did you mean "block"'),
    "long block": (("--set", "model.max_positions=16"), "block=24 is more than the model's max_positions=16"),
    "batch": (
        ("--set", "training.tokens_per_batch=16"),
        "block=24 is more than training.tokens_per_batch=16",
    ),
    "several": (
        ("--set", "block=4", "--set", "ngram_order=0", "--set", "hidden_share=1"),
        "3 problems",
    ),
    "nothing left": (("--test", "texts.jsonl"), "no document to train on is left"),
    "rules": (("--set", "rules=[lenght]"), 'Did you mean "length"'),
    "field": (("--fields", "text=body"), 'field="body"'),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_documents(tmp_path / "texts.jsonl", 30)
    (tmp_path / "two.txt").write_text("one text\nanother\n", "utf-8")
    (tmp_path / "blank.txt").write_text(" \n\n", "utf-8")
    before = sorted(tmp_path.rglob("*"))
    given, words = REFUSED[name]
    data = () if "--data" in given or name == "no data" else ("--data", "texts.jsonl")
    out, err = run("pretrain", *data, "--out", "model", *settings(), *given, code=2)
    assert out == "" and words in err, err
    assert err.count("inkstone: ") == 1 and "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("compress", "{}", "--quantize", "int8", "--data", "x", "-o", "y"), "cannot be compressed yet"),
        (("export", "{}", "--to", "ct2", "-o", "y", "--data", "x"), "inkstone evaluate"),
        (("serve", "--models", "{}", "--port", "0"), "there is no model in"),
        (("translate", "x", "--model", "{}", "--to", "en"), "'translate' is needed here"),
    ],
)
def test_what_does_not_know_language_models_says_so(
    pretrained: Pretrained,
    command: tuple[str, ...],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    out, err = run(*(word.format(pretrained.bundle) for word in command), code=2)
    assert out == "" and words in err, err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("It was a dark and stormy night; the rain fell.", "It was a dark and"),
        ("床前明月光，疑是地上霜。", "床前明月光，疑是地上霜"),
        ("", ""),
    ],
)
def test_a_sample_begins_with_whole_words(text: str, first: str) -> None:
    found = beginning(text)
    assert text.startswith(found) and first.startswith(found)
    assert bool(found) == bool(text)


def test_a_sample_of_a_book_begins_inside_of_it() -> None:
    book = "THE TITLE\n\nby Somebody\n\n" + "".join(
        f"Paragraph {n} is of some length.\n\n" for n in range(2000)
    )
    found = inside(book)
    assert found.startswith("Paragraph 10") and book.endswith(found)
    assert 0.4 < len(found) / len(book) < 0.6
    for text in ("THE TITLE\n\nshort", "x" * 50_000, ""):
        assert inside(text) == text


def test_documents_of_lines_are_joined(tmp_path: Path) -> None:
    """Poems come as lists of lines."""
    poems = [{"title": f"题{n}", "lines": [f"第{n}行，春风。", "明月照大江。"]} for n in range(9)]
    file = tmp_path / "poems.jsonl"
    file.write_text("\n".join(json.dumps(one, ensure_ascii=False) for one in poems), "utf-8")
    texts = read_texts(PretrainRecipe("x", (str(file),), fields={"text": "lines"}))
    assert len(texts.train) + len(texts.valid) + len(texts.test) == 9
    assert all(text.endswith("行，春风。\n明月照大江。") for text in texts.train)


def test_a_recipe_is_named_by_its_place_or_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = tmp_path / "texts.jsonl"
    documents.write_text("\n".join(json.dumps({"text": f"{zh} {en}"}) for zh, en in made_pairs(300)), "utf-8")
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        json.dumps({"data": [str(documents)], "size": "tiny", "vocab_size": 340, "block": 32}), "utf-8"
    )
    given = ("--out", str(tmp_path / "made"), "--dry-run", "--json")
    alike = [
        json.loads(run("pretrain", *which, *given)[0]) for which in ((str(mine),), ("--recipe", str(mine)))
    ]
    assert alike[0]["steps"] == alike[1]["steps"] > 0
    _, err = run("pretrain", str(mine), "--recipe", str(mine), *given, code=2)
    assert "two recipes are given" in err
    monkeypatch.setenv("INKSTONE_DATA", str(tmp_path))
    _, err = run("pretrain", "tang-poems", *given, code=2)
    assert "chinese_poetry/tang.train.jsonl.gz does not exist" in err
