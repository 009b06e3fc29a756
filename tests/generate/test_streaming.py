"""Texts as they come: the pieces are the whole, stop strings end it, nobody waits for what nobody reads."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the engines under test need torch")

from inkstone.generate.ctranslate2_decoder import CTranslate2Decoder  # noqa: E402
from inkstone.generate.engine import GenerationOptions, Hypothesis, Step, Watch  # noqa: E402
from inkstone.generate.streaming import Completion, StopStrings, complete, stream  # noqa: E402
from inkstone.generate.torch_engine import TorchDecoder  # noqa: E402
from inkstone.ground.errors import ConfigError  # noqa: E402
from inkstone.model.config import tiny  # noqa: E402
from inkstone.model.transformer import Transformer  # noqa: E402
from inkstone.ship.ctranslate2 import write_ctranslate2  # noqa: E402
from inkstone.text.tokenizer import Tokenizer  # noqa: E402

GREEDY = GenerationOptions(beam_size=1, max_length=200)
TEXT = "好的，我们明天见。 See you tomorrow — at 九点! 🐈‍⬛ done"


class Parrot:
    """An engine that says what it was asked to, one token after another."""

    name = "parrot"

    def __init__(self, pause_s: float = 0.0) -> None:
        self.pause_s, self.said = pause_s, 0

    def generate(
        self, sources: Sequence[Sequence[int]], options: GenerationOptions, watch: Watch | None = None
    ) -> list[list[Hypothesis]]:
        found = []
        for row, source in enumerate(sources):
            ids: list[int] = []
            for number in source[: options.max_length]:
                ids.append(number)
                self.said += 1
                time.sleep(self.pause_s)
                if watch is not None and watch(Step(row, 0, number, -0.5)):
                    break
            found.append([Hypothesis(tuple(ids), -0.5 * len(ids), len(ids) == len(source))])
        return found

    def score(self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> list[float]:
        return [0.0 for _ in sources]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """So small that most characters of TEXT are several byte tokens."""
    return Tokenizer.train(["see you at the door", "我们见"] * 4, vocab_size=320)


def listened(
    engine: Any, tokenizer: Tokenizer, ids: list[int], stop: Sequence[str] = (), **options: Any
) -> Any:
    *pieces, last = stream(
        engine, tokenizer, ids, GenerationOptions(**{"beam_size": 1, "max_length": 200, **options}), stop
    )
    assert isinstance(last, Completion)
    return pieces, last


def test_pieces_are_the_whole_and_no_piece_has_half_a_character(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode(TEXT)
    pieces, last = listened(Parrot(), tokenizer, ids)
    assert "".join(pieces) == last.text == tokenizer.decode(ids)
    assert not any("�" in piece for piece in pieces) and len(pieces) > 10
    assert last.reason == "end" and last.hypothesis.ids == tuple(ids)


@pytest.mark.parametrize(
    "stop", [("tom",), ("九",), ("。 ",), ("nothing", "明天见"), ("morrow — at 九点!", "zzz"), ("done",)]
)
def test_a_stop_string_ends_the_text_before_it(tokenizer: Tokenizer, stop: tuple[str, ...]) -> None:
    engine, ids = Parrot(), tokenizer.encode(TEXT)
    pieces, last = listened(engine, tokenizer, ids, stop)
    whole = tokenizer.decode(ids)
    wanted = whole[: min(place for one in stop if (place := whole.find(one)) >= 0)]
    assert "".join(pieces) == last.text == wanted and last.reason == "stop"
    assert engine.said <= len(ids) and tokenizer.decode(ids[: engine.said - 1]).find(stop[-1]) < 0
    ((together,),) = complete(Parrot(), tokenizer, [ids], GREEDY, stop)
    assert (together.text, together.reason) == (wanted, "stop")
    ((beam,),) = complete(Parrot(), tokenizer, [ids], GenerationOptions(max_length=200), stop)
    assert (beam.text, beam.reason) == (wanted, "stop") and beam.hypothesis.ids == tuple(ids), (
        "cut, not stopped"
    )


def test_rows_of_the_model_without_a_token_are_no_text(tokenizer: Tokenizer) -> None:
    ids, beyond = tokenizer.encode("明天见。"), tokenizer.vocab_size
    padded = [beyond, ids[0], beyond + 7, *ids[1:], beyond]
    ((one,),) = complete(Parrot(), tokenizer, [padded], GREEDY)
    assert one.text == "明天见。" and list(one.hypothesis.ids) == padded
    *pieces, last = stream(Parrot(), tokenizer, padded, GREEDY)
    assert "".join(map(str, pieces)) == one.text and isinstance(last, Completion)


def test_what_only_began_a_stop_string_comes_in_the_end(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("we see you at")
    pieces, last = listened(Parrot(), tokenizer, ids, ("at nine", "you too"))
    assert "".join(pieces) == last.text == "we see you at" and last.reason == "end"


def test_in_a_character_cut_by_the_length_there_is_a_mark(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("🐈")
    assert len(ids) > 2
    pieces, last = listened(Parrot(), tokenizer, ids, max_length=len(ids) - 1)
    assert "".join(pieces) == last.text and "�" in last.text and last.reason == "length"


@pytest.mark.parametrize("seed", range(20))
def test_stop_strings_whatever_the_pieces(seed: int) -> None:
    drawn = random.Random(seed)
    text = "".join(drawn.choice("ab") for _ in range(60))
    strings = ["".join(drawn.choice("ab") for _ in range(drawn.randrange(3, 9))) for _ in range(3)]
    stops, given, rest = StopStrings(strings), "", text
    while rest:
        size = drawn.randrange(1, 4)
        given, rest = given + stops.push(rest[:size]), rest[size:]
    given += stops.flush()
    # The first string that is complete ends the text: with single characters, the one that ends first.
    assert text.startswith(given)
    assert stops.found == any(string in text for string in strings)
    assert not any(string in given for string in strings)
    if not stops.found:
        assert given == text


def test_who_stops_listening_stops_the_engine(tokenizer: Tokenizer) -> None:
    engine, ids = Parrot(pause_s=0.005), tokenizer.encode(TEXT * 5)
    pieces = stream(engine, tokenizer, ids, GenerationOptions(beam_size=1, max_length=4000))
    next(pieces)
    before = threading.active_count()
    pieces.close()
    assert engine.said < 40 < len(ids) and threading.active_count() < before


def test_the_engines_complaint_reaches_the_listener(tokenizer: Tokenizer) -> None:
    model = Transformer(tiny(tokenizer.vocab_size, "decoder", hidden_size=16)).eval()
    with pytest.raises(ConfigError, match="prompt 0 is empty"):
        list(stream(TorchDecoder(model), tokenizer, [], GREEDY))
    with pytest.raises(ConfigError, match="needs beam_size=1 and alternatives=1, not 4 and 1"):
        next(stream(Parrot(), tokenizer, [5], GenerationOptions()))
    with pytest.raises(ConfigError, match="stop string is empty"):
        complete(Parrot(), tokenizer, [[5]], GREEDY, [""])


@pytest.mark.parametrize("options", [{}, {"temperature": 1.0, "seed": 4}], ids=str)
def test_both_engines_stream_what_they_complete(
    tokenizer: Tokenizer, tmp_path: Path, options: dict[str, Any]
) -> None:
    generator = torch.Generator().manual_seed(1)
    sizes = {"hidden_size": 16, "feed_forward_size": 24, "dropout": 0.0}
    model = Transformer(tiny(tokenizer.vocab_size, "decoder", **sizes), generator).eval()
    with torch.no_grad():
        model.decoder.norm.weight.mul_(4)
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    write_ctranslate2(model.config, weights, [], tmp_path, quantization="float32")
    texts = []
    for engine in (TorchDecoder(model), CTranslate2Decoder(tmp_path, threads=1)):
        prompt = [2, *tokenizer.encode("see you")]
        pieces, last = listened(engine, tokenizer, prompt, max_length=40, **options)
        ((whole,),) = complete(
            engine, tokenizer, [prompt], GenerationOptions(beam_size=1, max_length=40, **options)
        )
        assert "".join(pieces) == last.text == whole.text and last.hypothesis == whole.hypothesis
        texts.append(whole.text)
        stop = whole.text[len(whole.text) // 2 :][:2]
        pieces, last = listened(engine, tokenizer, prompt, [stop], max_length=40, **options)
        assert "".join(pieces) == last.text == whole.text[: whole.text.find(stop)]
    assert texts[0] == texts[1] != ""
