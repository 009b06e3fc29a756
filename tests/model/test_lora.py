"""LoRA against peft, both ways, and against itself: merged = unmerged, one of many, learnt through the one loop."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from inkstone.ground.errors import BundleError, ConfigError
from inkstone.learn.data.batches import PairExample, pair_batch
from inkstone.learn.loop import TrainingOptions, train
from inkstone.learn.objectives import sequence_to_sequence
from inkstone.model import convolutional_config, recurrent_config
from inkstone.model.bag import Bag, BagConfig
from inkstone.model.checkpoint import load_model, save_model
from inkstone.model.config import ModelConfig, tiny
from inkstone.model.convolutional import Convolutional
from inkstone.model.families.folder import read_folder
from inkstone.model.lora import Adapters, LoraConfig
from inkstone.model.lora_files import load_adapter, save_adapter
from inkstone.model.recurrent import Recurrent
from inkstone.model.textcnn import TextCNN
from inkstone.model.transformer import Transformer

# peft asks transformers for a name that it will drop
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

FAMILIES = {
    "llama": ("LlamaForCausalLM", ["q_proj", "v_proj", "gate_proj", "down_proj", "lm_head"]),
    "qwen3": ("Qwen3ForCausalLM", ["k_proj", "o_proj", "up_proj"]),
    "gpt2": ("GPT2LMHeadModel", ["c_attn", "c_fc"]),
    "bert": ("BertForSequenceClassification", ["query", "value", "intermediate.dense"]),
}
IDS = torch.tensor([[5, 6, 7, 8, 9], [9, 3, 4, 11, 12]])


def translator(seed: int = 1, **overlay: Any) -> Transformer:
    sizes = {"hidden_size": 32, "feed_forward_size": 48, "num_encoder_layers": 1, "num_decoder_layers": 1}
    config = tiny(20, **{**sizes, "dropout": 0.0, **overlay})
    return Transformer(config, torch.Generator().manual_seed(seed)).eval()


def filled(adapters: Adapters, name: str, config: LoraConfig, seed: int = 0) -> None:
    """An adapter that changes something: B is drawn, too."""
    generator = torch.Generator().manual_seed(seed)
    adapters.add(name, config, generator)
    with torch.no_grad():
        for parts in adapters.parts(name).values():
            for part in parts:
                part.up.normal_(0, 0.3, generator=generator)


def scores(model: Transformer) -> torch.Tensor:
    source = torch.tensor([[4, 5, 6, 3], [7, 8, 3, 0], [9, 4, 3, 0]])
    target = torch.tensor([[2, 5, 6], [2, 8, 9], [2, 7, 7]])
    with torch.no_grad():
        return model(source, target)


@pytest.fixture(scope="module", params=FAMILIES)
def theirs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tiny random model of a family with a random adapter, both saved by their makers."""
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    from families import CASES, DECODER

    kind, targets = FAMILIES[request.param]
    case = (
        next(options for _, name, options in CASES.values() if name == kind)
        if kind != "LlamaForCausalLM"
        else DECODER
    )
    torch.manual_seed(3)
    made = getattr(transformers, kind)(
        getattr(transformers, next(c for c, n, _ in CASES.values() if n == kind))(**case)
    )
    place = tmp_path_factory.mktemp(request.param)
    made.eval().save_pretrained(place / "base")
    config = peft.LoraConfig(
        r=3, lora_alpha=7, target_modules=targets, use_rslora=request.param == "qwen3",
        fan_in_fan_out=request.param == "gpt2", init_lora_weights=False,
    )  # fmt: skip
    adapted = peft.get_peft_model(made, config).eval()
    adapted.save_pretrained(place / "adapter", save_embedding_layers=False)
    with torch.no_grad():
        return request.param, place, adapted(IDS).logits


def test_an_adapter_of_peft_gives_the_same_scores(theirs: Any) -> None:
    family, place, expected = theirs
    model = read_folder(place / "base")
    plain = model(IDS)
    adapters = Adapters(model)
    load_adapter(adapters, "theirs", place / "adapter", family=family)
    with torch.no_grad(), adapters.use("theirs"):
        found = model(IDS)
    assert (found - expected).abs().max() < 1e-4
    assert (plain - expected).abs().max() > 1e-3  # the adapter does something
    assert torch.equal(model(IDS), plain)  # outside of `use` it does nothing
    assert (adapters.merged("theirs")(IDS) - expected).abs().max() < 1e-4


