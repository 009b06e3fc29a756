"""Training a classifier: a bag fitted, models that read tokens trained through the one loop, and the better one kept.

    texts ─ validation texts held out (unless given) ─┬─ bag          vocabulary of features ─ fit ──┐
                                                      └─ transformer  tokenizer ─ loop ──────────────┴─ better one

Recurrent (`rnn`) and convolutional (`cnn`) models read the same tokens as a Transformer, and are trained when asked for;
so is a linear layer on an encoder that was trained before (`pretrained`).

"Better" is by the validation measure: accuracy, or micro-F1 where a text may have several labels. A tie goes to the bag,
which is smaller and faster. Where the validation texts were held out here, a winning bag is fitted once more to all
texts.

With an out-of-scope label, a share of probability is reserved for it, chosen on the validation texts: see
`reserved_share`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from inkstone.corpus.augment import AugmentOptions, Rewrite
from inkstone.corpus.split import stratified
from inkstone.ground.errors import ConfigError, not_known
from inkstone.ground.progress import say
from inkstone.learn.augmented import with_copies
from inkstone.learn.bag import BagOptions, train_bag
from inkstone.learn.first_embeddings import FirstEmbeddings
from inkstone.learn.labelled import Labels, LabelSpace, Texts, Trained, label_space
from inkstone.learn.loop import TrainingOptions
from inkstone.learn.preflight import DryRun
from inkstone.learn.pretrained import PretrainedOptions, train_on_pretrained
from inkstone.learn.token_classifier import (
    TokenOptions,
    recurrent_options,
    textcnn_options,
    train_on_tokens,
)

Architecture = Literal["auto", "bag", "transformer", "rnn", "cnn", "pretrained"]
ARCHITECTURES: tuple[str, ...] = get_args(Architecture)
LOOPED = ("transformer", "rnn", "cnn")  # these read tokens, and learn through the loop
Train = Callable[[Texts, Texts], Trained]  # training texts, validation texts
FEW = 40  # texts; with fewer, none are held out
SCOPE_COST = 0.005  # of the accuracy in scope, that catching what is out of scope may cost


@dataclass(frozen=True, slots=True)
class ClassifierOptions:
    """Everything about the model and its training; the data is not part of it."""

    architecture: Architecture = "auto"
    bag: BagOptions = field(default_factory=BagOptions)
    transformer: TokenOptions = field(default_factory=TokenOptions)
    rnn: TokenOptions = field(default_factory=recurrent_options)
    cnn: TokenOptions = field(default_factory=textcnn_options)
    pretrained: PretrainedOptions = field(default_factory=PretrainedOptions)
    valid_share: float = 0.1  # held out where no validation texts are given
    refit: bool = True  # fit a winner that takes seconds once more, with the held-out texts
    out_of_scope: str | None = None
    augment: AugmentOptions = field(default_factory=AugmentOptions)  # of the texts that are learnt from
    seed: int = 1

    @property
    def loops(self) -> list[TrainingOptions]:
        """The options of every training that goes through the loop."""
        tuned = [self.pretrained.tuning] if self.pretrained.tuning is not None else []
        return [self.transformer.training, self.rnn.training, self.cnn.training, *tuned]

    @property
    def dry_run(self) -> bool:
        """Whether the preflight of what the loop trains is all that is asked for."""
        return any(one.preflight == "only" for one in self.loops)

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ConfigError(not_known("architecture", self.architecture, ARCHITECTURES))
        if not 0 < self.valid_share < 1:
            raise ConfigError(f"valid_share={self.valid_share} must be above 0 and below 1.")


@dataclass(slots=True)
class Choice:
    """The winner, the measures of all, and the data as it was divided."""

    best: Trained
    measures: dict[str, float]
    reason: str
    space: LabelSpace
    train: Texts
    valid: Texts
    held_out: bool  # whether `valid` was taken from the training texts
    name: str  # of the winner among those tried: bag, transformer, rnn, cnn, pretrained


def choose(
    data: Texts,
    valid: Texts | None,
    options: ClassifierOptions,
    *,
    multi_label: bool,
    run: Path,
    vectors: FirstEmbeddings | None = None,
    rewrite: Rewrite | None = None,
) -> Choice:
    """Train what `options.architecture` says and keep the better one. State is kept in `run`, a folder for each.

    rewrite: says texts in other words, where `options.augment.back_translate` asks for it (`apps.back_translation`).
    vectors: word vectors to begin the embeddings of models that read tokens with. Raises ConfigError where only a bag is
    asked for, whose features are n-grams with values that are fitted, not learnt from a beginning.
    """
    if vectors is not None and options.architecture == "bag":
        raise ConfigError(
            "a bag begins with no embeddings, so word vectors mean nothing to it. Leave --vectors out, "
            "or choose --architecture transformer, rnn, cnn or auto."
        )
    space = label_space(data.labels, multi_label)
    held_out = valid is None
    kept = data
    if valid is None:
        kept, valid = _divided(data, options)
    tried = _candidates(options, space, run, vectors)
    assert (rewrite is None) == (options.augment.back_translate is None), "who asks brings the translator"
    learnt = with_copies(kept, options.augment, options.seed, rewrite)
    unseen = learnt if valid is kept else valid  # of few texts none are unseen
    if options.dry_run:
        _rehearsed(tried, options, learnt, unseen)
    found = {name: train(learnt, unseen) for name, train in tried.items()}
    measures = {name: trained.valid_measure for name, trained in found.items()}
    best = max(found, key=lambda name: measures[name])  # the first of equals: a bag
    reason = _reason(best, measures, space, len(valid))
    say(reason)
    winner = found[best]
    if held_out and options.refit and winner.again is not None and len(kept) < len(data):
        winner = _refitted(
            winner, winner.again, with_copies(data, options.augment, options.seed, rewrite), valid
        )
    return Choice(
        winner, measures, reason, space, data if winner is not found[best] else kept, valid, held_out, best
    )


def _candidates(
    options: ClassifierOptions, space: LabelSpace, run: Path, vectors: FirstEmbeddings | None
) -> dict[str, Train]:
    """What is to be tried, by name."""
    asked = options.architecture
    found: dict[str, Train] = {}
    if asked in ("auto", "bag"):
        found["bag"] = partial(train_bag, space=space, options=options.bag)
    for name in LOOPED:
        if asked == name or (asked == "auto" and name == "transformer"):
            own: TokenOptions = getattr(options, name)
            train = partial(train_on_tokens, space=space, architecture=name, own=own, run=run / name)
            found[name] = partial(train, seed=options.seed, vectors=vectors)
    if asked == "pretrained" or (asked == "auto" and options.pretrained.base is not None):
        found["pretrained"] = partial(
            train_on_pretrained,
            space=space,
            options=options.pretrained,
            run=run / "pretrained",
            seed=options.seed,
        )
    return found


def _rehearsed(tried: dict[str, Train], options: ClassifierOptions, kept: Texts, valid: Texts) -> None:
    """End a dry run, with the preflight of the first that the loop trains; what is fitted in one go has none."""
    for name, train in tried.items():
        if name in LOOPED or (name == "pretrained" and options.pretrained.tuning is not None):
            train(kept, valid)  # raises DryRun
    raise DryRun({"fitted": list(tried)})


def _reason(best: str, measures: dict[str, float], space: LabelSpace, count: int) -> str:
    what = "micro-F1" if space.multi_label else "accuracy"
    listed = ", ".join(f"{name} {100 * value:.1f} %" for name, value in measures.items())
    if len(measures) == 1:
        return f"{best}: {what} {100 * measures[best]:.1f} % on {count:,} validation texts"
    return f"{best} was kept, by {what} on {count:,} validation texts: {listed}"


def _divided(data: Texts, options: ClassifierOptions) -> tuple[Texts, Texts]:
    kept, held = stratified(data.labels, options.valid_share, options.seed)
    if len(data) < FEW or not held:
        say(f"only {len(data)} texts: none are held out, and the model is chosen by the texts it learnt from")
        return data, data
    return data.chosen(kept), data.chosen(held)


def _refitted(winner: Trained, train: Train, data: Texts, valid: Texts) -> Trained:
    say(f"fitting once more to all {len(data):,} texts")
    again = train(data, valid)
    again.valid_measure = winner.valid_measure  # these texts are no longer unseen
    again.outcome = replace(
        again.outcome,
        curve=winner.outcome.curve,
        seconds=winner.outcome.seconds + again.outcome.seconds,
        steps=winner.outcome.steps + again.outcome.steps,
    )
    return again


def reserved_share(
    probabilities_NC: NDArray[Any],
    labels: Labels,
    space: LabelSpace,
    out_of_scope: str,
    cost: float = SCOPE_COST,
) -> float:
    """How much probability to reserve for "none of these", so that as much as possible of what is out of scope is caught.

    A text counts as out of scope when that label's probability, with the reserve added, is the highest. More reserve
    catches more and costs accuracy on texts in scope; the largest reserve that costs at most `cost` of that accuracy on
    these (validation) texts is taken. A handful of out-of-scope texts to train on hardly teaches what everything else in
    the world looks like; the doubt of the model about its own labels says more (Hendrycks and Gimpel, 2017).
    """
    place = space.names.index(out_of_scope)
    gold_N = np.array([space.names.index(row[0]) if row and row[0] in space.names else -1 for row in labels])
    inside_N = gold_N != place
    if inside_N.all() or not inside_N.any():
        return 0.0
    others_NC = np.delete(probabilities_NC, place, axis=1)
    names = np.delete(np.arange(len(space.names)), place)
    right_N = names[others_NC.argmax(axis=1)] == gold_N
    needed_N = (
        others_NC.max(axis=1) - probabilities_NC[:, place]
    )  # with more reserve than this, it is out of scope
    least = (right_N & (needed_N >= 0))[inside_N].mean() - cost
    best = 0.0
    for reserve in np.linspace(0, 1, 201):
        if (right_N & (needed_N >= reserve))[inside_N].mean() >= least:
            best = round(float(reserve), 3)
    return best
