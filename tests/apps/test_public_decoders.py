"""A public decoder from the command line: the text of transformers, in torch and from its exports, and conversations."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="checkpoints need torch")
transformers = pytest.importorskip(
    "transformers", reason="the reference is transformers; install the dev extra"
)

sys.path.insert(0, str(Path(__file__).parent.parent / "model"))
from families import reference  # noqa: E402

from inkstone.apps.checkpoint import Checkpoint, open_continuing  # noqa: E402
from inkstone.cli import main  # noqa: E402
from inkstone.ground.errors import BundleError  # noqa: E402
from inkstone.recipes.export import export  # noqa: E402
from inkstone.recipes.pull import pull  # noqa: E402
from inkstone.text.foreign_tokenizer import ForeignTokenizer  # noqa: E402
from inkstone.text.tokenizer import Tokenizer  # noqa: E402

CHAT = "{% for m in messages %}<s>{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}<s>{% endif %}"
PROMPT = "the cat sat"


@pytest.fixture(scope="module")
def pulled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with a tokenizer and a chat template, brought here by `pull`."""
    place = tmp_path_factory.mktemp("checkpoint")
    tokenizer = ForeignTokenizer.of(
        Tokenizer.train(["the cat sat on the mat", "a dog ran"] * 4, kind="bpe", vocab_size=280)
    )
    reference("llama", vocab_size=tokenizer.vocab_size).save_pretrained(place / "theirs")
    tokenizer.save(place / "theirs")
    (place / "theirs" / "chat_template.jinja").write_text(CHAT)
    pull(str(place / "theirs"), place / "mine")
    return place / "mine"


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["generate", *words, "--max-length", "8"]) == 0
    return capsys.readouterr().out


@torch.inference_mode()
def test_it_writes_what_transformers_writes_from_every_export(
    pulled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = ForeignTokenizer.load(pulled)
    ids = tokenizer.encode(PROMPT)
    model = transformers.LlamaForCausalLM.from_pretrained(pulled)
    wanted = model.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False)[0].tolist()
    text = tokenizer.decode(wanted).removeprefix(PROMPT)
    assert said(capsys, str(pulled), PROMPT, "--temperature", "0") == f"{text}\n"
    for to in ("ct2", "onnx"):
        export(pulled, to, tmp_path / to)
        assert said(capsys, str(tmp_path / to), PROMPT, "--temperature", "0") == f"{text}\n", to
    drawn = [said(capsys, str(pulled), PROMPT, "--temperature", "1", "--seed", "3") for _ in range(2)]
    assert drawn[0] == drawn[1] != f"{text}\n"


def test_what_the_checkpoint_asks_for_holds_unless_somebody_asks(pulled: Path) -> None:
    file = pulled / "generation_config.json"
    before, sealed = file.read_bytes(), (pulled / "manifest.json").read_bytes()
    try:
        (pulled / "manifest.json").unlink()
        file.write_text(
            json.dumps({"do_sample": True, "temperature": 0.6, "top_k": 20, "eos_token_id": [3, 5]})
        )
        model = Checkpoint(pulled)
        assert (model.options().temperature, model.options().top_k, model.options().end_ids) == (
            0.6,
            20,
            (3, 5),
        )
        assert (model.options(temperature=0).temperature, model.options(temperature=0).top_k) == (0, 0)
        assert model.options(top_k=5).top_k == 5
    finally:
        file.write_bytes(before)
        (pulled / "manifest.json").write_bytes(sealed)


def test_conversations_go_through_the_template(pulled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = open_continuing(pulled)
    assert isinstance(model, Checkpoint)
    tokenizer = model.tokenizer
    begin, end = tokenizer.named_ids["bos_token"], tokenizer.named_ids["eos_token"]
    assert model.ids("a dog ran", chat=True) == [
        begin, *tokenizer.encode("a dog ran", add_special_tokens=False), end, begin,
    ]  # fmt: skip
    answer = said(capsys, str(pulled), "a dog ran", "--chat", "--temperature", "0")
    assert answer != said(capsys, str(pulled), "a dog ran", "--temperature", "0")


def test_what_cannot_be_is_said(pulled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleError):
        open_continuing(tmp_path / "empty")
    assert main(["generate", "zh-en", "hello"]) == 2
    assert "task 'translate'" in capsys.readouterr().err
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for one in pulled.iterdir():
        (damaged / one.name).write_bytes(one.read_bytes())
    (damaged / "chat_template.jinja").write_text("changed")
    with pytest.raises(BundleError, match="not as it was written"):
        open_continuing(damaged)