def test_our_adapter_opens_in_peft(theirs: Any, tmp_path: Path) -> None:
    import peft
    import transformers

    family, place, _ = theirs
    model = read_folder(place / "base")
    adapters = Adapters(model)
    targets = ("*.attention.query_key_value", "*.feed_forward.up", "*.feed_forward.down")
    filled(adapters, "ours", LoraConfig(rank=2, alpha=3, targets=targets, rank_stabilised=family == "llama"))
    save_adapter(adapters, "ours", tmp_path, family=family, base=str(place / "base"))
    kind = getattr(transformers, FAMILIES[family][0])
    opened = peft.PeftModel.from_pretrained(kind.from_pretrained(place / "base"), tmp_path).eval()
    with torch.no_grad(), adapters.use("ours"):
        assert (model(IDS) - opened(IDS).logits).abs().max() < 1e-4
        assert (model(IDS) - adapters.without()(IDS)).abs().max() > 1e-3


def test_a_new_adapter_changes_nothing() -> None:
    model = translator()
    before = scores(model)
    adapters = Adapters(model)
    adapters.add("new", LoraConfig(), torch.Generator().manual_seed(0))
    with adapters.use("new"):
        assert torch.equal(scores(model), before)


@pytest.mark.parametrize("overlay", [{}, {"tie_embeddings": False, "bias": "all", "num_kv_heads": 2}])
def test_merged_is_unmerged(overlay: dict[str, Any]) -> None:
    model = translator(**overlay)
    before = scores(model)
    adapters = Adapters(model)
    targets = ("*.attention.*", "*.memory_attention.*", "*.feed_forward.*")
    targets += () if not overlay else ("output",)
    filled(adapters, "a", LoraConfig(rank=4, targets=targets))
    with adapters.use("a"):
        found = scores(model)
    assert (found - scores(adapters.merged("a"))).abs().max() < 1e-4
    assert (found - before).abs().max() > 1e-2
    assert torch.equal(scores(adapters.without()), before)


def test_rows_of_a_batch_use_adapters_of_their_own() -> None:
    model = translator()
    adapters = Adapters(model)
    filled(adapters, "a", LoraConfig(rank=2), seed=1)
    filled(adapters, "b", LoraConfig(rank=5, targets=("*.feed_forward.up",)), seed=2)
    alone = {}
    for name in ("a", "b", None):
        with adapters.use(name):
            alone[name] = scores(model)
    with adapters.use(["b", None, "a"]):
        mixed = scores(model)
    for row, name in enumerate(("b", None, "a")):
        assert (mixed[row] - alone[name][row]).abs().max() < 1e-5
    assert (alone["a"] - alone["b"]).abs().max() > 1e-2
    with adapters.use(["a"]), pytest.raises(ConfigError, match=r"1 adapters .* batch of 3"):
        scores(model)


def test_each_thread_uses_its_own() -> None:
    model = translator()
    adapters = Adapters(model)
    filled(adapters, "a", LoraConfig())
    plain, found = scores(model), {}
    with adapters.use("a"):
        thread = threading.Thread(target=lambda: found.update(plain=scores(model)))
        thread.start()
        thread.join()
        assert not torch.equal(scores(model), plain)
    assert torch.equal(found["plain"], plain)


