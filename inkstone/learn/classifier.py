"""Training a classifier: a bag fitted, models that read tokens trained through the one loop, and the better one kept.

    texts ─ validation texts held out (unless given) ─┬─ bag          vocabulary of features ─ fit ──┐
                                                      └─ transformer  tokenizer ─ loop ──────────────┴─ better one

Recurrent (`rnn`) and convolutional (`cnn`) models read the same tokens as a Transformer; they are trained when asked for.

"Better" is by the validation measure: accuracy, or micro-F1 where a text may have several labels. A tie goes to the bag,
which is smaller and faster. Where the validation texts were held out here, a winning bag is fitted once more to all
texts.

With an out-of-scope label, a share of probability is reserved for it, chosen on the validation texts: see
`reserved_share`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from inkstone.corpus.split import stratified
from inkstone.ground.errors import ConfigError, DataError, not_known
from inkstone.ground.progress import say
from inkstone.learn.bag import FitOptions, fit_bag
from inkstone.learn.data.batches import LabelExample, Plan, chunks, label_batch, to_device
from inkstone.learn.first_embeddings import FirstEmbeddings
from inkstone.learn.loop import Outcome, TrainingOptions, train
from inkstone.learn.objectives import classification
from inkstone.metrics.classification import accuracy, micro_f1
from inkstone.model.bag import BagConfig
from inkstone.model.checkpoint import build_model
from inkstone.model.presets import classifier_config
from inkstone.text.ngrams import FeatureVocabulary, NgramOptions
from inkstone.text.tokenizer import Kind, Tokenizer

Architecture = Literal["auto", "bag", "transformer", "rnn", "cnn"]
ARCHITECTURES: tuple[str, ...] = ("auto", "bag", "transformer", "rnn", "cnn")
Labels = Sequence[tuple[str, ...]]
FEW = 40  # texts; with fewer, none are held out
LEAST_BATCHES = (
    32  # an epoch: with fewer, batches are smaller than asked for, or a model of few texts takes few steps
)
SCOPE_COST = 0.005  # of the accuracy in scope, that catching what is out of scope may cost


@dataclass(frozen=True, slots=True)
class BagOptions:
    """How to make and train a bag of features."""

    features: NgramOptions = field(default_factory=NgramOptions)
    min_count: int = 1
    max_features: int = 60_000
    hidden_size: int = 64  # at most: with fewer labels, as many as there are
    fit: FitOptions = field(default_factory=FitOptions)


@dataclass(frozen=True, slots=True)
class TokenOptions:
    """How to make and train a model that reads tokens: a Transformer encoder, a recurrent one, a TextCNN."""

    size: str = "tiny"
    model: dict[str, Any] = field(default_factory=dict)  # fields of its configuration laid over the size
    tokenizer: Kind = "bpe"
    vocab_size: int = 8000
    max_length: int = 256  # tokens; training texts are cut there, and that is counted
    training: TrainingOptions = field(
        default_factory=lambda: TrainingOptions(
            epochs=15,
            tokens_per_batch=4096,
            learning_rate=1e-3,
            warmup_steps=100,
            weight_decay=0.05,
            patience=5,
        )
    )


def _recurrent() -> TokenOptions:
    """Settings chosen on validation texts of TREC (docs/journal.md); models of this kind like small batches."""
    training = TrainingOptions(
        epochs=20,
        tokens_per_batch=512,
        learning_rate=2e-3,
        warmup_steps=50,
        weight_decay=0.1,
        patience=4,
    )
    return TokenOptions(model={"dropout": 0.4, "embedding_size": 256}, training=training)


def _textcnn() -> TokenOptions:
    """Kim's sizes and, nearly, his batches of fifty texts; the rest as for `_recurrent`."""
    training = TrainingOptions(
        epochs=20,
        tokens_per_batch=1024,
        learning_rate=1e-3,
        warmup_steps=50,
        weight_decay=0.01,
        patience=4,
    )
    return TokenOptions(size="small", model={"embedding_dropout": 0.5}, training=training)


