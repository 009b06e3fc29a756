"""The search over onnxruntime is that of torch: the same hypotheses, as likely, for every kind of decoder."""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the reference engine needs torch")
onnx = pytest.importorskip("onnx", reason="exporting needs onnx")
pytest.importorskip("onnxscript", reason="exporting needs onnxscript")

from inkstone.generate.engine import GenerationOptions  # noqa: E402
from inkstone.generate.onnx_engine import OnnxEngine  # noqa: E402
from inkstone.generate.torch_engine import TorchEngine  # noqa: E402
from inkstone.ground.errors import BundleError, ConfigError  # noqa: E402
from inkstone.model import convolutional_config, recurrent_config  # noqa: E402
from inkstone.model.checkpoint import build_model, save_model  # noqa: E402
from inkstone.ship.onnx import export_onnx, quantise_onnx  # noqa: E402

SIZES = {"embedding_size": 8, "hidden_size": 16, "num_encoder_layers": 2, "num_decoder_layers": 2}
KINDS: dict[str, Callable[[], Any]] = {
    "lstm-luong": lambda: recurrent_config.preset("tiny", 40, "encoder-decoder", SIZES),
    "gru-bahdanau": lambda: recurrent_config.preset(
        "tiny",
        40,
        "encoder-decoder",
        {**SIZES, "cell": "gru", "attention": "bahdanau", "bidirectional": False},
    ),
    "cnn": lambda: convolutional_config.preset("tiny", 40, {**SIZES, "max_positions": 24}),
}


@dataclass(frozen=True)
class Words:
    """As much of a tokenizer as the engine asks for."""

    vocab_size: int = 40


@dataclass(frozen=True)
class Exported:
    folder: Path
    reference: TorchEngine
    engine: OnnxEngine


@pytest.fixture(scope="module", params=KINDS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("onnx")
    model = build_model(KINDS[request.param](), torch.Generator().manual_seed(1))
    with torch.no_grad():  # neither sure nor arbitrary, and no bias left at zero
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)) * 0.2)
        model.output_weight.mul_(4)
        model.output_weight[3].mul_(2)  # so that some outputs end
    save_model(model, folder)
    export_onnx(folder, folder / "onnx-float32", quantization="float32")
    return Exported(folder, TorchEngine(model), OnnxEngine(folder / "onnx-float32", Words()))  # type: ignore[arg-type]


def sources(count: int, seed: int = 0) -> list[list[int]]:
    random_ = random.Random(seed)
    return [[*(random_.randrange(4, 40) for _ in range(random_.randrange(9))), 3] for _ in range(count)]


@pytest.mark.parametrize(("width", "penalty"), [(1, 1.0), (4, 1.0), (3, 0.0)])
def test_it_finds_what_torch_finds(exported: Exported, width: int, penalty: float) -> None:
    options = GenerationOptions(beam_size=width, alternatives=width, length_penalty=penalty, max_length=20)
    asked = sources(24)
    expected = exported.reference.generate(asked, options)
    for ours, theirs in zip(exported.engine.generate(asked, options), expected, strict=True):
        assert [(h.ids, h.finished) for h in ours] == [(h.ids, h.finished) for h in theirs]
        likely = [h.log_probability for h in theirs]
        assert [h.log_probability for h in ours] == pytest.approx(likely, abs=1e-3)


def test_it_scores_as_torch_does_whatever_shares_the_batch(exported: Exported) -> None:
    asked, targets = sources(10, seed=1), [ids[:-1][::-1] for ids in sources(10, seed=2)]
    expected = exported.reference.score(asked, targets)
    assert exported.engine.score(asked, targets) == pytest.approx(expected, abs=1e-3)
    alone = [exported.engine.score([s], [t])[0] for s, t in zip(asked, targets, strict=True)]
    assert alone == pytest.approx(expected, abs=1e-3)


def test_what_it_searched_is_as_likely_as_it_says(exported: Exported) -> None:
    options = GenerationOptions(beam_size=3, max_length=20)
    asked = sources(12, seed=3)
    ended = [
        (s, h[0])
        for s, h in zip(asked, exported.engine.generate(asked, options), strict=True)
        if h[0].finished
    ]
    assert ended
    again = exported.engine.score([s for s, _ in ended], [h.ids for _, h in ended])
    assert again == pytest.approx([h.log_probability for _, h in ended], abs=1e-3)


