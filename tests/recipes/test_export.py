"""`inkstone export`: what is written opens elsewhere and says the same; what does not agree is not written."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch", reason="exports need torch")
transformers = pytest.importorskip(
    "transformers", reason="the reference is transformers; install the dev extra"
)

sys.path.insert(0, str(Path(__file__).parent.parent / "model"))
from families import reference  # noqa: E402

from inkstone.cli import main  # noqa: E402
from inkstone.generate.classify_onnx import OnnxClassifier  # noqa: E402
from inkstone.generate.engine import GenerationOptions  # noqa: E402
from inkstone.generate.onnx_engine import OnnxEngine  # noqa: E402
from inkstone.ground.errors import BundleError, ConfigError  # noqa: E402
from inkstone.ground.manifest import problems  # noqa: E402
from inkstone.model.families import folder as families  # noqa: E402
from inkstone.recipes.export import export  # noqa: E402
from inkstone.ship import ctranslate2 as shipped  # noqa: E402
from inkstone.ship.onnx_layers import Drawing  # noqa: E402
from inkstone.text.foreign_tokenizer import ForeignTokenizer  # noqa: E402
from inkstone.text.tokenizer import Kind, Tokenizer  # noqa: E402

if TYPE_CHECKING:
    from conftest import Trained

CASES = (
    "bert states",
    "roberta prediction",
    "gpt2",
    "llama, yarn positions",
    "mistral",
    "qwen2",
    "qwen3",
    "t5 1.1",
    "bart",
)


def written(case: str, tmp_path: Path) -> tuple[Any, Path]:
    """A model by transformers and its folder, with a tokenizer."""
    model = reference(case, vocab_size=300)
    folder = tmp_path / "theirs"
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    texts = ["the cat sat on the mat", "a dog ran", "猫坐在垫子上"] * 4
    # transformers reads the tokenizer of a qwen2 as one of bytes, whatever its files say.
    kind: Kind = "byte-bpe" if case.startswith("qwen") else "bpe"
    ForeignTokenizer.of(Tokenizer.train(texts, kind=kind, vocab_size=290)).save(folder)
    return model, folder


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_to_hugging_face(case: str, tmp_path: Path) -> None:
    model, folder = written(case, tmp_path)
    found = export(folder, "hf", tmp_path / "out")
    assert found.proof.largest_difference == 0.0
    assert found.proof.tokenizer.startswith("5 of 5")
    assert problems(tmp_path / "out") == []
    again = type(model).from_pretrained(tmp_path / "out").eval()
    ids = torch.arange(5, 15)[None]
    more = {"decoder_input_ids": ids[:, :4]} if model.config.is_encoder_decoder else {}
    assert torch.equal(again(ids, **more)[0], model(ids, **more)[0])
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    wanted = ForeignTokenizer.load(folder).encode("the dog 猫", add_special_tokens=False)
    assert tokenizer("the dog 猫", add_special_tokens=False).input_ids == wanted


@pytest.mark.parametrize("quantize", ["float32", "int8"])
@pytest.mark.parametrize("case", ["bert states", "llama", "bart"])
def test_to_ctranslate2(case: str, quantize: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, folder = written(case, tmp_path)
    code = main(
        ["export", str(folder), "--to", "ct2", "--quantize", quantize, "-o", str(tmp_path / "out"), "--json"]
    )
    assert code == 0
    proof = json.loads(capsys.readouterr().out)["proof"]
    assert (proof["target"], proof["quantization"], proof["inputs"]) == ("ct2", quantize, 6)
    low, high = (0, 1e-3) if quantize == "float32" else (1e-6, 5)
    assert low <= proof["largest_difference"] <= high
    assert json.loads((tmp_path / "out" / "parity.json").read_text()) == proof


@pytest.mark.parametrize("case", ["llama, yarn positions", "gpt2"])
def test_text_of_a_decoder_is_part_of_the_proof(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = written(case, tmp_path)
    assert export(folder, "ct2", tmp_path / "out").proof.greedy_identical == "6 of 6"
    marked = shipped.marks
    monkeypatch.setattr(shipped, "marks", lambda config: {**marked(config), "max_positions": 21})
    with pytest.raises(BundleError, match="greedy text is the same for only"):
        export(folder, "ct2", tmp_path / "short")


@pytest.mark.parametrize(
    ("case", "kinds"),
    [("bert labels", "states and pooled and logits"), ("roberta prediction", "states and logits")],
)
def test_heads_are_part_of_the_proof(
    case: str, kinds: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, folder = written(case, tmp_path)
    assert export(folder, "hf", tmp_path / "out").proof.compared == kinds
    split = families._split

    def other(family: Any, architecture: Any, config: Any, ours: str, tensor: Any) -> dict[str, Any]:
        named = split(family, architecture, config, ours, tensor)
        head = ours.startswith(("classifier", "prediction"))
        return {name: part + 1 if head else part for name, part in named.items()}

    monkeypatch.setattr(families, "_split", other)
    with pytest.raises(BundleError, match=f"nothing was written: {kinds} differ"):
        export(folder, "hf", tmp_path / "other")


def test_names_of_labels_and_options_of_generation_go_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, labels = written("bert labels", tmp_path / "a")
    config = json.loads((labels / "config.json").read_text())
    names = {n: f"kind {n}" for n in config["id2label"]}
    (labels / "config.json").write_text(
        json.dumps({**config, "id2label": names, "label2id": {v: int(k) for k, v in names.items()}})
    )
    export(labels, "hf", tmp_path / "labels")
    assert transformers.AutoConfig.from_pretrained(tmp_path / "labels").id2label == {
        int(n): name for n, name in names.items()
    }
    _, decoder = written("llama", tmp_path / "b")
    said = {"eos_token_id": [2, 7], "temperature": 0.6, "do_sample": True}
    (decoder / "generation_config.json").write_text(json.dumps(said))
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(decoder), "--to", "hf"]) == 0  # --out has a default
    assert json.loads((tmp_path / "models" / "theirs-hf" / "generation_config.json").read_text()) == said


def test_a_bundle_to_ctranslate2(trained: Trained, tmp_path: Path) -> None:
    found = export(trained.bundle, "ct2", tmp_path / "out")
    assert found.proof.greedy_identical == "6 of 6"


@pytest.mark.parametrize("quantize", ["float32", "int8"])
@pytest.mark.parametrize(
    ("case", "compared"),
    [
        ("bert labels", "logits"),
        ("roberta states", "states and pooled"),
        ("gpt2", "logits"),
        ("llama", "logits"),
        ("mistral, window", "logits"),
        ("qwen3", "logits"),
        ("t5", "log-probabilities"),
        ("bart", "log-probabilities"),
        ("marian", "log-probabilities"),
    ],
)
def test_to_onnx(
    case: str, compared: str, quantize: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, folder = written(case, tmp_path)
    more = ["--to", "onnx", "--quantize", quantize, "-o", str(tmp_path / "out"), "--json"]
    assert main(["export", str(folder), *more]) == 0
    proof = json.loads(capsys.readouterr().out)["proof"]
    assert (proof["target"], proof["compared"], proof["inputs"]) == ("onnx", compared, 6)
    low, high = (0, 1e-4) if quantize == "float32" else (1e-6, 5)
    assert low <= proof["largest_difference"] <= high
    if quantize == "float32":
        decoding = not case.startswith(("bert", "roberta"))
        assert proof["greedy_identical"] == ("6 of 6" if decoding else "no decoder")
    assert ForeignTokenizer.load(tmp_path / "out").encode("the dog") == ForeignTokenizer.load(folder).encode(
        "the dog"
    )


@torch.no_grad()
def test_a_foreign_classifier_reads_texts_from_its_export(tmp_path: Path) -> None:
    model, folder = written("bert labels", tmp_path)
    export(folder, "onnx", tmp_path / "out")
    served = OnnxClassifier(tmp_path / "out", tmp_path / "out", threads=1)
    texts = ["the cat sat", "a dog", "猫"]
    wanted = [model(torch.tensor([ids])).logits[0].tolist() for ids in served.encode(texts)]
    assert served.logits(texts).tolist() == [pytest.approx(row, abs=1e-4) for row in wanted]


def test_a_bundle_to_onnx(trained: Trained, tmp_path: Path) -> None:
    found = export(trained.bundle, "onnx", tmp_path / "out")
    assert found.proof.greedy_identical == "6 of 6"
    tokenizer = Tokenizer.load(tmp_path / "out" / "tokenizer.json")
    assert OnnxEngine(tmp_path / "out", tokenizer).generate([[5, 6, 3]], GenerationOptions())


def test_an_onnx_export_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, folder = written("llama", tmp_path)
    turned = Drawing.rotated
    monkeypatch.setattr(Drawing, "rotated", lambda self, x, rotary: turned(self, x, rotary[::-1]))
    with pytest.raises(BundleError, match="does not agree with the model; nothing was written"):
        export(folder, "onnx", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_export_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, folder = written("llama", tmp_path)
    fill = shipped._fill_norm

    def doubled(spec: Any, weights: Any, name: str) -> None:
        fill(spec, weights, name)
        spec.gamma = spec.gamma * 2

    monkeypatch.setattr(shipped, "_fill_norm", doubled)
    with pytest.raises(
        BundleError, match=r"(?s)does not agree with the model; nothing was written: .*logits differ"
    ):
        export(folder, "ct2", tmp_path / "out")
    assert not (tmp_path / "out").exists()


class TestRefused:
    def test_what_no_family_can_hold(self, trained: Trained, tmp_path: Path) -> None:
        with pytest.raises(
            ConfigError, match=r"no family known here can hold this model\. The nearest, "
        ) as error:
            export(trained.bundle, "hf", tmp_path / "out")
        assert "positions" in str(error.value) and "--to ct2" in str(error.value)

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            (["--to", "gguf"], '--to="gguf" is not known. Valid: hf, ct2, onnx'),
            (["--to", "ct2", "--quantize", "int3"], '--quantize="int3" is not known. Valid: float32, int8'),
            (["--to", "hf", "--quantize", "int8"], "written in float32"),
            (["--to", "ct2", "--family", "llama"], "goes with --to hf only"),
            (["--to", "hf", "--family", "lama"], 'family="lama" is not known'),
            (["--to", "hf", "--family", "gpt2"], "this model is no gpt2"),
        ],
    )
    def test_wrong_options(
        self, more: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        _, folder = written("llama", tmp_path)
        assert main(["export", str(folder), "-o", str(tmp_path / "out"), *more]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()

    def test_labels_to_ctranslate2(self, tmp_path: Path) -> None:
        _, folder = written("bert labels", tmp_path)
        with pytest.raises(ConfigError, match=r"no scores of its 3 labels.*--to onnx"):
            export(folder, "ct2", tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_a_bag(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["export", "intents-en", "--to", "ct2", "-o", str(tmp_path / "out")]) == 2
        assert "a bag of features, which is served as it is" in capsys.readouterr().err
