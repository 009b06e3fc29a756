"""`--family`: what is trained here in the shape of a public family opens in transformers, with the same answers."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
transformers = pytest.importorskip(
    "transformers", reason="the reference is transformers; install the dev extra"
)

from inkstone import Classifier, Translator  # noqa: E402
from inkstone.cli import main  # noqa: E402
from inkstone.generate.engine import GenerationOptions  # noqa: E402
from inkstone.ground.errors import ConfigError  # noqa: E402
from inkstone.model.config import ModelConfig, preset  # noqa: E402
from inkstone.model.families.folder import fitted, misfits  # noqa: E402
from inkstone.model.families.registry import FAMILIES  # noqa: E402
from inkstone.model.presets import in_family, translator_config  # noqa: E402

SMALL = ["hidden_size=32", "num_heads=2", "num_kv_heads=2", "feed_forward_size=48"]
QUICK = ["training.epochs=1", "training.tokens_per_batch=256", "training.warmup_steps=2"]


def settings(prefix: str, values: list[str]) -> list[str]:
    return [word for value in values for word in ("--set", f"{prefix}{value}")]


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_family_can_hold_the_presets_of_its_shape(name: str) -> None:
    family = FAMILIES[name]
    shape = family.fixed["shape"]
    heads = ({}, {"num_labels": 3}) if shape == "encoder" else ({},)
    for head in heads:
        before: ModelConfig = preset("small", 8000, shape, head)
        after = fitted(family, before)
        assert misfits(family, after) == []
        for size in ("vocab_size", "hidden_size", "num_heads", "num_encoder_layers", "num_decoder_layers"):
            assert getattr(after, size) == getattr(before, size)
    other = "decoder" if shape != "decoder" else "encoder"
    with pytest.raises(ConfigError, match=f"no {name} is like this model"):
        fitted(family, preset("small", 8000, other))


def test_a_translator_opens_in_transformers(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.tsv"
    words = ["one", "two", "red", "blue", "cat", "dog", "sun", "sea"]
    rows = [f"{a} {b} {c}\tein {c} {a} {b}" for a in words for b in words for c in words]
    pairs.write_text("\n".join(rows) + "\n", "utf-8")
    out, there = tmp_path / "mine", tmp_path / "theirs"
    words = ["train", "translate", "--data", str(pairs), "--from", "en", "--to", "de", "--out", str(out)]
    words += ["--family", "marian", "--size", "tiny", "--set", "vocab_size=320", "--set", "max_length=32"]
    layers = ["num_encoder_layers=1", "num_decoder_layers=1", "max_positions=64"]
    assert main([*words, *settings("model.", SMALL + layers), *settings("", QUICK)]) == 0
    assert main(["export", str(out), "--to", "hf", "-o", str(there)]) == 0
    model = transformers.MarianMTModel.from_pretrained(there).eval()
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(there)
    given = tokenizer(["red cat one"], return_tensors="pt")
    assert given["input_ids"][0, -1] == tokenizer.eos_token_id, "the end mark is added"
    made = model.generate(given["input_ids"], num_beams=1, max_new_tokens=12, do_sample=False)
    greedy = GenerationOptions(beam_size=1, max_length=12)
    (mine,) = Translator(out, engine="torch").translate(["red cat one"], options=greedy)
    assert tokenizer.decode(made[0], skip_special_tokens=True).strip() == mine.translation


def test_a_classifier_opens_in_transformers(tmp_path: Path) -> None:
    data = tmp_path / "texts.tsv"
    rows = [f"{w} is {v}\t{'good' if v in ('fine', 'great') else 'bad'}" for w in "abcdefghij" for v in
            ("fine", "great", "poor", "awful", "sad")]  # fmt: skip
    data.write_text("\n".join(rows) + "\n", "utf-8")
    out, there = tmp_path / "mine", tmp_path / "theirs"
    words = ["train", "classify", "--data", str(data), "--out", str(out), "--architecture", "transformer"]
    words += ["--family", "bert", *settings("options.transformer.model.", [*SMALL, "num_encoder_layers=1"])]
    assert main([*words, *settings("options.transformer.", [*QUICK, "vocab_size=320", "max_length=32"])]) == 0
    assert main(["export", str(out), "--to", "hf", "-o", str(there)]) == 0
    theirs = transformers.BertForSequenceClassification.from_pretrained(there).eval()
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(there)
    mine = Classifier(out)
    for text in ("a is great", "j is sad"):
        with torch.inference_mode():
            shares = theirs(tokenizer(text, return_tensors="pt")["input_ids"]).logits.softmax(-1)[0]
        found = {theirs.config.id2label[n]: float(share) for n, share in enumerate(shares)}
        (said,) = mine.predict([text])
        assert found == pytest.approx(said.scores, abs=0.02)  # ours is int8


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(ConfigError, match=r'family="mamba" is not known'):
        in_family(preset("tiny", 500, "encoder"), "mamba")
    with pytest.raises(ConfigError, match="is for Transformers"):
        translator_config("rnn", "tiny", 500, {}, "marian")
