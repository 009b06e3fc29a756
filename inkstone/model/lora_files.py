"""Adapters in PEFT's format: adapter_config.json and adapter_model.safetensors (github.com/huggingface/peft).

    base_model.model.<name of the layer>.lora_A.weight (r, inputs)      .lora_B.weight (outputs, r)

The name of the layer is the family's for a foreign model and ours for one of our own. What an option of the file would
change in the numbers and is not known here is refused; everything wrong is said at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from inkstone.ground.errors import BundleError, ConfigError, not_known, raise_all
from inkstone.ground.files import explained, sha256, write_json
from inkstone.ground.manifest import read_json
from inkstone.model.config import ModelConfig
from inkstone.model.families.folder import is_foreign
from inkstone.model.families.registry import FAMILIES
from inkstone.model.lora import Adapters, LoraConfig, Part
from inkstone.model.transformer import Transformer

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BASE = "base.json"  # ours, beside PEFT's: the sha256 of the weights that an adapter was trained on
PREFIX = "base_model.model."
# Options that must be absent or have this value: others change what the adapter computes.
ONLY: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "use_dora": (None, False),
    "bias": (None, "none"),
    "lora_bias": (None, False),
    "modules_to_save": (None, []),
    "trainable_token_indices": (None,),
    "target_parameters": (None, []),
    "alpha_pattern": (None, {}),
    "layer_replication": (None, []),
    "megatron_config": (None,),
    "use_qalora": (None, False),
    "alora_invocation_tokens": (None,),
    "arrow_config": (None,),
    "use_bdlora": (None, False),
    "monteclora_config": (None,),
    "velora_config": (None,),
}
# Options about how the adapter was made, or that its tensors say again.
HARMLESS = frozenset({
    "auto_mapping", "base_model_name_or_path", "revision", "task_type", "inference_mode", "peft_version",
    "init_lora_weights", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "rank_pattern",
    "fan_in_fan_out", "megatron_core", "loftq_config", "eva_config", "corda_config", "lora_ga_config",
    "runtime_config", "ensure_weight_tying", "qalora_group_size", "r", "lora_alpha", "lora_dropout", "use_rslora",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a layer of theirs lies in ours: the outputs start to stop of a layer."""

    path: str
    start: int
    stop: int
    inputs: int


def _places(adapters: Adapters, family_name: str | None) -> dict[str, _Place]:
    """Every layer that can have an adapter, by the name that files give it. Raises ConfigError for no such family."""
    layers = adapters.layers()
    if family_name is None:
        return {
            path: _Place(path, 0, layer.out_features, layer.in_features) for path, layer in layers.items()
        }
    if family_name not in FAMILIES:
        raise ConfigError(not_known("family", family_name, FAMILIES))
    if not isinstance(adapters.model, Transformer):
        raise ConfigError(
            f"{family_name} is a family of Transformers, and this is none. Leave the family out."
        )
    family, config = FAMILIES[family_name], adapters.model.config
    kind = family.architecture_of(config)
    if kind is None:
        raise ConfigError(f"{family_name} has no architecture for this model.")
    found: dict[str, _Place] = {}
    for path, layer in layers.items():
        names = family.theirs(config, family.architectures[kind], f"{path}.weight")
        start = 0
        for name, size in zip(names, _sizes(config, layer, len(names)), strict=True):
            found[name.removesuffix(".weight")] = _Place(path, start, start + size, layer.in_features)
            start += size
    return found


