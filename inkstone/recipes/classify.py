"""Train a classifier: from labelled texts to a served bundle with its report card. Read it top to bottom.

    read -> clean -> hold out what was not given -> baselines -> fit (both kinds, the better is kept), served copy proved
    -> judge on the test set beside the baselines -> report card -> bundle

While it runs, everything lives in `<out>.run/`. Killed at any moment, it goes on with `inkstone train resume <out>.run`.
"""

from __future__ import annotations

import hashlib
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np

from inkstone.apps.back_translation import back_translation
from inkstone.apps.classify import Classifier
from inkstone.corpus.read import Reading, read_labelled
from inkstone.corpus.rules import Dropped, Settings, held_out_keys, judge, make_rules
from inkstone.corpus.split import stratified
from inkstone.ground.configuration import plain
from inkstone.ground.errors import Collected, ConfigError, DataError, require
from inkstone.ground.processes import leads
from inkstone.ground.progress import say
from inkstone.ground.records import Labelled
from inkstone.judge.baselines import label_baselines
from inkstone.judge.evaluate import judge_labels, label_tallies, signatures
from inkstone.judge.facts import CurvePoint, DataDescription, Result, Sample, TrainingFacts
from inkstone.judge.report import ReportCard
from inkstone.learn.classifier import Choice, ClassifierOptions, choose
from inkstone.learn.first_embeddings import FirstEmbeddings
from inkstone.learn.labelled import Texts, Trained
from inkstone.learn.receipt import fitted_receipt
from inkstone.learn.token_classifier import TokenOptions
from inkstone.learn.watch import require_watchers
from inkstone.metrics.classification import top_confusions
from inkstone.model.bundle import new_bundle
from inkstone.recipes.learning_facts import training_facts
from inkstone.recipes.preflight import (
    check_all,
    contradictions,
    dropped_findings,
    label_findings,
    length_findings,
    parameters_of,
    readable,
    refuse_labels,
    refuse_small_disk,
    shared_findings,
    tell,
    with_findings,
)
from inkstone.recipes.receipt import receipt
from inkstone.recipes.run import clear, kept_recipe, kept_run, short_path
from inkstone.recipes.sources import IN_PACKAGE, SourceFile, augmenting, other_files, read_files
from inkstone.text.normalize import normalize

RULES = ("length", "overlap", "duplicate")
TEST_SHARE = 0.1  # of the data, where no test set is given
FEWEST = 20  # texts from which some can be held out
SAMPLES = 8


@dataclass(frozen=True, slots=True)
class ClassifyRecipe:
    """Everything a run is made of. `data`, `valid` and `test` take any format that `corpus.read` reads."""

    name: str
    data: tuple[str, ...]
    valid: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    fields: dict[str, str] | None = None
    languages: tuple[str, ...] = ()  # empty: told by the texts
    rules: tuple[str, ...] = RULES
    cleaning: Settings = field(default_factory=Settings)
    options: ClassifierOptions = field(default_factory=ClassifierOptions)
    vectors: str | None = None  # a file of word vectors that the embedding begins with
    # Of labels that validation or test texts have and training texts lack, or no validation text has.
    unmatched_labels: Literal["refuse", "accept"] = "refuse"
    licence: str = ""
    quotable: bool = False  # whether the card may show texts of the data
    good_at: str = ""
    bad_at: str = ""


@dataclass(frozen=True, slots=True)
class Corpus:
    """The labelled texts of a run, and what became of the others. valid: empty where none were given."""

    train: list[Labelled]
    valid: list[Labelled]
    test: list[Labelled]
    multi_label: bool
    dropped: Counter[str]
    contradictions: list[str] = field(default_factory=list)
    files: tuple[SourceFile, ...] = ()


def train_classifier(recipe: ClassifyRecipe, out: Path) -> dict[str, Any]:
    """Run the recipe into the bundle `out`, or go on where a killed run stopped; what `inkstone train` prints.

    Raises InkstoneError subclasses for data, options and places that cannot be used, and `Interrupted` on Ctrl-C.
    """
    require("torch", "training", "train")
    check(recipe, out, Collected(recipe.name.strip() or "recipe"))
    dry = recipe.options.dry_run
    with kept_run("classify", recipe, out, dry=dry) as run:
        result = _train(recipe, out, run)
        if leads():
            clear(run)
    return result


