"""Fitting a bag, against scikit-learn's logistic regression and naive Bayes counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from inkstone.ground.errors import ConfigError
from inkstone.learn.bag import FitOptions, fit_bag
from inkstone.learn.data.batches import LabelExample
from inkstone.learn.labelled import batch_logits
from inkstone.model.bag import Bag, BagConfig

FEATURES, LABELS = 30, 5


def examples(count: int = 80, *, labels: int = LABELS, seed: int = 0) -> list[LabelExample]:
    """Texts of a few random features, of which each label likes its own."""
    random = np.random.default_rng(seed)
    found = []
    for number in range(count):
        label = number % labels
        liked = [1 + (label * 3 + step) % FEATURES for step in range(4)]
        ids = {*random.choice(liked, 2).tolist(), *random.integers(1, FEATURES + 1, 3).tolist()}
        found.append(LabelExample(tuple(sorted(ids)), (label,)))
    return found


def weights() -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.concatenate([[0], np.random.default_rng(1).uniform(0.5, 2, FEATURES)]).astype(np.float32)


def fit(texts: list[LabelExample], options: FitOptions, *, width: int = LABELS, multi: bool = False) -> Bag:
    labels = 1 + max(max(text.labels, default=0) for text in texts)
    config = BagConfig(FEATURES + 1, min(width, labels), labels)
    return fit_bag(config, weights(), texts, options, multi_label=multi, measure=lambda _: 0.0)[0]


def dense(texts: list[LabelExample]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Each text as the vector a bag sees: its weights, of length 1."""
    found = np.zeros((len(texts), FEATURES + 1))
    for row, text in enumerate(texts):
        found[row, list(text.ids)] = weights()[list(text.ids)]
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.mark.parametrize("strength", [0.5, 20.0])
def test_without_naive_bayes_it_is_logistic_regression(strength: float) -> None:
    texts, unseen = examples(), examples(20, seed=5)
    model = fit(texts, FitOptions(strength=strength, prior=0.0, iterations=300))
    theirs = LogisticRegression(C=strength, tol=1e-8, max_iter=2000)
    theirs.fit(dense(texts), [text.labels[0] for text in texts])
    ours_NC = batch_logits(model, [text.ids for text in unseen])
    wanted_NC = theirs.decision_function(dense(unseen))
    ours_NC = ours_NC - ours_NC.mean(1, keepdims=True)  # softmax does not see a constant
    assert np.abs(ours_NC - wanted_NC).max() < 0.02 * np.abs(wanted_NC).max()


def test_with_texts_of_little_strength_it_is_naive_bayes() -> None:
    texts = examples()
    model = fit(texts, FitOptions(strength=1e-6, prior=0.7))
    inside = np.ones((FEATURES + 1, LABELS))
    outside = np.ones((FEATURES + 1, LABELS))
    for text in texts:
        for label in range(LABELS):
            (inside if label in text.labels else outside)[list(text.ids), label] += 1
    ratio = np.log(inside / inside.sum(0)) - np.log(outside / outside.sum(0))
    found_VC = (model.embedding.weight @ model.classifier.weight.T).detach().numpy()
    assert np.abs(found_VC - 0.7 * ratio).max() < 1e-3


def test_more_labels_than_it_is_wide() -> None:
    texts = examples(400, labels=9)
    model = fit(texts, FitOptions(strength=50.0), width=6)
    assert tuple(model.classifier.weight.shape) == (9, 6)
    found = batch_logits(model, [text.ids for text in texts]).argmax(1)
    assert (found == [text.labels[0] for text in texts]).mean() > 0.6  # by chance: 0.11


def test_texts_with_any_number_of_labels_and_texts_without_features() -> None:
    texts = [
        LabelExample(text.ids, (*text.labels, 5) if 1 in text.ids else text.labels) for text in examples()
    ]
    texts += [LabelExample((), ()), LabelExample((2, 3), ())]
    model = fit(texts, FitOptions(strength=50.0), width=6, multi=True)
    found = batch_logits(model, [text.ids for text in texts]) > 0
    assert (
        np.mean(
            [set(np.flatnonzero(row)) == set(text.labels) for row, text in zip(found, texts, strict=True)]
        )
        > 0.7
    )


def test_fitting_options_are_checked_at_once() -> None:
    with pytest.raises(ConfigError, match=r"strength=0.*(\n.*)*prior=-1.*(\n.*)*iterations=0"):
        FitOptions(strength=0, prior=-1, iterations=0)
