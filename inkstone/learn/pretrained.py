"""A classifier on an encoder that somebody has trained before: a linear layer is fitted, and the encoder stays as it is.

    texts ─ its tokenizer ─ encoder ─ the mean over the tokens of each layer, side by side ─ linear layer ─ labels

Most of what a pretrained encoder knows about a text is not in its last layer, which was bent to what it was last trained
for, but spread over all of them (Tenney et al., 2019); so the layer reads them all. It is fitted by L-BFGS to features
that are computed once, with a penalty on the weights of features scaled to variance 1; the strength with which the texts
count against it is the one, of those to be tried, that does best on the validation texts. That takes a minute, where
training the encoder too takes an hour on a processor, and nothing in it is random.

With `tuning` the encoder is trained then, with the layer as it was fitted: what the encoder knows is not torn by the
gradients of a layer that knows nothing (Kumar et al., 2022).
"""

from __future__ import annotations

import copy
import hashlib
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from inkstone.generate.batching import within_budget
from inkstone.ground.errors import BundleError, ConfigError
from inkstone.ground.progress import progress, say
from inkstone.learn.labelled import LabelSpace, Texts, Trained, examples_of
from inkstone.learn.loop import Outcome, TrainingOptions
from inkstone.learn.memory import peak_memory_bytes
from inkstone.learn.token_classifier import trained_by_loop
from inkstone.model.config import ModelConfig
from inkstone.model.lora import Adapters, LoraConfig
from inkstone.model.padding import pad
from inkstone.model.transformer import Transformer
from inkstone.text.foreign_tokenizer import ForeignTokenizer
from inkstone.text.reader import TextReader

_TOKENS = 4096  # of a batch
ADAPTER = "adapter"  # its name while it learns
_ITERATIONS = 200


# Weights that know something already are led gently.
TUNING = TrainingOptions(
    epochs=3, tokens_per_batch=512, learning_rate=5e-5, warmup_steps=100, smoothing=0.0, patience=0
)
ADAPTING = replace(TUNING, learning_rate=5e-4)  # an adapter begins as nothing, and may move faster


@dataclass(frozen=True, slots=True)
class PretrainedOptions:
    """The encoder, and how the layer on it is fitted."""

    base: str | None = (
        None  # the folder of an encoder of a family known here; None and "minilm": that of the package
    )
    max_length: int = 256  # tokens; training texts are cut there, and that is counted
    # Of the texts against the penalty, each to be tried: the best is kept.
    strengths: tuple[float, ...] = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
    tuning: TrainingOptions | None = None  # how the encoder itself is trained then; None: it is not
    lora: LoraConfig | None = None  # with tuning: of the encoder only an adapter learns, and the layer on it

    def __post_init__(self) -> None:
        if self.lora is not None and self.tuning is None:
            raise ConfigError(
                "lora is an adapter that learns while the encoder is tuned: give tuning (--tune) too."
            )
        if not self.strengths or not all(0 < one < float("inf") for one in self.strengths):
            raise ConfigError(f"strengths={list(self.strengths)} must be numbers above 0, one at least.")
        if self.max_length < 3:
            raise ConfigError(f"max_length={self.max_length} leaves no room for a word. Give 3 or more.")


def train_on_pretrained(
    data: Texts, valid: Texts, space: LabelSpace, options: PretrainedOptions, run: Path, *, seed: int = 1
) -> Trained:
    """Fit a layer on the encoder of `options.base`, and where that is asked for train both together.

    Raises BundleError where the base is no encoder. State of the training is kept in `run`.
    """
    features = opened(options.base or "minilm", options.max_length)
    fitted = _trained(data, valid, space, options, features)
    if options.tuning is None:
        return fitted
    rows, cut = features.reader.cut(data.texts, features.longest)
    training = replace(options.tuning, metric="measure", seed=seed)
    begun = hashlib.sha256(features.weights["embedding.weight"].numpy().tobytes()).hexdigest()
    model: Any = copy.deepcopy(fitted.model)  # the encoder's own weights stay as they are
    adapters = None if options.lora is None else _adapted(model, options.lora, seed)
    with nullcontext() if adapters is None else adapters.use(ADAPTER):
        tuned = trained_by_loop(
            "transformer",
            model,
            features.reader,
            examples_of(rows, data, space),
            valid,
            features.longest,
            space,
            training,
            run,
            begun + (repr(options.lora) if options.lora else ""),
        )
    if adapters is not None:
        tuned.model = adapters.merged(ADAPTER)
    tuned.cut = cut
    return tuned


