"""A Hugging Face folder as one of our models, and one of our models as such a folder.

    read_folder     config.json ─ family ─> ModelConfig ─┐
                    model.safetensors ─ names ───────────┴─> Transformer
    write_folder    the other way; what the family cannot hold is refused, axis by axis

Everything wrong with a folder is found before anything is loaded, and said at once: pickles, remote code, unknown
options, missing shards and tensors, wrong shapes. transformers is not needed for either way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inkstone.ground.errors import BundleError, ConfigError, DataError, not_known, raise_all
from inkstone.ground.files import write_json
from inkstone.ground.manifest import read_json
from inkstone.ground.progress import say
from inkstone.model.config import ModelConfig
from inkstone.model.families.family import Architecture, Family, Options
from inkstone.model.families.registry import FAMILIES
from inkstone.model.families.weights import FLOATS, StoredTensors, write_tensors
from inkstone.model.transformer import Transformer
from inkstone.text.foreign_files import has_tokenizer
from inkstone.text.foreign_tokenizer import ForeignTokenizer, vocabulary_problems
from inkstone.text.template import ChatTemplate

CONFIG, GENERATION = "config.json", "generation_config.json"
SHARD_BYTES = 5_000_000_000
OPTIONAL = ("output_bias",)  # zeros where a folder has none


def is_foreign(folder: Path) -> bool:
    """Whether a folder holds a checkpoint of one of the families."""
    try:
        return (folder / CONFIG).is_file() and str(read_json(folder / CONFIG).get("model_type")) in FAMILIES
    except BundleError:
        return False


def refuse_unknown(folder: Path, title: str) -> None:
    """Raise BundleError where config.json alone tells that the checkpoint is of no family known here."""
    raise_all(BundleError, title, _which(read_json(folder / CONFIG))[2])


@dataclass(frozen=True, slots=True)
class Found:
    """What is in a folder, as far as it could be understood, and everything that is wrong with it."""

    problems: list[str]
    stored: StoredTensors
    family: Family | None = None
    architecture: str = ""
    config: ModelConfig | None = None
    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # tensor of ours -> its parts


def look_into(folder: str | Path) -> Found:
    """What a Hugging Face folder holds. No tensor is loaded and nothing raised but for a config.json that is no JSON."""
    folder = Path(folder)
    values = read_json(folder / CONFIG)
    stored = StoredTensors(folder)
    family, name, problems = _which(values)
    problems += stored.problems
    beside = _problems_beside(folder, values.get("vocab_size"))
    if family is None:
        return Found(problems + beside, stored)
    architecture = family.architectures[name]
    options = Options(values, stored.place.keys())
    axes = family.config(options, architecture)
    options.read.add("auto_map")  # told already
    problems += options.left()
    try:
        config = ModelConfig(**axes)
    except ConfigError as error:
        return Found([*problems, *([] if options.problems else [str(error)]), *beside], stored, family, name)
    sources: dict[str, tuple[str, ...]] = {}
    layers = config.num_encoder_layers + config.num_decoder_layers
    if stored.place and layers > len(stored.place):  # before layers are made for them
        problems.append(f"{layers:,} layers are promised, and there are {len(stored.place):,} tensors")
    elif stored.place:
        sources, wrong = _matched(family, architecture, config, stored)
        problems += wrong
    return Found(problems + beside, stored, family, name, config, sources)


def _problems_beside(folder: Path, vocab_size: object) -> list[str]:
    """What is wrong with the tokenizer, the chat templates and the options of generation, where a folder has them."""
    problems: list[str] = []
    if (folder / GENERATION).is_file():
        try:
            read_json(folder / GENERATION)
        except BundleError as error:
            problems.append(str(error))
    if not has_tokenizer(folder):
        return problems
    try:
        tokenizer = ForeignTokenizer.load(folder)
    except (DataError, ConfigError) as error:
        return [*problems, str(error)]
    for template in tokenizer.chat_templates.values():
        try:
            ChatTemplate(template, tokenizer.names, tokenizer.specials)
        except DataError as error:
            problems.append(str(error))
    if isinstance(vocab_size, int):
        problems += vocabulary_problems(tokenizer, vocab_size)
    return problems


def read_folder(folder: str | Path) -> Transformer:
    """The model of a Hugging Face folder, in float32 and ready to evaluate.

    Raises BundleError with everything that is wrong.
    """
    found = look_into(folder)
    raise_all(BundleError, f"{folder} cannot be used", found.problems)
    assert found.family is not None and found.config is not None
    return _loaded(found.family, found.config, found.sources, found.stored)


def write_folder(
    model: Transformer,
    folder: Path,
    family_name: str,
    *,
    dtype: torch.dtype = torch.float32,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write a model into a folder as a checkpoint of a family, which `transformers` and its like open.

    The tokenizer is the caller's to add. Raises ConfigError listing every axis that the family does not have.
    """
    if family_name not in FAMILIES:
        raise ConfigError(not_known("family", family_name, FAMILIES))
    family, config = FAMILIES[family_name], model.config
    raise_all(ConfigError, f"this model is no {family_name}", misfits(family, config))
    name = family.architecture_of(config)
    assert name is not None
    options = {
        "model_type": family.model_type,
        "architectures": [name],
        "dtype": str(dtype).removeprefix("torch."),
        **{key: value for key, value in family.write(config).items() if value is not None},
    }
    write_json(folder / CONFIG, options)
    tensors: dict[str, Tensor] = {}
    for ours, tensor in model.state_dict().items():
        tensors |= _split(family, family.architectures[name], config, ours, tensor.detach().cpu().to(dtype))
    for ours in OPTIONAL:
        if family.fixed.get(ours) and not getattr(config, ours):
            zeros = torch.zeros(config.vocab_size, dtype=dtype)
            tensors |= _split(family, family.architectures[name], config, ours, zeros)
    write_tensors(tensors, folder, shard_bytes=shard_bytes)
    if config.has_decoder:
        marks = {"pad_token_id": config.pad_id, "eos_token_id": config.eos_id, "bos_token_id": config.bos_id}
        start = {"decoder_start_token_id": config.bos_id} if config.has_encoder else {}
        write_json(folder / GENERATION, {**marks, **start})


