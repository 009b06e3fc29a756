"""A Transformer as a checkpoint: `config.json` and `model.safetensors` in a folder. Needs torch; nothing is unpickled."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from inkstone.ground.errors import BundleError, OutputError, raise_all
from inkstone.ground.files import write_json
from inkstone.ground.manifest import read_json
from inkstone.model.config import ModelConfig
from inkstone.model.transformer import Transformer

CONFIG, WEIGHTS = "config.json", "model.safetensors"


def save_transformer(model: Transformer, folder: Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Write the configuration and the weights, in this type, into a folder."""
    write_json(folder / CONFIG, model.config.to_dict())
    weights = {
        name: tensor.detach().cpu().to(dtype).contiguous() for name, tensor in model.state_dict().items()
    }
    try:
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    except (OSError, SafetensorError) as error:
        raise OutputError(
            f"cannot write {folder / WEIGHTS}: {error}. Free some space, or choose another place."
        ) from error


def load_transformer(folder: Path) -> Transformer:
    """The model of a checkpoint, in float32 and ready to evaluate.

    Raises BundleError listing every tensor that is missing, unknown or of the wrong shape.
    """
    model = Transformer(ModelConfig.from_dict(read_json(folder / CONFIG)))
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
