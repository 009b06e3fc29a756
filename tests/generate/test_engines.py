"""Search: greedy, beam and exhaustive agree where they must; the engines agree with each other, id by id."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch", reason="the reference engine needs torch")

from inkstone.generate.beam import beam_search  # noqa: E402
from inkstone.generate.ctranslate2_engine import CTranslate2Engine  # noqa: E402
from inkstone.generate.engine import GenerationOptions, Hypothesis  # noqa: E402
from inkstone.generate.torch_engine import TorchEngine  # noqa: E402
from inkstone.ground.errors import BundleError, ConfigError  # noqa: E402
from inkstone.model.checkpoint import save_model  # noqa: E402
from inkstone.model.config import tiny  # noqa: E402
from inkstone.model.transformer import Transformer  # noqa: E402
from inkstone.ship.ctranslate2 import export_ctranslate2  # noqa: E402
from inkstone.text.tokenizer import Tokenizer  # noqa: E402

if TYPE_CHECKING:
    from conftest import Trained

GREEDY = GenerationOptions(beam_size=1)


def random_model(vocab_size: int, seed: int = 1, **overlay: Any) -> Transformer:
    """A model whose next token is neither sure nor arbitrary: its last norm is turned up."""
    sizes = {"hidden_size": 16, "feed_forward_size": 24, "num_encoder_layers": 2, "num_decoder_layers": 2}
    generator = torch.Generator().manual_seed(seed)
    model = Transformer(tiny(vocab_size, **{**sizes, "dropout": 0.0, **overlay}), generator)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
        last = model.decoder.norm or model.decoder.layers[-1].feed_forward_norm
        last.weight.mul_(4)
    return model.eval()


def sources(count: int, vocab_size: int, seed: int = 0) -> list[list[int]]:
    random_ = random.Random(seed)
    return [
        [random_.randrange(4, vocab_size) for _ in range(random_.randrange(1, 9))] + [3] for _ in range(count)
    ]


@torch.no_grad()
def plain_greedy(model: Transformer, source: list[int], limit: int) -> list[int]:
    """The likeliest token each time, without a cache or a batch."""
    ids = [2]
    while len(ids) <= limit:
        token = int(model(torch.tensor([source]), torch.tensor([ids]))[0, -1].argmax())
        if token == 3:
            break
        ids.append(token)
    return ids[1:]


@torch.no_grad()
def log_probability(model: Transformer, source: list[int], ids: tuple[int, ...]) -> float:
    """Of exactly these tokens after the begin mark."""
    rows = model(torch.tensor([source]), torch.tensor([[2, *ids[:-1]]]))[0].log_softmax(-1)
    return float(rows[range(len(ids)), list(ids)].sum())


class TestBeamSearch:
    @pytest.mark.parametrize("seed", range(4))
    def test_of_width_one_is_greedy(self, seed: int) -> None:
        model = random_model(40, seed)
        options = GenerationOptions(beam_size=1, max_length=24)
        asked = sources(12, 40, seed)
        for source, (found,) in zip(asked, beam_search(model, asked, options), strict=True):
            assert list(found.ids) == plain_greedy(model, source, 24)

    @pytest.mark.parametrize(("seed", "penalty"), [*itertools.product(range(4), (0.0, 1.0, 2.0))])
    def test_wide_enough_it_finds_what_trying_everything_finds(self, seed: int, penalty: float) -> None:
        model, source = random_model(4, seed, num_heads=2), [1, 3]
        everything = [(*ids, 3) for n in range(3) for ids in itertools.product((0, 1, 2), repeat=n)]
        scored = {ids[:-1]: log_probability(model, source, ids) / len(ids) ** penalty for ids in everything}
        wanted = sorted(scored, key=lambda ids: -scored[ids])[:8]
        options = GenerationOptions(beam_size=64, alternatives=8, length_penalty=penalty, max_length=3)
        (found,) = beam_search(model, [source], options)
        assert [h.ids for h in found] == wanted
        for hypothesis in found:
            assert hypothesis.log_probability / (len(hypothesis.ids) + 1) ** penalty == pytest.approx(
                scored[hypothesis.ids], abs=1e-4
            )

    @pytest.mark.parametrize("width", [1, 2, 5])
    def test_in_a_batch_or_one_by_one_is_the_same(self, width: int) -> None:
        model, asked = random_model(40, 3), sources(10, 40, 3)
        options = GenerationOptions(beam_size=width, alternatives=width, max_length=20)
        together = beam_search(model, asked, options)
        for source, found in zip(asked, together, strict=True):
            (alone,) = beam_search(model, [source], options)
            assert [h.ids for h in found] == [h.ids for h in alone]
            assert [h.log_probability for h in found] == pytest.approx(
                [h.log_probability for h in alone], abs=1e-4
            )

    @pytest.mark.parametrize("penalty", [0.0, 0.6, 1.0, 2.0])
    def test_hypotheses_are_distinct_in_order_and_as_likely_as_they_say(self, penalty: float) -> None:
        model, asked = random_model(12, 5), sources(10, 12, 5)
        options = GenerationOptions(beam_size=6, alternatives=6, length_penalty=penalty, max_length=20)
        engine = TorchEngine(model)
        for source, found in zip(asked, engine.generate(asked, options), strict=True):
            assert len({h.ids for h in found}) == len(found) == 6
            ended = [h for h in found if h.finished]
            assert found[: len(ended)] == ended, "what was cut comes last"
            ranks = [h.log_probability / (len(h.ids) + 1) ** penalty for h in ended]
            assert ranks == sorted(ranks, reverse=True)
            again = engine.score([source] * len(ended), [h.ids for h in ended])
            assert again == pytest.approx([h.log_probability for h in ended], abs=1e-4)
            for h in found:
                if not h.finished:
                    assert h.log_probability == pytest.approx(log_probability(model, source, h.ids), abs=1e-4)

    def test_a_higher_length_penalty_gives_no_shorter_outputs(self, trained: Trained) -> None:
        engine, tokenizer = TorchEngine.load(trained.bundle), Tokenizer.load(trained.bundle)
        asked = [
            [tokenizer.id_of("<2en>"), *ids, 3]
            for ids in tokenizer.encode_batch(["我买茶。", "他不喜欢书。", "猫", "她看见"])
        ]

        def tokens(penalty: float) -> int:
            options = GenerationOptions(beam_size=6, length_penalty=penalty, max_length=24)
            return sum(len(found[0].ids) for found in engine.generate(asked, options))

        lengths = [tokens(penalty) for penalty in (0.0, 1.0, 5.0)]
        assert lengths == sorted(lengths) and lengths[0] < lengths[-1]


class TestLimits:
    def test_nothing_is_longer_than_its_limit_and_what_was_cut_says_so(self) -> None:
        model = random_model(40, 2)
        with torch.no_grad():  # the end mark is ever the unlikeliest
            model.decoder.norm.bias.copy_(-30 * model.embedding.weight[3])
        for width in (1, 3):
            (found,) = beam_search(model, [[7, 3]], GenerationOptions(beam_size=width, max_length=9))
            assert len(found[0].ids) == 9 and not found[0].finished

    def test_of_one_token(self) -> None:
        found = beam_search(random_model(40), sources(5, 40), GenerationOptions(beam_size=3, max_length=1))
        assert all(len(h.ids) == (0 if h.finished else 1) for (h,) in found)

    @pytest.mark.parametrize(
        ("ratio", "length", "expected"), [(3, 5, 32), (3, 6, 48), (0, 100, 32), (3, 1000, 256)]
    )
    def test_go_with_the_input(self, ratio: float, length: int, expected: int) -> None:
        assert GenerationOptions(max_ratio=ratio).limit(length) == expected

    def test_options_out_of_range_are_all_said(self) -> None:
        with pytest.raises(ConfigError) as error:
            GenerationOptions(
                beam_size=0, alternatives=3, length_penalty=-1, max_length=0, max_ratio=float("nan")
            )
        for name in ("beam_size=0", "alternatives=3", "length_penalty=-1", "max_length=0", "max_ratio=nan"):
            assert name in str(error.value)

    def test_a_mean_per_token_is_what_a_score_is(self) -> None:
        assert Hypothesis((5, 6, 7), -2.0).score == -0.5


AXES: dict[str, tuple[Any, ...]] = {
    "positions": ("learned", "sinusoidal", "rotary"),
    "norm": ("layer", "rms"),
    "norm_place": ("before", "after"),
    "feed_forward": ("plain", "gated"),
    "activation": ("relu", "gelu", "silu"),
    "num_kv_heads": (4, 2, 1),
    "tie_embeddings": (True, False),
    "bias": ("all", "none"),
    "scale_embeddings": (True, False),
}


def sampled_axes() -> list[dict[str, Any]]:
    everything = [dict(zip(AXES, values, strict=True)) for values in itertools.product(*AXES.values())]
    return random.Random(8).sample(everything, 16)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.train(["the cat sat on the mat", "猫坐在垫子上"] * 3, vocab_size=300)


def exported(
    model: Transformer, tokenizer: Tokenizer, folder: Path, quantization: Any = "float32"
) -> CTranslate2Engine:
    save_model(model, folder)
    tokenizer.save(folder / "tokenizer.json")
    export_ctranslate2(folder, folder / quantization, quantization=quantization)
    return CTranslate2Engine(folder / quantization, tokenizer, threads=1)


class TestCTranslate2:
    @pytest.mark.parametrize("axes", sampled_axes(), ids=lambda axes: "-".join(map(str, axes.values())))
    def test_in_float32_it_is_torch(self, axes: dict[str, Any], tokenizer: Tokenizer, tmp_path: Path) -> None:
        size = tokenizer.vocab_size
        model = random_model(size, 1, **axes)
        one, other = TorchEngine(model), exported(model, tokenizer, tmp_path)
        asked = sources(12, size)
        options = GenerationOptions(beam_size=1, max_length=12)
        for a, b in zip(one.generate(asked, options), other.generate(asked, options), strict=True):
            assert (a[0].ids, a[0].finished) == (b[0].ids, b[0].finished)
            assert a[0].log_probability == pytest.approx(b[0].log_probability, abs=1e-4)
        targets = [source[:-1][::-1] for source in sources(12, size, 1)]
        assert one.score(asked, targets) == pytest.approx(other.score(asked, targets), abs=1e-3, rel=1e-5)

    @pytest.mark.parametrize(
        ("width", "penalty"), [(1, 1.0), (2, 1.0), (4, 0.0), (4, 0.6), (5, 1.0), (5, 2.0)]
    )
    def test_searches_as_torch_does(
        self, trained: Trained, tmp_path: Path, width: int, penalty: float
    ) -> None:
        """On a trained model: the same hypotheses in the same order, near ties between them aside."""
        tokenizer = Tokenizer.load(trained.bundle)
        one = TorchEngine.load(trained.bundle)
        other = exported(one.model, tokenizer, tmp_path)
        texts = ["我喜欢这只猫。", "他们不买一些茶。", "你丢了这张旧地图。", "玛丽画一座房子。"]
        asked = [[tokenizer.id_of("<2en>"), *ids, 3] for ids in tokenizer.encode_batch(texts)]
        options = GenerationOptions(
            beam_size=width, alternatives=width, length_penalty=penalty, max_length=32
        )
        for a, b in zip(one.generate(asked, options), other.generate(asked, options), strict=True):
            assert a[0].ids == b[0].ids
            assert [h.log_probability for h in a][:1] == pytest.approx([b[0].log_probability], abs=1e-3)
            known = {h.ids: h.log_probability for h in a}
            for h in b:
                assert h.log_probability == pytest.approx(known.get(h.ids, h.log_probability), abs=1e-3)
            assert len({h.ids for h in b}) == width

    def test_in_int8_it_is_nearly_torch(self, trained: Trained) -> None:
        tokenizer = Tokenizer.load(trained.bundle)
        one = TorchEngine.load(trained.bundle)
        other = CTranslate2Engine(trained.bundle / "ctranslate2-int8", tokenizer, threads=1)
        texts = ["我喜欢这只猫。", "他们不买一些茶。", "你丢了这张旧地图。"] * 4
        asked = [[tokenizer.id_of("<2en>"), *ids, 3] for ids in tokenizer.encode_batch(texts)]
        targets = tokenizer.encode_batch(
            ["I like the cat.", "they do not buy some tea.", "you lose the old map."] * 4
        )
        exact, near = one.score(asked, targets), other.score(asked, targets)
        assert near == pytest.approx(exact, abs=0.5) and near != exact

    def test_gives_back_results_in_the_order_asked_whatever_the_lengths(
        self, tokenizer: Tokenizer, tmp_path: Path
    ) -> None:
        model = random_model(tokenizer.vocab_size, 4)
        engines = [TorchEngine(model), exported(model, tokenizer, tmp_path)]
        asked = sources(150, tokenizer.vocab_size, 4)  # several batches of each engine
        options = GenerationOptions(beam_size=2, alternatives=2, max_length=6)
        for engine in engines:
            together = engine.generate(asked, options)
            for number in (0, 1, 70, 149):
                (alone,) = engine.generate([asked[number]], options)
                assert [h.ids for h in together[number]] == [h.ids for h in alone]
            assert engine.generate([], options) == [] and engine.score([], []) == []

    def test_the_end_alone_is_scored_for_an_empty_target(self, tokenizer: Tokenizer, tmp_path: Path) -> None:
        model = random_model(tokenizer.vocab_size, 4)
        expected = log_probability(model, [7, 8, 3], (3,))
        for engine in (TorchEngine(model), exported(model, tokenizer, tmp_path)):
            assert engine.score([[7, 8, 3]], [[]]) == pytest.approx([expected], abs=1e-3)

    @pytest.mark.parametrize("spoil", [lambda b: b"", lambda b: b[: len(b) // 2], lambda b: b"\xff" * len(b)])
    def test_a_model_that_is_none_is_refused(self, tokenizer: Tokenizer, tmp_path: Path, spoil: Any) -> None:
        exported(random_model(tokenizer.vocab_size), tokenizer, tmp_path)
        file = tmp_path / "float32" / "model.bin"
        file.write_bytes(spoil(file.read_bytes()))
        with pytest.raises(BundleError, match="cannot be opened by CTranslate2"):
            CTranslate2Engine(tmp_path / "float32", tokenizer)


def test_an_open_model_leaves_the_threads_of_a_training_alone(
    trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CTranslate2 shares torch's OpenMP; another number of threads would end in other weights."""
    monkeypatch.setattr("inkstone.generate.ctranslate2_model.SMALL", 0)  # its threads share each matrix
    before = torch.get_num_threads()
    CTranslate2Engine(trained.bundle / "ctranslate2-int8", threads=before + 1)
    assert torch.get_num_threads() == before