def check(recipe: ClassifyRecipe, out: Path, found: Collected) -> None:
    """Say what cannot be before anything is trained: all of it, with what was found before. Raises InkstoneError."""
    check_all(
        found,
        recipe,
        lambda: _check_name(recipe),
        lambda: make_rules(recipe.cleaning, recipe.rules),
        lambda: back_translation(recipe.options.augment),
        lambda: require_watchers([name for one in recipe.options.loops for name in one.watch]),
        lambda: refuse_small_disk(out, _parameters(recipe), _mode(recipe)),
        read=lambda: read_corpus(readable(recipe)),
    )


def _parameters(recipe: ClassifyRecipe) -> int:
    """Of the largest model that may come of it, as far as options tell: a bag grows with its texts."""
    from inkstone.model.presets import classifier_config

    options = recipe.options
    looped = {"auto": "transformer"}.get(options.architecture, options.architecture)
    if looped not in ("transformer", "rnn", "cnn"):
        return 0
    own: TokenOptions = getattr(options, looped)
    overlay = {"max_positions": own.max_length, **own.model}
    return parameters_of(classifier_config(looped, own.size, own.vocab_size, 2, overlay, own.family))


def _mode(recipe: ClassifyRecipe) -> str:
    """Of the preflight."""
    return next((training.preflight for training in recipe.options.loops), "check")


def _check_name(recipe: ClassifyRecipe) -> None:
    if not recipe.name.strip():
        raise ConfigError("name is empty. Give the model a name.")


def findings(corpus: Corpus) -> list[str]:
    """What is worth knowing of the data before a model learns from it."""
    return [
        *corpus.contradictions,
        *dropped_findings(corpus.dropped, len(corpus.train), "texts"),
        *label_findings(corpus.train, corpus.test),
        *length_findings(corpus.train, "texts"),
        *shared_findings(corpus.valid, corpus.test, "texts"),
    ]


def _train(recipe: ClassifyRecipe, out: Path, run: Path) -> dict[str, Any]:
    corpus = read_corpus(recipe)
    say(f"{len(corpus.train):,} training, {len(corpus.valid):,} validation, {len(corpus.test):,} test texts")
    texts, labels = _sides(corpus.train, corpus.multi_label)
    seen = findings(corpus)
    tell(seen)
    with with_findings(seen):
        classifier = Classifier().fit(
            texts,
            labels,
            valid=_sides(corpus.valid, corpus.multi_label) if corpus.valid else None,
            options=recipe.options,
            languages=recipe.languages or None,
            run=run,
            vectors=recipe.vectors,
        )
    if not leads():
        return {}  # of several processes, one writes and judges
    classifier.description["name"] = recipe.name
    say("baselines: majority and TF-IDF with a linear classifier")
    test_texts = [record.text for record in corpus.test]
    rows = [record.labels for record in corpus.train]
    baselines = label_baselines(texts, rows, test_texts)
    result, samples = _judged(recipe, classifier, corpus, baselines)
    facts, curve = _training(classifier, corpus)
    with new_bundle(out, classifier.description, _made(recipe, classifier, corpus)) as folder:
        classifier.write(folder)
        card = ReportCard(
            name=recipe.name,
            task="classify",
            languages=tuple(classifier.description["languages"]),
            labels=classifier.labels,
            data=_data(recipe, corpus),
            results=(result,),
            training=facts,
            preflight=_foreseen(classifier, seen),
            curve=curve,
            samples=samples,
            parity=_parity(classifier),
            good_at=recipe.good_at,
            bad_at=recipe.bad_at,
            licence=recipe.licence,
            size_bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        )
        card.save(folder)
    return {
        "bundle": str(out),
        "metrics": {name: measured.as_json() for name, measured in result.metrics.items()},
        "baseline": {
            name: {metric: measured.as_json() for metric, measured in metrics.items()}
            for name, metrics in result.baselines.items()
        },
        "seconds": facts.seconds,
        "tokens_per_second": facts.tokens_per_second,
        "peak_memory_bytes": facts.peak_memory_bytes,
        "architecture": classifier.description["architecture"],
        "choice": classifier.choice.reason if classifier.choice else "",
        "n": result.n,
    }


def learn(recipe: ClassifyRecipe, run: Path) -> Choice:
    """The first half of `train_classifier`, up to the trained model."""
    corpus = read_corpus(recipe)
    sides = [Texts([r.text for r in some], [r.labels for r in some]) for some in (corpus.train, corpus.valid)]
    return choose(
        sides[0],
        sides[1] if corpus.valid else None,
        recipe.options,
        multi_label=corpus.multi_label,
        run=run,
        vectors=None if recipe.vectors is None else FirstEmbeddings.read(recipe.vectors),
        rewrite=back_translation(recipe.options.augment),
    )


