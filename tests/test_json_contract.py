"""The JSON documents of `--json`: the fields that scripts rely on, for every verb. More may be added, none renamed."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from made_corpus import made_labelled, made_pairs, write_pairs

from inkstone.cli import main

if TYPE_CHECKING:
    from conftest import Trained, TrainedClassifier

Capture = pytest.CaptureFixture[str]
Interval = {"value": float, "low": float, "high": float}


def document(capsys: Capture, *arguments: str, code: int = 0) -> dict[str, Any]:
    """What the command prints with --json: one document on one stdout, and nothing else."""
    capsys.readouterr()
    assert main([*arguments, "--json"]) == code, capsys.readouterr().err
    found = json.loads(
        capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON")
    )
    assert isinstance(found, dict)
    return found


def has(found: Any, shape: Any, where: str = "") -> None:
    """Check that a value has (at least) these fields, of these types; a list of one shape holds one or more of it."""
    if isinstance(shape, dict):
        assert isinstance(found, dict), where
        for name, inner in shape.items():
            assert name in found, f"{where}.{name} is missing; there are {sorted(found)}"
            has(found[name], inner, f"{where}.{name}")
    elif isinstance(shape, list):
        assert isinstance(found, list), where
        assert found, f"{where} is empty"
        for number, one in enumerate(found):
            has(one, shape[0], f"{where}[{number}]")
    else:
        kinds = (int, float) if shape is float else shape
        assert isinstance(found, kinds), f"{where} is {found!r}, not {shape}"
        assert shape is bool or not isinstance(found, bool), f"{where} is {found!r}, not {shape}"


@pytest.fixture
def pairs(tmp_path: Path) -> str:
    return str(write_pairs(tmp_path / "test.tsv", made_pairs()[-20:]))


def test_translate(trained: Trained, capsys: Capture) -> None:
    found = document(capsys, "translate", "我看见这只猫。", "", "--to", "en", "--model", str(trained.bundle))
    has(found, {"model": str, "results": [{"source": str, "translation": str, "score": float}]})
    assert found["model"] == "made"
    assert [result["source"] for result in found["results"]] == ["我看见这只猫。", ""]
    first, blank = found["results"]
    assert first["translation"]
    assert first["score"] < 0
    assert (blank["translation"], blank["score"]) == ("", 0)


def test_translate_with_alternatives(trained: Trained, capsys: Capture) -> None:
    options = ("--to", "en", "--alternatives", "2", "--model", str(trained.bundle))
    found = document(capsys, "translate", "我看见这只猫。", *options)
    has(found, {"results": [{"alternatives": [str]}]})


def test_evaluate(trained: Trained, pairs: str, capsys: Capture) -> None:
    found = document(capsys, "evaluate", str(trained.bundle), "--data", pairs)
    shape = {"task": str, "model": str, "n": int, "metrics": {"bleu": Interval, "chrf": Interval}}
    has(found, shape)
    assert (found["task"], found["model"], found["n"]) == ("translate", "made", 20)
    for measured in found["metrics"].values():
        assert measured["low"] <= measured["value"] <= measured["high"]
    assert {name: found[name] for name in ("against", "difference", "verdict")} == dict.fromkeys(
        ("against", "difference", "verdict")
    )


def test_evaluate_against(trained: Trained, pairs: str, capsys: Capture) -> None:
    bundle = str(trained.bundle)
    found = document(capsys, "evaluate", bundle, "--data", pairs, "--against", bundle)
    difference = {**Interval, "p": float}
    has(found, {"against": {"bleu": Interval, "chrf": Interval}, "verdict": str})
    has(found, {"difference": {"bleu": difference, "chrf": difference}})
    assert found["against"] == found["metrics"]
    assert all(change["value"] == 0 for change in found["difference"].values())


def test_verify(trained: Trained, capsys: Capture) -> None:
    found = document(capsys, "verify", str(trained.bundle))
    has(found, {"bundle": str, "checks": [{"name": str, "passed": bool, "detail": str}], "passed": bool})
    assert found["bundle"] == str(trained.bundle)
    assert found["passed"] is True


def test_verify_when_it_fails(tmp_path: Path, capsys: Capture) -> None:
    found = document(capsys, "verify", str(tmp_path), code=2)
    has(found, {"bundle": str, "checks": [{"name": str, "passed": bool, "detail": str}], "passed": bool})
    assert found["passed"] is False
    assert [check["passed"] for check in found["checks"]].count(False) == 1


def test_rerun(trained: Trained, capsys: Capture) -> None:
    pytest.importorskip("torch", reason="training needs torch")
    found = document(capsys, "rerun", str(trained.bundle), "--steps", "2")
    has(found, {"bundle": str, "steps": int, "equal": bool, "largest_difference": float, "tolerance": float})
    has(found, {"checks": [{"name": str, "passed": bool, "detail": str}], "passed": bool})
    assert found["passed"] and found["steps"] == 2


def test_doctor(trained: Trained, capsys: Capture) -> None:
    capsys.readouterr()
    code = main(
        ["doctor", "--models", str(trained.bundle), "--json"]
    )  # 0 or 2: this machine may lack something
    found = json.loads(capsys.readouterr().out)
    has(found, {"checks": [{"name": str, "ok": bool, "detail": str, "advice": str}]})
    assert code == (0 if all(check["ok"] for check in found["checks"]) else 2)


def test_corpus_and_tokenizer(pairs: str, tmp_path: Path, capsys: Capture) -> None:
    found = document(capsys, "corpus", "clean", pairs, "-o", str(tmp_path / "clean.jsonl"))
    has(found, {"task": str, "out": str, "read": int, "kept": int, "dropped": dict, "problem_count": int})
    assert found["read"] == found["kept"] + sum(found["dropped"].values())
    tokenizer = str(tmp_path / "tokenizer.json")
    found = document(capsys, "tokenizer", "train", pairs, "-o", tokenizer, "--vocab-size", "300")
    has(found, {"tokenizer": str, "kind": str, "vocab_size": int, "specials": [str], "texts": int})
    found = document(capsys, "tokenizer", "show", tokenizer, "the cat 猫")
    has(found, {"tokens": [str], "ids": [int], "decoded": str, "round_trip": bool})
    assert len(found["tokens"]) == len(found["ids"])


TRAINED = {
    "bundle": str,
    "metrics": dict,
    "baseline": dict,
    "seconds": float,
    "tokens_per_second": float,
    "peak_memory_bytes": int,
}


def test_train_translate(tmp_path: Path, capsys: Capture) -> None:
    pytest.importorskip("torch", reason="training needs torch")
    pytest.importorskip("inkstone.cli.classify", reason="the classify verbs are not here yet")
    data = str(write_pairs(tmp_path / "pairs.tsv", made_pairs(300)))
    settings = [
        "model={hidden_size: 32, num_encoder_layers: 1, num_decoder_layers: 1, feed_forward_size: 64}",
        *("vocab_size=400", "max_length=48", "beam_size=1"),
        *("training.epochs=1", "training.tokens_per_batch=8192", "training.threads=1"),
    ]
    options = [part for setting in settings for part in ("--set", setting)]
    out = str(tmp_path / "model")
    found = document(capsys, "train", "translate", "--data", data, "--out", out, "--size", "tiny", *options)
    has(found, TRAINED)
    assert found["bundle"] == out
    assert found["metrics"].keys() == found["baseline"].keys()
    has(next(iter(found["metrics"].values())), {"bleu": float, "chrf": float})


def test_pretrain_and_generate(tmp_path: Path, capsys: Capture) -> None:
    pytest.importorskip("torch", reason="training needs torch")
    data = tmp_path / "documents.txt"
    data.write_text("\n".join(english for _, english in made_pairs(200)), "utf-8")
    settings = [
        "model={hidden_size: 32, num_decoder_layers: 1, feed_forward_size: 64}",
        *("vocab_size=340", "block=16", "ngram_order=3"),
        *("training.epochs=1", "training.tokens_per_batch=512", "training.threads=1"),
    ]
    options = [part for setting in settings for part in ("--set", setting)]
    out = str(tmp_path / "model")
    found = document(capsys, "pretrain", "--data", str(data), "--out", out, "--size", "tiny", *options)
    has(found, {**TRAINED, "steps": int, "n": int, "samples": [{"prompt": str, "text": str}]})
    measures = {"bits_per_byte": Interval, "character_perplexity": Interval, "token_loss": Interval}
    has(found, {"metrics": measures, "baseline": {"kneser-ney": measures}})
    found = document(capsys, "generate", out, "she", "--max-length", "5", "--seed", "1")
    has(found, {"model": str, "prompt": str, "results": [{"text": str, "reason": str, "tokens": int}]})
    has(found, {"results": [{"score": float}]})
    found = document(capsys, "evaluate", out, "--data", str(data))
    has(found, {"task": str, "model": str, "n": int, "metrics": measures})


def test_train_summarize_and_summarize(tmp_path: Path, capsys: Capture) -> None:
    pytest.importorskip("torch", reason="training needs torch")
    data = tmp_path / "documents.jsonl"
    rows = [{"document": f"It is late. {en}", "summary": en} for _, en in made_pairs(300)]
    data.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    settings = [
        "model={hidden_size: 32, num_encoder_layers: 1, num_decoder_layers: 1, feed_forward_size: 64}",
        *("vocab_size=300", "max_length=48", "training.epochs=1", "training.threads=1"),
    ]
    options = [part for setting in settings for part in ("--set", setting)]
    out = str(tmp_path / "model")
    found = document(capsys, "train", "summarize", "--data", str(data), "--out", out, *options)
    has(found, TRAINED)
    measures = {"rouge1": float, "rouge2": float, "rougeL": float}
    has(found["metrics"], {"held out en": {**measures, "token_loss": float, "token_accuracy": float}})
    has(found["baseline"], {"held out en": {"lead": measures}})
    found = document(capsys, "summarize", "--text", "It is late. I see the cat.", "--model", out)
    has(
        found, {"model": str, "results": [{"summary": str, "sentences": list, "coverage": list, "cut": bool}]}
    )


def test_train_embed_and_embed(pairs: str, tmp_path: Path, capsys: Capture) -> None:
    pytest.importorskip("torch", reason="training needs torch")
    data = str(write_pairs(tmp_path / "pairs.tsv", made_pairs(200)))
    settings = [
        "model={hidden_size: 32, num_encoder_layers: 1, feed_forward_size: 64}",
        *("vocab_size=400", "pairs_per_batch=32", "training.epochs=1", "training.threads=1"),
    ]
    options = [part for setting in settings for part in ("--set", setting)]
    out = str(tmp_path / "model")
    found = document(
        capsys, "train", "embed", "--data", data, "--test", f"held={pairs}", "--out", out, *options
    )
    measures = {"recall_at_1": Interval, "recall_at_10": Interval, "mrr": Interval}
    has(found, {**TRAINED, "steps": int, "engine": str, "parameters": int})
    has(found, {"metrics": {"held, among 20": measures}, "baseline": {"held, among 20": {"bm25": measures}}})
    found = document(capsys, "embed", out, "the cat", "猫")
    has(found, {"model": str, "dimensions": int, "results": [{"text": str, "vector": [float]}]})
    assert found["dimensions"] == len(found["results"][0]["vector"]) == 32


def test_train_classify(trained_classifier: TrainedClassifier) -> None:
    found = json.loads(trained_classifier.printed)
    has(found, TRAINED)
    assert found["bundle"] == str(trained_classifier.bundle)


def test_classify(trained_classifier: TrainedClassifier, capsys: Capture) -> None:
    found = document(
        capsys, "classify", "please play some blues", "", "--model", str(trained_classifier.bundle)
    )
    has(
        found,
        {
            "model": str,
            "results": [{"text": str, "label": str, "scores": {"music": float, "weather": float}}],
        },
    )
    assert [result["text"] for result in found["results"]] == ["please play some blues", ""]
    assert found["results"][0]["label"] == "music"
    for result in found["results"]:
        assert sum(result["scores"].values()) == pytest.approx(1, abs=1e-4)
        assert result["label"] == max(result["scores"], key=result["scores"].__getitem__)


def test_evaluate_a_classifier(
    trained_classifier: TrainedClassifier, tmp_path: Path, capsys: Capture
) -> None:
    data = tmp_path / "test.jsonl"
    data.write_text(
        "\n".join(json.dumps({"text": text, "label": label}) for text, label in made_labelled()), "utf-8"
    )
    found = document(
        capsys,
        "evaluate",
        str(trained_classifier.bundle),
        "--data",
        str(data),
        "--against",
        str(trained_classifier.bundle),
    )
    has(found, {"task": str, "model": str, "n": int, "metrics": {"accuracy": Interval, "macro_f1": Interval}})
    has(found, {"against": {"accuracy": Interval}, "verdict": str})
    has(found, {"difference": {"accuracy": {**Interval, "p": float}}})
    assert (found["task"], found["n"]) == ("classify", len(made_labelled()))


def test_verify_a_classifier(trained_classifier: TrainedClassifier, capsys: Capture) -> None:
    found = document(capsys, "verify", str(trained_classifier.bundle))
    has(found, {"bundle": str, "checks": [{"name": str, "passed": bool, "detail": str}], "passed": bool})
    assert found["passed"] is True


def test_vectors(tmp_path: Path, capsys: Capture) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat\n我 爱 北京\n" * 20, "utf-8")
    made = str(tmp_path / "vectors")
    options = ("--dimensions", "8", "--workers", "1", "--min-count", "2")
    found = document(capsys, "vectors", "train", str(text), "--out", made, *options)
    has(found, {"vectors": str, "method": str, "words": int, "dimensions": int, "corpus_words": int})
    has(found, {"seconds": float, "words_per_second": float, "peak_memory_bytes": int, "losses": list})
    found = document(capsys, "vectors", "neighbours", made, "cat", "北京")
    has(
        found,
        {"vectors": str, "results": [{"query": [str], "neighbours": [{"word": str, "similarity": float}]}]},
    )
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("cat\tmat\t3\ncat\tthe\t1\nsat\ton\t2\n", "utf-8")
    found = document(capsys, "vectors", "evaluate", made, str(pairs))
    has(found, {"results": [{"set": str, "kind": str, "n": int, "used": int, "coverage": float}]})
    has(found, {"results": [{"metrics": {"spearman": Interval, "pearson": Interval}}]})
    found = document(
        capsys, "vectors", "convert", made, str(tmp_path / "v.bin"), "--format", "word2vec-binary"
    )
    has(found, {"out": str, "written": str, "words": int})


def test_pull_and_export(trained: Trained, tmp_path: Path, capsys: Capture) -> None:
    found = document(capsys, "export", str(trained.bundle), "--to", "ct2", "--out", str(tmp_path / "ct2"))
    has(
        found, {"folder": str, "format": str, "proof": {"largest_difference": float, "greedy_identical": str}}
    )
    transformers = pytest.importorskip("transformers", reason="a public checkpoint is made by transformers")
    config = transformers.GPT2Config(
        vocab_size=50, n_embd=8, n_head=2, n_layer=1, n_positions=16, bos_token_id=1, eos_token_id=2
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    found = document(capsys, "pull", str(tmp_path / "gpt2"), "--out", str(tmp_path / "mine"))
    has(found, {"folder": str, "source": str, "family": str, "architecture": str, "parameters": int})
    has(found, {"size_bytes": int})


def test_tune(tmp_path: Path, capsys: Capture) -> None:
    pytest.importorskip("optuna", reason="searching needs optuna")
    data = str(write_pairs(tmp_path / "pairs.tsv", made_pairs(200)))
    (tmp_path / "space.yaml").write_text("training.learning_rate: [0.001, 0.01]")
    sizes = "hidden_size: 32, num_heads: 2, num_kv_heads: 2, feed_forward_size: 48, num_encoder_layers: 1"
    words = ["tune", "translate", "--data", data, "--set", f"model={{{sizes}}}", "--set", "size=tiny"]
    words += ["--set", "vocab_size=300", "--set", "training.epochs=1"]
    search = ("--space", str(tmp_path / "space.yaml"), "--trials", "1", "--out", str(tmp_path / "search"))
    trial = {"number": int, "state": str, "value": float, "parameters": dict, "validations": int}
    trial |= {"seconds": float, "problem": str}
    found = document(capsys, *words, *search)
    has(found, {"task": str, "metric": str, "best": trial, "trials": [trial], "recipe": str})
    found = document(capsys, *words, "--find-rate")
    has(found, {"suggestion": float, "lowest": float, "curve": [{"rate": float, "loss": float}]})


def test_compress(trained: Trained, pairs: str, tmp_path: Path, capsys: Capture) -> None:
    words = ("--quantize", "int8", "--data", pairs, "-o", str(tmp_path / "small"), "--limit", "50%")
    found = document(capsys, "compress", str(trained.bundle), *words, "--set", "timed=2")
    has(found, {"bundle": str, "written": bool, "metric": str, "limit": float, "n": int, "steps": [str]})
    assert found["written"]


def test_no_verb_is_without_a_contract() -> None:
    """A new verb comes with its test here; `serve` prints its address, tested with the server."""
    from inkstone.cli import VERBS

    tested = {
        word for name in vars(sys.modules[__name__]) if name.startswith("test_") for word in name.split("_")
    }
    assert set(VERBS) - {"serve"} <= tested | {"tokenizer"}
