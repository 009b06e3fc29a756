"""Fitting a bag of features: logistic regression that leans towards naive Bayes.

    minimise over E, A, b    sum_n loss(logits_n, y_n)  +  |E - E0|^2 / (2 strength)

A bag is a linear model of features, most of which occur in a handful of texts. So what counts is not how the minimum is
approached but what holds the weights where the texts say little. Here that is a naive Bayes classifier: E0 holds the
log ratio of how often a feature occurs in texts of a label and in the others, times `prior`, and the penalty draws the
weights there instead of to zero. Wang and Manning (2012) interpolate the two after training; here the one is the prior
mean of the other, so that the probabilities come out right by themselves.

With few labels A is the identity and the problem is convex: there is one best model, whatever the seed. With more labels
than the bag is wide naive Bayes does not fit into it; then A0 holds the main directions of its weights, E0 is zero, and
both are learnt. Either way L-BFGS (Liu and Nocedal, 1989) takes all texts at once and nothing is drawn at random: the
same texts give the same model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from inkstone.ground.errors import ConfigError, raise_all
from inkstone.ground.progress import progress
from inkstone.learn.data.batches import LabelExample
from inkstone.learn.labelled import LabelSpace, Texts, Trained, batch_logits, examples_of
from inkstone.learn.loop import Outcome
from inkstone.learn.memory import peak_memory_bytes
from inkstone.model.bag import Bag, BagConfig
from inkstone.text.ngrams import FeatureVocabulary, NgramOptions

_MEMORY = 6  # pairs of steps and gradients from which L-BFGS guesses the curvature
_FLAT = 1e-4  # stop where so many iterations lower the loss by less, as a share of it
_AT_ONCE = 5  # iterations between two points of the learning curve


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How to fit a bag."""

    strength: float = 5.0  # of the texts against the prior: the variance of a weight
    prior: float = 0.3  # how much of naive Bayes the weights lean towards
    iterations: int = 100

    def __post_init__(self) -> None:
        problems = [
            f"{name}={getattr(self, name)} must be {said}"
            for name, fine, said in (
                ("strength", 0 < self.strength < float("inf"), "above 0 and finite"),
                ("prior", 0 <= self.prior < float("inf"), "at least 0 and finite"),
                ("iterations", self.iterations >= 1, "at least 1"),
            )
            if not fine
        ]
        raise_all(ConfigError, "fitting options", problems)


@dataclass(frozen=True, slots=True)
class BagOptions:
    """How to make and train a bag of features."""

    features: NgramOptions = field(default_factory=NgramOptions)
    min_count: int = 1
    max_features: int = 60_000
    hidden_size: int = 64  # at most: with fewer labels, as many as there are
    fit: FitOptions = field(default_factory=FitOptions)


@dataclass(frozen=True, slots=True)
class _Sparse:
    """A sparse matrix by rows, end to end: the column and the value of each entry, and where each row begins."""

    columns_T: Tensor
    values_T: Tensor
    starts_R: Tensor

    def times(self, dense: Tensor) -> Tensor:
        """The product with a matrix that has a row for each column."""
        return F.embedding_bag(
            self.columns_T, dense, self.starts_R, mode="sum", per_sample_weights=self.values_T
        )

    def turned(self, num_columns: int) -> _Sparse:
        """The same matrix by columns."""
        rows_T = torch.bucketize(torch.arange(len(self.columns_T)), self.starts_R, right=True) - 1
        order_T = torch.argsort(self.columns_T, stable=True)
        starts_V = torch.searchsorted(self.columns_T[order_T], torch.arange(num_columns))
        return _Sparse(rows_T[order_T], self.values_T[order_T], starts_V)


class _Product(torch.autograd.Function):
    """A sparse matrix times a dense one, with the gradient gathered along the columns.

    The gradient that torch makes for `embedding_bag` scatters, and takes 20 to 40 times as long as the product itself.
    """

    @staticmethod
    def forward(ctx: Any, dense: Tensor, by_rows: _Sparse, by_columns: _Sparse) -> Tensor:
        ctx.by_columns = by_columns
        return by_rows.times(dense)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.by_columns.times(gradients[0]), None, None


@dataclass(frozen=True, slots=True)
class _Texts:
    """All texts by their features, all features by their texts, and the labels wanted.

    The values are the weights of the features of a text, scaled to length 1.
    """

    by_text: _Sparse
    by_feature: _Sparse
    wanted_NC: Tensor


def train_bag(data: Texts, valid: Texts, space: LabelSpace, options: BagOptions) -> Trained:
    """Fit a bag to these texts: their features counted, then `fit_bag`. It takes seconds and always ends the same."""
    features, weights = FeatureVocabulary.train(
        data.texts, options.features, min_count=options.min_count, most=options.max_features
    )
    examples = examples_of([features.encode(text) for text in data.texts], data, space)
    rows = [features.encode(text) for text in valid.texts]

    def measure(model: torch.nn.Module) -> float:
        return space.measure(valid.labels, batch_logits(model, rows))

    width = min(options.hidden_size, len(space.names))
    config = BagConfig(len(features), width, len(space.names))
    model, outcome = fit_bag(
        config, weights, examples, options.fit, multi_label=space.multi_label, measure=measure
    )
    again = partial(train_bag, space=space, options=options)
    return Trained("bag", model, features, outcome, measure(model), len(examples), per_epoch=1, again=again)