def read_corpus(recipe: ClassifyRecipe) -> Corpus:
    """Read, normalise and clean; training texts that stand in the validation or test set are dropped."""
    found = Collected("data")
    files: list[SourceFile] = []
    records, valid, test = list[Labelled](), list[Labelled](), list[Labelled]()
    with found.check():
        reading = _reading(recipe, recipe.data)
        records = [replace(record, text=normalize(record.text)) for record in reading]
        for source in reading.sources:
            say(source.describe())
        files += read_files("data", reading)
    with found.check():
        valid = _given(recipe, "valid", files)
    with found.check():
        test = _given(recipe, "test", files)
    if found.errors and records and recipe.unmatched_labels == "refuse":
        with found.check():
            refuse_labels(records, valid, test)
    found.raise_all()
    contradicting = contradictions(records)
    multi_label = any("labels" in source.fields for source in reading.sources)
    _refuse_one_label(records)
    records, dropped = _cleaned(records, recipe, ())
    if not test:
        kept, held = stratified([record.labels for record in records], TEST_SHARE, recipe.options.seed)
        if len(records) < FEWEST or not held:
            raise DataError(
                f"{len(records)} texts are too few to hold some out for a test. Give --test, or more data."
            )
        say(f"no test set was given: {len(held):,} texts are held out")
        records, test = [records[n] for n in kept], [records[n] for n in held]
    records, overlapping = _cleaned(records, replace(recipe, rules=("overlap",)), [*valid, *test])
    dropped += overlapping
    if reading.problem_count:
        dropped["unreadable line"] = reading.problem_count
    if not records:
        worst = ", ".join(f"{rule} {count:,}" for rule, count in dropped.most_common(3))
        raise DataError(
            f"no text to train on is left after cleaning: {worst}. Give other data, or another test set."
        )
    _refuse_one_label(records)
    if recipe.unmatched_labels == "refuse":
        refuse_labels(records, valid, test if recipe.test else ())
    return Corpus(records, valid, test, multi_label, dropped, contradicting, tuple(files))


def _reading(recipe: ClassifyRecipe, paths: Sequence[str]) -> Reading[Labelled]:
    return read_labelled(list(paths), fields=recipe.fields)


def _given(recipe: ClassifyRecipe, use: str, files: list[SourceFile]) -> list[Labelled]:
    """The texts of one use, none where none were given; its files are added to the list."""
    if not (paths := getattr(recipe, use)):
        return []
    reading = _reading(recipe, paths)
    found = [replace(one, text=normalize(one.text)) for one in reading]
    files += read_files(use, reading)
    return found


def _refuse_one_label(records: Sequence[Labelled]) -> None:
    found = {record.labels for record in records}
    if len(found) < 2:
        shown = ", ".join(label for row in found for label in row) or "none"
        raise DataError(
            f"a classifier needs at least two different labels to tell apart; the data has: {shown}. "
            "Add texts with other labels, or name the right field with --fields."
        )


def _cleaned(
    records: list[Labelled], recipe: ClassifyRecipe, held_out: Sequence[Labelled]
) -> tuple[list[Labelled], Counter[str]]:
    rules = make_rules(replace(recipe.cleaning, held_out=held_out_keys(held_out)), recipe.rules)
    kept: list[Labelled] = []
    dropped: Counter[str] = Counter()
    for found in judge(records, rules):
        if isinstance(found, Dropped):
            dropped[found.rule] += 1
        elif isinstance(found, Labelled):
            kept.append(found)
    return kept, dropped


def _sides(records: Sequence[Labelled], multi_label: bool) -> tuple[list[str], list[Any]]:
    labels = [list(record.labels) if multi_label else record.labels[0] for record in records]
    return [record.text for record in records], labels


