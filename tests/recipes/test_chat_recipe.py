"""Instruction tuning from conversations to a bundle that answers: of our models and of pulled ones, whole and LoRA."""

from __future__ import annotations

import json
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from made_corpus import made_pairs

torch = pytest.importorskip("torch", reason="training needs torch")

from inkstone.apps.language_model import LanguageModel  # noqa: E402
from inkstone.cli import main  # noqa: E402
from inkstone.ground.manifest import sha256  # noqa: E402
from inkstone.learn.data.conversations import ConversationFeed  # noqa: E402
from inkstone.model.checkpoint import load_model  # noqa: E402
from inkstone.recipes.rerun import rerun  # noqa: E402
from inkstone.recipes.verify import verify  # noqa: E402
from inkstone.text.foreign_tokenizer import ForeignTokenizer  # noqa: E402
from inkstone.text.tokenizer import Tokenizer  # noqa: E402

QUICK = {
    "block": 64,
    "training.tokens_per_batch": 640,
    "training.epochs": 2,
    "training.learning_rate": 5e-3,
    "training.warmup_steps": 5,
    "training.threads": 1,
    "training.precision": "float32",
}


def settings(**more: Any) -> list[str]:
    values = {**QUICK, **more}
    return [part for name, value in values.items() for part in ("--set", f"{name}={json.dumps(value)}")]


def run(*arguments: str, code: int = 0) -> tuple[str, str]:
    """What a command prints on both streams."""
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        assert main(arguments) == code, err.getvalue()
    return out.getvalue(), err.getvalue()


def write_talks(path: Path, count: int = 120) -> str:
    """Who is it in a sentence? The assistant gives the first word; some conversations go on, some begin with a system."""
    rows = []
    for number, (_, english) in enumerate(made_pairs(count)):
        who = english.split()[0]
        talk = [("user", english), ("assistant", who)]
        talk = [("system", "Say who."), *talk] if number % 5 == 0 else talk
        talk = [*talk, ("user", "Who?"), ("assistant", who)] if number % 3 == 0 else talk
        rows.append({"messages": [{"role": role, "content": content} for role, content in talk]})
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return str(path)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small decoder of ours in the shape of a Llama, trained for seconds. Do not write into it."""
    folder = tmp_path_factory.mktemp("base")
    texts = folder / "texts.jsonl"
    texts.write_text("\n".join(json.dumps({"text": english}) for _, english in made_pairs(300)), "utf-8")
    values = {
        "vocab_size": 340,
        "block": 64,
        "model": {"hidden_size": 32, "num_decoder_layers": 1, "feed_forward_size": 64},
        "training.epochs": 1,
        "training.tokens_per_batch": 960,
        "training.threads": 1,
        "ngram_order": 2,
    }
    given = [part for name, value in values.items() for part in ("--set", f"{name}={json.dumps(value)}")]
    run(
        "pretrain",
        "--data",
        str(texts),
        "--out",
        str(folder / "lm"),
        "--size",
        "tiny",
        "--family",
        "llama",
        *given,
    )
    return folder / "lm"


@pytest.fixture(scope="module")
def chat(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The base, taught to answer; and what the command printed."""
    folder = tmp_path_factory.mktemp("chat")
    command = ["train", "chat", "--data", write_talks(folder / "talks.jsonl"), "--base", str(base)]
    out, _ = run(*command, "--out", str(folder / "chat"), *settings(**{"training.epochs": 14}), "--json")
    return folder / "chat", json.loads(out)


