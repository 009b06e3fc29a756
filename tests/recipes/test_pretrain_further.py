"""A language model that reads on in other documents: whole or by an adapter, judged beside what it was."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from made_corpus import made_pairs

torch = pytest.importorskip("torch", reason="training needs torch")

from safetensors.torch import load_file  # noqa: E402

from inkstone.cli import main  # noqa: E402
from inkstone.model.bundle import open_bundle  # noqa: E402
from inkstone.recipes.rerun import rerun  # noqa: E402
from inkstone.recipes.verify import verify  # noqa: E402

SMALL = {"hidden_size": 48, "num_heads": 2, "num_kv_heads": 2, "feed_forward_size": 96}
LAYERS = {"causal": "num_decoder_layers", "masked": "num_encoder_layers"}


def run(*arguments: str, code: int = 0) -> tuple[dict[str, Any], str]:
    """The JSON document that a command prints, and what it says."""
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        assert main([*arguments, "--json"]) == code, err.getvalue()
    return json.loads(out.getvalue()) if code == 0 else {}, err.getvalue()


def documents(path: Path, words: Sequence[str], count: int = 200) -> str:
    """Texts of some sentences, each with one of these words at its end."""
    draw, pairs = random.Random(1), made_pairs()
    rows = []
    for _ in range(count):
        some = [f"{en} {draw.choice(words)}." for _, en in draw.sample(pairs, draw.randint(1, 5))]
        rows.append(json.dumps({"text": " ".join(some)}))
    path.write_text("\n".join(rows), "utf-8")
    return str(path)


def settings(**more: Any) -> list[str]:
    values = {
        "training.epochs": 3,
        "training.tokens_per_batch": 480,
        "training.threads": 1,
        "block": 24,
        **more,
    }
    return [part for name, value in values.items() for part in ("--set", f"{name}={json.dumps(value)}")]


@pytest.fixture(scope="module", params=["causal", "masked"])
def first(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A model of each objective that has read what people do yesterday."""
    objective, folder = request.param, tmp_path_factory.mktemp("first")
    data = documents(folder / "yesterday.jsonl", ["yesterday", "at night"])
    new = {"vocab_size": 300, "model": {**SMALL, LAYERS[objective]: 2}, "training.learning_rate": 1e-2}
    run(
        "pretrain", "--data", data, "--objective", objective, "--out", str(folder / "model"), *settings(**new)
    )
    return objective, folder / "model"


@pytest.mark.parametrize("lora", [False, True])
def test_it_reads_on(first: tuple[str, Path], lora: bool, tmp_path: Path) -> None:
    objective, base = first
    data = documents(tmp_path / "tomorrow.jsonl", ["tomorrow", "if it rains", "never again"])
    command = ("pretrain", "--data", data, "--base", str(base), "--objective", objective)
    out = tmp_path / "model"
    found, said = run(
        *command,
        *(["--lora"] if lora else []),
        "--out",
        str(out),
        *settings(**{"training.learning_rate": 1e-2}),
    )
    name = "bits_per_byte" if objective == "causal" else "foreseen_loss"
    before = found["baseline"]["before"][name]["value"]
    assert found["metrics"][name]["value"] < before - 0.05, "it knows the new documents better than it did"
    assert (out / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    report = json.loads((out / "report.json").read_text("utf-8"))
    assert report["training"]["begun_with"] == "model"
    learnt, whole = report["training"]["learnt_parameters"], report["training"]["parameters"]
    assert (learnt < whole / 3) is lora and f"{learnt:,} of" in said
    assert (out / "adapter").exists() is lora
    assert open_bundle(out).manifest["made"]["base"]["name"] == "model"
    assert all(check.passed for check in verify(out))
    again = rerun(out, steps=3, data=[tmp_path, base.parent])
    assert again.passed and again.equal


def test_a_step_of_nothing_leaves_the_weights(first: tuple[str, Path], tmp_path: Path) -> None:
    """At a rate of next to nothing, whole or beside an adapter that has learnt nothing, it stays what it was."""
    objective, base = first
    data = documents(tmp_path / "tomorrow.jsonl", ["tomorrow"])
    command = (
        "pretrain",
        "--data",
        data,
        "--base",
        str(base),
        "--objective",
        objective,
        "--out",
        str(tmp_path / "same"),
    )
    run(
        *command,
        *settings(**{"training.learning_rate": 1e-12, "training.epochs": 0.2, "training.weight_decay": 0}),
    )
    ours, theirs = (load_file(place / "model.safetensors") for place in (tmp_path / "same", base))
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in theirs)


REFUSED = {
    "objective": (("--objective", "span"), "the base learnt {objective}. Give --objective {objective}"),
    "size": (("--size", "base"), "size=base: the base decides that"),
    "vocabulary": (("--set", "vocab_size=500"), "vocab_size=500: the base decides that"),
    "script": (("--set", "script=simplified"), "the base was made with script=None"),
    "block": (("--set", "block=99"), "block=99 is more than the model's max_positions=24"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_goes_against_the_base_is_refused(name: str, first: tuple[str, Path], tmp_path: Path) -> None:
    objective, base = first
    given, words = REFUSED[name]
    data = documents(tmp_path / "tomorrow.jsonl", ["tomorrow"], 60)
    asked = () if "--objective" in given else ("--objective", objective)
    _, said = run(
        "pretrain", "--data", data, "--base", str(base), "--out", str(tmp_path / "m"), *asked, *given, code=2
    )
    assert words.format(objective=objective) in said


def test_what_is_no_base_is_refused(tmp_path: Path) -> None:
    data = documents(tmp_path / "tomorrow.jsonl", ["tomorrow"], 60)
    out = ("--out", str(tmp_path / "m"))
    assert "zh-en" in run("pretrain", "--data", data, "--base", "zh-en", *out, code=2)[1]
    assert "give --base MODEL too" in run("pretrain", "--data", data, "--lora", *out, code=2)[1]
