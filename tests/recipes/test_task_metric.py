"""The task's metric in the proof of an export: measured before and after, and refused where float32 answers otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from made_corpus import made_labelled, made_pairs, write_pairs

torch = pytest.importorskip("torch", reason="exports need torch")

from inkstone.apps.classify import Classifier  # noqa: E402
from inkstone.apps.translate import Translator  # noqa: E402
from inkstone.cli import main  # noqa: E402
from inkstone.generate.ctranslate2_engine import CTranslate2Engine  # noqa: E402
from inkstone.ground.errors import BundleError  # noqa: E402
from inkstone.learn.classifier import ClassifierOptions, TokenOptions  # noqa: E402
from inkstone.learn.loop import TrainingOptions  # noqa: E402
from inkstone.metrics.text import chrf  # noqa: E402
from inkstone.recipes import export as exporting  # noqa: E402
from inkstone.recipes.evaluate import MeasuredOn  # noqa: E402
from inkstone.recipes.export import export  # noqa: E402

if TYPE_CHECKING:
    from conftest import Trained


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("data") / "pairs.tsv", made_pairs()[860:])


def proof_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "parity.json").read_text("utf-8"))
    return found


@pytest.mark.parametrize("quantize", ["float32", "int8"])
def test_of_a_translator(
    trained: Trained, pairs: Path, tmp_path: Path, quantize: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "export",
        str(trained.bundle),
        "--to",
        "ct2",
        "--quantize",
        quantize,
        "-o",
        str(tmp_path / "out"),
    ]
    assert main([*command, "--data", str(pairs), "--direction", "zh-en"]) == 0
    said = capsys.readouterr().out
    measured = proof_of(tmp_path / "out")["task_metric"]
    assert (measured["metric"], measured["n"]) == ("bleu", 40)
    assert measured["data"] == f"{pairs.parent.name}/pairs.tsv"  # where it lay is nobody's business
    if quantize == "float32":
        assert measured["answers_identical"] == "40 of 40"
        assert measured["original"] == measured["export"]
    translator = Translator(trained.bundle, engine="torch", threads=1)
    texts, references = zip(*made_pairs()[860:], strict=True)
    for kind in ("original", "export"):
        if kind == "export":
            translator.engine = CTranslate2Engine(tmp_path / "out", translator.tokenizer, threads=1)
        found = [one.translation for one in translator.translate(texts, to="en", source="zh")]
        assert measured[kind]["chrf"] == pytest.approx(chrf(found, references).value, abs=1e-3)
        assert f"{measured[kind]['bleu']}" in said


@pytest.fixture(scope="module", params=["transformer", "cnn"])
def classifier(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A classifier that reads tokens, a file of texts with labels, and what it is exported to."""
    place = tmp_path_factory.mktemp(request.param)
    rows = [(f"{text} {n}", label) for n in range(6) for text, label in made_labelled()]
    training = TrainingOptions(epochs=2, tokens_per_batch=512, warmup_steps=5, threads=1, precision="float32")
    sizes = {"hidden_size": 16, "num_heads": 2, "num_kv_heads": 2, "num_encoder_layers": 1}
    own = TokenOptions(model=sizes if request.param == "transformer" else {}, vocab_size=300, max_length=8,
                       training=training)  # fmt: skip
    options = ClassifierOptions(architecture=request.param, **{request.param: own})
    texts, labels = zip(*rows, strict=True)
    Classifier().fit(texts, labels, options=options).save(place / "model")
    # Among them a text longer than the model's positions, which is read in windows.
    lines = [{"text": text, "label": label} for text, label in [*rows[:30], (" ".join(texts[:4]), "music")]]
    (place / "data.jsonl").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    return place / "model", place / "data.jsonl"


def test_of_a_classifier(classifier: tuple[Path, Path], tmp_path: Path) -> None:
    bundle, data = classifier
    found = export(bundle, "onnx", tmp_path / "out", on=MeasuredOn((str(data),)))
    measured = found.proof.task_metric
    assert isinstance(measured, dict)
    assert (measured["metric"], measured["n"], measured["answers_identical"]) == ("accuracy", 31, "31 of 31")
    assert measured["original"] == measured["export"] == proof_of(tmp_path / "out")["task_metric"]["original"]
    rows = [json.loads(line) for line in data.read_text("utf-8").splitlines()]
    served = Classifier(bundle, threads=1).predict([row["text"] for row in rows])
    right = sum(one.label == row["label"] for one, row in zip(served, rows, strict=True)) / len(rows)
    assert measured["original"]["accuracy"] == pytest.approx(right, abs=0.05)  # what is served is in int8


def test_without_data_it_says_so(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(trained.bundle), "--to", "ct2", "-o", str(tmp_path / "out")]) == 0
    assert proof_of(tmp_path / "out")["task_metric"] == "not measured: no --data was given"
    assert "metric of the task: not measured" in capsys.readouterr().out


def test_an_export_that_answers_otherwise_is_not_written(
    trained: Trained, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the random inputs of the proof do not find, the texts do: here, an export of other weights."""
    model = exporting._model(trained.bundle)
    with torch.no_grad():
        model.embedding.weight[6:] += 0.05 * torch.randn(
            model.embedding.weight[6:].shape, generator=torch.Generator().manual_seed(1)
        )
    monkeypatch.setattr(exporting, "_model", lambda folder: model)
    from inkstone.ship import proof

    monkeypatch.setattr(proof, "LIMIT", 1e9)
    monkeypatch.setattr(proof, "greedy_of", lambda model, ids: [])
    real = proof.prove
    monkeypatch.setattr(proof, "prove", lambda *given: real(*given[:5]))
    with pytest.raises(BundleError, match=r"does not answer as the model does; nothing was written"):
        export(trained.bundle, "ct2", tmp_path / "out", on=MeasuredOn((str(pairs),), direction="zh-en"))
    assert not (tmp_path / "out").exists()
    found = export(
        trained.bundle,
        "ct2",
        tmp_path / "int8",
        quantization="int8",
        on=MeasuredOn((str(pairs),), None, "zh-en"),
    )
    assert found.proof.task_metric["original"] != found.proof.task_metric["export"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--data", "DATA", "--direction", "de-en"], "does not translate de-en. Valid: "),
        (["--direction", "zh-en"], "say how to read --data, which is not given"),
        (["--data", "nowhere.tsv"], "nowhere.tsv"),
        (["--data", "PLAIN"], "--direction, such as"),
    ],
)
def test_wrong_options(
    trained: Trained,
    pairs: Path,
    tmp_path: Path,
    more: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain = tmp_path / "plain.tsv"
    plain.write_text("".join(f"{n}\t{n + 1}\n" for n in range(20)), "utf-8")  # of no language
    given = [{"DATA": str(pairs), "PLAIN": str(plain)}.get(one, one) for one in more]
    assert main(["export", str(trained.bundle), "--to", "ct2", "-o", str(tmp_path / "out"), *given]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_has_no_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}), "utf-8")
    assert main(["export", str(tmp_path), "--to", "ct2", "-o", str(tmp_path / "out"), "--data", "x.tsv"]) == 2
    assert "is a checkpoint without a task" in capsys.readouterr().err
