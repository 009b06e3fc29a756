"""A translator made smaller: the steps of `recipes.compress` for models that read and write."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from inkstone.corpus.read import read_pairs
from inkstone.ground.errors import ConfigError, DataError
from inkstone.ground.progress import say
from inkstone.ground.records import Pair
from inkstone.judge.compare import PRIMARY
from inkstone.judge.evaluate import judge_translations
from inkstone.judge.facts import Result
from inkstone.model.bundle import Bundle, describe, new_bundle
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
from inkstone.recipes.pairs import both, encode, evenly, read_corpus, spread, turned
from inkstone.recipes.preflight import language_findings
from inkstone.text.normalize import normalize
from inkstone.text.template import translation_sources
from inkstone.text.tokenizer import Tokenizer

LONGEST = 128  # tokens a side that are measured and learnt
CALIBRATION = 256  # pairs that tell how large the inputs of the layers are
TEACHER_BEAM = 4


@dataclass(slots=True)
class _Material:
    """What is learnt from and measured on."""

    tokenizer: Tokenizer
    directions: list[tuple[str, str]]
    train: list[Any]  # examples in all directions; empty where nothing is learnt
    valid: list[Any]
    pairs: dict[tuple[str, str], list[Pair]]  # that are measured, by direction
    sources: dict[tuple[str, str], list[list[int]]]


def compress_translator(bundle: Bundle, recipe: CompressRecipe, out: Path) -> dict[str, Any]:
    """Make a translator smaller. See `recipes.compress.compress`."""
    import torch

    from inkstone.model.checkpoint import load_model, save_model
    from inkstone.model.transformer import Transformer

    model = load_model(bundle.path)
    if not isinstance(model, Transformer) and (recipe.learns or recipe.quantize == "int4" or recipe.torch):
        raise ConfigError(
            f"{bundle.name} is no Transformer: only --quantize int8, which it is shipped with, is there for it."
        )
    if recipe.learns:
        refuse_impossible(model, recipe)
    material = _material(bundle, recipe)
    trial = _trial(bundle, recipe, material)
    with scratch_folder() as scratch:
        (scratch / "original").mkdir()
        save_model(model, scratch / "original", dtype=torch.float32)
        material.tokenizer.save(scratch / "original" / "tokenizer.json")
        trial.look(ORIGINAL, scratch / "original", "torch")
        trial.look(f"as shipped: {shipped(bundle)}", bundle.path, "served")
        small, steps = made_smaller(
            model, bundle, recipe, out,
            lambda one: _run_pairs(one, material),
            lambda student, run: _taught(student, model, bundle, recipe, material, run),
        )  # fmt: skip
        return _written(trial, material, small, steps, out)


def _material(bundle: Bundle, recipe: CompressRecipe) -> _Material:
    tokenizer = Tokenizer.load(bundle.path / "tokenizer.json")
    directions = [(source, target) for source, target in bundle.description["directions"]]
    train: list[Any] = []
    valid: list[Any] = []
    if recipe.learns:
        corpus = read_corpus(_as_training(bundle, recipe, directions))
        pairs = [pair for test in corpus.tests.values() for pair in test]
        train, _ = encode(tokenizer, both(corpus.train, directions), LONGEST)
        valid, _ = encode(tokenizer, spread(corpus.valid, directions, 1000), LONGEST)
        if not train or not valid:
            raise DataError("no pair of the data is short enough to learn from.")
    else:
        pairs = _pairs(bundle, recipe, recipe.test or recipe.data, directions)
    of: dict[tuple[str, str], list[Pair]] = {}
    ids: dict[tuple[str, str], list[list[int]]] = {}
    for source, target in directions:
        chosen = evenly(turned(pairs, (source, target)), recipe.most)
        if not chosen:
            continue  # of many directions the data may have few
        encoded = translation_sources(tokenizer, [pair.source for pair in chosen], target)
        short = [n for n, row in enumerate(encoded) if len(row) <= LONGEST]
        if not short:
            raise DataError(f"no text of the data has at most {LONGEST} tokens: there is nothing to measure.")
        of[source, target] = [chosen[n] for n in short]
        ids[source, target] = [encoded[n] for n in short]
    return _Material(tokenizer, list(of), train, valid, of, ids)


def _as_training(bundle: Bundle, recipe: CompressRecipe, directions: Sequence[tuple[str, str]]) -> Any:
    from inkstone.recipes.translator_recipe import TranslateRecipe

    source, target = _languages(recipe, directions)
    return TranslateRecipe(
        name=bundle.name,
        data=recipe.data,
        test={"test": recipe.test} if recipe.test else {},
        source=source,
        target=target,
        both_directions=len(directions) > 1,
        fields=recipe.fields,
        script=bundle.description.get("script"),
    )


def _languages(
    recipe: CompressRecipe, directions: Sequence[tuple[str, str]]
) -> tuple[str | None, str | None]:
    """What the files hold: as they are told, or what a model of two languages must mean; of more the files tell."""
    if len({frozenset(direction) for direction in directions}) > 1:
        return recipe.source, recipe.target
    return recipe.source or directions[0][0], recipe.target or directions[0][1]


def _pairs(
    bundle: Bundle, recipe: CompressRecipe, files: Sequence[str], directions: Sequence[tuple[str, str]]
) -> list[Pair]:
    """The pairs of files, normalised as the model's training data was."""
    source, target = _languages(recipe, directions)
    reading = read_pairs(
        list(files),
        source_language=source,
        target_language=target,
        fields=recipe.fields,
    )
    script = bundle.description.get("script")
    pairs = [
        replace(p, source=normalize(p.source, script=script), target=normalize(p.target, script=script))
        for p in reading
    ]
    known = {frozenset(direction) for direction in directions}
    foreign = {(p.source_language, p.target_language) for p in pairs} - {
        (a, b) for one in known for a in one for b in one
    }
    if foreign or not pairs:
        listed = ", ".join(f"{a}-{b}" for a, b in sorted(foreign)) or "no pairs"
        ours = ", ".join(f"{a}-{b}" for a, b in directions)
        raise DataError(f"the data holds {listed}; {bundle.name} translates {ours}. Give --from and --to.")
    for finding in language_findings(pairs, "test"):
        say(finding)
    return pairs