class TestTheBundle:
    def test_it_learns_to_answer(self, chat: tuple[Path, dict[str, Any]]) -> None:
        bundle, printed = chat
        after, before = printed["metrics"], printed["baseline"]["before"]
        assert after["foreseen_loss"]["value"] < before["foreseen_loss"]["value"] - 1
        model = LanguageModel(bundle, threads=1)
        found = model.reply([{"role": "user", "content": "Tom see the cat."}])
        assert found.reason == "end", "the end mark was learnt"
        assert found.text.strip() and "<|" not in found.text
        options = model.options(temperature=0, max_length=9)
        assert model.generate("Tom see the cat.", options, chat=True)[0].text == found.text
        printed_text, _ = run("generate", str(bundle), "Tom see the cat.", "--chat", "--temperature", "0")
        assert printed_text.strip() == found.text.strip()

    def test_its_training_can_be_repeated(self, chat: tuple[Path, dict[str, Any]]) -> None:
        found = rerun(chat[0], steps=5)
        assert found.passed and found.equal and found.steps == 5

    def test_it_verifies_and_the_card_says_with_what_it_began(
        self, chat: tuple[Path, dict[str, Any]]
    ) -> None:
        found = {check.name: check.passed for check in verify(chat[0])}
        assert "certified output" in found and "float32 parity" in found and all(found.values())
        card = (chat[0] / "README.md").read_text("utf-8")
        assert "the model it began with" in card and "nats per token asked for" in card

    def test_its_marks_are_new_tokens_behind_the_old(
        self, base: Path, chat: tuple[Path, dict[str, Any]]
    ) -> None:
        ours, taught = Tokenizer.load(base), ForeignTokenizer.load(chat[0])
        assert taught.id_of("<|im_start|>") == ours.vocab_size
        assert taught.eos_id == taught.id_of("<|im_end|>") == ours.vocab_size + 1
        model = load_model(chat[0])
        assert (model.config.vocab_size, model.config.eos_id) == (ours.vocab_size + 2, ours.vocab_size + 1)
        assert taught.encode("I see the cat.")[1:] == ours.encode("I see the cat.")

    def test_transformers_opens_it_with_its_template(
        self, chat: tuple[Path, dict[str, Any]], tmp_path: Path
    ) -> None:
        transformers = pytest.importorskip("transformers", reason="install the dev extra")
        run("export", str(chat[0]), "--to", "hf", "-o", str(tmp_path / "hf"))
        tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
        model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
        served = LanguageModel(chat[0], threads=1)
        talk = [{"role": "system", "content": "Say who."}, {"role": "user", "content": "she buy a dog."}]
        ids = tokenizer.apply_chat_template(talk, add_generation_prompt=True, return_tensors="pt")[
            "input_ids"
        ]
        assert ids[0].tolist() == served.chat_ids(talk)
        written = model.generate(ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1] :]
        assert written[-1] == model.generation_config.eos_token_id == tokenizer.eos_token_id
        assert tokenizer.decode(written, skip_special_tokens=True) == served.reply(talk).text

    def test_it_still_goes_on_with_texts(self, chat: tuple[Path, dict[str, Any]]) -> None:
        model = LanguageModel(chat[0], threads=1)
        (logs,) = model.log_probabilities(["I see the cat."])
        assert len(logs) == len(model.ids("I see the cat."))


class Died(Exception):
    """Stands for whatever ends a process."""


