"""A classifier made smaller: the steps of `recipes.compress` for a bag of features and for models that read tokens."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inkstone.corpus.read import read_labelled
from inkstone.corpus.split import stratified
from inkstone.generate.classify_engine import softmax
from inkstone.ground.errors import ConfigError, DataError, raise_all
from inkstone.ground.records import Labelled
from inkstone.judge.compare import PRIMARY
from inkstone.judge.evaluate import judge_labels
from inkstone.judge.facts import Result
from inkstone.model.bundle import Bundle, describe, new_bundle
from inkstone.recipes.compress.bag import prune_features, read_bag
from inkstone.recipes.compress.shrink import made_smaller, parameters_of, refuse_impossible
from inkstone.recipes.compress.trial import (
    ORIGINAL,
    CompressRecipe,
    Trial,
    made_from,
    refuse_losses,
    report,
    scratch_folder,
    shipped,
    write_card,
)
from inkstone.recipes.evaluate import unknown_labels
from inkstone.recipes.pairs import evenly
from inkstone.text.normalize import normalize

VALID_SHARE = 0.1
CALIBRATION = 128


@dataclass(slots=True)
class _Material:
    """What is learnt from and measured on, as texts with their labels."""

    labels: tuple[str, ...]
    multi_label: bool
    train: list[Labelled]  # empty where nothing is learnt
    valid: list[Labelled]
    measured: list[Labelled]


def compress_classifier(bundle: Bundle, recipe: CompressRecipe, out: Path) -> dict[str, Any]:
    """Make a classifier smaller. See `recipes.compress.compress`."""
    import torch

    from inkstone.model.checkpoint import load_model, save_model

    architecture = str(bundle.description["architecture"])
    _refuse_what_cannot_be(bundle, architecture, recipe)
    if architecture == "transformer":
        refuse_impossible(load_model(bundle.path), recipe)
    material = _material(bundle, recipe)
    trial = _trial(bundle, recipe, material, architecture)
    with scratch_folder() as scratch:
        original = scratch / "original"
        original.mkdir()
        if architecture == "bag":
            model, features = read_bag(bundle.path)
            _save_bag(model, features, original)
            trial.look(ORIGINAL, original, "torch")
            trial.look("as shipped: numpy", bundle.path, "served")
            return _written_bag(trial, material, model, features, out)
        model = load_model(bundle.path)
        save_model(model, original, dtype=torch.float32)
        (original / "tokenizer.json").write_bytes((bundle.path / "tokenizer.json").read_bytes())
        trial.look(ORIGINAL, original, "torch")
        trial.look(f"as shipped: {shipped(bundle)}", bundle.path, "served")
        small, steps = made_smaller(
            model, bundle, recipe, out,
            lambda one: _run_texts(one, bundle, material),
            lambda student, run: _taught(student, model, bundle, recipe, material, run),
        )  # fmt: skip
        return _written_reader(trial, material, small, steps, out)


def _refuse_what_cannot_be(bundle: Bundle, architecture: str, recipe: CompressRecipe) -> None:
    """Raise ConfigError for steps that this architecture does not have, all at once."""
    problems = []
    if architecture != "transformer":
        learnt = {"--distill": recipe.distil, "--layers": recipe.layers, "--torch": recipe.torch}
        problems += [f"{name} is for Transformers" for name, value in learnt.items() if value]
        problems += ["--quantize int4 is for Transformers"] if recipe.quantize == "int4" else []
    if recipe.prune and architecture not in ("transformer", "bag"):
        problems.append("--prune is for Transformers and bags of features")
    if recipe.prune and architecture == "bag" and recipe.prune_what == "weights":
        problems.append("a bag loses whole features, not single weights: leave --prune-what out")
    raise_all(ConfigError, f"{bundle.name} is a {architecture}", problems)


def _material(bundle: Bundle, recipe: CompressRecipe) -> _Material:
    labels = tuple(bundle.description["labels"])
    train: list[Labelled] = []
    valid: list[Labelled] = []
    if recipe.learns:
        from inkstone.recipes.classify import ClassifyRecipe, read_corpus

        corpus = read_corpus(
            ClassifyRecipe(name=bundle.name, data=recipe.data, test=recipe.test, fields=recipe.fields)
        )
        unknown_labels(bundle, corpus.train)
        known = [record for record in corpus.train if set(record.labels) <= set(labels)]
        kept, held = stratified([record.labels for record in known], VALID_SHARE, recipe.training.seed)
        train, valid, measured = [known[n] for n in kept], [known[n] for n in held or kept], corpus.test
    else:
        measured = list(read_labelled(list(recipe.test or recipe.data), fields=recipe.fields))
    unknown_labels(bundle, measured)
    chosen = evenly(measured, recipe.most)
    if not chosen:
        raise DataError("the data holds no labelled text: there is nothing to measure.")
    chosen = [Labelled(normalize(one.text), one.labels, one.origin) for one in chosen]
    return _Material(labels, bool(bundle.description["multi_label"]), train, valid, chosen)


def _trial(bundle: Bundle, recipe: CompressRecipe, material: _Material, architecture: str) -> Trial:
    gold = [record.labels for record in material.measured]
    outside, reserved = bundle.description.get("out_of_scope"), float(bundle.description.get("reserved", 0.0))

    def decided(scores: Sequence[Any]) -> list[tuple[str, ...]]:
        logits_NC = np.asarray(scores, np.float32)
        if material.multi_label:
            return [tuple(material.labels[c] for c in np.flatnonzero(row > 0)) for row in logits_NC]
        shares_NC = softmax(logits_NC)
        if reserved:
            shares_NC[:, material.labels.index(str(outside))] += reserved
        return [(material.labels[c],) for c in shares_NC.argmax(1)]

    def judged(answers: Sequence[Any]) -> list[Result]:
        metrics = judge_labels(
            gold,
            decided(answers),
            rng=np.random.default_rng(0),
            out_of_scope=outside,
        )
        return [Result("the given texts", len(gold), metrics)]

    texts = [record.text for record in material.measured]
    return Trial(bundle, recipe, texts, judged, PRIMARY["classify"], architecture)


def _save_bag(model: Any, features: Any, folder: Path) -> None:
    """A bag in float32, as it was trained."""
    from safetensors.torch import save_file

    from inkstone.ground.files import write_json

    tensors = {name: tensor.detach().float().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors")
    write_json(folder / "config.json", model.config.to_dict())
    features.save(folder / "features.json")


def _written_bag(trial: Trial, material: _Material, model: Any, features: Any, out: Path) -> dict[str, Any]:
    from inkstone.ship.quantize import ship_bag_int8

    recipe, steps = trial.recipe, []
    if recipe.prune:
        texts = [record.text for record in material.train]
        before = len(features)
        model, features = prune_features(model, features, recipe.prune, texts, score=recipe.score)
        steps.append(f"{len(features) - 1:,} of {before - 1:,} features kept by {recipe.score}")
    steps.append("embedding in int8")
    description = _description(trial, out)
    made = made_from(trial, steps)
    with new_bundle(out, description, made) as folder:
        parity = ship_bag_int8(model, features, folder, [record.text for record in material.measured])
        new = [trial.look("new: numpy, int8", folder, "served")]
        return _finished(trial, folder, new, steps, parity, parameters_of(model), out, made)


def _encoded(bundle: Bundle, records: Sequence[Labelled], longest: int) -> list[tuple[int, ...]]:
    from inkstone.text.reader import TextReader

    rows, _ = TextReader.load(bundle.path).cut([record.text for record in records], longest)
    return [tuple(row) for row in rows]


def _run_texts(model: Any, bundle: Bundle, material: _Material) -> Any:
    """Some texts through a model, one by one: their scores, (N, C)."""
    import torch

    records = evenly(material.train or material.measured, CALIBRATION)
    rows = _encoded(bundle, records, getattr(model.config, "max_positions", 512))
    with torch.no_grad():
        return torch.cat([model(torch.tensor([row])) for row in rows])


def _taught(
    student: Any, teacher: Any, bundle: Bundle, recipe: CompressRecipe, material: _Material, run: Path
) -> Any:
    """The student after it has learnt from the teacher through the one loop."""
    import torch

    from inkstone.learn.data.batches import LabelExample, label_batch
    from inkstone.learn.labelled import LabelSpace, batch_logits
    from inkstone.learn.loop import train
    from inkstone.learn.objectives.distillation import distilled_labels

    space = LabelSpace(material.labels, material.multi_label)
    longest = student.config.max_positions
    rows = _encoded(bundle, material.train, longest)
    examples = [
        LabelExample(ids, space.numbers(record.labels))
        for ids, record in zip(rows, material.train, strict=True)
    ]
    valid = _encoded(bundle, material.valid, longest)
    gold = [record.labels for record in material.valid]

    def collate(batch: Any) -> Any:
        return label_batch(
            batch, pad_id=student.config.pad_id, num_labels=len(space.names), multi_label=space.multi_label
        )

    def validate(current: torch.nn.Module) -> dict[str, float]:
        return {"accuracy": space.measure(gold, batch_logits(current, valid))}

    digest = hashlib.sha256(repr((student.config, recipe.distillation, recipe.training, examples)).encode())
    for parameter in student.parameters():
        parameter.requires_grad_(True)
    train(
        student,
        distilled_labels(teacher, recipe.distillation),
        examples,
        collate,
        validate,
        recipe.training,
        run / digest.hexdigest()[:12],  # what was asked before with other options is none of this run
        fingerprint=digest.hexdigest(),
        title=f"{bundle.name} teaches",
    )
    return student.cpu().eval()


def _written_reader(
    trial: Trial, material: _Material, small: Any, steps: list[str], out: Path
) -> dict[str, Any]:
    from inkstone.learn.labelled import LabelSpace
    from inkstone.ship.classify import ship_reader
    from inkstone.ship.quantize import as_rounded, engine_folder, ship_quantized
    from inkstone.text.reader import TextReader

    bundle, recipe = trial.bundle, trial.recipe
    space = LabelSpace(material.labels, material.multi_label)
    texts, gold = [one.text for one in material.measured], [one.labels for one in material.measured]
    reader = TextReader.load(bundle.path)
    made = made_from(trial, steps)
    with new_bundle(out, _description(trial, out), made) as folder:
        parity: dict[str, Any] = {}
        if recipe.quantize == "int4" or recipe.torch:
            parity = ship_quantized(
                small, folder, recipe.quantize, lambda one: _run_texts(one, bundle, material)
            )
        kept = as_rounded(small, "int4") if recipe.quantize == "int4" else small
        facts = ship_reader(kept, reader, folder, texts, lambda logits: space.measure(gold, logits))
        new = [trial.look(f"new: {facts['engine']}", folder, "served")]
        results = trial.results
        if engine_folder(folder, recipe.quantize).exists():
            new.append(trial.look(f"new: torch-{recipe.quantize}", folder, f"torch-{recipe.quantize}"))
        trial.results = results
        return _finished(trial, folder, new, steps, {**facts, **parity}, parameters_of(small), out, made)


def _description(trial: Trial, out: Path) -> dict[str, Any]:
    return {
        **{key: value for key, value in trial.bundle.description.items() if key != "format"},
        "name": out.name,
    }


def _finished(
    trial: Trial,
    folder: Path,
    new: Sequence[Any],
    steps: Sequence[str],
    parity: dict[str, Any],
    parameters: int,
    out: Path,
    made: dict[str, Any],
) -> dict[str, Any]:
    """The last of a bundle: within the limit or not at all, then its card."""
    refuse_losses(trial, out, new, steps)
    result = report(trial, out, steps=steps, written=True)
    describe(folder, _description(trial, out), made)
    write_card(trial, folder, result, parity, parameters)
    return result
