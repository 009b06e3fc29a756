"""A model as a checkpoint: `config.json` and `model.safetensors` in a folder. Needs torch; nothing is unpickled.

`model_type` in config.json says which architecture it is, and `ARCHITECTURES` what to build for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from inkstone.ground.errors import BundleError, OutputError, not_known, raise_all
from inkstone.ground.files import write_json
from inkstone.ground.manifest import read_json
from inkstone.model.config import ModelConfig
from inkstone.model.convolutional import Convolutional
from inkstone.model.convolutional_config import (
    CONVOLUTIONAL_TYPE,
    TEXTCNN_TYPE,
    ConvolutionalConfig,
    TextCNNConfig,
)
from inkstone.model.families.folder import is_foreign, read_folder
from inkstone.model.recurrent import Recurrent
from inkstone.model.recurrent_config import MODEL_TYPE as RECURRENT_TYPE
from inkstone.model.recurrent_config import RecurrentConfig
from inkstone.model.textcnn import TextCNN
from inkstone.model.transformer import Transformer

CONFIG, WEIGHTS = "config.json", "model.safetensors"
Config = ModelConfig | RecurrentConfig | ConvolutionalConfig | TextCNNConfig
Model = Transformer | Recurrent | Convolutional | TextCNN

# model_type: (the record that reads config.json, the model built from it)
ARCHITECTURES: dict[str, tuple[Any, Callable[..., Model]]] = {
    "inkstone-transformer": (ModelConfig, Transformer),
    RECURRENT_TYPE: (RecurrentConfig, Recurrent),
    CONVOLUTIONAL_TYPE: (ConvolutionalConfig, Convolutional),
    TEXTCNN_TYPE: (TextCNNConfig, TextCNN),
}


def build_model(config: Config, generator: torch.Generator | None = None) -> Model:
    """A new model of this configuration, its weights drawn from the generator."""
    return next(make for kind, make in ARCHITECTURES.values() if isinstance(config, kind))(config, generator)


def read_config(folder: Path) -> Config:
    """The configuration of a checkpoint. Raises BundleError for an unknown architecture, ConfigError for values."""
    values: Mapping[str, Any] = read_json(folder / CONFIG)
    name = values.get("model_type")
    if name not in ARCHITECTURES:
        raise BundleError(f"{folder / CONFIG}: {not_known('model_type', name, ARCHITECTURES)}")
    config: Config = ARCHITECTURES[name][0].from_dict(values)
    return config


def save_model(model: nn.Module, folder: Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Write the configuration and the weights, in this type, into a folder."""
    config: Any = model.config
    write_json(folder / CONFIG, config.to_dict())
    weights = {
        name: tensor.detach().cpu().to(dtype).contiguous() for name, tensor in model.state_dict().items()
    }
    try:
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    except (OSError, SafetensorError) as error:
        raise OutputError(
            f"cannot write {folder / WEIGHTS}: {error}. Free some space, or choose another place."
        ) from error


def load_model(folder: Path) -> Model:
    """The model of a checkpoint, in float32 and ready to evaluate: one of ours, or of a family known here.

    Raises BundleError listing every tensor that is missing, unknown or of the wrong shape.
    """
    if is_foreign(folder):
        return read_folder(folder)
    model = build_model(read_config(folder))
    try:
        weights = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise BundleError(f"{folder / WEIGHTS} cannot be read: {error}") from error
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    problems = [f"{name} is missing" for name in expected if name not in weights]
    problems += [f"{name} is not known" for name in weights if name not in expected]
    problems += [
        f"{name} has shape {tuple(weights[name].shape)}, not {shape}"
        for name, shape in expected.items()
        if name in weights and tuple(weights[name].shape) != shape
    ]
    raise_all(BundleError, f"{folder / WEIGHTS} does not fit its {CONFIG}", problems)
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    return model.eval()