def _judged(
    recipe: ClassifyRecipe,
    classifier: Classifier,
    corpus: Corpus,
    baselines: dict[str, list[tuple[str, ...]]],
) -> tuple[Result, tuple[Sample, ...]]:
    """The test set, by the engine that is served, beside the baselines."""
    gold = [record.labels for record in corpus.test]
    unknown = sorted({label for row in gold for label in row} - set(classifier.labels))
    if unknown:
        say(f"test labels that no training text has count as errors: {', '.join(unknown[:5])}")
    predicted = [found.labels for found in classifier.predict([record.text for record in corpus.test])]
    how: dict[str, Any] = {"out_of_scope": classifier.description["out_of_scope"]}

    def measured(answers: Sequence[tuple[str, ...]]) -> Any:
        return judge_labels(gold, answers, rng=np.random.default_rng(0), **how)

    result = Result(
        test_set=_named(recipe.test) or "texts held out",
        n=len(gold),
        metrics=measured(predicted),
        baselines={name: measured(answers) for name, answers in baselines.items()},
        signatures=signatures(label_tallies(gold, predicted, **how)),
        confusions=() if corpus.multi_label else top_confusions(gold, predicted),
    )
    step = max(1, len(gold) // SAMPLES)
    samples = tuple(
        Sample(corpus.test[n].text, ", ".join(gold[n]), ", ".join(predicted[n]))
        for n in list(range(0, len(gold), step))[:SAMPLES]
    )
    return result, samples


def _parity(classifier: Classifier) -> dict[str, Any]:
    facts: dict[str, Any] = {"chosen": classifier.choice.reason} if classifier.choice else {}
    facts |= classifier.parity
    reserved = classifier.description["reserved"]
    if reserved:
        facts["probability reserved for what is out of scope (chosen on the validation texts)"] = reserved
    return facts


def _data(recipe: ClassifyRecipe, corpus: Corpus) -> tuple[DataDescription, ...]:
    counts = {"train": len(corpus.train), "valid": len(corpus.valid), "test": len(corpus.test)}
    name = ", ".join(sorted({Path(path).parent.name or Path(path).name for path in recipe.data}))
    return (DataDescription(name, counts, dict(corpus.dropped), recipe.licence, recipe.quotable),)


def _training(classifier: Classifier, corpus: Corpus) -> tuple[TrainingFacts, tuple[CurvePoint, ...]]:
    assert classifier.choice is not None
    best: Trained = classifier.choice.best
    measure = "micro_f1" if corpus.multi_label else "accuracy"
    facts = training_facts(best.model, best.outcome, best.per_epoch)
    curve = tuple(
        CurvePoint(int(p["step"]), p["seconds"], p["train_loss"], {measure: p["valid_measure"]})
        for p in best.outcome.curve
    )
    return facts, curve


def _foreseen(classifier: Classifier, seen: Sequence[str]) -> dict[str, Any]:
    """What the model that was kept was predicted to take (nothing for one that is fitted), and what was found."""
    assert classifier.choice is not None
    foreseen = classifier.choice.best.preflight
    return {**foreseen, "data": [*seen, *foreseen.get("data", [])]}


def _made(recipe: ClassifyRecipe, classifier: Classifier, corpus: Corpus) -> dict[str, Any]:
    """For the manifest: what the weights came from."""
    packages = ("inkstone", "torch", "numpy", "tokenizers", "scikit-learn")
    files: dict[str, Any] = {
        use: [short_path(path) for path in getattr(recipe, use)] for use in ("data", "valid", "test")
    }
    files["vectors"] = recipe.vectors and short_path(recipe.vectors)
    augment = recipe.options.augment
    named = {use: path and short_path(path) for use, path in augmenting(augment).items()}
    augment = replace(augment, vectors=named["vectors"], back_translate=named["back_translate"])
    base = recipe.options.pretrained.base
    pretrained = replace(recipe.options.pretrained, base=base and short_path(base))
    files["options"] = plain(replace(recipe.options, augment=augment, pretrained=pretrained))
    kept = {**plain(recipe), **files}  # where the files lay on this machine is nobody's business
    assert classifier.choice is not None
    best = classifier.choice.best
    sources = [*corpus.files, *other_files("vectors", recipe.vectors)]
    for use, path in augmenting(recipe.options.augment).items():
        sources += other_files(f"augment.{use}", path)
    if base not in (None, IN_PACKAGE):
        sources += other_files("base", base)
    training = {"candidate": classifier.choice.name, **(best.outcome.receipt or fitted_receipt(best.model))}
    return {
        "recipe": kept,
        "data_sha256": {use: _digest(getattr(corpus, use)) for use in ("train", "valid", "test")},
        "seed": recipe.options.seed,
        "receipt": receipt(kept, sources, training),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }


def _named(paths: Sequence[str]) -> str:
    """The names of some files without their ends, after the folder they share."""
    names = ", ".join(Path(path).name.split(".")[0] for path in paths)
    folders = {Path(path).parent.name for path in paths} - {""}
    return f"{folders.pop()} {names}" if len(folders) == 1 else names


def _digest(records: Sequence[Labelled]) -> str:
    digest = hashlib.sha256()
    for record in records:
        digest.update(repr((record.text, record.labels)).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def load_recipe(run: Path) -> tuple[ClassifyRecipe, Path]:
    """The recipe and the output of an unfinished run."""
    return kept_recipe(run, ClassifyRecipe)