def _sizes(config: ModelConfig, layer: nn.Linear, count: int) -> list[int]:
    """How many outputs each of their matrices has of one of ours, as `families.folder` lays them."""
    if count == 3:
        q, kv = config.num_heads * config.head_size, config.num_kv_heads * config.head_size
        return [q, kv, kv]
    return [layer.out_features // max(1, count)] * count


def save_adapter(
    adapters: Adapters, name: str, folder: Path, *, family: str | None = None, base: str = ""
) -> None:
    """Write an adapter into an existing folder. family: whose names it gets; None for our own.

    base: the name or folder of the base model, for who opens it. Raises ConfigError for names that are not known, and
    for parts that lie across the border of two matrices of the family.
    """
    config, places = adapters.configs.get(name), _places(adapters, family)
    parts = adapters.parts(name)
    assert config is not None
    tensors: dict[str, Tensor] = {}
    problems: list[str] = []
    for path, its in parts.items():
        for part in its:
            covered = {
                theirs: place
                for theirs, place in places.items()
                if place.path == path and part.start <= place.start and place.stop <= part.stop
            }
            if sum(place.stop - place.start for place in covered.values()) != part.stop - part.start:
                problems.append(
                    f"{path}, outputs {part.start} to {part.stop}: {family or 'we'} have no name for it"
                )
            for theirs, place in covered.items():
                rows = part.up[place.start - part.start : place.stop - part.start]
                tensors[f"{PREFIX}{theirs}.lora_A.weight"] = part.down.detach().cpu().clone()
                tensors[f"{PREFIX}{theirs}.lora_B.weight"] = rows.detach().cpu().clone().contiguous()
    raise_all(ConfigError, f"adapter {name} cannot be written", problems)
    targets = sorted({key.removeprefix(PREFIX).rsplit(".lora_", 1)[0] for key in tensors})
    transposed = family is not None and any(
        FAMILIES[family].is_transposed(f"{path}.weight") for path in parts
    )
    write_json(
        folder / CONFIG,
        {
            "peft_type": "LORA",
            "base_model_name_or_path": base,
            "r": config.rank,
            "lora_alpha": config.alpha,
            "lora_dropout": config.dropout,
            "use_rslora": config.rank_stabilised,
            "target_modules": targets,
            "fan_in_fan_out": transposed,
            "bias": "none",
            "modules_to_save": None,
            "inference_mode": True,
        },
    )
    with explained(folder / WEIGHTS):
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def open_adapters(model: nn.Module, base: Path, folders: Mapping[str, str | Path]) -> Adapters:
    """The adapters of these folders, by name, on a model that was read from `base`.

    Their layers have the names of the base's family where it is a foreign checkpoint, else ours. Raises BundleError
    with everything that is wrong with the first that cannot be used.
    """
    adapters, family = Adapters(model), family_of(base)
    for name, folder in folders.items():
        _refuse_other_base(Path(folder), base)
        load_adapter(adapters, name, folder, family=family)
    return adapters


def name_base(folder: Path, name: str, base: Path) -> None:
    """Write beside an adapter what it was trained on, so that it is not put on other weights unnoticed."""
    write_json(folder / BASE, {"name": name, "sha256": sha256(base / "model.safetensors")})


def _refuse_other_base(folder: Path, base: Path) -> None:
    """Raise BundleError for an adapter that says it was trained on other weights: it would run, and say nonsense."""
    if not (folder / BASE).exists():
        return
    named = read_json(folder / BASE)
    weights = base / "model.safetensors"
    if not weights.exists() or named.get("sha256") != sha256(weights):
        raise BundleError(
            f"{folder} is an adapter on {named.get('name')}, and {base} has other weights. Use it on that model; "
            f"one that it is merged into needs no adapter. (To use it all the same, remove {BASE} from its folder.)"
        )


def family_of(base: Path) -> str | None:
    """Whose names the layers of a checkpoint have; None for ours."""
    return str(read_json(base / "config.json")["model_type"]) if is_foreign(base) else None


def load_adapter(adapters: Adapters, name: str, folder: str | Path, *, family: str | None = None) -> None:
    """Add the adapter of a folder. family: whose names it has; None for our own.

    Raises BundleError with everything that is wrong: options that are not known, layers that do not exist, shapes.
    """
    folder = Path(folder)
    values, problems = read_json(folder / CONFIG), []
    for option, valid in ONLY.items():
        if values.get(option, valid[0]) not in valid:
            problems.append(f"{option}={values[option]!r} is not supported")
    problems += [
        f"option {option}={value!r} is not known here"
        for option, value in values.items()
        if option not in ONLY and option not in HARMLESS and value not in (None, False, [], {}, "")
    ]
    config = _config(values, problems)
    tensors: dict[str, Tensor] = {}
    try:
        tensors = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        problems.append(f"{WEIGHTS} cannot be read: {error}")
    parts = _matched(adapters, family, tensors, config, values, problems)
    if tensors and not parts and not problems:
        problems.append(f"{WEIGHTS} holds no adapter")
    raise_all(BundleError, f"{folder} cannot be used as an adapter", problems)
    adapters.put(name, config, parts)


def _config(values: Mapping[str, Any], problems: list[str]) -> LoraConfig:
    """The options of a file as ours; what is wrong with them is added to the problems."""
    rank, alpha, dropout = values.get("r", 8), values.get("lora_alpha", 8), values.get("lora_dropout", 0.0)
    wrong = [
        f"{option}={value!r} must be a number"
        for option, value in (("r", rank), ("lora_alpha", alpha), ("lora_dropout", dropout))
        if isinstance(value, bool) or not isinstance(value, int | float)
    ]
    targets = values.get("target_modules")
    named = tuple(map(str, targets)) if isinstance(targets, list) and targets else (str(targets or "*"),)
    if not wrong:
        try:
            return LoraConfig(int(rank), float(alpha), float(dropout), bool(values.get("use_rslora")), named)
        except ConfigError as error:
            wrong.append(str(error))
    problems += wrong
    return LoraConfig()


def _matched(
    adapters: Adapters,
    family: str | None,
    tensors: Mapping[str, Tensor],
    config: LoraConfig,
    values: Mapping[str, Any],
    problems: list[str],
) -> dict[str, list[Part]]:
    """The parts that the tensors of a file make; what does not fit is added to the problems."""
    places = _places(adapters, family)
    prefix = FAMILIES[family].prefix if family else ""
    halves: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        layer, _, half = key.removeprefix(PREFIX).removesuffix(".weight").rpartition(".lora_")
        theirs = next(
            (one for one in (layer, prefix + layer, layer.removeprefix(prefix)) if one in places), None
        )
        if theirs is None or half not in ("A", "B"):
            problems.append(f"tensor {key} belongs to no linear layer of this model")
            continue
        halves.setdefault(theirs, {})[half] = tensor.float()
    parts: dict[str, list[Part]] = {}
    for theirs, found in halves.items():
        place, wrong = (
            places[theirs],
            [f"{theirs}: lora_{half} is missing" for half in "AB" if half not in found],
        )
        if not wrong:
            wrong = _misshapen(theirs, place, found["A"], found["B"], config, values)
        problems += wrong
        if not wrong:
            down, up = found["A"], found["B"]
            scale = config.scale(len(down))
            part = Part(down, up, place.start, scale=scale, dropout=config.dropout)
            parts.setdefault(place.path, []).append(part.to(next(adapters.model.parameters()).device))
    return parts


def _misshapen(
    theirs: str, place: _Place, down: Tensor, up: Tensor, config: LoraConfig, values: Mapping[str, Any]
) -> list[str]:
    rank = len(down) if values.get("rank_pattern") and down.dim() == 2 else config.rank
    outputs = place.stop - place.start
    wanted = {"lora_A": (down, (rank, place.inputs)), "lora_B": (up, (outputs, rank))}
    return [
        f"{theirs}: {half} has shape {tuple(tensor.shape)}, not {shape}"
        for half, (tensor, shape) in wanted.items()
        if tuple(tensor.shape) != shape
    ]