@dataclass(frozen=True, slots=True)
class ClassifierOptions:
    """Everything about the model and its training; the data is not part of it."""

    architecture: Architecture = "auto"
    bag: BagOptions = field(default_factory=BagOptions)
    transformer: TokenOptions = field(default_factory=TokenOptions)
    rnn: TokenOptions = field(default_factory=_recurrent)
    cnn: TokenOptions = field(default_factory=_textcnn)
    valid_share: float = 0.1  # held out where no validation texts are given
    refit: bool = True  # train a winning bag once more with the held-out texts
    out_of_scope: str | None = None
    seed: int = 1

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ConfigError(not_known("architecture", self.architecture, ARCHITECTURES))
        if not 0 < self.valid_share < 1:
            raise ConfigError(f"valid_share={self.valid_share} must be above 0 and below 1.")


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts and their labels."""

    texts: list[str]
    labels: list[tuple[str, ...]]

    def __len__(self) -> int:
        return len(self.texts)

    def chosen(self, numbers: Sequence[int]) -> Texts:
        """Some of them."""
        return Texts([self.texts[n] for n in numbers], [self.labels[n] for n in numbers])


@dataclass(frozen=True, slots=True)
class LabelSpace:
    """The labels a model knows, numbered by their place."""

    names: tuple[str, ...]
    multi_label: bool

    def numbers(self, row: tuple[str, ...]) -> tuple[int, ...]:
        """The numbers of the labels of one text."""
        return tuple(self.names.index(label) for label in row)

    def decided(self, scores_NC: NDArray[Any]) -> list[tuple[str, ...]]:
        """The label sets these scores before softmax or sigmoid stand for."""
        if self.multi_label:
            return [tuple(self.names[c] for c in np.flatnonzero(row > 0)) for row in scores_NC]
        return [(self.names[c],) for c in scores_NC.argmax(axis=1)]

    def measure(self, labels: Labels, scores_NC: NDArray[Any]) -> float:
        """Accuracy, or micro-F1 of multi-label data, between 0 and 1."""
        metric = micro_f1 if self.multi_label else accuracy
        return metric(labels, self.decided(scores_NC)).value


@dataclass(slots=True)
class Trained:
    """A trained model with what it reads, how it went, and its measure on the validation texts."""

    architecture: str
    model: torch.nn.Module
    reader: FeatureVocabulary | Tokenizer
    outcome: Outcome
    valid_measure: float
    examples: int
    per_epoch: int
    cut: int = 0  # training texts longer than the model reads


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


def label_space(labels: Labels, multi_label: bool) -> LabelSpace:
    """The labels of the training texts. Raises DataError where there is nothing to tell apart."""
    names = tuple(sorted({label for row in labels for label in row}))
    if len({tuple(sorted(row)) for row in labels}) < 2:
        shown = ", ".join(names) or "none"
        raise DataError(
            f"a classifier needs at least two different labels to tell apart; the {len(labels):,} training texts "
            f"have one: {shown}. Add texts with other labels, or name the right field with --fields."
        )
    return LabelSpace(names, multi_label)


def choose(
    data: Texts,
    valid: Texts | None,
    options: ClassifierOptions,
    *,
    multi_label: bool,
    run: Path,
    vectors: FirstEmbeddings | None = None,
) -> Choice:
    """Train what `options.architecture` says and keep the better one. State is kept in `run`, a folder for each.

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
    found = {
        name: make(kept, valid, space, tried, run / name)
        for name, (make, tried) in _candidates(options, vectors).items()
    }
    measures = {name: trained.valid_measure for name, trained in found.items()}
    best = max(found, key=lambda name: measures[name])  # the first of equals: a bag
    reason = _reason(best, measures, space, len(valid))
    say(reason)
    winner = found[best]
    if held_out and options.refit and winner.architecture == "bag" and len(kept) < len(data):
        tried = _candidates(options, vectors)[best][1]
        winner = _refitted(winner, data, valid, space, tried, run / "bag-all")
    return Choice(
        winner, measures, reason, space, data if winner is not found[best] else kept, valid, held_out
    )


def _candidates(
    options: ClassifierOptions, vectors: FirstEmbeddings | None
) -> dict[str, tuple[Callable[..., Trained], ClassifierOptions]]:
    """What is to be tried: name -> (how to train it, with which options)."""
    found: dict[str, tuple[Callable[..., Trained], ClassifierOptions]] = {}
    if options.architecture in ("auto", "bag"):
        found["bag"] = (train_bag, options)
    for name in ("transformer", "rnn", "cnn"):
        if options.architecture == name or (options.architecture == "auto" and name == "transformer"):
            found[name] = (partial(train_on_tokens, name, vectors=vectors), options)
    return found


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


def train_bag(data: Texts, valid: Texts, space: LabelSpace, options: ClassifierOptions, run: Path) -> Trained:
    """Fit a bag of features. It takes seconds and always ends the same, so nothing is kept in `run`."""
    own = options.bag
    features, weights = FeatureVocabulary.train(
        data.texts, own.features, min_count=own.min_count, most=own.max_features
    )
    examples = _examples([features.encode(text) for text in data.texts], data, space)
    rows = [features.encode(text) for text in valid.texts]

    def measure(model: torch.nn.Module) -> float:
        return space.measure(valid.labels, batch_logits(model, rows))

    width = min(own.hidden_size, len(space.names))
    config = BagConfig(len(features), width, len(space.names))
    multi_label = space.multi_label
    model, outcome = fit_bag(config, weights, examples, own.fit, multi_label=multi_label, measure=measure)
    return Trained("bag", model, features, outcome, measure(model), len(examples), per_epoch=1)


def _refitted(
    winner: Trained, data: Texts, valid: Texts, space: LabelSpace, options: ClassifierOptions, run: Path
) -> Trained:
    say(f"fitting once more to all {len(data):,} texts")
    again = train_bag(data, valid, space, options, run)
    again.valid_measure = winner.valid_measure  # these texts are no longer unseen
    again.outcome = replace(
        again.outcome,
        curve=winner.outcome.curve,
        seconds=winner.outcome.seconds + again.outcome.seconds,
        steps=winner.outcome.steps + again.outcome.steps,
    )
    return again