def test_in_eight_bits_it_is_smaller_and_much_the_same(exported: Exported, tmp_path: Path) -> None:
    exact_folder = exported.folder / "onnx-float32"
    quantise_onnx(exact_folder, tmp_path / "onnx-int8")
    small = OnnxEngine(tmp_path / "onnx-int8", Words())  # type: ignore[arg-type]
    asked, targets = sources(10, seed=1), [ids[:-1] for ids in sources(10, seed=2)]
    exact = exported.reference.score(asked, targets)
    apart = sum(abs(one - other) for one, other in zip(small.score(asked, targets), exact, strict=True))
    assert 0 < apart < 0.2 * abs(sum(exact))
    assert small.name == "onnx-int8" and not list(tmp_path.glob("*/*.part"))


@pytest.mark.parametrize(
    "more",
    [
        {"temperature": 0.8, "seed": 3, "top_k": 12, "alternatives": 3},
        {"repetition_penalty": 1.5, "no_repeat_ngram": 2, "top_tokens": 2},
        {"prefix": (7, 9), "end_ids": (3, 11)},
        {"beam_size": 3, "prefix": (7,), "no_repeat_ngram": 2, "end_ids": (3, 11), "top_tokens": 1},
    ],
    ids=lambda more: " ".join(more),
)
def test_all_other_options_too(exported: Exported, more: dict[str, Any]) -> None:
    options = GenerationOptions(**{"beam_size": 1, "max_length": 16, **more})
    asked = sources(8, seed=4)
    ours, theirs = exported.engine.generate(asked, options), exported.reference.generate(asked, options)
    for one, other in zip(itertools.chain(*ours), itertools.chain(*theirs), strict=True):
        assert (one.ids, one.finished, len(one.top)) == (other.ids, other.finished, len(other.top))
        assert one.log_probability == pytest.approx(other.log_probability, abs=1e-3)
        assert one.tokens == pytest.approx(other.tokens, abs=1e-3)


def test_a_graph_of_before_logits_still_translates(exported: Exported, tmp_path: Path) -> None:
    shutil.copytree(exported.folder / "onnx-float32", tmp_path / "old")
    model = onnx.load(tmp_path / "old" / "decoder.onnx")
    kept = [output for output in model.graph.output if output.name != "logits"]
    del model.graph.output[:]
    model.graph.output.extend(kept)
    onnx.save(model, tmp_path / "old" / "decoder.onnx")
    old = OnnxEngine(tmp_path / "old")
    options = GenerationOptions(beam_size=1, temperature=0.7, seed=2, max_length=12)
    drawn = old.generate(sources(4), options)
    assert [h[0].ids for h in drawn] == [h[0].ids for h in exported.engine.generate(sources(4), options)]
    with pytest.raises(ConfigError, match=r"a graph without logits does not offer repetition_penalty=1\.2"):
        old.generate(sources(1), GenerationOptions(beam_size=1, repetition_penalty=1.2))


def test_adapters_are_refused(exported: Exported) -> None:
    with pytest.raises(ConfigError, match="onnxruntime does not offer adapter=formal"):
        exported.engine.generate(sources(1), GenerationOptions(adapter="formal"))


def test_other_words_and_broken_graphs_are_refused(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="the tokenizer has 41 tokens, the model 40"):
        OnnxEngine(exported.folder / "onnx-float32", Words(41))  # type: ignore[arg-type]
    broken = tmp_path / "onnx-float32"
    shutil.copytree(exported.folder / "onnx-float32", broken)
    content = (broken / "decoder.onnx").read_bytes()
    for spoiled in (b"", b"\x80\x04no graph", content[: len(content) // 2]):
        (broken / "decoder.onnx").write_bytes(spoiled)
        with pytest.raises(BundleError, match=r"decoder\.onnx"):
            OnnxEngine(broken, Words())  # type: ignore[arg-type]