def _train(place: Path, epochs: float, halt_at: int = 0) -> tuple[Transformer, Adapters]:
    """Learn to say rows backwards with an adapter; stopped by an error at a step, if asked."""
    model = translator()
    adapters = Adapters(model)
    adapters.add("a", LoraConfig(rank=4, dropout=0.1, targets=("*.attention.*", "*.feed_forward.*")),
                 torch.Generator().manual_seed(0))  # fmt: skip
    adapters.learn("a")
    generator = torch.Generator().manual_seed(5)
    rows = [torch.randint(4, 20, (5,), generator=generator).tolist() for _ in range(80)]
    examples = [PairExample((*row, 3), tuple(row[::-1])) for row in rows]
    steps = 0

    def objective(current: torch.nn.Module, batch: Any, smoothing: float = 0.0) -> Any:
        nonlocal steps
        steps += 1
        if halt_at and steps > halt_at:
            raise KeyboardInterrupt
        return sequence_to_sequence(current, batch, smoothing)

    def collate(batch: Any) -> Any:
        return pair_batch(batch, pad_id=0, bos_id=2, eos_id=3)

    options = TrainingOptions(
        epochs=epochs, tokens_per_batch=200, learning_rate=0.01, warmup_steps=2, threads=1, precision="float32",
        save_every_s=0.0, weight_decay=0.1, smoothing=0.0,
    )  # fmt: skip
    with adapters.use("a"):
        train(model, objective, examples, collate, lambda _: {"accuracy": 0.5}, options, place)
    return model, adapters


def test_only_the_adapter_learns_and_a_resumed_run_is_exact(tmp_path: Path) -> None:
    start = translator().state_dict()
    model, adapters = _train(tmp_path / "whole", 2)
    base = adapters.without().state_dict()
    assert all(torch.equal(base[name], tensor) for name, tensor in start.items())
    learnt = {id(p) for parts in adapters.parts("a").values() for part in parts for p in part.parameters()}
    assert all((id(p) in learnt) == p.requires_grad for p in model.parameters())
    newest = sorted((tmp_path / "whole" / "checkpoints").glob("last-*"))[-1]
    moments = load_file(newest / "optimizer.safetensors")
    assert len([name for name in moments if name.endswith("exp_avg")]) == len(learnt)
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "halted", 2, halt_at=7)
    _, resumed = _train(tmp_path / "halted", 2)
    for name, tensor in adapters.merged("a").state_dict().items():
        assert torch.equal(tensor, resumed.merged("a").state_dict()[name]), name
    assert not torch.equal(adapters.merged("a").state_dict()["encoder.layers.0.feed_forward.up.weight"],
                           base["encoder.layers.0.feed_forward.up.weight"])  # fmt: skip


def test_saved_under_our_own_names_and_read_back(tmp_path: Path) -> None:
    model = translator()
    adapters = Adapters(model)
    filled(adapters, "a", LoraConfig(rank=3, alpha=5, rank_stabilised=True))
    save_adapter(adapters, "a", tmp_path)
    load_adapter(adapters, "again", tmp_path)
    with adapters.use("a"):
        expected = scores(model)
    with adapters.use("again"):
        assert torch.equal(scores(model), expected)
    adapters.remove("a")
    with pytest.raises(ConfigError, match=r'adapter="a" is not known\. Valid: again'), adapters.use("a"):
        pass


def test_everything_wrong_with_a_file_is_said_at_once(tmp_path: Path) -> None:
    adapters = Adapters(translator())
    filled(adapters, "a", LoraConfig(rank=3))
    save_adapter(adapters, "a", tmp_path)
    options = json.loads((tmp_path / "adapter_config.json").read_text())
    options |= {
        "use_dora": True,
        "modules_to_save": ["classifier"],
        "bias": "all",
        "new_trick": 3,
        "lora_alpha": "x",
    }
    (tmp_path / "adapter_config.json").write_text(json.dumps(options))
    weights = load_file(tmp_path / "adapter_model.safetensors")
    first, second = (name for name in weights if "memory_attention.query." in name)
    weights["base_model.model.decoder.layers.9.attention.output.lora_A.weight"] = weights.pop(second)
    weights[first] = weights[first].repeat(1, 2)
    key_value = "base_model.model.decoder.layers.0.memory_attention.key_value.lora_B.weight"
    weights[key_value] = weights[key_value][:-1].clone()
    save_file(weights, tmp_path / "adapter_model.safetensors")
    with pytest.raises(BundleError) as caught:
        load_adapter(adapters, "b", tmp_path)
    message = str(caught.value)
    wanted = (
        "use_dora=True", "modules_to_save=['classifier']", "bias='all'", "new_trick=3", "lora_alpha='x'",
        "layers.9.attention.output", "memory_attention.query: lora_", "memory_attention.key_value: lora_B has",
    )  # fmt: skip
    for part in wanted:
        assert part in message
    assert list(adapters.configs) == ["a"]


