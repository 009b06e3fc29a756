"""A bag of features: the weighted mean of their embeddings, and a linear layer.

fastText's classifier (Joulin et al., 2017) with one change: each feature carries a fixed weight, its inverse document
frequency, and a text is divided by the length of its weight vector, as in TF-IDF.

    x_BD = sum_f w_f e_f / sqrt(sum_f w_f^2)        logits_BC = x_BD A_DC + b_C

This is a linear classifier. With at most D classes it needs no A (the identity); with more, it is one of low rank, and
what that buys is that classes share what they learn, and a small file. It trains in seconds on a CPU
(`learn/bag.py`) and is served with numpy alone (`generate/classify_bag.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from inkstone.ground.files import explained, write_json


@dataclass(frozen=True, slots=True)
class BagConfig:
    """The sizes of a bag. num_features: padding, number 0, included."""

    num_features: int
    hidden_size: int
    num_labels: int

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain values, for config.json."""
        return {"model_type": "inkstone-bag", **asdict(self)}


class Bag(nn.Module):
    """The model of a `BagConfig`, all embeddings zero. weights_V: of each feature, 0 for padding."""

    weights: Tensor

    def __init__(self, config: BagConfig, weights_V: NDArray[np.float32]) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.num_features, config.hidden_size)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        nn.init.zeros_(self.embedding.weight)
        nn.init.eye_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)
        self.register_buffer("weights", torch.from_numpy(weights_V.copy()))

    def forward(self, ids_BS: Tensor) -> Tensor:
        """Class scores of texts given as feature numbers, padded with 0: (B, C). A text without any gets the bias."""
        weights_BS = self.weights[ids_BS]
        weights_BS = weights_BS / weights_BS.norm(dim=1, keepdim=True).clamp(min=1e-6)
        x_BD = torch.bmm(weights_BS[:, None], self.embedding(ids_BS).to(weights_BS.dtype))[:, 0]
        logits_BC: Tensor = self.classifier(x_BD)
        return logits_BC


def save_bag(model: Bag, folder: Path) -> None:
    """Write config.json and model.safetensors: the embedding in float16, the rest in float32."""
    state: Mapping[str, Tensor] = model.state_dict()
    tensors = {
        name: tensor.detach()
        .cpu()
        .to(torch.float16 if name == "embedding.weight" else torch.float32)
        .contiguous()
        for name, tensor in state.items()
    }
    with explained(folder / "model.safetensors"):
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", model.config.to_dict())
