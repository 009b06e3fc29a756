"""Transformers in onnxruntime: the numbers and texts of torch, for every family and every axis, alone and in batches."""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the reference engine needs torch")
pytest.importorskip("onnx", reason="exporting needs onnx")

sys.path.insert(0, str(Path(__file__).parent.parent / "model"))
from families import CASES, VOCABULARY, reference  # noqa: E402

from inkstone.generate.engine import GenerationOptions, Step  # noqa: E402
from inkstone.generate.onnx_decoder import OnnxDecoder  # noqa: E402
from inkstone.generate.onnx_engine import OnnxEngine  # noqa: E402
from inkstone.generate.onnx_session import CLASSIFIER, ENCODER, open_session, padded  # noqa: E402
from inkstone.generate.torch_engine import TorchDecoder, TorchEngine  # noqa: E402
from inkstone.ground.errors import BundleError, ConfigError  # noqa: E402
from inkstone.model.config import base, tiny  # noqa: E402
from inkstone.model.families.folder import read_folder  # noqa: E402
from inkstone.model.transformer import Transformer  # noqa: E402
from inkstone.ship import onnx_graph  # noqa: E402
from inkstone.ship.onnx import quantise_onnx, write_transformer  # noqa: E402

SMALL: dict[str, Any] = {
    "hidden_size": 16, "num_heads": 4, "num_kv_heads": 4, "feed_forward_size": 24, "dropout": 0.0,
    "max_positions": 48,
}  # fmt: skip
# What no family has, or not together.
OWN: dict[str, Callable[[], Any]] = {
    "classic pair": lambda: base(VOCABULARY, **SMALL, num_encoder_layers=2, num_decoder_layers=2),
    "grouped, normed, windowed pair": lambda: tiny(
        VOCABULARY, **{**SMALL, "num_kv_heads": 2}, query_key_norm=True, window=4, norm="rms", bias="attention",
        rotary_scaling="yarn", rotary_factor=2.0, rotary_trained=16, rotary_magnitude=1.2, scale_output=True,
    ),
    "relative decoder": lambda: tiny(
        VOCABULARY, "decoder", **SMALL, positions="relative", relative_buckets=8, relative_distance=10,
        norm_place="after", window=6, output_bias=True, tie_embeddings=False,
    ),
    "learned decoder": lambda: tiny(
        VOCABULARY, "decoder", **{**SMALL, "num_kv_heads": 1}, positions="learned", position_offset=2,
        embedding_norm=True, scale_embeddings=True, activation="gelu", feed_forward="plain", bias="all",
    ),
    "all layers": lambda: tiny(VOCABULARY, "encoder", **SMALL, num_labels=3, pooling="layers", norm="rms"),
    "mean": lambda: tiny(VOCABULARY, "encoder", **SMALL, num_labels=3, pooler=True, activation="gelu-tanh"),
}  # fmt: skip
SHAPES = {case: name for case, (_, name, _) in CASES.items()}
DECODERS = [c for c, name in SHAPES.items() if "CausalLM" in name or "LMHead" in name]
ENCODERS = [case for case in CASES if case.startswith(("bert", "roberta"))]
PAIRS = [case for case in CASES if case not in DECODERS + ENCODERS]
DECODERS += ["relative decoder", "learned decoder"]
ENCODERS += ["all layers", "mean"]
PAIRS += ["classic pair", "grouped, normed, windowed pair"]


NEVER = (VOCABULARY,)  # no token: nothing ends before its time