def test_wrong_adapters_are_refused(tmp_path: Path) -> None:
    adapters = Adapters(translator())
    with pytest.raises(ConfigError, match=r"q_proj.*is not known"):
        adapters.add("a", LoraConfig(targets=("*.q_proj",)))
    with pytest.raises(ConfigError) as caught:
        LoraConfig(rank=0, alpha=-1, dropout=1.0, targets=())
    assert all(
        word in str(caught.value) for word in ("rank=0", "alpha=-1", "dropout=1.0", "targets is empty")
    )
    adapters.add("a", LoraConfig())
    with pytest.raises(ConfigError, match='"a" is taken'):
        adapters.add("a", LoraConfig())
    with pytest.raises(ConfigError, match="has adapters already"):
        Adapters(adapters.model)
    with pytest.raises(ConfigError, match=r'family="lama" is not known.*Did you mean "llama"'):
        save_adapter(adapters, "a", tmp_path, family="lama")
    assert not list(tmp_path.iterdir())
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(BundleError, match=r"adapter_model\.safetensors cannot be read"):
        load_adapter(adapters, "b", tmp_path)


def test_the_default_targets_fit_every_shape() -> None:
    for shape in ("encoder", "decoder", "encoder-decoder"):
        config: ModelConfig = tiny(20, shape, hidden_size=16, num_heads=2)  # type: ignore[arg-type]
        adapters = Adapters(Transformer(config))
        adapters.add("a", LoraConfig())
        layers = config.num_encoder_layers + config.num_decoder_layers * (
            3 if shape == "encoder-decoder" else 1
        )
        assert len(adapters.parts("a")) == layers


OTHERS: dict[str, Any] = {
    "rnn": lambda: Recurrent(recurrent_config.tiny(20, embedding_size=8, hidden_size=16)),
    "gru classifier": lambda: Recurrent(
        recurrent_config.preset("tiny", 20, "encoder", {"cell": "gru", "hidden_size": 16, "num_labels": 3})
    ),
    "cnn": lambda: Convolutional(convolutional_config.tiny(20, embedding_size=8, hidden_size=16)),
    "textcnn": lambda: TextCNN(convolutional_config.textcnn_preset("tiny", 20, {"num_labels": 3})),
    "bag": lambda: Bag(BagConfig(20, 8, 3), np.ones(20, np.float32)),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_models_of_every_architecture_can_have_adapters(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(2)
    model = OTHERS[kind]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.1)
    source, target = torch.tensor([[4, 5, 6, 3], [7, 8, 3, 0]]), torch.tensor([[2, 5, 6], [2, 8, 9]])
    texts = (source, target) if kind in ("rnn", "cnn") else (source,)
    adapters = Adapters(model)
    plain = model(*texts)
    filled(adapters, "a", LoraConfig(rank=2))
    assert set(adapters.parts("a")) == set(adapters.layers())  # without an attention: all linear layers
    save_adapter(adapters, "a", tmp_path)
    load_adapter(adapters, "again", tmp_path)
    with adapters.use("again"):
        found = model(*texts)
    merged = adapters.merged("a")
    assert type(merged) is type(model) and merged.config == model.config
    assert (
        list(merged.state_dict())
        == list(adapters.without().state_dict())
        == list(OTHERS[kind]().state_dict())
    )
    assert (merged(*texts) - found).abs().max() < 1e-5 * found.abs().max()
    assert (found - plain).abs().max() > 1e-3
    assert torch.allclose(adapters.without()(*texts), plain, atol=1e-6)  # a GRU lays its weights out anew
    if kind != "bag":
        save_model(merged, tmp_path)
        assert torch.equal(load_model(tmp_path)(*texts), merged(*texts))
    with pytest.raises(ConfigError, match="llama is a family of Transformers, and this is none"):
        save_adapter(adapters, "a", tmp_path, family="llama")
