"""Repeat the beginning of a training, and see whether it comes out the same.

    the bundle's receipt and recipe -> its files, found again by their sha256 -> the same first steps in a scratch folder
    -> tokenizer, batches, losses compared with what the receipt has

Where the surroundings are those of the training (processor, build of torch, threads, precision: `learn.receipt`) every
loss has to be the same, bit for bit. Elsewhere sums round otherwise, the differences grow from step to step, and losses
may be `TOLERANCE` apart; the report says so. A bag or a layer that was fitted has no steps: it is fitted again, and its
weights are compared.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inkstone.corpus.related import RelatedData
from inkstone.ground.configuration import build
from inkstone.ground.errors import BundleError, ConfigError, require
from inkstone.ground.manifest import read_json
from inkstone.ground.progress import say
from inkstone.model.bundle import Bundle, open_bundle
from inkstone.recipes.receipt import code_digest, digest
from inkstone.recipes.sources import located, named_paths, places
from inkstone.recipes.verify import Check

if TYPE_CHECKING:
    from inkstone.learn.loop import TrainingOptions
    from inkstone.recipes.sequence_recipe import SequenceRecipe

# How far losses of the same step may be apart in other surroundings, in nats; of the weights of a fit, as they are.
# Measured (docs/journal.md): one and two threads, bfloat16.
TOLERANCE = 0.05
FITTED_TOLERANCE = 0.01


@dataclass(frozen=True, slots=True)
class Rerun:
    """What came of it. steps: how many were compared; 0 for a model that is fitted. equal: bit for bit.

    largest_difference: of two losses of the same step; of two weights where there are no steps.
    """

    bundle: str
    steps: int
    equal: bool
    largest_difference: float
    tolerance: float  # 0: bit for bit
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether everything that was looked at holds."""
        return all(check.passed for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {**asdict(self), "checks": [asdict(check) for check in self.checks], "passed": self.passed}


@dataclass(frozen=True, slots=True)
class _Again:
    """A training that was begun again: its receipt, its tokenizer where it made one, its model where it was fitted."""

    receipt: Mapping[str, Any]
    tokenizer: Path | None = None
    model: Any = None


def rerun(model: str | Path, *, steps: int = 50, data: Sequence[Path] = ()) -> Rerun:
    """Repeat the first steps of the training of a bundle.

    data: folders in which its files are looked for first. Raises BundleError for a model without a receipt, DataError
    naming every file that is missing or has changed, ConfigError for steps that the receipt does not have.
    """
    require("torch", "repeating a training", "train")
    bundle = open_bundle(model)
    made = bundle.manifest.get("made", {})
    noted = _receipt(bundle, made)
    training = noted["training"]
    first = training.get("first", [])
    steps = _steps(bundle, training, steps)
    kind, learn = TASKS["chat" if bundle.description.get("chat") else bundle.task]()
    recipe = _recipe(bundle, kind, made["recipe"], noted, data)
    checks = [*_identity(noted, made)]
    say(f"repeating {f'the first {steps} steps' if first else 'the fit'} of {bundle.name}")
    with tempfile.TemporaryDirectory(prefix="inkstone-rerun-") as scratch:
        with _threads(training["surroundings"]["threads"]):
            again = learn(recipe, training, steps, Path(scratch))
        apart = _apart(training["surroundings"], again.receipt["surroundings"])
        checks.append(_where(apart, training["surroundings"]))
        if again.tokenizer is not None:
            checks.append(_tokenizer(bundle, again.tokenizer))
        if not first:
            return _compared_fit(bundle, training, again, bool(apart), checks)
        if training["surroundings"]["processes"] > 1:  # each read a part; the receipt is of the first
            return _compared(
                bundle, first[:steps], again.receipt["first"], bool(apart), checks, batches=False
            )
        return _compared(bundle, first[:steps], again.receipt["first"], bool(apart), checks)


def _receipt(bundle: Bundle, made: Mapping[str, Any]) -> dict[str, Any]:
    found = made.get("receipt")
    if isinstance(found, dict) and isinstance(found.get("training"), dict):
        return found
    if "recipe" in made:
        why = "it was trained before receipts were kept. Train it again to have one"
    else:
        why = (
            "it was made from another model, or saved from Python. Rerun a model that `inkstone train` wrote"
        )
    raise BundleError(f"{bundle.path} has no receipt of its training: {why}.")


def _steps(bundle: Bundle, training: Mapping[str, Any], asked: int) -> int:
    """How many steps are repeated: those asked for, or all of a training that had fewer."""
    if "first" not in training:
        return 0
    noted = len(training["first"])
    if not noted:
        raise BundleError(
            f"the receipt of {bundle.name} has no steps: its training began before receipts were kept."
        )
    if noted == training["steps"]:
        asked = min(asked, noted)
    if not 1 <= asked <= noted:
        raise ConfigError(f"steps={asked}: the receipt of {bundle.name} has {noted}. Give 1 to {noted}.")
    return asked


def _recipe(
    bundle: Bundle, kind: type[Any], values: Mapping[str, Any], noted: Mapping[str, Any], data: Sequence[Path]
) -> Any:
    """The bundle's recipe, with its files as they are here."""
    recipe = build(kind, values, f"the recipe of {bundle.name}", complete=True)
    wanted = named_paths(recipe)
    found = located(wanted, noted["files"], places(bundle.path, data, kind))
    return repathed(recipe, found)


def repathed(recipe: Any, found: Mapping[str, Sequence[str]]) -> Any:
    """The recipe with other paths, by use as `named_paths` gives them."""
    paths: dict[str, Any] = {use: _moved(getattr(recipe, use), found[use]) for use in ("data", "valid")}
    if isinstance(recipe.test, dict):
        paths["test"] = {name: _moved(files, found[f"test {name}"]) for name, files in recipe.test.items()}
    else:
        paths["test"] = _moved(recipe.test, found["test"])
    if any(use.startswith("augment.") for use in found):
        with_ = {
            use: found[f"augment.{use}"][0]
            for use in ("vectors", "back_translate")
            if f"augment.{use}" in found
        }
        recipe = replace(
            recipe, options=replace(recipe.options, augment=replace(recipe.options.augment, **with_))
        )
    changed = replace(recipe, **paths, **{use: found[use][0] for use in ("vectors",) if use in found})
    if "base" not in found:
        return changed
    if hasattr(recipe, "base"):
        return replace(changed, base=found["base"][0])
    pretrained = replace(recipe.options.pretrained, base=found["base"][0])
    return replace(changed, options=replace(recipe.options, pretrained=pretrained))


def _moved(files: Sequence[str | RelatedData], paths: Sequence[str]) -> tuple[str | RelatedData, ...]:
    """The files at other paths."""
    return tuple(
        path if isinstance(one, str) else replace(one, file=path)
        for one, path in zip(files, paths, strict=True)
    )


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """So many threads for torch, as the training had, while the block runs."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _beginning(options: TrainingOptions, training: Mapping[str, Any], steps: int) -> TrainingOptions:
    """The options of the training, to stop after so many steps and look at nothing on the way."""
    return replace(
        options,
        stop_after=steps,
        threads=0,  # those that are set
        precision=training["surroundings"]["precision"],
        patience=0,
        validate_every=2**62,
        save_every_s=1e9,
        average_last=0,
        preflight="skip",
        profile=False,
        watch=(),
    )


Learn = Callable[[Any, Mapping[str, Any], int, Path], _Again]


def _translator() -> tuple[type[Any], Learn]:
    from inkstone.recipes.translator_recipe import TranslateRecipe

    return TranslateRecipe, _sequence


def _summarizer() -> tuple[type[Any], Learn]:
    from inkstone.recipes.summarizer_recipe import SummarizeRecipe

    return SummarizeRecipe, _sequence


def _sequence(recipe: SequenceRecipe, training: Mapping[str, Any], steps: int, run: Path) -> _Again:
    from inkstone.recipes.sequences import learn

    learnt = learn(replace(recipe, training=_beginning(recipe.training, training, steps)), run)
    return _Again(learnt.outcome.receipt, None if recipe.base else run / "tokenizer.json")


def _language_model() -> tuple[type[Any], Learn]:
    from inkstone.recipes.pretrain import learn
    from inkstone.recipes.pretrain_recipe import PretrainRecipe

    def again(recipe: PretrainRecipe, training: Mapping[str, Any], steps: int, run: Path) -> _Again:
        learnt = learn(replace(recipe, training=_beginning(recipe.training, training, steps)), run)
        return _Again(learnt.outcome.receipt, None if recipe.base else run / "tokenizer.json")

    return PretrainRecipe, again


def _classifier() -> tuple[type[Any], Learn]:
    from inkstone.learn.receipt import fitted_receipt
    from inkstone.recipes.classify import ClassifyRecipe, learn

    def again(recipe: ClassifyRecipe, training: Mapping[str, Any], steps: int, run: Path) -> _Again:
        """Only the kind of model that was kept is trained again."""
        name = training["candidate"]
        options = replace(recipe.options, architecture=name)
        own = getattr(options, name)
        if name == "pretrained" and own.tuning is not None:
            own = replace(own, tuning=_beginning(own.tuning, training, steps))
        elif name not in ("pretrained", "bag"):
            own = replace(own, training=_beginning(own.training, training, steps))
        best = learn(replace(recipe, options=replace(options, **{name: own})), run).best
        tokenizer = run / name / "tokenizer.json"
        if best.outcome.receipt:
            return _Again(best.outcome.receipt, tokenizer if tokenizer.exists() else None)
        return _Again(fitted_receipt(best.model), model=best.model)

    return ClassifyRecipe, again


def _encoder() -> tuple[type[Any], Learn]:
    from inkstone.recipes.embed import learn, opened_base
    from inkstone.recipes.embed_recipe import EmbedRecipe

    def again(recipe: EmbedRecipe, training: Mapping[str, Any], steps: int, run: Path) -> _Again:
        begun = replace(recipe, training=_beginning(recipe.training, training, steps))
        learnt = learn(begun, opened_base(recipe), run)
        return _Again(learnt.outcome.receipt, None if recipe.base else run / "tokenizer.json")

    return EmbedRecipe, again


def _chat() -> tuple[type[Any], Learn]:
    from inkstone.recipes.chat import learn, opened
    from inkstone.recipes.chat_recipe import ChatRecipe
    from inkstone.recipes.talks import read_talks

    def again(recipe: ChatRecipe, training: Mapping[str, Any], steps: int, run: Path) -> _Again:
        begun = replace(recipe, training=_beginning(recipe.training, training, steps))
        taught = opened(recipe)
        return _Again(learn(begun, taught, read_talks(recipe, taught.tokenizer), run).outcome.receipt)

    return ChatRecipe, again


TASKS: dict[str, Callable[[], tuple[type[Any], Learn]]] = {
    "translate": _translator,
    "summarize": _summarizer,
    "classify": _classifier,
    "language-model": _language_model,
    "embed": _encoder,
    "chat": _chat,
}


def _identity(noted: Mapping[str, Any], made: Mapping[str, Any]) -> Iterator[Check]:
    """That what is repeated is what was noted."""
    count = len(noted["files"])
    yield Check(
        "files", True, f"{count} {'file has' if count == 1 else 'files have'} the content that was trained on"
    )
    same = digest(made["recipe"]) == noted["recipe_sha256"]
    yield Check("recipe", same, "as its sha256 says" if same else "altered since the training")
    code, now = noted["code"], code_digest()
    changed = (
        "the same"
        if code["sha256"] == now
        else f"changed since (it was {code['inkstone']}, {code['sha256'][:12]}…)"
    )
    yield Check("code", True, f"Inkstone's own is {changed}")


def _apart(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What of the surroundings is another than it was."""
    found = [
        f"{name} {now.get(name)} instead of {value}" for name, value in then.items() if now.get(name) != value
    ]
    if not found and then["device"] != "cpu":
        found.append(f"{then['device']} adds in no fixed order")
    return found


def _where(apart: Sequence[str], then: Mapping[str, Any]) -> Check:
    if apart:
        return Check("surroundings", True, f"{'; '.join(apart)}: not bit for bit, but within a tolerance")
    said = f"{then['processor']}, threads {then['threads']}, torch {then['torch']}, {then['precision']}"
    return Check("surroundings", True, f"as in the training ({said}): bit for bit")


def _tokenizer(bundle: Bundle, again: Path) -> Check:
    same = read_json(bundle.path / "tokenizer.json") == read_json(again)
    said = (
        "comes out the same"
        if same
        else "comes out another: the tokens of the texts are not those trained on"
    )
    return Check("tokenizer", same, said)


def _compared(
    bundle: Bundle,
    first: Sequence[Any],
    again: Sequence[Any],
    apart: bool,
    checks: list[Check],
    batches: bool = True,
) -> Rerun:
    count = len(first)
    other = [
        n for n in range(count) if n >= len(again) or first[n]["batch_sha256"] != again[n]["batch_sha256"]
    ]
    said = (
        f"{count} batches are the same"
        if not other
        else f"another at step {other[0] + 1}, {len(other)} of {count}"
    )
    checks += [Check("batches", not other, said)] if batches else []
    then = [float.fromhex(one["loss"]) for one in first]
    now = [float.fromhex(one["loss"]) for one in again]
    differences = [abs(a - b) for a, b in zip(then, now, strict=False)]
    largest = max(differences, default=float("inf"))
    equal = then == now
    tolerance = TOLERANCE if apart else 0.0
    if equal:
        detail = f"{count} losses are equal, bit for bit, from {then[0]:.4f} to {then[-1]:.4f}"
    else:
        at = next(n for n in range(count) if n >= len(now) or then[n] != now[n])
        here = f"{now[at]!r}" if at < len(now) else "none"
        detail = f"step {at + 1}: {here} where the receipt has {then[at]!r}; at most {largest:.3g} nats apart"
        detail += f", {tolerance} allowed" if apart else ", 0 allowed"
    checks.append(Check("losses", equal or (len(now) == count and largest <= tolerance), detail))
    return Rerun(str(bundle.path), count, equal, largest, tolerance, tuple(checks))


def _compared_fit(
    bundle: Bundle, training: Mapping[str, Any], again: _Again, apart: bool, checks: list[Check]
) -> Rerun:
    """By the sha256 of the weights as they were fitted; where that differs, by those that the bundle keeps, rounded."""
    from safetensors.torch import load_file

    equal = training["weights_sha256"] == again.receipt["weights_sha256"]
    tolerance = FITTED_TOLERANCE if apart else 0.0
    largest = 0.0
    if not equal:
        kept, fitted = load_file(bundle.path / "model.safetensors"), again.model.state_dict()
        same = {name: tensor.shape for name, tensor in kept.items()} == {
            n: t.shape for n, t in fitted.items()
        }
        largest = (
            max(float((kept[n].float() - fitted[n]).abs().max()) for n in kept) if same else float("inf")
        )
    said = "no steps to repeat: fitted again, the weights are "
    said += "equal, bit for bit" if equal else f"at most {largest:.3g} from those kept, {tolerance} allowed"
    checks.append(Check("weights", equal or (apart and largest <= tolerance), said))
    return Rerun(str(bundle.path), 0, equal, largest, tolerance, tuple(checks))
