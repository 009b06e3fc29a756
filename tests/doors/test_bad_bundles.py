"""Model folders that are truncated, altered, foreign or of another kind, at every door that opens one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from door import Call, one_document, refused, resealed, rewritten

Damage = Callable[[Path], None]


def truncated(bundle: Path) -> None:
    weights = bundle / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def altered(bundle: Path) -> None:
    engine = bundle / "ctranslate2-int8" / "model.bin"
    content = bytearray(engine.read_bytes())
    content[500] ^= 1
    engine.write_bytes(content)


def with_a_stranger(bundle: Path) -> None:
    (bundle / "evil.py").write_text("print('hello')")


def with_a_link_outside(bundle: Path) -> None:
    (bundle / "config.json").rename(bundle.parent / "outside.json")
    (bundle / "config.json").symlink_to("../outside.json")


def without_an_engine(bundle: Path) -> None:
    shutil.rmtree(bundle / "ctranslate2-int8")
    resealed(bundle)


def with_a_broken_engine(bundle: Path) -> None:
    (bundle / "ctranslate2-int8" / "model.bin").write_bytes(b"junk")
    resealed(bundle)


def with_an_empty_tokenizer(bundle: Path) -> None:
    (bundle / "tokenizer.json").write_text("{}")
    resealed(bundle)


DAMAGES: dict[str, tuple[Damage, str]] = {
    "truncated": (truncated, "model.safetensors has 1,000 bytes where manifest.json says"),
    "altered": (altered, "ctranslate2-int8/model.bin is altered"),
    "stranger": (with_a_stranger, "evil.py does not belong here"),
    "link": (with_a_link_outside, "config.json lies outside the folder"),
    "no manifest": (lambda bundle: (bundle / "manifest.json").unlink(), "manifest.json is missing"),
    "manifest no JSON": (
        lambda bundle: _write(bundle / "manifest.json", "{"),
        "manifest.json cannot be read as JSON",
    ),
    "manifest of bytes": (
        lambda bundle: (bundle / "manifest.json").write_bytes(b"\xff\0"),  # type: ignore[dict-item,return-value]
        "manifest.json cannot be read as JSON",
    ),
    "no description": (lambda bundle: (bundle / "inkstone.json").unlink(), "inkstone.json is missing"),
    "unknown task": (
        rewritten("inkstone.json", lambda d: d.update(task="translat")),
        'task="translat" is not known … translate, summarize, classify … Did you mean "translate"',
    ),
    "no task": (rewritten("inkstone.json", lambda d: d.pop("task")), "task"),
    "no languages": (rewritten("inkstone.json", lambda d: d.pop("languages")), "languages must be a list"),
    "no directions": (
        rewritten("inkstone.json", lambda d: d.pop("directions")),
        "directions must be a list of pairs",
    ),
    "wrong directions": (
        rewritten("inkstone.json", lambda d: d.update(directions=[["zh"]])),
        "directions must be",
    ),
    "wrong lengths": (
        rewritten("inkstone.json", lambda d: d.update(comfortable_tokens="many", beam_size=0)),
        "comfortable_tokens='many' … beam_size=0",
    ),
    "no engine": (without_an_engine, "holds no CTranslate2 engine"),
    "broken engine": (with_a_broken_engine, "cannot be opened by CTranslate2"),
    "empty tokenizer": (with_an_empty_tokenizer, "tokenizer.json is not a tokenizer.json file"),
    "smaller vocabulary": (rewritten("config.json", lambda d: d.update(vocab_size=7)), "the model 7"),
}


def _write(file: Path, text: str) -> None:
    file.write_text(text, "utf-8")


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_models(call: Call, damaged: Callable[[Damage], str], name: str) -> None:
    damage, words = DAMAGES[name]
    model = damaged(damage)
    refused(call, "translate", "hello", "--to", "zh", "--model", model, words=words)
    refused(call, "translate", "hello", "--to", "zh", "--model", model, "--json", words=words)
    refused(call, "evaluate", model, "--data", "pairs.tsv", "--json", words=words)
    refused(
        call,
        "serve",
        "--models",
        model,
        "--port",
        "0",
        "--json",
        words=words if name != "no manifest" else "no model",
    )

    told = call("verify", model)
    assert (told.code, told.err) == (2, "")
    assert "FAILED" in told.out
    assert all(word in told.out for word in words.split(" … ")), told.out
    document = one_document(call("verify", model, "--json").out)
    assert document["passed"] is False


def test_the_doctor_finds_them(call: Call, damaged: Callable[[Damage], str]) -> None:
    model = damaged(truncated)
    answer = call("doctor", "--models", model, "--json")
    assert (answer.code, answer.err) == (2, "")
    checks = {check["name"]: check for check in one_document(answer.out)["checks"]}  # type: ignore[attr-defined]
    assert "model.safetensors" in checks["model model"]["detail"]
    assert checks["model model"]["advice"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda certificate: certificate.clear(), "holds no probes"),
        (lambda certificate: certificate.update(probes=[{"probe": "x"}]), "holds no probes"),
        (
            lambda certificate: certificate.update(probes=[{"source": [99999], "output": []}]),
            "holds no probes",
        ),
        (lambda certificate: certificate["probes"][0].update(output=[5]), "differs on"),
    ],
)
def test_a_certificate_that_proves_nothing(
    call: Call, damaged: Callable[[Damage], str], change: Callable[[dict[str, object]], object], words: str
) -> None:
    model = damaged(rewritten("parity.json", change))
    answer = call("verify", model)
    assert answer.code == 2
    assert words in answer.out


@pytest.mark.parametrize(
    "verb", [("verify",), ("evaluate", "--data", "pairs.tsv"), ("translate", "x", "--model")]
)
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing", 'model="missing" is not known'),
        ("texts.txt", "is a file"),
        ("x" * 300, "too long"),
        ("dangling", "not known"),
    ],
)
def test_no_model_at_all(call: Call, place: Path, verb: tuple[str, ...], name: str, words: str) -> None:
    refused(call, *verb, name, words=words)
    refused(call, *verb, name, *(["--json"] if verb else []), words=words)


def test_a_model_for_another_task(call: Call, damaged: Callable[[Damage], str]) -> None:
    model = damaged(rewritten("inkstone.json", lambda d: d.update(task="classify", labels=["a", "b"])))
    refused(call, "translate", "x", "--model", model, words="for task 'classify', but 'translate' is needed")
    shutil.copytree(model, "other")
    rewritten("inkstone.json", lambda d: d.update(task="translate"))(Path("other"))
    refused(
        call,
        "evaluate",
        "other",
        "--data",
        "pairs.tsv",
        "--against",
        model,
        words="'classify', but 'translate'",
    )


def test_a_link_to_a_model_is_a_model(call: Call, damaged: Callable[[Damage], str]) -> None:
    Path("link").symlink_to(damaged(lambda bundle: None))
    assert call("translate", "hello", "--to", "zh", "--model", "link").code == 0