@pytest.mark.parametrize("lora", [False, True])
def test_a_run_that_died_ends_with_the_same_weights(
    base: Path, lora: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"training.save_every_s": 0, "training.preflight": "skip", "dropout": 0.2}
    command = ["train", "chat", "--data", write_talks(tmp_path / "talks.jsonl", 60), "--base", str(base)]
    command += [*settings(**more), "--json", *(["--lora"] if lora else [])]
    printed = json.loads(run(*command, "--out", str(tmp_path / "whole"))[0])
    made, calls, at = ConversationFeed._batch, 0, printed["steps"] // 2 + 3

    def dying(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            raise Died
        return made(*arguments)

    monkeypatch.setattr(ConversationFeed, "_batch", dying)
    with pytest.raises(Died), redirect_stderr(StringIO()):
        main([*command, "--out", str(tmp_path / "cut")])
    monkeypatch.undo()
    again = json.loads(run("train", "resume", str(tmp_path / "cut.run"), "--json")[0])
    assert (again["steps"], again["metrics"]) == (printed["steps"], printed["metrics"])
    one, other = (sha256(tmp_path / name / "model.safetensors") for name in ("whole", "cut"))
    assert one == other
    if lora:
        old, new = (load_model(place).state_dict() for place in (base, tmp_path / "whole"))
        size = len(old["embedding.weight"])
        torch.testing.assert_close(new["embedding.weight"][:size], old["embedding.weight"], atol=0, rtol=0)
        assert not torch.equal(new["embedding.weight"][size], new["embedding.weight"][size + 1]), (
            "they learnt"
        )
        changed = {
            name for name in old if name != "embedding.weight" and not torch.equal(old[name], new[name])
        }
        assert changed == {name for name in old if name.endswith("attention.query_key_value.weight")}


def test_a_pulled_decoder_keeps_its_own_template(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="install the dev extra")
    from inkstone.recipes.pull import pull

    template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}</s>{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    texts = [english for _, english in made_pairs(60)] + ["user: assistant: system: Say who. Who?"] * 3
    tokenizer = ForeignTokenizer.of(Tokenizer.train(texts, kind="byte-bpe", vocab_size=300))
    config = transformers.Qwen2Config(
        vocab_size=320, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, bos_token_id=2, eos_token_id=3, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(1)
    transformers.Qwen2ForCausalLM(config).save_pretrained(tmp_path / "theirs")
    tokenizer.save(tmp_path / "theirs")
    (tmp_path / "theirs" / "chat_template.jinja").write_text(template)
    pull(str(tmp_path / "theirs"), tmp_path / "qwen")
    command = [
        "train",
        "chat",
        "--data",
        write_talks(tmp_path / "talks.jsonl", 60),
        "--base",
        str(tmp_path / "qwen"),
    ]
    run(*command, "--out", str(tmp_path / "chat"), "--lora", *settings())
    model = LanguageModel(tmp_path / "chat", threads=1)
    assert model.tokenizer.chat_templates == {"default": template}  # type: ignore[union-attr]
    assert load_model(tmp_path / "chat").config.vocab_size == 320, "no token was added"
    assert (tmp_path / "chat" / "adapter" / "adapter_config.json").is_file()
    ids = model.chat_ids([{"role": "user", "content": "Who?"}])
    assert model.tokenizer.decode(ids) == "user: Who?assistant: "
    assert model.options().end_ids == (3,)


REFUSED = {
    "nothing": ((), "nothing that learns"),
    "no conversation": (("--data", "texts.jsonl"), "`messages`, or `instruction` and `output`"),
    "no decoder": (("--base", "nowhere"), "there is no folder of this name"),
    "long block": (("--set", "block=65"), "block=65 is more than the base's max_positions=64"),
    "several": (("--set", "block=4", "--set", "training.metric=bleu"), "2 problems"),
    "role": (("--data", "roles.jsonl"), "the role tool is not known"),
    "key": (("--set", "blok=3"), 'Did you mean "block"'),
    "few": (("--data", "few.jsonl"), "too few to hold out"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_talks(tmp_path / "talks.jsonl", 30)
    write_talks(tmp_path / "few.jsonl", 2)
    (tmp_path / "texts.jsonl").write_text('{"text": "a"}\n', "utf-8")
    talk = [{"role": "tool", "content": "x"}, {"role": "assistant", "content": "y"}]
    rows = [{"messages": [*talk, {"role": "user", "content": str(n)}]} for n in range(30)]
    (tmp_path / "roles.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    before = sorted(tmp_path.rglob("*"))
    given, words = REFUSED[name]
    data = () if "--data" in given or name == "nothing" else ("--data", "talks.jsonl")
    at = () if "--base" in given or name == "nothing" else ("--base", str(base))
    out, err = run("train", "chat", *data, *at, "--out", "model", *settings(), *given, code=2)
    assert out == "" and words in err, err
    assert err.count("inkstone: ") == 1 and "Traceback" not in err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_disk_too_small_and_what_is_wrong_with_the_data(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    data = Path(write_talks(tmp_path / "talks.jsonl", 60))
    lines = data.read_text("utf-8").splitlines()
    long = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "long " * 300}]}
    data.write_text("\n".join([*lines, lines[0], json.dumps(long)]), "utf-8")
    (tmp_path / "held.jsonl").write_text("\n".join(lines[:3]), "utf-8")
    held = ("--valid", str(tmp_path / "held.jsonl"), "--test", str(tmp_path / "held.jsonl"))
    command = ("train", "chat", "--data", str(data), *held, "--base", str(base), *settings())
    _, err = run(*command, "--out", str(tmp_path / "dry"), "--dry-run")
    for finding in (
        "overlap: ",
        "truncated: 7 of 58 conversations",
        "test overlap: 3 of 3 test conversations",
    ):
        assert finding in err, err
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(10**9, 10**9 - 10**5, 10**5))
    _, err = run(*command, "--out", str(tmp_path / "out"), code=2)
    assert "GB free" in err