def misfits(family: Family, config: ModelConfig) -> list[str]:
    """Why a family cannot hold a model of this configuration: what differs when it is written and read back."""
    problems, axes = _differing(family, config)
    return problems + [
        f"{axis}={getattr(config, axis)!r}, where {family.model_type} has {value!r}"
        for axis, value in axes.items()
    ]


def fitted(family: Family, config: ModelConfig) -> ModelConfig:
    """The nearest configuration that a family can hold: sizes as they are, axes as the family has them.

    Raises ConfigError where there is none, as for a family of another shape.
    """
    for _ in range(len(fields(config))):
        problems, axes = _differing(family, config)
        if not axes:
            raise_all(ConfigError, f"no {family.model_type} is like this model", problems)
            return config
        config = replace(config, **axes)
    raise ConfigError(f"no {family.model_type} is like this model: its axes do not settle.")


def _differing(family: Family, config: ModelConfig) -> tuple[list[str], dict[str, Any]]:
    """What a family cannot say of a configuration, and the axes that it has otherwise, as it has them."""
    name = family.architecture_of(config)
    if name is None:
        return [f"{family.model_type} has no architecture for shape={config.shape} with this head"], {}
    architecture = family.architectures[name]
    names = [part for ours in _shapes(config) for part in family.theirs(config, architecture, ours)]
    options = Options(family.write(config), names)
    try:
        back = asdict(ModelConfig(**family.config(options, architecture)))
    except ConfigError as error:
        return [*options.problems, str(error)], {}
    idle = {"dropout"} | ({"pooling"} if not (config.pooler or config.num_labels) else set())
    for kind in ("rotary", "relative"):
        if config.positions != kind:
            idle |= {axis for axis in back if axis.startswith(f"{kind}_")}
    idle |= {axis for axis in OPTIONAL if family.fixed.get(axis)}  # zeros are written
    axes = {
        axis: value for axis, value in back.items() if axis not in idle and value != getattr(config, axis)
    }
    return options.problems, axes


def _which(values: Mapping[str, Any]) -> tuple[Family | None, str, list[str]]:
    """The family and class of a config.json, and what is wrong with them."""
    problems = []
    if "auto_map" in values:
        problems.append("auto_map asks for code from the folder to be run; remote code is never run")
    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        return None, "", [*problems, not_known("model_type", kind, FAMILIES)]
    family = FAMILIES[kind]
    named = values.get("architectures") or [next(iter(family.architectures))]
    name = named[0] if isinstance(named, list) else named
    if not isinstance(name, str) or name not in family.architectures:
        return None, "", [*problems, not_known("architecture", name, family.architectures)]
    return family, name, problems


