"""Search for a better recipe, or for a learning rate. Read it top to bottom.

    recipe and space checked together -> trials, each a training run judged by its validations -> table, best.yaml

A trial ends with its training: nothing is exported, and the test set is never looked at. What decides is the measure that
decides which checkpoint of a run is best. So entries that would change what is measured are no part of a space: the data,
the metric, and for models that predict tokens the tokenizer, since a token of one vocabulary is not one of another.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from inkstone.ground.configuration import build, overlay, read_yaml
from inkstone.ground.errors import Collected, ConfigError, InkstoneError, not_known, raise_all, require
from inkstone.ground.files import explained, write_text
from inkstone.ground.manifest import read_json
from inkstone.learn.listening import Listener, listening
from inkstone.learn.rate_curve import RateCurve, find_rate
from inkstone.learn.space import Space, check_space, nested, read_space
from inkstone.learn.tune import Judge, Parameters, Stopped, Trial, best_of, search

BEST = "best.yaml"
BEGUN = "tune.json"  # what the search is of, so that no other goes on in its folder
# What is measured, and on what: no part of a space.
MEASURED_BY = (
    "name",
    "out",
    "data",
    "valid",
    "test",
    "fields",
    "rules",
    "cleaning",
    "script",
    "training.metric",
)
TOKENS = ("tokenizer", "vocab_size", "alphabet_share")  # of models that predict them
PAIRS = ("source", "target", "language", "both_directions", "max_length", "base")
LABELS = ("languages", "options.seed", "options.valid_share", "options.out_of_scope")
RELATED = ("languages", "both_ways", "base")
TALKS = ("languages", "block", "base")
DOCUMENTS = ("languages", "base", "objective", "block", "hidden_share", "span_length", "whole_words")


@dataclass(frozen=True, slots=True)
class Task:
    """What is searched for a better recipe of.

    kind: the recipe's record. model: builds its model's configuration, to see early that it can be. measure: what the
    values of trials are. fixed: entries that are no part of a space. train: the run, into a folder, with whoever listens.
    only_trained: whether the run is to be ended with its training. under: the values of a recipe over those that the verb
    which trains it lays under.
    """

    kind: type[Any]
    model: Callable[[Any], object]
    measure: Callable[[Any], str]
    fixed: tuple[str, ...]
    train: Callable[[Any, Path], float | None]
    only_trained: bool
    under: Callable[[Mapping[str, Any]], dict[str, Any]] = dict


@dataclass(frozen=True, slots=True)
class Search:
    """A finished search. values of trials: as the metric is, so that of a loss the lowest is best."""

    task: str
    metric: str
    trials: list[Trial]
    best: Trial
    recipe: Path

    def as_json(self) -> dict[str, Any]:
        """The JSON document of `inkstone tune`."""
        trials = [self._as_json(one) for one in self.trials]
        return {
            "task": self.task,
            "metric": self.metric,
            "best": trials[self.best.number - 1],
            "trials": trials,
            "recipe": str(self.recipe),
        }

    def shown(self, one: Trial) -> float | None:
        """The value of a trial as its metric is."""
        return None if one.value is None else (-one.value if self.metric == "loss" else one.value)

    def _as_json(self, one: Trial) -> dict[str, Any]:
        return {**asdict(one), "value": self.shown(one)}


def tune(
    task: str, values: Mapping[str, Any], space_file: Path, out: Path, *, trials: int, seed: int = 1
) -> Search:
    """Search with so many trials in all; a search in `out` that was stopped goes on.

    values: of the recipe, as plain values. Raises ConfigError for recipes, spaces and folders that cannot be used, with
    all problems of a space at once, and TrainingError when not one trial could be trained.
    """
    require("torch", "tuning", "train")
    require("optuna", "tuning", "train")
    wanted = _task(task)
    values = wanted.under({key: value for key, value in values.items() if key != "out"})
    found = Collected("search")
    with found.check():
        build(wanted.kind, values, "recipe")
    with found.check():
        read_yaml(space_file)
    with found.check():
        if trials < 1:
            raise ConfigError(f"trials={trials} must be at least 1.")
    found.raise_all()
    resolved, space = build(wanted.kind, values, "recipe"), checked_space(task, values, space_file)
    _begin(out, {"task": task, "recipe": values, "space": read_yaml(space_file), "seed": seed})

    def run(parameters: Parameters, judge: Judge) -> float | None:
        recipe = build(wanted.kind, laid_over(values, parameters), "recipe")
        folder = out / "trials" / _digest(parameters)
        folder.mkdir(parents=True, exist_ok=True)
        value = None
        with listening(judge), suppress(Stopped):
            value = wanted.train(recipe, folder / "model")
        for left in list(folder.rglob("checkpoints")):
            shutil.rmtree(left)
        return value

    tried = search(space, out, run, trials=trials, seed=seed, only_trained=wanted.only_trained)
    best = best_of(tried)
    result = Search(task, wanted.measure(resolved), tried, best, out / BEST)
    _write_best(result, laid_over(values, best.parameters))
    return result


def checked_space(task: str, values: Mapping[str, Any], space_file: Path) -> Space:
    """The space of a file, each end of which the recipe takes. Raises ConfigError with every problem."""
    wanted = _task(task)
    space, problems = read_space(read_yaml(space_file), str(space_file))
    for name in [*space]:
        if name in wanted.fixed or name.split(".")[0] in wanted.fixed:
            problems.append(f"{name}: it decides what is measured, so that trials could not be compared")
            continue
        for value in space[name].ends:
            try:
                wanted.model(build(wanted.kind, laid_over(values, {name: value}), f"{name}={value}"))
            except InkstoneError as error:
                problems.append(str(error).replace("\n  - ", " "))
                break
    check_space(space, problems, str(space_file))
    return space


def laid_over(values: Mapping[str, Any], parameters: Parameters) -> dict[str, Any]:
    """The recipe's values with a trial's over them."""
    return overlay(values, *(nested(name, value) for name, value in parameters.items()))


def task_of(values: Mapping[str, Any], title: str) -> str:
    """Of which task a recipe is. Raises ConfigError when it is of none, or could be of several."""
    if (said := values.get("task")) is not None:
        _task(str(said))
        return str(said)
    fitting = []
    for name, task in TASKS.items():
        with suppress(ConfigError):
            build(task().kind, {key: value for key, value in values.items() if key != "out"}, title)
            fitting.append(name)
    if len(fitting) != 1:
        which = ", ".join(fitting) if fitting else "no task"
        raise ConfigError(
            f"{title} can be a recipe of {which}. Name the task: inkstone tune {'|'.join(TASKS)} --recipe {title}"
        )
    return fitting[0]


class RateFound(Exception):
    """Ends a run before its first step."""

    def __init__(self, curve: RateCurve) -> None:
        super().__init__("the learning rate is found")
        self.curve = curve


class _RateFinder(Listener):
    def begins(self, model: Any, objective: Any, feed: Any, options: Any) -> None:
        from inkstone.learn.loop import picks_bfloat16

        device = next(model.parameters()).device
        raise RateFound(
            find_rate(model, objective, feed, options, bfloat16=picks_bfloat16(options.precision, device))
        )


def rate_of(task: str, values: Mapping[str, Any]) -> RateCurve:
    """The curve of a recipe's learning rate. Nothing is written that stays, and no model comes of it.

    Raises ConfigError for a recipe whose model does not learn in steps.
    """
    require("torch", "finding a learning rate", "train")
    wanted = _task(task)
    values = wanted.under({key: value for key, value in values.items() if key != "out"})
    recipe = build(wanted.kind, values, "recipe")
    with tempfile.TemporaryDirectory(prefix="inkstone-rate-") as scratch:
        try:
            with listening(_RateFinder()):
                wanted.train(recipe, Path(scratch) / "model")
        except RateFound as found:
            return found.curve
    raise ConfigError(
        "this model is fitted in one go and has no learning rate to find. Choose an architecture that reads tokens."
    )


def _translate() -> Task:
    from inkstone.recipes.translate import train_translator
    from inkstone.recipes.translator_recipe import TranslateRecipe

    return _sequence(TranslateRecipe, train_translator)


def _summarize() -> Task:
    from inkstone.recipes.summarize import train_summarizer
    from inkstone.recipes.summarizer_recipe import SummarizeRecipe

    return _sequence(SummarizeRecipe, train_summarizer)


def _sequence(kind: type[Any], train: Callable[[Any, Path], Any]) -> Task:
    from inkstone.recipes.beginning import configuration, laid_under, opened_base

    return Task(
        kind,
        lambda recipe: configuration(recipe, opened_base(recipe), recipe.vocab_size),
        lambda recipe: str(recipe.training.metric),
        (*MEASURED_BY, *TOKENS, *PAIRS),
        _at_once(train),
        only_trained=True,
        under=laid_under,
    )


def _classify() -> Task:
    from inkstone.apps.back_translation import back_translation
    from inkstone.model.presets import classifier_config
    from inkstone.recipes.classify import ClassifyRecipe

    rewriting = lru_cache(back_translation)  # what one trial had translated, the next need not

    def model(recipe: Any) -> None:
        for architecture in ("transformer", "rnn", "cnn"):
            own = getattr(recipe.options, architecture)
            classifier_config(
                architecture,
                own.size,
                own.vocab_size,
                2,
                {"max_positions": own.max_length, **own.model},
                own.family,
            )

    def train(recipe: Any, out: Path) -> float:
        from inkstone.learn.classifier import choose
        from inkstone.learn.first_embeddings import FirstEmbeddings
        from inkstone.learn.labelled import Texts
        from inkstone.recipes.classify import read_corpus

        corpus = read_corpus(recipe)
        texts, valid = (
            Texts([one.text for one in records], [one.labels for one in records])
            for records in (corpus.train, corpus.valid)
        )
        choice = choose(
            texts,
            valid if corpus.valid else None,
            _all_unrehearsed(recipe.options),
            multi_label=corpus.multi_label,
            run=out,
            vectors=None if recipe.vectors is None else FirstEmbeddings.read(recipe.vectors),
            rewrite=rewriting(recipe.options.augment),
        )
        return max(choice.measures.values())

    return Task(
        ClassifyRecipe,
        model,
        lambda recipe: "measure",
        (*MEASURED_BY, *LABELS),
        train,
        only_trained=False,
    )


def _pretrain() -> Task:
    from inkstone.learn.pretraining import COURSES
    from inkstone.recipes.beginning import laid_under
    from inkstone.recipes.pretrain import configuration, opened_base, pretrain
    from inkstone.recipes.pretrain_recipe import PretrainRecipe

    return Task(
        PretrainRecipe,
        lambda recipe: configuration(
            recipe, COURSES[recipe.objective], recipe.vocab_size, opened_base(recipe)
        ),
        lambda recipe: str(recipe.training.metric),
        (*MEASURED_BY, *TOKENS, *DOCUMENTS),
        _at_once(pretrain),
        only_trained=True,
        under=laid_under,
    )


def _embed() -> Task:
    from inkstone.recipes.embed import configuration, opened_base, train_encoder
    from inkstone.recipes.embed_recipe import EmbedRecipe

    return Task(
        EmbedRecipe,
        lambda recipe: configuration(recipe, opened_base(recipe), recipe.vocab_size),
        lambda recipe: str(recipe.training.metric),
        (*MEASURED_BY, *RELATED),
        _at_once(train_encoder),
        only_trained=True,
    )


def _chat() -> Task:
    from inkstone.recipes.chat import check, check_options, learn, opened
    from inkstone.recipes.chat_recipe import ChatRecipe, laid_under
    from inkstone.recipes.run import kept_run
    from inkstone.recipes.talks import read_talks

    def model(recipe: Any) -> None:
        check_options(recipe)
        check(recipe, opened(recipe))

    def train(recipe: Any, out: Path) -> None:
        recipe = replace(recipe, training=_unrehearsed(recipe.training))
        taught = opened(recipe)
        with kept_run("chat", recipe, out) as run:
            learn(recipe, taught, read_talks(recipe, taught.tokenizer), run)

    return Task(
        ChatRecipe,
        model,
        lambda recipe: str(recipe.training.metric),
        (*MEASURED_BY, *TALKS),
        train,
        only_trained=True,
        under=laid_under,
    )


TASKS: dict[str, Callable[[], Task]] = {
    "translate": _translate,
    "summarize": _summarize,
    "classify": _classify,
    "pretrain": _pretrain,
    "embed": _embed,
    "chat": _chat,
}


def _at_once(run: Callable[[Any, Path], Any]) -> Callable[[Any, Path], None]:
    """A whole run without its preflight, which whoever listens ends with its training."""

    def train(recipe: Any, out: Path) -> None:
        run(replace(recipe, training=_unrehearsed(recipe.training)), out)

    return train


def _unrehearsed(training: Any) -> Any:
    """Training without its preflight: a trial begins at once."""
    return replace(training, preflight="skip")


def _all_unrehearsed(options: Any) -> Any:
    """The same of all that a classifier may be."""
    kinds = {name: getattr(options, name) for name in ("transformer", "rnn", "cnn")}
    quick = {name: replace(one, training=_unrehearsed(one.training)) for name, one in kinds.items()}
    pretrained = options.pretrained
    if pretrained.tuning is not None:
        pretrained = replace(pretrained, tuning=_unrehearsed(pretrained.tuning))
    return replace(options, pretrained=pretrained, **quick)


def _task(name: str) -> Task:
    if name not in TASKS:
        raise ConfigError(not_known("task", name, TASKS))
    return TASKS[name]()


def _begin(out: Path, begun: dict[str, Any]) -> None:
    """Take the folder for this search. Raises ConfigError when it is another's, or something else."""
    file = out / BEGUN
    kept = json.loads(json.dumps(begun, default=str))
    if file.exists():
        earlier = read_json(file)
        changed = [key for key in kept if earlier.get(key) != kept[key]]
        raise_all(
            ConfigError,
            str(out),
            [f"a search with another {' and another '.join(changed)} is there: give another --out"]
            if changed
            else [],
        )
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(
            f"{out} already exists and holds no search. Choose another --out, or remove it first."
        )
    with explained(out):
        out.mkdir(parents=True, exist_ok=True)
        write_text(file, json.dumps(kept, ensure_ascii=False, indent=2) + "\n")


def _digest(parameters: Parameters) -> str:
    """A folder's name for what a trial tries: a killed trial goes on in the same."""
    return hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()[:12]


def _write_best(result: Search, values: Mapping[str, Any]) -> None:
    import yaml

    value = result.shown(result.best)
    said = f"# The best of {len(result.trials)} trials: {result.metric} {value:.4g} of the validation."
    verb = "pretrain" if result.task == "pretrain" else f"train {result.task}"
    text = yaml.safe_dump(
        {"task": result.task, **json.loads(json.dumps(values))}, allow_unicode=True, sort_keys=False
    )
    write_text(result.recipe, f"{said}\n#   inkstone {verb} --recipe {result.recipe} --out MODEL\n{text}")
