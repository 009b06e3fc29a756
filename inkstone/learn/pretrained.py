"""A classifier on an encoder that somebody has trained before: the encoder stays as it is, and a linear layer is fitted.

    texts ─ its tokenizer ─ encoder ─ the mean over the tokens of each layer, side by side ─ linear layer ─ labels

Most of what a pretrained encoder knows about a text is not in its last layer, which was bent to what it was last trained
for, but spread over all of them (Tenney et al., 2019); so the layer reads them all. It is fitted by L-BFGS to features
that are computed once, with a penalty on the weights of features scaled to variance 1; the strength with which the texts
count against it is the one, of those to be tried, that does best on the validation texts. That takes a minute, where
adapting the encoder itself takes an hour on a processor, and nothing in it is random.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from inkstone.ground.errors import BundleError, ConfigError
from inkstone.ground.progress import progress, say
from inkstone.learn.labelled import LabelSpace, Texts, Trained
from inkstone.learn.loop import Outcome, peak_memory_bytes
from inkstone.model.padding import pad
from inkstone.model.transformer import Transformer
from inkstone.text.foreign_tokenizer import ForeignTokenizer
from inkstone.text.reader import TextReader

_TOKENS = 4096  # of a batch
_ITERATIONS = 200


@dataclass(frozen=True, slots=True)
class PretrainedOptions:
    """The encoder, and how the layer on it is fitted."""

    base: str | None = (
        None  # the folder of an encoder of a family known here; None and "minilm": that of the package
    )
    max_length: int = 256  # tokens; training texts are cut there, and that is counted
    strengths: tuple[float, ...] = (
        0.0003,
        0.001,
        0.003,
        0.01,
        0.03,
    )  # of the texts against the penalty, to be tried

    def __post_init__(self) -> None:
        if not self.strengths or not all(0 < one < float("inf") for one in self.strengths):
            raise ConfigError(f"strengths={list(self.strengths)} must be numbers above 0, one at least.")
        if self.max_length < 3:
            raise ConfigError(f"max_length={self.max_length} leaves no room for a word. Give 3 or more.")


def train_on_pretrained(data: Texts, valid: Texts, space: LabelSpace, options: PretrainedOptions) -> Trained:
    """Fit a layer on the encoder of `options.base`. Raises BundleError where that is no encoder."""
    started = time.perf_counter()
    model, reader = opened(options.base or "minilm", len(space.names))
    longest = min(options.max_length, model.config.max_positions)
    rows, cut = reader.cut(data.texts, longest)
    if cut:
        said = f"{cut:,} training texts have more than {longest} tokens; only those are learnt from"
        say(f"pretrained: {said}")
    features_NE = features(model, rows, "training texts")
    valid_NE = features(model, reader.cut(valid.texts, longest)[0], "validation texts")
    wanted_NC = torch.zeros(len(data), len(space.names))
    for row, labels in enumerate(data.labels):
        wanted_NC[row, list(space.numbers(labels))] = 1.0
    found = [_fitted(features_NE, wanted_NC, one, space.multi_label) for one in options.strengths]
    measures = [
        space.measure(valid.labels, F.linear(valid_NE, weight, bias).numpy()) for weight, bias, _ in found
    ]
    best = max(range(len(measures)), key=measures.__getitem__)
    weight_CE, bias_C, loss = found[best]
    assert model.classifier is not None
    with torch.no_grad():
        model.classifier.weight.copy_(weight_CE)
        model.classifier.bias.copy_(bias_C)
    seconds = time.perf_counter() - started
    point = {"step": float(best), "seconds": seconds, "train_loss": loss, "valid_measure": measures[best]}
    tokens = sum(len(row) for row in rows)
    outcome = Outcome(
        best, best, seconds, tokens / seconds, peak_memory_bytes(torch.device("cpu")), [point], False
    )
    chosen = replace(options, strengths=(options.strengths[best],))
    again = partial(train_on_pretrained, space=space, options=chosen)
    return Trained(
        "transformer", model, reader, outcome, measures[best], len(data), per_epoch=1, cut=cut, again=again
    )


def opened(base: str, num_labels: int) -> tuple[Transformer, TextReader]:
    """The encoder of a folder with a head of zeros over all its layers, and its tokenizer. Raises BundleError."""
    from inkstone.generate.sentence_encoder import minilm_folder
    from inkstone.model.families.folder import read_folder

    folder = minilm_folder() if base == "minilm" else Path(base)
    model = read_folder(folder)
    if model.config.shape != "encoder":
        raise BundleError(
            f"{base} is a model of shape={model.config.shape}. Give an encoder, such as a BERT."
        )
    heads = ("pooler.", "prediction_head.", "classifier.", "output")
    weights = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(heads)}
    config = replace(
        model.config, pooling="layers", num_labels=num_labels, pooler=False, prediction_head=False
    )
    weights["classifier.weight"] = torch.zeros(num_labels, config.pooled_size)
    weights["classifier.bias"] = torch.zeros(num_labels)
    return Transformer.of_weights(config, weights), TextReader(ForeignTokenizer.load(folder))


@torch.inference_mode()
def features(model: Transformer, rows: Sequence[Sequence[int]], what: str) -> Tensor:
    """What the head reads of each text: (N, E)."""
    from inkstone.generate.batching import within_budget

    found_NE = torch.empty(len(rows), model.config.pooled_size)
    done = 0
    with progress(what, len(rows)) as bar:
        for batch in within_budget([len(row) for row in rows], _TOKENS):
            found_NE[batch] = model.pooled(pad([rows[n] for n in batch], model.config.pad_id))
            done += len(batch)
            bar.advance(done)
    return found_NE


def _fitted(
    features_NE: Tensor, wanted_NC: Tensor, strength: float, multi_label: bool
) -> tuple[Tensor, Tensor, float]:
    """Weights (C, E) and biases (C) for features as they are, and the loss reached.

    minimise over W, b    sum_n loss(W z_n + b, y_n)  +  |W|^2 / (2 strength)      z: features of mean 0, variance 1
    """
    mean_E, spread_E = features_NE.mean(0), features_NE.std(0).clamp(min=1e-6)
    z_NE = (features_NE - mean_E) / spread_E
    weight_CE = torch.zeros(wanted_NC.shape[1], z_NE.shape[1], requires_grad=True)
    bias_C = torch.zeros(wanted_NC.shape[1], requires_grad=True)
    solver = torch.optim.LBFGS(
        [weight_CE, bias_C], max_iter=_ITERATIONS, tolerance_change=1e-6, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        solver.zero_grad()
        logits_NC = F.linear(z_NE, weight_CE, bias_C)
        if multi_label:
            found = F.binary_cross_entropy_with_logits(logits_NC, wanted_NC, reduction="sum")
        else:
            found = F.cross_entropy(logits_NC, wanted_NC, reduction="sum")
        found = (found + weight_CE.square().sum() / (2 * strength)) / len(z_NE)
        found.backward()  # type: ignore[no-untyped-call]
        return found

    solver.step(loss)  # type: ignore[no-untyped-call]
    reached = loss().item()
    if not torch.isfinite(weight_CE).all():
        raise ConfigError("the fit did not end in finite weights: the encoder's states are not finite.")
    scaled_CE = (weight_CE / spread_E).detach()
    return scaled_CE, (bias_C - scaled_CE @ mean_E).detach(), reached
