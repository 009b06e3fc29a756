"""Exports to CTranslate2: every family and axis that fits computes what torch does, and what its own converters give."""

from __future__ import annotations

import itertools
import random
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="the reference is torch")
np = pytest.importorskip("numpy")
ctranslate2 = pytest.importorskip("ctranslate2", reason="exports are for CTranslate2")
transformers = pytest.importorskip("transformers", reason="families are made by transformers")

sys.path.insert(0, str(Path(__file__).parent.parent / "model"))
from families import CASES, DECODER, VOCABULARY, reference  # noqa: E402

from inkstone.ground.errors import ConfigError  # noqa: E402
from inkstone.model.config import ModelConfig, tiny  # noqa: E402
from inkstone.model.families.folder import read_folder, write_folder  # noqa: E402
from inkstone.model.transformer import Transformer  # noqa: E402
from inkstone.ship.ctranslate2 import distinct, export_ctranslate2, obstacles, write_ctranslate2  # noqa: E402

ctranslate2.set_log_level(40)
CLOSE: dict[str, float] = {"atol": 2e-4, "rtol": 2e-4}
UNFIT = {
    "bert prediction": "prediction_head",
    "roberta prediction": "prediction_head",
    "mistral, window": "window=5",
    "qwen2, window": "window=5",
}


def random_ids(config: ModelConfig, rows: int = 3, length: int = 12, seed: int = 0) -> Any:
    """Ids that are no marks."""
    generator = torch.Generator().manual_seed(seed)
    marks = {config.pad_id, config.bos_id, config.eos_id}
    plain = torch.tensor([number for number in range(config.vocab_size) if number not in marks])
    return plain[torch.randint(len(plain), (rows, length), generator=generator)]


def named(rows: Any, config: ModelConfig) -> list[list[str]]:
    names = distinct([], config.vocab_size)
    return [[names[number] for number in row] for row in rows.tolist()]


@torch.no_grad()
def agree(model: Transformer, folder: Path) -> None:
    """What an export computes is what the model does: states, scores over the vocabulary, greedy text."""
    config = model.config
    ids = random_ids(config)
    if config.shape == "encoder":
        encoder = ctranslate2.Encoder(str(folder), intra_threads=1)
        types = ids % config.token_types if config.token_types else None
        given = None if types is None else types.tolist()
        states = np.array(encoder.forward_batch(ids.tolist(), token_type_ids=given).last_hidden_state)
        torch.testing.assert_close(torch.from_numpy(states), model.encode(ids, types), **CLOSE)
        if config.pooler and config.pooling == "first":
            pooled = np.array(encoder.forward_batch(ids.tolist(), token_type_ids=given).pooler_output)
            wanted = model.pool(model.encode(ids, types), ids)
            torch.testing.assert_close(torch.from_numpy(pooled), wanted, **CLOSE)
    elif config.shape == "decoder":
        generator = ctranslate2.Generator(str(folder), intra_threads=1)
        logits = torch.from_numpy(np.array(generator.forward_batch(ids.tolist())))
        torch.testing.assert_close(logits, model(ids), **CLOSE)
        found = generator.generate_batch(
            named(ids, config), beam_size=1, max_length=16, include_prompt_in_result=False
        )
        for row, result in zip(ids, found, strict=True):
            (tokens,) = result.sequences_ids
            assert tokens == greedy(model, row.tolist(), len(tokens))
    else:
        translator = ctranslate2.Translator(str(folder), intra_threads=1)
        target = random_ids(config, length=7, seed=1)
        scored = translator.score_batch(named(ids, config), named(target, config))
        begun = torch.cat([torch.full((3, 1), config.bos_id), target], 1)
        wanted = torch.cat([target, torch.full((3, 1), config.eos_id)], 1)
        logs = model(ids, begun).log_softmax(-1).gather(2, wanted[:, :, None])[:, :, 0]
        torch.testing.assert_close(torch.tensor([one.log_probs for one in scored]), logs, **CLOSE)


