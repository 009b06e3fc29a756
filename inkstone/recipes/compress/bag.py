"""A bag of features made smaller: features that move the scores little go, and the embedding of the rest is in int8."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inkstone.ground.errors import BundleError
from inkstone.ground.manifest import read_json
from inkstone.text.ngrams import FeatureVocabulary


def read_bag(folder: Path) -> tuple[Any, FeatureVocabulary]:
    """The torch model of a bag in a folder, and its features. Raises BundleError when they do not fit together."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from inkstone.model.bag import Bag, BagConfig

    values = read_json(folder / "config.json")
    features = FeatureVocabulary.load(folder / "features.json")
    try:
        config = BagConfig(*(values[name] for name in ("num_features", "hidden_size", "num_labels")))
        tensors = {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}
        scale_V = tensors.pop("embedding.scale", torch.ones(()))
        tensors["embedding.weight"] *= scale_V[:, None] if scale_V.dim() else scale_V
        model = Bag(config, np.zeros(config.num_features, np.float32))
        model.load_state_dict(tensors)
    except (OSError, SafetensorError, TypeError, KeyError, RuntimeError) as error:
        raise BundleError(f"{folder} is not a bag of features: {error}") from error
    return model.eval(), features


def prune_features(
    model: Any, features: FeatureVocabulary, share: float, texts: Sequence[str], *, score: str
) -> tuple[Any, FeatureVocabulary]:
    """A bag without this share of its features, those that move the scores least.

    A feature moves them by w_f |A e_f|; wanda (Sun et al., 2023) counts that as often as its input is there: times the
    root of the number of `texts` that have it. At least one feature stays.
    """
    import torch

    from inkstone.model.bag import Bag, BagConfig

    with torch.no_grad():
        moved_V = (model.embedding.weight @ model.classifier.weight.t()).norm(dim=1) * model.weights
    importance = moved_V.numpy()[1:].copy()
    if score == "wanda":
        counts = Counter(number for text in texts for number in features.encode(text))
        importance *= np.sqrt([counts[number] for number in range(1, len(features))])
    count = max(1, round((1 - share) * len(importance)))
    kept = np.sort(np.argsort(-importance, kind="stable")[:count])
    rows = torch.from_numpy(np.concatenate([[0], kept + 1]))
    config = BagConfig(count + 1, model.config.hidden_size, model.config.num_labels)
    smaller = Bag(config, model.weights[rows].numpy())
    with torch.no_grad():
        smaller.embedding.weight.copy_(model.embedding.weight[rows])
        smaller.classifier.load_state_dict(model.classifier.state_dict())
    return smaller.eval(), FeatureVocabulary([features.names[n] for n in kept.tolist()], features.options)