class Made:
    """A random model, its graphs, and both engines."""

    def __init__(self, case: str, folder: Path) -> None:
        self.folder = folder
        if case in OWN:
            self.model = Transformer(OWN[case](), torch.Generator().manual_seed(4)).eval()
            with torch.no_grad():
                for parameter in self.model.parameters():
                    noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5))
                    parameter.add_(noise * 0.3)
        else:
            reference(case).save_pretrained(folder)
            self.model = read_folder(folder)
        write_transformer(self.model, folder)
        self.config = self.model.config
        if self.config.shape == "decoder":
            self.torch: Any = TorchDecoder(self.model)
            self.onnx: Any = OnnxDecoder(folder, threads=1)
        elif self.config.shape == "encoder-decoder":
            self.torch, self.onnx = TorchEngine(self.model), OnnxEngine(folder, threads=1)

    def inputs(self, count: int = 6, seed: int = 0) -> list[list[int]]:
        """Prompts or sources of unlike lengths, without marks in them."""
        drawn = random.Random(seed)
        allowed = [n for n in range(3, 58) if n not in (self.config.eos_id, self.config.pad_id)]
        return [[drawn.choice(allowed) for _ in range(drawn.randrange(1, 14))] for _ in range(count)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Made]:
    """Models of families, each made once."""
    found: dict[str, Made] = {}

    def of(case: str) -> Made:
        if case not in found:
            found[case] = Made(case, tmp_path_factory.mktemp("onnx"))
        return found[case]

    return of


def same(ours: Any, theirs: Any) -> None:
    """The same texts, as likely in the whole and token by token."""
    for one, other in zip(itertools.chain(*ours), itertools.chain(*theirs), strict=True):
        assert (one.ids, one.finished) == (other.ids, other.finished)
        assert one.log_probability == pytest.approx(other.log_probability, abs=1e-3)
        assert one.tokens == pytest.approx(other.tokens, abs=1e-3)
        assert [[n for n, _ in place] for place in one.top] == [[n for n, _ in place] for place in other.top]