def _shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The names and shapes of our tensors, without making them."""
    with torch.device("meta"):
        return {name: tuple(tensor.shape) for name, tensor in Transformer(config).state_dict().items()}


def _matched(
    family: Family, architecture: Architecture, config: ModelConfig, stored: StoredTensors
) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """For each tensor of ours the names it has in the folder, and what is missing, misshapen or left over."""
    sources: dict[str, tuple[str, ...]] = {}
    problems: list[str] = []
    for ours, shape in _shapes(config).items():
        parts = tuple(_found(name, family, stored) for name in family.theirs(config, architecture, ours))
        absent = [part for part in parts if part not in stored.place]
        if absent and ours in OPTIONAL:
            continue
        if absent or not parts:
            problems += [f"tensor {name} is missing" for name in absent or [ours]]
            continue
        sources[ours] = parts
        problems += [
            f"{part} is stored as {stored.kinds[part]}, not as {', '.join(FLOATS[:-1])} or {FLOATS[-1]}: "
            "ask for the files of this model that are not quantised"
            for part in parts
            if stored.kinds[part] not in FLOATS
        ]
        problems += _misshapen(family, ours, shape, parts, stored)
    used = {part for parts in sources.values() for part in parts}
    left = sorted(name for name in stored.place if name not in used)
    ignored = [name for name in left if _is_ignored(name, family, config)]
    if ignored:
        say(f"not used: {_listed(ignored)}")
    unknown = sorted(set(left) - set(ignored))
    return sources, problems + ([f"tensors not known: {_listed(unknown)}"] if unknown else [])


def _found(name: str, family: Family, stored: StoredTensors) -> str:
    """The name under which a folder has a tensor: with or without the prefix of the base model."""
    if name not in stored.place and family.prefix:
        for other in (name.removeprefix(family.prefix), family.prefix + name):
            if other in stored.place:
                return other
    return name


def _is_ignored(name: str, family: Family, config: ModelConfig) -> bool:
    """Whether a tensor carries nothing of this model: copies of tied ones, buffers, heads that are not asked for."""
    full = name if name.startswith(family.prefix) else family.prefix + name
    tied = (
        [family.names["output.weight"]] if config.tie_embeddings and "output.weight" in family.names else []
    )
    pooled = [] if config.pooler else ["*pooler.dense.*"]
    patterns = [*family.ignored, *map(str, tied), *pooled]
    return any(fnmatch(one, pattern) for one in (name, full) for pattern in patterns)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _misshapen(
    family: Family, ours: str, shape: tuple[int, ...], parts: tuple[str, ...], stored: StoredTensors
) -> list[str]:
    """What is wrong with the shapes of the parts of one tensor."""
    found = [stored.shapes[part] for part in parts]
    if family.is_transposed(ours):
        shape = shape[::-1]
    if len(shape) == 1 and len(parts) == 1 and found[0] == (1, *shape):
        return []
    rows = sum(one[0] for one in found if one)
    if all(one[1:] == shape[1:] for one in found) and (rows,) == shape[:1]:
        return []
    names = " + ".join(f"{part} {one}" for part, one in zip(parts, found, strict=True))
    return [f"{names} should be {shape} together" if len(parts) > 1 else f"{names} should be {shape}"]


def _loaded(
    family: Family, config: ModelConfig, sources: Mapping[str, tuple[str, ...]], stored: StoredTensors
) -> Transformer:
    with torch.device("meta"):
        model = Transformer(config)
    weights: dict[str, Tensor] = {}
    for ours, tensor in model.state_dict().items():
        if ours not in sources:
            weights[ours] = torch.zeros(tensor.shape)
            continue
        whole = torch.cat([stored[part].float() for part in sources[ours]])
        weights[ours] = (
            (whole.t() if family.is_transposed(ours) else whole).reshape(tensor.shape).contiguous()
        )
    return Transformer.of_weights(config, weights)


def _split(
    family: Family, architecture: Architecture, config: ModelConfig, ours: str, tensor: Tensor
) -> dict[str, Tensor]:
    """One tensor of ours under their names."""
    parts = family.theirs(config, architecture, ours)
    assert parts, f"{family.model_type} has no name for {ours}"
    if family.is_transposed(ours):
        tensor = tensor.t()
    if ours == "output_bias" and parts[0] == "final_logits_bias":
        tensor = tensor[None]
    if len(parts) == 1:
        return {parts[0]: tensor}
    q, kv = config.num_heads * config.head_size, config.num_kv_heads * config.head_size
    sizes = [q, kv, kv] if len(parts) == 3 else [len(tensor) // 2] * 2
    return {name: part.contiguous() for name, part in zip(parts, torch.split(tensor, sizes), strict=True)}