def fit_bag(
    config: BagConfig,
    weights_V: NDArray[np.float32],
    examples: Sequence[LabelExample],
    options: FitOptions,
    *,
    multi_label: bool,
    measure: Callable[[Bag], float],
) -> tuple[Bag, Outcome]:
    """The bag that fits these texts, and how it went. measure: of validation texts, between 0 and 1, for the curve."""
    started = time.perf_counter()
    model = Bag(config, weights_V)
    texts = _gathered(examples, model.weights, config.num_labels)
    towards_VD, mixing_CD = _leaning(texts, config, options.prior)
    with torch.no_grad():
        model.embedding.weight.copy_(towards_VD)
        model.classifier.weight.copy_(mixing_CD)
    model.classifier.weight.requires_grad_(config.num_labels > config.hidden_size)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    solver = torch.optim.LBFGS(
        parameters, max_iter=_AT_ONCE, history_size=_MEMORY, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        solver.zero_grad()
        found = _data_loss(model, texts, multi_label)
        apart = (model.embedding.weight - towards_VD).square().sum()
        apart = apart + (model.classifier.weight - mixing_CD).square().sum()
        found = found + apart / (2 * options.strength * len(examples))
        found.backward()  # type: ignore[no-untyped-call]
        return found

    curve: list[dict[str, float]] = []
    with progress("bag", options.iterations) as bar:
        for step in range(_AT_ONCE, options.iterations + _AT_ONCE, _AT_ONCE):
            before = solver.step(loss).item()  # type: ignore[no-untyped-call]
            after = loss().item()
            point = {"step": step, "seconds": time.perf_counter() - started, "train_loss": after}
            curve.append(point | {"valid_measure": measure(model)})
            bar.advance(step, f"loss {after:.3f}")
            if before - after < _FLAT * before:
                break
    model.classifier.weight.requires_grad_(True)
    model.eval()
    seconds = time.perf_counter() - started
    peak = peak_memory_bytes(torch.device("cpu"))
    return model, Outcome(
        step, step, seconds, step * len(texts.by_text.columns_T) / seconds, peak, curve, False
    )


def _gathered(examples: Sequence[LabelExample], weights_V: Tensor, num_labels: int) -> _Texts:
    lengths_N = np.array([len(example.ids) for example in examples])
    ids_T = np.concatenate([np.asarray(example.ids, dtype=np.int64) for example in examples])
    rows_T = torch.from_numpy(np.repeat(np.arange(len(examples)), lengths_N))
    columns_T = torch.from_numpy(ids_T)
    values_T = weights_V[columns_T]
    squares_N = torch.zeros(len(examples)).index_add_(0, rows_T, values_T.square())
    starts_N = torch.from_numpy(np.cumsum(lengths_N) - lengths_N)
    by_text = _Sparse(columns_T, values_T / squares_N.sqrt()[rows_T], starts_N)
    wanted_NC = torch.zeros(len(examples), num_labels)
    for number, example in enumerate(examples):
        wanted_NC[number, list(example.labels)] = 1.0
    return _Texts(by_text, by_text.turned(len(weights_V)), wanted_NC)


def _leaning(texts: _Texts, config: BagConfig, prior: float) -> tuple[Tensor, Tensor]:
    """What E and A are drawn to: of naive Bayes, with one count added to each feature. See the top of this file."""
    counting = replace(texts.by_feature, values_T=torch.ones_like(texts.by_feature.values_T))
    inside_VC = 1 + counting.times(texts.wanted_NC)
    outside_VC = 1 + counting.times(1 - texts.wanted_NC)
    ratio_VC = (inside_VC / inside_VC.sum(0)).log() - (outside_VC / outside_VC.sum(0)).log()
    if config.num_labels <= config.hidden_size:
        mixing_CD = torch.eye(config.num_labels, config.hidden_size)
        return prior * ratio_VC @ mixing_CD, mixing_CD
    directions_CC: Any = torch.linalg.eigh(ratio_VC.T @ ratio_VC).eigenvectors  # the weakest first
    return torch.zeros(config.num_features, config.hidden_size), directions_CC[:, -config.hidden_size :]


def _data_loss(model: Bag, texts: _Texts, multi_label: bool) -> Tensor:
    x_ND: Tensor = _Product.apply(  # type: ignore[no-untyped-call]
        model.embedding.weight, texts.by_text, texts.by_feature
    )
    logits_NC = model.classifier(x_ND)
    if multi_label:
        return F.binary_cross_entropy_with_logits(logits_NC, texts.wanted_NC, reduction="sum") / len(x_ND)
    return F.cross_entropy(logits_NC, texts.wanted_NC)