def _trial(bundle: Bundle, recipe: CompressRecipe, material: _Material) -> Trial:
    def judged(answers: Sequence[Any]) -> list[Result]:
        found, start = [], 0
        for direction in material.directions:
            pairs = material.pairs[direction]
            outputs = material.tokenizer.decode_batch(answers[start : start + len(pairs)])
            start += len(pairs)
            metrics = judge_translations(
                outputs,
                [pair.target for pair in pairs],
                target_language=direction[1],
                rng=np.random.default_rng(0),
            )
            found.append(Result("the given texts", len(pairs), metrics, direction="-".join(direction)))
        return found

    inputs = [row for direction in material.directions for row in material.sources[direction]]
    return Trial(bundle, recipe, inputs, judged, PRIMARY["translate"])


def _collate(config: Any) -> Any:
    from inkstone.learn.data.batches import pair_batch

    return lambda rows: pair_batch(rows, pad_id=config.pad_id, bos_id=config.bos_id, eos_id=config.eos_id)


def _run_pairs(model: Any, material: _Material) -> Any:
    """Some pairs through a model, the targets as given: the scores of all their tokens, (N, V)."""
    import torch

    rows = evenly(material.train or _measured_examples(material), CALIBRATION)
    batch = _collate(model.config)(sorted(rows, key=lambda row: len(row.source))[: CALIBRATION // 2])
    with torch.no_grad():
        return model(batch.source_BS, batch.target_BT).flatten(0, 1)[batch.counted_N]


def _measured_examples(material: _Material) -> list[Any]:
    pairs = [pair for pairs in material.pairs.values() for pair in pairs]
    return encode(material.tokenizer, pairs, LONGEST)[0]


def _taught(
    student: Any, teacher: Any, bundle: Bundle, recipe: CompressRecipe, material: _Material, run: Path
) -> Any:
    """The student after it has learnt from the teacher through the one loop."""
    from inkstone.learn.data.batches import PairExample
    from inkstone.learn.loop import train
    from inkstone.learn.objectives.distillation import distilled
    from inkstone.recipes.sequences import validation
    from inkstone.ship.distil import teacher_targets

    examples = material.train
    if recipe.sequences:
        from inkstone.apps.translate import open_engine

        engine = open_engine(bundle.path, material.tokenizer, "auto", max(1, recipe.training.threads))
        written = teacher_targets(
            engine, [one.source for one in examples], beam_size=TEACHER_BEAM, most_tokens=LONGEST - 1
        )
        examples = [PairExample(one.source, ids) for one, ids in zip(examples, written, strict=True) if ids]
        say(f"{len(examples):,} of {len(written):,} sources have an output of the teacher to learn")
    digest = hashlib.sha256(repr((student.config, recipe.distillation, recipe.training)).encode())
    for example in examples:
        digest.update(repr((example.source, example.target)).encode())
    for parameter in student.parameters():
        parameter.requires_grad_(True)
    collate = _collate(student.config)
    options = recipe.training
    train(
        student,
        distilled(teacher, recipe.distillation),
        examples,
        collate,
        validation(material.valid, collate, options.tokens_per_batch),
        options,
        run / digest.hexdigest()[:12],  # what was asked before with other options is none of this run
        fingerprint=digest.hexdigest(),
        title=f"{bundle.name} teaches",
    )
    return student.cpu().eval()


def _written(trial: Trial, material: _Material, small: Any, steps: list[str], out: Path) -> dict[str, Any]:
    """The new bundle, measured before it gets its name. Raises TooLossy when it must not have it."""
    import torch

    from inkstone.model.checkpoint import save_model
    from inkstone.ship.quantize import as_rounded, engine_folder, ship_quantized

    bundle, recipe = trial.bundle, trial.recipe
    description = {key: value for key, value in bundle.description.items() if key != "format"}
    description["name"] = out.name
    made = made_from(trial, steps)
    with new_bundle(out, description, made) as folder:
        parity: dict[str, Any] = {}
        if recipe.quantize == "int4" or recipe.torch:
            parity |= ship_quantized(small, folder, recipe.quantize, lambda one: _run_pairs(one, material))
        kept = as_rounded(small, "int4") if recipe.quantize == "int4" else small
        save_model(kept, folder, dtype=torch.float16)
        material.tokenizer.save(folder / "tokenizer.json")
        certificate = _certified(folder, material)
        parity = {**certificate.facts(), **parity}
        new = [trial.look(f"new: {certificate.engine}", folder, "served")]
        results = trial.results
        if engine_folder(folder, recipe.quantize).exists():
            new.append(trial.look(f"new: torch-{recipe.quantize}", folder, f"torch-{recipe.quantize}"))
        refuse_losses(trial, out, new, steps)
        trial.results = results
        result = report(trial, out, steps=steps, written=True)
        describe(folder, description, made)
        write_card(trial, folder, result, parity, parameters_of(small))
    return result


def _certified(folder: Path, material: _Material) -> Any:
    """The served engine in the folder, with its parity certificate."""
    from inkstone.generate.torch_engine import TorchEngine
    from inkstone.ship.parity import PROBES, SENTENCES, ship_translator

    share = SENTENCES // len(material.directions)
    sources, references, probes = [], [], []
    for source, target in material.directions:
        rows = evenly(
            list(zip(material.sources[source, target], material.pairs[source, target], strict=True)), share
        )
        sources += [ids for ids, _ in rows]
        references += [pair.target for _, pair in rows]
        texts = PROBES.get(source, PROBES["en"])
        encoded = translation_sources(material.tokenizer, list(texts), target)
        probes += [(f"{source}-{target} {number}", ids) for number, ids in enumerate(encoded, 1)]
    return ship_translator(folder, TorchEngine.load(folder), sources, references, probes, limit=100.0)