@pytest.mark.parametrize("case", ENCODERS)
@torch.no_grad()
def test_encoders(case: str, made: Any) -> None:
    one = made(case)
    rows = one.inputs()
    file = one.folder / (CLASSIFIER if one.config.num_labels else ENCODER)
    session = open_session(file, 1)
    names = [output.name for output in session.get_outputs()]
    found = dict(zip(names, session.run(None, {"ids": padded(rows, one.config.pad_id)}), strict=True))
    for number, ids in enumerate(rows):
        row = torch.tensor([ids])
        if one.config.num_labels:
            wanted = {"logits": one.model(row)}
        else:
            wanted = {"states": one.model.encode(row)}
            if one.config.pooler:
                wanted["pooled"] = one.model.pool(wanted["states"], row)
            if one.config.prediction_head:
                wanted["logits"] = one.model(row)
        assert set(wanted) == set(found)
        for name, expected in wanted.items():
            said = found[name][number]
            said = said if said.ndim == 1 else said[: len(ids)]
            np.testing.assert_allclose(said, expected[0].numpy(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("case", DECODERS)
@torch.no_grad()
def test_logits_of_decoders(case: str, made: Any) -> None:
    one = made(case)
    for ids in one.inputs(3):
        expected = one.model(torch.tensor([ids]))[0].numpy()
        np.testing.assert_allclose(one.onnx.logits(ids), expected, atol=1e-4, rtol=1e-4)
        assert expected.std() > 0.1, "a model that says something"


@pytest.mark.parametrize("case", [*DECODERS, *PAIRS])
class TestGeneration:
    def test_greedy_text_over_20_steps(self, case: str, made: Any) -> None:
        one = made(case)
        options = GenerationOptions(
            beam_size=1, max_length=20, no_repeat_ngram=1, end_ids=NEVER, top_tokens=2
        )
        inputs = one.inputs()
        together = one.onnx.generate(inputs, options)
        same(together, one.torch.generate(inputs, options))
        assert all(len(found[0].ids) == 20 for found in together)
        same([one.onnx.generate([ids], options)[0] for ids in inputs], together)

    def test_beams(self, case: str, made: Any) -> None:
        one = made(case)
        for options in (
            GenerationOptions(beam_size=4, alternatives=4, max_length=12),
            GenerationOptions(beam_size=3, alternatives=2, max_length=9, no_repeat_ngram=2, top_tokens=1),
        ):
            same(one.onnx.generate(one.inputs(9), options), one.torch.generate(one.inputs(9), options))

    def test_scores(self, case: str, made: Any) -> None:
        one = made(case)
        inputs, targets = one.inputs(5), one.inputs(5, seed=9)
        expected = one.torch.score(inputs, targets)
        assert one.onnx.score(inputs, targets) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("case", ["llama", "mistral, window", "gpt2", "relative decoder", "bart", "t5"])
def test_draws_and_rules(case: str, made: Any) -> None:
    one = made(case)
    for more in (
        {"temperature": 0.9, "seed": 5, "top_k": 20, "top_p": 0.9, "min_p": 0.01, "alternatives": 3},
        {"repetition_penalty": 1.4, "end_ids": (one.config.eos_id, 17, 23)},
    ):
        options = GenerationOptions(beam_size=1, max_length=12, **more)
        same(one.onnx.generate(one.inputs(7), options), one.torch.generate(one.inputs(7), options))


@pytest.mark.parametrize("case", ["qwen3", "marian"])
def test_tokens_as_they_come(case: str, made: Any) -> None:
    one = made(case)
    seen: list[Step] = []

    def watch(step: Step) -> bool:
        seen.append(step)
        return sum(other.row == step.row for other in seen) == 4

    found = one.onnx.generate(one.inputs(3), GenerationOptions(beam_size=1, max_length=9), watch)
    for row, (made_,) in enumerate(found):
        assert tuple(step.id for step in seen if step.row == row) == made_.ids
        assert len(made_.ids) <= 4


@pytest.mark.parametrize("case", ["llama", "bart", "bert labels"])
def test_in_eight_bits_it_says_much_the_same_whatever_shares_the_batch(
    case: str, made: Any, tmp_path: Path
) -> None:
    one = made(case)
    quantise_onnx(one.folder, tmp_path)
    if one.config.shape == "encoder":
        sessions = [open_session(folder / CLASSIFIER, 1) for folder in (one.folder, tmp_path)]
        ids = padded(one.inputs(), one.config.pad_id)
        exact, small = (session.run(None, {"ids": ids})[0] for session in sessions)
    else:
        engine = (OnnxDecoder if one.config.shape == "decoder" else OnnxEngine)(tmp_path, threads=1)
        inputs, targets = one.inputs(5), one.inputs(5, seed=9)
        exact, small = np.array(one.onnx.score(inputs, targets)), np.array(engine.score(inputs, targets))
    assert 0 < np.abs(exact - small).max() < 0.1 * np.abs(exact).max()


def test_a_graph_too_large_for_one_file(made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = made("llama")
    monkeypatch.setattr(onnx_graph, "WHOLE_BYTES", 1000)
    for folder in ("whole", "small"):
        (tmp_path / folder).mkdir()
    write_transformer(one.model, tmp_path / "whole")
    assert (tmp_path / "whole" / "decoder.onnx.data").exists()
    (ids,) = one.inputs(1)
    found = OnnxDecoder(tmp_path / "whole", threads=1).logits(ids)
    np.testing.assert_array_equal(found, one.onnx.logits(ids))
    quantise_onnx(tmp_path / "whole", tmp_path / "small")
    rounded = OnnxDecoder(tmp_path / "small", threads=1).logits(ids)
    np.testing.assert_allclose(rounded, found, atol=1)


def test_what_cannot_be_run_is_refused(made: Any) -> None:
    pair, decoder = made("bart"), made("gpt2")
    long = [5] * 41
    for ask in (
        lambda: pair.onnx.generate([[5], long], GenerationOptions()),
        lambda: pair.onnx.score([long], [[4]]),
    ):
        with pytest.raises(ConfigError, match=r"max_positions=40: number \d has 41 tokens"):
            ask()
    with pytest.raises(ConfigError, match="prompt 0 has 64 tokens, the model 64 positions"):
        decoder.onnx.generate([[5] * 64], GenerationOptions())
    with pytest.raises(ConfigError, match="has 65 tokens"):
        decoder.onnx.score([[5] * 60], [[4] * 5])
    with pytest.raises(ConfigError, match="does not offer prefix"):
        decoder.onnx.generate([[5]], GenerationOptions(prefix=(4,)))
    with pytest.raises(BundleError, match="continues no prompts"):
        OnnxDecoder(pair.folder)
