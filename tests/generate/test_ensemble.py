"""An ensemble is the mean of its members, whatever they are, in every search; alone, a member is itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

torch = pytest.importorskip("torch", reason="ensembles of translators run in torch")

from inkstone.apps.translate import Translator  # noqa: E402
from inkstone.cli import main  # noqa: E402
from inkstone.generate.engine import GenerationOptions  # noqa: E402
from inkstone.generate.ensemble import Ensemble  # noqa: E402
from inkstone.generate.torch_engine import TorchEngine  # noqa: E402
from inkstone.ground.errors import ConfigError  # noqa: E402
from inkstone.model.checkpoint import build_model  # noqa: E402
from inkstone.model.presets import translator_config  # noqa: E402

if TYPE_CHECKING:
    from conftest import Trained

SOURCES = [[5, 9, 7, 3], [11, 3], [6, 6, 8, 10, 12, 3]]


def model(architecture: str, seed: int, vocab_size: int = 20) -> Any:
    small: dict[str, Any] = {"hidden_size": 32}
    if architecture == "transformer":
        small |= {"num_heads": 2, "num_kv_heads": 2, "feed_forward_size": 48}
        small |= {"num_encoder_layers": 1, "num_decoder_layers": 2}
    config = translator_config(architecture, "tiny", vocab_size, small)
    return build_model(config, torch.Generator().manual_seed(seed)).eval()


MEMBERS = [("transformer", 1), ("transformer", 2), ("rnn", 3), ("cnn", 4)]


def test_its_probabilities_are_the_mean_of_logarithms() -> None:
    members = [model(*one) for one in MEMBERS]
    source, target = torch.tensor([[5, 9, 3], [6, 3, 0]]), torch.tensor([[2, 5, 6, 7], [2, 8, 4, 9]])
    with torch.inference_mode():
        wanted = sum(one(source, target).log_softmax(-1) for one in members) / len(members)
        torch.testing.assert_close(Ensemble(members)(source, target), wanted)


@pytest.mark.parametrize("beam_size", [1, 4])
def test_cached_search_finds_what_scores_as_it_says(beam_size: int) -> None:
    engine = TorchEngine(Ensemble([model(*one) for one in MEMBERS]))
    found = engine.generate(
        SOURCES, GenerationOptions(beam_size=beam_size, max_length=12, length_penalty=0.0)
    )
    ended = [(source, one[0]) for source, one in zip(SOURCES, found, strict=True) if one[0].finished]
    scores = engine.score([source for source, _ in ended], [list(one.ids) for _, one in ended])
    assert [one.log_probability for _, one in ended] == pytest.approx(scores, abs=1e-4)


@pytest.mark.parametrize("architecture", ["transformer", "rnn", "cnn"])
def test_twice_the_same_is_the_same(architecture: str) -> None:
    one = model(architecture, 5)
    options = GenerationOptions(beam_size=3, max_length=10, alternatives=2)
    alone, twice = (TorchEngine(engine).generate(SOURCES, options) for engine in (one, Ensemble([one, one])))
    assert [[h.ids for h in each] for each in alone] == [[h.ids for h in each] for each in twice]


def test_without_a_vocabulary_in_common_there_is_none() -> None:
    with pytest.raises(ConfigError, match="vocab_size=20, 21 have no vocabulary in common"):
        Ensemble([model("rnn", 1), model("rnn", 2, vocab_size=21)])


def test_translators_beside_each_other(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["我看见这只猫。", "他不喜欢一只狗。"]
    alone = Translator(trained.bundle, engine="torch").translate(texts, to="en")
    both = Translator(trained.bundle, beside=[trained.bundle])
    assert both.name == "made + made"
    assert [one.translation for one in both.translate(texts, to="en")] == [one.translation for one in alone]
    folder = str(trained.bundle)
    assert main(["translate", texts[0], "--to", "en", "--model", folder, "--model", folder]) == 0
    assert capsys.readouterr().out.strip() == alone[0].translation
    assert main(["translate", texts[0], "--model", folder, "--model", "zh-en", "--engine", "onnx"]) == 2
    said = capsys.readouterr().err
    assert "engine=onnx runs one model" in said and "zh-en has another tokenizer than made" in said
