"""Sentence encoders from pairs to a bundle: what it finds, what it keeps, what it refuses, and that a kill changes
nothing."""

from __future__ import annotations

import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_corpus import DEEDS, PEOPLE, THINGS, made_pairs, write_pairs

torch = pytest.importorskip("torch", reason="training needs torch")

from inkstone import SentenceEncoder  # noqa: E402
from inkstone.cli import main  # noqa: E402
from inkstone.generate.sentence_encoder import torch_encoder  # noqa: E402
from inkstone.ground.errors import ConfigError, DataError  # noqa: E402
from inkstone.ground.manifest import read_json, seal, sha256  # noqa: E402
from inkstone.ground.records import Related  # noqa: E402
from inkstone.judge.bm25 import BM25  # noqa: E402
from inkstone.learn.data.batches import Planned  # noqa: E402
from inkstone.model.bundle import open_bundle  # noqa: E402
from inkstone.model.checkpoint import load_model  # noqa: E402
from inkstone.recipes.embed_recipe import EmbedRecipe  # noqa: E402
from inkstone.recipes.related import read_pairs_of, with_hard_negatives  # noqa: E402
from inkstone.recipes.rerun import rerun  # noqa: E402
from inkstone.recipes.verify import verify  # noqa: E402
from inkstone.text.reader import TextReader  # noqa: E402

QUICK = {
    "vocab_size": 460,
    "model": {"hidden_size": 64, "num_encoder_layers": 1, "feed_forward_size": 128},
    "pairs_per_batch": 32,
    "max_length": 24,
    "objective.dimensions": [16],
    "training.epochs": 6,
    "training.learning_rate": 5e-3,
    "training.warmup_steps": 20,
    "training.threads": 1,
    "training.precision": "float32",
}


def settings(**more: Any) -> list[str]:
    values = {**QUICK, **more}
    return [part for name, value in values.items() for part in ("--set", f"{name}={json.dumps(value)}")]


def run(*arguments: str, code: int = 0) -> tuple[str, str]:
    """What a command prints on both streams."""
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        assert main(arguments) == code, err.getvalue()
    return out.getvalue(), err.getvalue()


@dataclass(frozen=True)
class Embedder:
    """A finished run: its data, its bundle and what the command printed."""

    data: Path
    bundle: Path
    printed: dict[str, Any]


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    folder = tmp_path_factory.mktemp("embedder")
    data, bundle = write_pairs(folder / "pairs.tsv", made_pairs()), folder / "made"
    command = ["train", "embed", "--data", str(data), "--out", str(bundle), "--size", "tiny", "--both-ways"]
    out, _ = run(*command, *settings(), "--json")
    return Embedder(data, bundle, json.loads(out))