def train_on_tokens(
    architecture: str,
    data: Texts,
    valid: Texts,
    space: LabelSpace,
    options: ClassifierOptions,
    run: Path,
    *,
    vectors: FirstEmbeddings | None = None,
) -> Trained:
    """Train a model of this architecture that reads tokens: "transformer", "rnn" or "cnn"."""
    own: TokenOptions = getattr(options, architecture)
    file = run / "tokenizer.json"
    if not file.exists():
        run.mkdir(parents=True, exist_ok=True)
        Tokenizer.train(data.texts, kind=own.tokenizer, vocab_size=own.vocab_size).save(file)
    tokenizer = Tokenizer.load(file)

    def encoded(texts: Sequence[str]) -> list[list[int]]:
        return [[tokenizer.bos_id, *ids][: own.max_length] for ids in tokenizer.encode_batch(texts)]

    cut = sum(len(ids) >= own.max_length for ids in tokenizer.encode_batch(data.texts))
    if cut:
        said = f"{cut:,} training texts have more than {own.max_length} tokens; only those are learnt from"
        say(f"{architecture}: {said}")
    examples = _examples(encoded(data.texts), data, space)
    overlay = {"max_positions": own.max_length, **own.model}
    config = classifier_config(architecture, own.size, tokenizer.vocab_size, len(space.names), overlay)
    model = build_model(config, torch.Generator().manual_seed(options.seed))
    if vectors is not None:
        vectors.put(model, tokenizer)
    lengths = [len(example.ids) for example in examples]
    budget = max(*lengths, min(own.training.tokens_per_batch, sum(lengths) // LEAST_BATCHES))
    training = replace(own.training, tokens_per_batch=budget, metric="measure", seed=options.seed)
    if valid is data:  # nothing unseen to stop by
        training = replace(training, patience=0, validate_every=2**62)
    rows = encoded(valid.texts)
    begun = "" if vectors is None else vectors.digest
    trained = _run(architecture, model, tokenizer, examples, rows, valid, space, training, run, begun)
    trained.cut = cut
    return trained


def _examples(rows: Sequence[Sequence[int]], data: Texts, space: LabelSpace) -> list[LabelExample]:
    place = {name: number for number, name in enumerate(space.names)}
    return [
        LabelExample(tuple(ids), tuple(place[label] for label in labels))
        for ids, labels in zip(rows, data.labels, strict=True)
    ]


def _run(
    architecture: str,
    model: torch.nn.Module,
    reader: FeatureVocabulary | Tokenizer,
    examples: list[LabelExample],
    valid_rows: Sequence[Sequence[int]],
    valid: Texts,
    space: LabelSpace,
    training: TrainingOptions,
    run: Path,
    begun: str,
) -> Trained:
    def collate(rows: Any) -> Any:
        return label_batch(rows, pad_id=0, num_labels=len(space.names), multi_label=space.multi_label)

    def validate(current: torch.nn.Module) -> dict[str, float]:
        return {"measure": space.measure(valid.labels, batch_logits(current, valid_rows))}

    outcome = train(
        model,
        classification,
        examples,
        collate,
        validate,
        training,
        run,
        fingerprint=_fingerprint(examples, training, model, begun),
        title=architecture,
    )
    best = max((point["valid_measure"] for point in outcome.curve), default=0.0)
    per_epoch = len(Plan(examples, tokens_per_batch=training.tokens_per_batch, seed=training.seed).epoch(0))
    return Trained(architecture, model.cpu(), reader, outcome, best, len(examples), per_epoch)


def batch_logits(model: torch.nn.Module, rows: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """The scores of many texts given as ids, in order: (N, C)."""
    examples = [LabelExample(tuple(row), (0,)) for row in rows]
    longest = max(len(example.ids) for example in examples)
    scores: dict[int, NDArray[np.float32]] = {}
    device = next(model.parameters()).device
    model.eval()
    with torch.no_grad():
        for numbers in Plan(examples, tokens_per_batch=max(16_384, longest), seed=0).in_order():
            batch = label_batch(chunks(examples, numbers), pad_id=0, num_labels=1, multi_label=False)  # type: ignore[arg-type]
            found = model(to_device(batch, device).ids_BS).float().cpu().numpy()  # type: ignore[union-attr]
            scores.update(zip(numbers.tolist(), found, strict=True))
    return np.stack([scores[number] for number in range(len(rows))])


def _fingerprint(
    examples: Sequence[LabelExample], training: TrainingOptions, model: torch.nn.Module, begun: str
) -> str:
    """Of everything that decides the weights: data, options, sizes, word vectors."""
    digest = hashlib.sha256(repr((training, getattr(model, "config", None))).encode() + begun.encode())
    for example in examples:
        digest.update(repr((example.ids, example.labels)).encode())
    return digest.hexdigest()


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