def _adapted(model: Any, lora: LoraConfig, seed: int) -> Adapters:
    """An adapter on the encoder, which learns together with the layer on it, and nothing else."""
    adapters = Adapters(model)
    adapters.add(ADAPTER, lora, torch.Generator().manual_seed(seed))
    adapters.learn(ADAPTER)
    model.classifier.requires_grad_(True)
    learns = sum(one.numel() for one in model.parameters() if one.requires_grad)
    say(f"pretrained: {learns:,} of {sum(one.numel() for one in model.parameters()):,} parameters learn")
    return adapters


def _trained(
    data: Texts, valid: Texts, space: LabelSpace, options: PretrainedOptions, features: Features
) -> Trained:
    started = time.perf_counter()
    rows, cut = features.reader.cut(data.texts, features.longest)
    if cut:
        said = f"{cut:,} training texts have more than {features.longest} tokens; only those are learnt from"
        say(f"pretrained: {said}")
    features_NE = features.of(data.texts)
    wanted_NC = torch.zeros(len(data), len(space.names))
    for row, labels in enumerate(data.labels):
        wanted_NC[row, list(space.numbers(labels))] = 1.0
    found = [_fitted(features_NE, wanted_NC, one, space.multi_label) for one in options.strengths]
    valid_NE = features.of(valid.texts)
    measures = [
        space.measure(valid.labels, F.linear(valid_NE, weight, bias).numpy()) for weight, bias, _ in found
    ]
    best = max(range(len(measures)), key=measures.__getitem__)
    weight_CE, bias_C, loss = found[best]
    seconds = time.perf_counter() - started
    point = {"step": float(best), "seconds": seconds, "train_loss": loss, "valid_measure": measures[best]}
    speed = sum(len(row) for row in rows) / seconds
    outcome = Outcome(best, best, seconds, speed, peak_memory_bytes(torch.device("cpu")), [point], False)
    chosen = replace(options, strengths=(options.strengths[best],))
    again = partial(_trained, space=space, options=chosen, features=features)
    model = features.headed(weight_CE, bias_C)
    return Trained(
        "transformer", model, features.reader, outcome, measures[best], len(data), 1, cut=cut, again=again
    )


@dataclass(frozen=True, slots=True)
class Features:
    """What an encoder says of texts, computed once for each: the means over the tokens of its layers, side by side."""

    config: ModelConfig  # with as few labels as there can be; the head is not used here
    weights: dict[str, Tensor]  # of the encoder
    reader: TextReader
    longest: int  # tokens
    _known: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def headed(self, weight_CE: Tensor, bias_C: Tensor) -> Transformer:
        """The encoder with this layer on it."""
        config = replace(self.config, num_labels=len(bias_C))
        head = {"classifier.weight": weight_CE, "classifier.bias": bias_C}
        return Transformer.of_weights(config, {**self.weights, **head})

    @torch.inference_mode()
    def of(self, texts: Sequence[str]) -> Tensor:
        """The features of each text: (N, E)."""
        new = list(dict.fromkeys(text for text in texts if text not in self._known))
        rows, _ = self.reader.cut(new, self.longest)
        model = self.headed(torch.zeros(1, self.config.pooled_size), torch.zeros(1))
        done = 0
        with progress("reading", len(new)) as bar:
            for batch in within_budget([len(row) for row in rows], _TOKENS):
                found = model.pooled(pad([rows[n] for n in batch], self.config.pad_id))
                self._known.update((new[n], one_E) for n, one_E in zip(batch, found, strict=True))
                done += len(batch)
                bar.advance(done)
        return torch.stack([self._known[text] for text in texts])


def opened(base: str, max_length: int) -> Features:
    """What the encoder of a folder, or "minilm", says of texts. Raises BundleError where it is no encoder."""
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
    config = replace(model.config, pooling="layers", num_labels=1, pooler=False, prediction_head=False)
    longest = min(max_length, config.max_positions)
    return Features(config, weights, TextReader(ForeignTokenizer.load(folder)), longest)


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