class TestTheBundle:
    def test_it_finds_translations_where_shared_words_find_none(self, embedder: Embedder) -> None:
        metrics, baseline = embedder.printed["metrics"], embedder.printed["baseline"]
        assert len(metrics) == 2, "both ways"
        for name, found in metrics.items():
            assert found["recall_at_1"]["value"] > 0.8 > 0.2 > baseline[name]["bm25"]["recall_at_1"]["value"]
        card = (embedder.bundle / "README.md").read_text("utf-8")
        for words in ("recall at 1", "mean reciprocal rank", "BM25", "learning_curve.png", "onnx-int8"):
            assert words in card

    def test_the_python_door(self, embedder: Embedder) -> None:
        encoder = SentenceEncoder(embedder.bundle, threads=1)
        one, same, other = encoder.encode(["我看见这只猫。", "I see the cat.", "They sell two apples."])
        assert one @ same > one @ other
        assert encoder.dimensions == 64 and one.shape == (64,)
        np.testing.assert_allclose(np.linalg.norm([one, same, other], axis=1), 1, atol=1e-5)
        (cut,) = encoder.encode(["我看见这只猫。"], dimensions=16)
        np.testing.assert_allclose(cut, one[:16] / np.linalg.norm(one[:16]), atol=1e-6)
        assert encoder.encode([]).shape == (0, 64)
        with pytest.raises(ConfigError, match="dimensions=65 must be from 1 to 64"):
            encoder.encode(["x"], dimensions=65)

    def test_the_served_vectors_are_the_trained_model_s(self, embedder: Embedder) -> None:
        texts = [side for pair in made_pairs(40) for side in pair] + ["", "a long text " * 30]
        served = SentenceEncoder(embedder.bundle, threads=1).encode(texts)
        trained = torch_encoder(embedder.bundle).encode(texts)
        assert (served * trained).sum(axis=1).min() > 0.99

    def test_vectors_cut_short_still_find(self, embedder: Embedder) -> None:
        encoder = SentenceEncoder(embedder.bundle, threads=1)
        zh, en = (encoder.encode(side, dimensions=16) for side in zip(*made_pairs(100), strict=True))
        assert ((zh @ en.T).argmax(1) == np.arange(100)).mean() > 0.5

    def test_it_verifies_until_a_vector_is_another(self, embedder: Embedder, tmp_path: Path) -> None:
        import shutil

        found = {check.name: check.passed for check in verify(embedder.bundle)}
        assert list(found) == ["files", "description", "engine", "certified output", "float32 parity"]
        assert all(found.values())
        other = shutil.copytree(embedder.bundle, tmp_path / "other")
        certificate = read_json(other / "parity.json")
        certificate["probes"][0]["vector"].reverse()
        (other / "parity.json").write_text(json.dumps(certificate), "utf-8")
        seal(other, {})
        found = {check.name: check.passed for check in verify(other)}
        assert not found["certified output"] and found["files"]
        certificate["probes"] = [{"text": "x", "vector": [1, 2]}]
        (other / "parity.json").write_text(json.dumps(certificate), "utf-8")
        seal(other, {})
        assert [check.name for check in verify(other) if not check.passed] == ["engine"]

    def test_evaluate(self, embedder: Embedder) -> None:
        where = str(embedder.bundle)
        command = ["evaluate", where, "--data", str(embedder.data), "--against", where, "--json"]
        found = json.loads(run(*command)[0])
        assert (found["task"], found["n"], found["verdict"]) == ("embed", 900, "undecided")
        assert found["metrics"] == found["against"]
        assert found["metrics"].keys() == {"recall_at_1", "recall_at_10", "mrr"}
        assert "among 900" in found["notes"][0]

    def test_on_the_command_line(self, embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
        found = json.loads(run("embed", str(embedder.bundle), "你好", "hello", "--dimensions", "16")[0])
        assert (found["model"], found["dimensions"]) == ("made", 16)
        assert [one["text"] for one in found["results"]] == ["你好", "hello"]
        assert all(len(one["vector"]) == 16 for one in found["results"])
        out, err = run("embed", str(embedder.bundle), code=2)
        assert out == "" and "there is no text" in err


def test_an_encoder_of_no_layers_is_a_mean_of_vectors_of_tokens(tmp_path: Path) -> None:
    data = str(write_pairs(tmp_path / "pairs.tsv", made_pairs()))
    bag = {"model": {"hidden_size": 64}, "training.learning_rate": 0.02, "training.epochs": 4}
    command = ["train", "embed", "--data", data, "--out", str(tmp_path / "bag"), "--size", "bag"]
    printed = json.loads(run(*command, *settings(**bag), "--json")[0])
    (found,), (baseline,) = printed["metrics"].values(), printed["baseline"].values()
    assert found["recall_at_1"]["value"] > 0.8 > 0.2 > baseline["bm25"]["recall_at_1"]["value"]
    assert printed["parameters"] == 64 * 460 and printed["engine"] == "onnx-int8"
    assert all(check.passed for check in verify(tmp_path / "bag"))
    for way, words in (("ct2", "num_encoder_layers=0"), ("hf", "no family known here")):
        _, err = run("export", str(tmp_path / "bag"), "--to", way, "-o", str(tmp_path / "out"), code=2)
        assert words in err and "Traceback" not in err, err
    run("export", str(tmp_path / "bag"), "--to", "onnx", "-o", str(tmp_path / "out"))
    encoder, reader = SentenceEncoder(tmp_path / "bag", threads=1), TextReader.load(tmp_path / "bag")
    table = load_model(tmp_path / "bag").state_dict()["embedding.weight"].numpy()
    for text in ("我看见这只猫。", "They sell two apples. " * 30):
        (ids,) = reader.bare([text])
        assert (len(ids) > 24) == (len(text) > 100), "longer than the model reads at once, or not"
        (vector,) = encoder.encode([text])
        beginnings = -(-len(ids) // 23)  # each window has the mark that texts begin with
        mean = np.mean([table[number] for number in [*ids, *[reader.tokenizer.bos_id] * beginnings]], axis=0)
        assert vector @ mean / np.linalg.norm(mean) > 0.999


def test_its_training_can_be_repeated_from_files_read_in_parts(tmp_path: Path) -> None:
    rows = [{"zh": zh, "en": en, "fold": number % 4} for number, (zh, en) in enumerate(made_pairs(400))]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    files = {
        use: [{"file": str(tmp_path / "pairs.jsonl"), "where": {"fold": folds}}]
        for use, folds in (("data", [0, 1]), ("valid", [2]))
    }
    given = {**files, "test": {"rest": [{**files["data"][0], "where": {"fold": [3]}}]}}
    command = ["train", "embed", "--out", str(tmp_path / "made"), "--size", "tiny"]
    run(*command, *settings(**given, **{"training.epochs": 1}), "--json")  # type: ignore[arg-type]
    found = rerun(tmp_path / "made", steps=5)
    assert found.passed and found.equal and found.steps == 5
    assert {"files", "recipe", "tokenizer", "losses", "batches"} <= {check.name for check in found.checks}
    again = ["train", "embed", "--out", str(tmp_path / "more"), "--base", str(tmp_path / "made")]
    kept = {name: value for name, value in QUICK.items() if name not in ("vocab_size", "model")}
    more = [
        part for name, value in {**kept, **given}.items() for part in ("--set", f"{name}={json.dumps(value)}")
    ]
    run(*again, *more, "--set", "training.epochs=1", "--json")
    assert rerun(tmp_path / "more", steps=3).equal
    with (tmp_path / "pairs.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(DataError, match=r"pairs\.jsonl has changed"):
        rerun(tmp_path / "made", steps=5)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("compress", "{}", "--quantize", "int8", "--data", "x", "-o", "y"), "cannot be compressed yet"),
        (("export", "{}", "--to", "onnx", "-o", "y", "--data", "x"), "inkstone evaluate"),
        (("translate", "x", "--model", "{}", "--to", "en"), "'translate' is needed here"),
        (("generate", "{}", "x"), "'language-model' is needed here"),
    ],
)
def test_what_does_not_know_encoders_says_so(
    embedder: Embedder, command: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out, err = run(*(word.format(embedder.bundle) for word in command), code=2)
    assert out == "" and words in err, err
    assert not list(tmp_path.iterdir())


class Died(Exception):
    """Stands for whatever ends a process."""


def test_a_run_that_died_ends_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = str(write_pairs(tmp_path / "pairs.tsv", made_pairs(200)))
    more = {
        "training.epochs": 2,
        "training.save_every_s": 0,
        "training.preflight": "skip",
        "model": {**QUICK["model"], "dropout": 0.2},
    }  # type: ignore[dict-item]
    command = ["train", "embed", "--data", data, "--size", "tiny", *settings(**more), "--json"]
    printed = json.loads(run(*command, "--out", str(tmp_path / "whole"))[0])
    made, calls, at = Planned.collated, 0, printed["steps"] // 2 + 2

    def dying(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            raise Died
        return made(*arguments)

    monkeypatch.setattr(Planned, "collated", dying)
    with pytest.raises(Died), redirect_stderr(StringIO()):
        main([*command, "--out", str(tmp_path / "cut")])
    monkeypatch.undo()
    assert not (tmp_path / "cut").exists()
    again = json.loads(run("train", "resume", str(tmp_path / "cut.run"), "--json")[0])
    assert (again["steps"], again["metrics"]) == (printed["steps"], printed["metrics"])
    one, other = (sha256(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert one == other


class TestHardNegatives:
    def test_they_share_words_and_are_nobodys_right_answer(self) -> None:
        pairs = [
            Related("what is gout", "gout is a disease of the joints"),
            Related("what is gout", "gout hurts"),
            Related("what is flu", "flu is a virus", ("given",)),
            Related("is gout a virus", "no, gout is none"),
            Related("是什么", "没有一样的词"),
        ]
        found = with_hard_negatives(pairs, 2)
        assert [(one.source, one.target) for one in found] == [(one.source, one.target) for one in pairs]
        assert found[0].negatives == found[1].negatives
        assert set(found[0].negatives) == {"flu is a virus", "no, gout is none"}
        assert found[2].negatives[0] == "given" and len(found[2].negatives) == 3
        assert set(found[3].negatives) <= {one.target for one in pairs[:3]}
        assert found[4].negatives == (), "no word is shared"
        index = BM25([one.target for one in pairs])
        scores = dict(zip([one.target for one in pairs], index.scores(["is gout a virus"])[0], strict=True))
        del scores["no, gout is none"]
        assert list(found[3].negatives) == sorted(scores, key=lambda text: -scores[text])[:2]

    def test_the_same_in_other_words_is_no_negative(self) -> None:
        pairs = [
            Related("what is gout", "gout hurts"),
            Related("What is gout?", "a disease called gout"),
            Related("gout, at length", "what is gout"),
            Related("what is flu", "what a flu is"),
        ]
        found = with_hard_negatives([*pairs, Related("is it gout", "Gout hurts.")], 9)
        assert "Gout hurts." not in found[0].negatives and "gout hurts" not in found[1].negatives
        assert "a disease called gout" not in found[0].negatives, "it answers the same question"
        assert "what is gout" not in found[0].negatives, "it is the question"
        assert "what a flu is" in found[0].negatives

    def test_an_encoder_learns_from_them(self, tmp_path: Path) -> None:
        """Questions whose answers differ from others by one word: what shares words is not what is meant."""
        rows = [{"question": f"does {who} {does} {what}?", "answer": f"{who} will {does} {what} now."}
                for who in PEOPLE for does in DEEDS for what in THINGS]  # fmt: skip
        data = tmp_path / "pairs.jsonl"
        data.write_text("\n".join(map(json.dumps, rows)), "utf-8")
        recipe = EmbedRecipe(name="x", data=(str(data),), hard_negatives=3)
        negatives = [one.negatives for one in read_pairs_of(recipe).train]
        assert all(len(one) == 3 for one in negatives)
        command = ["train", "embed", "--data", str(data), "--size", "tiny", "--out", str(tmp_path / "made")]
        more = {"hard_negatives": 3, "training.epochs": 4, "vocab_size": 300}
        printed = json.loads(run(*command, *settings(**more), "--json")[0])
        (found,) = printed["metrics"].values()
        assert found["recall_at_1"]["value"] > 0.7
        again = rerun(tmp_path / "made", steps=3, data=[tmp_path])
        assert again.passed and again.equal

    def test_pairs_of_two_languages_have_none(self, embedder: Embedder) -> None:
        recipe = EmbedRecipe(name="x", data=(str(embedder.data),), hard_negatives=3)
        assert not any(one.negatives for one in read_pairs_of(recipe).train)


def test_an_adapter_on_a_foreign_encoder_can_be_opened_there(tmp_path: Path) -> None:
    from inkstone.generate.sentence_encoder import minilm_folder
    from inkstone.model.families.folder import read_folder
    from inkstone.model.lora_files import open_adapters

    data = str(write_pairs(tmp_path / "pairs.tsv", made_pairs(200)))
    command = [
        "train",
        "embed",
        "--data",
        data,
        "--base",
        "minilm",
        "--lora",
        "--out",
        str(tmp_path / "adapted"),
    ]
    more = ["training.epochs=0.3", "pairs_per_batch=16", "training.threads=1", "training.preflight=skip"]
    run(*command, *(part for one in more for part in ("--set", one)))
    adapters = open_adapters(
        read_folder(minilm_folder()), minilm_folder(), {"a": tmp_path / "adapted" / "adapter"}
    )
    assert set(adapters.configs) == {"a"}


def test_it_begins_with_a_masked_language_model(tmp_path: Path) -> None:
    """What was learnt of texts is there before the first step, and the tokenizer is the base's."""
    texts = tmp_path / "texts.jsonl"
    texts.write_text("\n".join(json.dumps({"text": en + " " + zh}) for zh, en in made_pairs(200)), "utf-8")
    masked = {
        "objective": "masked",
        "vocab_size": 420,
        "block": 24,
        "training.epochs": 1,
        "training.threads": 1,
    }
    masked["model"] = QUICK["model"]  # type: ignore[assignment]
    given = [part for name, value in masked.items() for part in ("--set", f"{name}={json.dumps(value)}")]
    run("pretrain", "--data", str(texts), "--out", str(tmp_path / "base"), "--size", "tiny", *given)
    data = str(write_pairs(tmp_path / "pairs.tsv", made_pairs(200)))
    kept = {name: value for name, value in QUICK.items() if name not in ("vocab_size", "model")}
    kept |= {"training.learning_rate": 1e-12, "training.epochs": 1}
    given = [part for name, value in kept.items() for part in ("--set", f"{name}={json.dumps(value)}")]
    command = [
        "train",
        "embed",
        "--data",
        data,
        "--out",
        str(tmp_path / "enc"),
        "--base",
        str(tmp_path / "base"),
    ]
    run(*command, *given)
    base, found = (load_model(tmp_path / name).state_dict() for name in ("base", "enc"))
    assert set(found) < set(base)
    for name, weight in found.items():
        torch.testing.assert_close(weight, base[name], atol=1e-6, rtol=0)
    one, other = ((tmp_path / name / "tokenizer.json").read_text("utf-8") for name in ("base", "enc"))
    assert one == other
    made = open_bundle(tmp_path / "enc").manifest["made"]
    assert made["base"]["sha256"] == sha256(tmp_path / "base" / "model.safetensors")
    command[command.index("--out") + 1] = str(tmp_path / "adapted")
    _, said = run(*command, "--lora", *given, "--set", "training.learning_rate=0.01")
    report = json.loads((tmp_path / "adapted" / "report.json").read_text("utf-8"))["training"]
    assert report["begun_with"] == "base"
    assert report["learnt_parameters"] < report["parameters"] / 3
    assert f"{report['learnt_parameters']:,} of" in said
    assert (tmp_path / "adapted" / "adapter" / "adapter_config.json").is_file()
    adapted = load_model(tmp_path / "adapted").state_dict()
    moved = {name for name, weight in adapted.items() if not torch.allclose(weight, base[name], atol=1e-6)}
    assert moved, "the adapter is merged into what is served"
    assert all(name.endswith(".weight") and adapted[name].dim() == 2 for name in moved)
    assert "give --base MODEL too" in run(*command[:-2], "--lora", "--set", "out=y", code=2)[1]
    command[command.index("--out") + 1] = str(tmp_path / "other")
    out, err = run(*command, "--size", "base", code=2)
    assert out == "" and "the base decides that" in err


REFUSED = {
    "no data": ((), "there is nothing to train on"),
    "missing data": (("--data", "missing.tsv"), "missing.tsv does not exist"),
    "too few": (("--data", "few.tsv"), "too few to hold out"),
    "key": (("--set", "pairs_per_bach=3"), 'Did you mean "pairs_per_batch"'),
    "source key": (("--set", "data=[{file: pairs.tsv, wher: {}}]"), "wher"),
    "size": (("--size", "huge"), 'size="huge"'),
    "several": (("--set", "max_length=1", "--set", "pairs_per_batch=1"), "problems\n  - max_length=1"),
    "file": (("--set", "data=[{file: pairs.tsv}]", "--set", "max_length=1"), "max_length=1"),
    "dimensions": (("--set", "objective.dimensions=[64]"), "must be below the width of the model, 64"),
    "temperature": (("--set", "objective.temperature=0"), "temperature=0"),
    "pooling": (("--set", "model.pooling=first"), "pooling=mean"),
    "base": (("--base", "nowhere"), "there is no folder of this name"),
    "nothing left": (("--test", "pairs.tsv"), "fewer than two pairs"),
    "metric": (("--set", "training.metric=accuracy"), "training.metric"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path / "pairs.tsv", made_pairs(120))
    write_pairs(tmp_path / "few.tsv", made_pairs(10))
    before = sorted(tmp_path.rglob("*"))
    given, words = REFUSED[name]
    data = () if "--data" in given or name == "no data" else ("--data", "pairs.tsv")
    out, err = run("train", "embed", *data, "--out", "model", *settings(), *given, code=2)
    assert out == "" and words in err, err
    assert err.count("inkstone: ") == 1 and "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before
