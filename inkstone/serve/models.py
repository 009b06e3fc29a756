"""The models that a server holds, and the queue before each of them.

At the start every bundle of the folder is opened (all its files are hashed) and loaded; one that is not as
it was written stops the start, by name. What is listed about a model is read once, then: nothing on disk is
asked again.

A model works on one call at a time, in a thread of its own, so that the event loop stays free to answer
everybody else. A request is cut into small portions and queues again after each: a short request waits for
one portion of a long one, not for all of it, and work for somebody who has gone away stops at the next
portion. The queue is bounded: what does not fit is refused at once with 429 and the time to wait (open
queues are how servers fall over together), and what is not done by the deadline is answered 503 and
dropped.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from inkstone.generate.engine import GenerationOptions
from inkstone.ground.errors import BundleError, InkstoneError, not_known, raise_all
from inkstone.ground.progress import say
from inkstone.model.bundle import BUNDLED, Bundle, Task, list_bundles, open_bundle
from inkstone.serve.errors import ApiError, busy

QUEUE = 32  # requests that may wait for, or be in, one model
DEADLINE_S = 120.0  # from arrival to answer
PORTION_TEXTS, PORTION_CHARACTERS = 16, 4_000  # about a second of translation on one core

Result = TypeVar("Result")


class Translated(Protocol):
    """What a translator gives back for one text (`apps.translate.Translation`)."""

    @property
    def source(self) -> str: ...
    @property
    def translation(self) -> str: ...
    @property
    def score(self) -> float: ...
    @property
    def source_language(self) -> str: ...
    @property
    def target_language(self) -> str: ...
    @property
    def alternatives(self) -> tuple[str, ...]: ...


class Classified(Protocol):
    """What a classifier gives back for one text (`apps.classify.Classification`)."""

    @property
    def text(self) -> str: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def scores(self) -> Mapping[str, float]: ...


class Translating(Protocol):
    """What serves `translate` (`apps.translate.Translator`)."""

    def translate(
        self, texts: Sequence[str], *, to: str | None, source: str | None, options: GenerationOptions
    ) -> Sequence[Translated]:
        """One result for each text, in order."""
        ...


class Classifying(Protocol):
    """What serves `classify` (`apps.classify.Classifier`)."""

    def predict(self, texts: Sequence[str]) -> Sequence[Classified]:
        """One result for each text, in order."""
        ...


App = Translating | Classifying
Loader = Callable[[Path, int], App]  # (bundle folder, threads; 0: as many as useful)


def _translator(bundle: Path, threads: int) -> App:
    from inkstone.apps.translate import Translator

    return Translator(bundle, threads=threads)


def _classifier(bundle: Path, threads: int) -> App:
    from inkstone.apps.classify import Classifier

    return Classifier(bundle)


LOADERS: dict[Task, Loader] = {"translate": _translator, "classify": _classifier}


class Model:
    """One loaded model: its bundle, the application that runs it, and its queue."""

    def __init__(
        self, bundle: Bundle, app: App, *, queue: int = QUEUE, deadline_s: float = DEADLINE_S
    ) -> None:
        self.bundle, self.app = bundle, app
        self.report, self.card, self.size_bytes = bundle.report, bundle.card, bundle.size_bytes
        self.created = bundle.manifest.get("created")
        self.queue, self.deadline_s = queue, deadline_s
        self.waiting = 0
        self._usual_s = 1.0  # smoothed time of a request, for Retry-After
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"model-{bundle.name}")

    @property
    def directions(self) -> list[tuple[str, str]]:
        """(from, to) pairs of a translation model."""
        return [(source, target) for source, target in self.bundle.description.get("directions", [])]

    async def run(
        self, call: Callable[[Sequence[str]], Sequence[Result]], texts: Sequence[str]
    ) -> list[Result]:
        """Apply `call` to the texts, a portion at a time, in this model's thread; results in their order.

        Raises ApiError 429 when the queue is full, 503 at the deadline. Cancelled: drops what has not begun.
        """
        if self.waiting >= self.queue:
            message = f"{self.bundle.name} has {self.waiting} requests waiting, its limit. Try again later."
            raise busy(message, status=429, code="queue_full", retry_after_s=self._usual_s * self.waiting)
        self.waiting += 1
        started, loop = time.perf_counter(), asyncio.get_running_loop()
        results: list[Result] = []
        try:
            async with asyncio.timeout(self.deadline_s):
                for portion in portions(texts):
                    results += await loop.run_in_executor(self._thread, call, portion)
        except TimeoutError:
            message = f"Not done within {self.deadline_s:g} s. Try again later, or send less text."
            raise busy(message, status=503, code="deadline", retry_after_s=self._usual_s) from None
        finally:
            self.waiting -= 1
        self._usual_s += 0.2 * (time.perf_counter() - started - self._usual_s)
        return results

    def close(self) -> None:
        """Forget what waits; what runs comes to its end."""
        self._thread.shutdown(wait=True, cancel_futures=True)


def portions(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """Runs of at most PORTION_TEXTS texts and PORTION_CHARACTERS characters (or one longer text)."""
    start, characters = 0, 0
    for place, text in enumerate(texts):
        full = place - start >= PORTION_TEXTS or characters + len(text) > PORTION_CHARACTERS
        if full and place > start:
            yield texts[start:place]
            start, characters = place, 0
        characters += len(text)
    yield texts[start:]


@dataclass(frozen=True, slots=True)
class Models:
    """The loaded models, by name."""

    by_name: Mapping[str, Model] = field(default_factory=dict)

    @classmethod
    def load(
        cls,
        folder: Path = BUNDLED,
        *,
        threads: int = 0,
        loaders: Mapping[Task, Loader] | None = None,
        queue: int = QUEUE,
        deadline_s: float = DEADLINE_S,
    ) -> Models:
        """Open and load every bundle of a folder (or the one bundle that the folder is).

        Raises BundleError with everything that stands in the way, or when there is no model at all.
        """
        loaders = LOADERS if loaders is None else loaders
        loaded: dict[str, Model] = {}
        problems = []
        for path in list_bundles(folder):
            try:
                bundle = open_bundle(path)
                if bundle.name in loaded:
                    other = loaded[bundle.name].bundle.path
                    raise BundleError(
                        f"{path} and {other} are both named {bundle.name!r}. Rename one of them."
                    )
                if bundle.task not in loaders:
                    say(f"{bundle.name} is left out: models for {bundle.task} are not served yet")
                    continue
                app = loaders[bundle.task](path, threads)
                loaded[bundle.name] = Model(bundle, app, queue=queue, deadline_s=deadline_s)
            except InkstoneError as error:
                problems.append(str(error))
        raise_all(BundleError, f"the models in {folder} cannot be served", problems)
        if not loaded:
            raise BundleError(
                f"there is no model in {folder}. Valid: a model that `inkstone train` wrote, or a folder of"
                " them. Try: inkstone serve --models models/"
            )
        return cls(loaded)

    def get(self, name: str) -> Model:
        """The model of this name, or an ApiError 404 that lists the names there are."""
        try:
            return self.by_name[name]
        except KeyError:
            message = not_known("model", name[:100], self.by_name)
            raise ApiError(404, message, code="model_not_found", param="model") from None

    def pick(
        self, task: Task, name: str | None, *, source: str | None = None, to: str | None = None
    ) -> Model:
        """The model a request means: the named one, or the first one for the task (and for the languages)."""
        if name is not None:
            model = self.get(name)
            if model.bundle.task != task:
                message = f'model="{name}" is for {model.bundle.task}, not for {task}. {self._valid(task)}'
                raise ApiError(400, message, code="wrong_task", param="model")
            candidates = [model]
        else:
            candidates = [model for model in self.by_name.values() if model.bundle.task == task]
        if not candidates:
            message = f"This server has no model for {task}. Start it with one: inkstone serve --models DIR."
            raise ApiError(404, message, code="model_not_found", param="model")
        if task == "classify":
            return candidates[0]
        fitting = [model for model in candidates if _translates(model, source, to)]
        if not fitting:
            raise _no_direction(candidates, source, to)
        return fitting[0]

    def _valid(self, task: Task) -> str:
        names = [model.bundle.name for model in self.by_name.values() if model.bundle.task == task]
        return f"Valid: {', '.join(names)}." if names else f"There is no model for {task} here."

    def close(self) -> None:
        """Stop all model threads."""
        for model in self.by_name.values():
            model.close()


def _translates(model: Model, source: str | None, to: str | None) -> bool:
    return any(source in (None, s) and to in (None, t) for s, t in model.directions)


def _no_direction(models: Sequence[Model], source: str | None, to: str | None) -> ApiError:
    directions = dict.fromkeys(direction for model in models for direction in model.directions)
    valid = ", ".join(f"{s} to {t}" for s, t in directions)
    sources, targets = {s for s, _ in directions}, {t for _, t in directions}
    param: Literal["to", "from"] = (
        "to" if to is not None and (to not in targets or source in sources) else "from"
    )
    came = f"from {source or 'any language'} to {to or 'any language'}"
    message = f"No model here translates {came[:100]}. Valid: {valid}."
    return ApiError(400, message, code="unsupported_language", param=param)