def greedy(model: Transformer, prompt: list[int], count: int) -> list[int]:
    """The likeliest tokens after a prompt, without a cache."""
    ids = torch.tensor([prompt])
    for _ in range(count):
        ids = torch.cat([ids, model(ids)[:, -1:].argmax(-1)], dim=1)
    return ids[0, len(prompt) :].tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("case", [case for case in CASES if case not in UNFIT])
def test_every_family_that_fits_is_computed_alike(case: str, tmp_path: Path) -> None:
    reference(case).save_pretrained(tmp_path / "theirs")
    export_ctranslate2(tmp_path / "theirs", tmp_path / "export", quantization="float32")
    agree(read_folder(tmp_path / "theirs"), tmp_path / "export")


@pytest.mark.parametrize("case", UNFIT)
def test_what_does_not_fit_is_refused_by_name(case: str, tmp_path: Path) -> None:
    reference(case).save_pretrained(tmp_path / "theirs")
    with pytest.raises(ConfigError, match=f"does not fit CTranslate2: {UNFIT[case]}"):
        export_ctranslate2(tmp_path / "theirs", tmp_path / "export", quantization="float32")
    assert not (tmp_path / "export").exists()


@pytest.mark.parametrize(
    ("shape", "axes"),
    [("encoder-decoder", {"query_key_norm": True}), ("decoder", {"positions": "relative"})],
    ids=str,
)
def test_what_it_computes_otherwise_is_refused(shape: Any, axes: dict[str, Any]) -> None:
    (name,) = axes
    (problem,) = obstacles(tiny(60, shape, **axes))
    assert problem.startswith(f"{name}={axes[name]}") and obstacles(tiny(60, "encoder", **axes)) == []


def test_a_window_wider_than_the_positions_is_none() -> None:
    wide = tiny(60, "decoder", window=512, max_positions=512)
    assert obstacles(wide) == [] and obstacles(tiny(60, "decoder", window=511, max_positions=512))


AXES: dict[str, tuple[Any, ...]] = {
    "positions": ("learned", "sinusoidal", "rotary", "relative"),
    "norm": ("layer", "rms"),
    "norm_place": ("before", "after"),
    "feed_forward": ("plain", "gated"),
    "activation": ("relu", "gelu", "gelu-tanh", "silu"),
    "num_kv_heads": (4, 2, 1),
    "head_size": (4, 6),
    "tie_embeddings": (True, False),
    "bias": ("all", "none", "query-key-value", "attention"),
    "scale_embeddings": (True, False),
    "embedding_norm": (True, False),
    "query_key_norm": (True, False),
    "scale_scores": (True, False),
    "scale_output": (True, False),
    "output_bias": (True, False),
    "rotary_scaling": ("none", "linear", "llama3", "yarn"),
}


def sampled_axes() -> list[tuple[str, dict[str, Any]]]:
    """Every value of every axis in some of 18 models, six of each shape."""
    drawn, found = random.Random(5), []
    for shape in ("encoder", "decoder", "encoder-decoder"):
        columns = {}
        for name, values in AXES.items():
            column = list(itertools.islice(itertools.cycle(values), 6))
            drawn.shuffle(column)
            columns[name] = column
        if shape == "encoder-decoder":
            columns["query_key_norm"] = [False] * 6  # refused, see below
        if shape == "decoder":
            columns["positions"] = ["rotary" if one == "relative" else one for one in columns["positions"]]
        found += [(shape, {name: column[n] for name, column in columns.items()}) for n in range(6)]
    return found


@pytest.mark.parametrize(
    ("shape", "axes"),
    sampled_axes(),
    ids=lambda one: one if isinstance(one, str) else "-".join(map(str, one.values())),
)
def test_every_axis_is_computed_alike(shape: Any, axes: dict[str, Any], tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "feed_forward_size": 24, "num_heads": 4, "dropout": 0.0, "max_positions": 64}
    if axes["positions"] == "rotary" and axes["rotary_scaling"] != "none":
        axes = {**axes, "rotary_factor": 2.5, "rotary_trained": 16, "rotary_magnitude": 1.1}
    generator = torch.Generator().manual_seed(2)
    types = {"token_types": 2, "pooler": True, "pooling": "first"} if shape == "encoder" else {}
    model = Transformer(tiny(60, shape, **{**sizes, **axes, **types}), generator).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    write_ctranslate2(model.config, weights, [], tmp_path, quantization="float32")
    agree(model, tmp_path)


