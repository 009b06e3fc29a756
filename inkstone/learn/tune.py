"""A search through recipes: trials one after another, each a training run, the poor ones stopped early.

    ask (TPE, Bergstra et al., 2011) -> run -> at every validation: below the median of the others so far? stop -> tell

Every trial is written to a SQLite file as it goes (Optuna's own format), so a search that was killed goes on: what the
killed trial tried is tried first. What a trial tries depends on the seed and the trials before it, and on nothing else,
so such a search comes to the trials of an undisturbed one. A recipe that was tried before is not trained again.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from inkstone.ground.errors import ConfigError, TrainingError
from inkstone.ground.progress import say
from inkstone.learn.listening import Listener
from inkstone.learn.space import Range, Space, Value

STUDY = "study.db"
RANDOM_FIRST = 5  # trials before the sampler draws on what it has seen
JUDGED_FROM = 3  # whole trials before any is stopped early
_PROBLEM = "problem"

Parameters = dict[str, Value]
State = Literal["complete", "pruned", "failed"]


@dataclass(frozen=True, slots=True)
class Trial:
    """One recipe that was tried. value: the best of its validations, higher is better; None where none was trained."""

    number: int
    state: State
    value: float | None
    parameters: Parameters
    validations: int
    seconds: float
    problem: str = ""


class Stopped(Exception):
    """Ends a trial from within: it was worse than the others, or it has said all it was asked for."""


class Judge(Listener):
    """Hears of the validations of one trial, and stops it when Optuna finds it poor."""

    def __init__(self, trial: Any, *, only_trained: bool) -> None:
        """only_trained: end the recipe with the training, before anything is exported or measured on test data."""
        self.trial, self.only_trained = trial, only_trained
        self.best: float | None = None
        self.count, self.pruned = 0, False

    def validated(self, measures: dict[str, float], value: float) -> None:
        self._note(value)
        self.trial.report(self.best, self.count)
        self.count += 1
        if self.trial.should_prune():
            self.pruned = True
            raise Stopped

    def ended(self, value: float) -> None:
        self._note(value)
        if self.only_trained:
            raise Stopped

    def _note(self, value: float) -> None:
        self.best = value if self.best is None else max(self.best, value)


Run = Callable[
    [Parameters, Judge], float | None
]  # trains with these -> the value, or None: what the judge heard


def search(
    space: Space,
    folder: Path,
    run: Run,
    *,
    trials: int,
    seed: int,
    only_trained: bool,
) -> list[Trial]:
    """Try recipes until there are so many, those of an earlier call in this folder included; all of them, in order.

    run: trains with these parameters and the judge listening. Raises TrainingError when not one trial could be trained.
    """
    study = _study(folder)
    _take_up(study)
    while (done := len(_finished(study))) < trials:
        study.sampler = _sampler(seed, done)
        trial = study.ask(_distributions(space))
        say(f"trial {done + 1} of {trials}: {described(trial.params)}")
        _tried(study, trial, run, only_trained)
    found = [_trial(number, one) for number, one in enumerate(_finished(study))]
    if all(one.value is None for one in found):
        raise TrainingError(f"not one of {len(found)} trials could be trained; the first: {found[0].problem}")
    return found


def best_of(trials: list[Trial]) -> Trial:
    """The best trial; the first of equals."""
    return max(
        (one for one in trials if one.value is not None), key=lambda one: (one.value, one.state == "complete")
    )


def described(parameters: Parameters) -> str:
    """Parameters in one line."""
    return ", ".join(
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in parameters.items()
    )


def _tried(study: Any, trial: Any, run: Run, only_trained: bool) -> None:
    """Run one trial and tell the study."""
    from optuna.trial import TrialState

    known = next(
        (one for one in _finished(study) if one.params == trial.params and one.value is not None), None
    )
    if known is not None:
        study.tell(trial, known.value)
        return
    judge = Judge(trial, only_trained=only_trained)
    value = None
    try:
        with suppress(Stopped):
            value = run(trial.params, judge)
    except (ConfigError, TrainingError) as error:  # of this recipe; what else is wrong ends the search
        if type(error).__name__ == "Interrupted":
            raise
        say(f"this trial could not be trained: {error}")
        trial.set_user_attr(_PROBLEM, str(error))
        study.tell(trial, state=TrialState.FAIL)
        return
    if judge.pruned:
        study.tell(trial, state=TrialState.PRUNED)
    else:
        study.tell(trial, judge.best if value is None else value)


def _study(folder: Path) -> Any:
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return optuna.create_study(
            storage=f"sqlite:///{folder / STUDY}",
            study_name="inkstone",
            direction="maximize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=JUDGED_FROM, n_warmup_steps=1),
            load_if_exists=True,
        )
    except (SQLAlchemyError, optuna.exceptions.OptunaError) as error:
        raise ConfigError(
            f"{folder / STUDY} cannot be opened as a study: {type(error).__name__}. Remove it, or give another --out."
        ) from error


def _take_up(study: Any) -> None:
    """Give up the trial in which an earlier process died, and put what it tried first in the queue."""
    from optuna.trial import TrialState

    for one in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(one.number, state=TrialState.FAIL)
        if one.params:
            study.enqueue_trial(one.params)


def _finished(study: Any) -> list[Any]:
    """The trials that came to an end, not those whose process died."""
    from optuna.trial import TrialState

    return [
        one
        for one in study.get_trials(deepcopy=False)
        if one.state in (TrialState.COMPLETE, TrialState.PRUNED) or _PROBLEM in one.user_attrs
    ]


def _sampler(seed: int, done: int) -> Any:
    import optuna

    mixed = int(np.random.SeedSequence((seed, done)).generate_state(1)[0])  # seeds in a row would draw alike
    return optuna.samplers.TPESampler(seed=mixed, n_startup_trials=RANDOM_FIRST)


def _distributions(space: Space) -> dict[str, Any]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, Any] = {}
    for name, one in space.items():
        if not isinstance(one, Range):
            found[name] = CategoricalDistribution(one.values)
        elif isinstance(one.low, int) and isinstance(one.high, int):
            found[name] = IntDistribution(one.low, one.high, log=one.log, step=int(one.step or 1))
        else:
            found[name] = FloatDistribution(one.low, one.high, log=one.log, step=one.step)
    return found


def _trial(number: int, one: Any) -> Trial:
    """Optuna's record as ours."""
    problem = one.user_attrs.get(_PROBLEM, "")
    reported = list(one.intermediate_values.values())
    state: State = "failed" if problem else ("complete" if one.state.name == "COMPLETE" else "pruned")
    value = None if problem else (one.value if state == "complete" else max(reported))
    seconds = one.duration.total_seconds() if one.duration else 0.0
    return Trial(number + 1, state, value, dict(one.params), len(reported), round(seconds, 1), problem)