CONVERTED = {
    "llama": "llama, usual heads",
    "qwen3": "qwen3",
    "t5": "t5",  # its converter scales the outputs of T5 1.1, which transformers 5 calls tied, and is wrong there
    "bart": "bart",
    "marian": "marian",
    "bert": "bert states",
}


@torch.no_grad()
def tidy(model: Transformer) -> Transformer:
    """The model as its family's converter takes it for granted: Marian's padding is zero and never produced."""
    config = model.config
    if config.positions == "sinusoidal":
        model.embedding.weight[config.pad_id] = 0
        model.output_bias[config.pad_id] = -1e4
    return model


def write_words(folder: Path, config: ModelConfig) -> list[str]:
    """A tokenizer of whole words beside a checkpoint, for what only opens folders that have one."""
    from tokenizers import Tokenizer, models

    words = [f"w{number}" for number in range(config.vocab_size)]
    words[config.pad_id], words[3] = "<pad>", "<unk>"
    inner = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>")
    )
    marks = {"pad_token": "<pad>", "eos_token": words[config.eos_id], "unk_token": "<unk>"}
    bos = "<pad>" if config.bos_id == config.pad_id else words[config.bos_id]
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=bos, **marks)
    tokenizer.save_pretrained(folder)
    return words


@pytest.mark.parametrize("family", CONVERTED)
def test_what_we_write_its_own_converters_read(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our folder of a family, through CTranslate2's converter and through ours: the same outputs."""
    usual = {key: value for key, value in DECODER.items() if key != "head_dim"}
    monkeypatch.setitem(CASES, "llama, usual heads", ("LlamaConfig", "LlamaForCausalLM", usual))
    reference(CONVERTED[family]).save_pretrained(tmp_path / "made")
    model = tidy(read_folder(tmp_path / "made"))
    (tmp_path / "ours").mkdir()
    write_folder(model, tmp_path / "ours", family)
    words = write_words(tmp_path / "ours", model.config)
    export_ctranslate2(tmp_path / "ours", tmp_path / "exported", quantization="float32")
    converter = ctranslate2.converters.TransformersConverter(str(tmp_path / "ours"))
    converter.convert(str(tmp_path / "converted"), quantization="float32")
    ids = random_ids(model.config)
    one, other = (outputs(tmp_path / name, model.config, ids, words) for name in ("exported", "converted"))
    assert one[0] == other[0]
    np.testing.assert_allclose(one[1], other[1], atol=1e-5, rtol=1e-5)
    assert model.config.vocab_size == VOCABULARY


def outputs(folder: Path, config: ModelConfig, ids: Any, words: list[str]) -> tuple[list[Any], Any]:
    """What an engine makes of these ids: text, if it produces any, and numbers."""
    texts = [[words[number] for number in row] for row in ids.tolist()]
    common = {"beam_size": 3, "num_hypotheses": 3, "return_scores": True}
    if config.shape == "encoder":
        found = ctranslate2.Encoder(str(folder), intra_threads=1).forward_batch(texts)
        return [], np.array(found.last_hidden_state)
    if config.shape == "decoder":
        generator = ctranslate2.Generator(str(folder), intra_threads=1)
        made = generator.generate_batch(texts, max_length=20, include_prompt_in_result=False, **common)
        return [one.sequences for one in made], [one.scores for one in made]
    translator = ctranslate2.Translator(str(folder), intra_threads=1)
    found = translator.translate_batch(texts, max_decoding_length=20, **common)
    return [one.hypotheses for one in found], [one.scores for one in found]


def test_names_are_distinct_and_kept_where_they_can_be() -> None:
    assert distinct(["a", "b"], 2) == ["a", "b"]
    names = distinct(["a", "", "a", "<token 4>"], 6)
    assert len(set(names)) == 6 and names[0] == "a" and names[3] == "<token 4>"
