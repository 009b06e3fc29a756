"""The second half of training a translator: from best weights to a bundle with engine, certificate and report card."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inkstone.apps.translate import Translator
from inkstone.generate.engine import GenerationOptions
from inkstone.ground.configuration import plain
from inkstone.ground.progress import say
from inkstone.recipes.pairs import Corpus, Direction, spread, turned
from inkstone.recipes.receipt import receipt
from inkstone.recipes.run import short_path
from inkstone.recipes.sources import other_files
from inkstone.text.template import translation_sources
from inkstone.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from inkstone.learn.data.batches import Feed
    from inkstone.learn.loop import Outcome
    from inkstone.model.bundle import Bundle
    from inkstone.recipes.beginning import Beginning
    from inkstone.recipes.translator_recipe import TranslateRecipe

SAMPLES = 5  # shown in the card, of each test set and direction


def finish(
    recipe: TranslateRecipe,
    out: Path,
    corpus: Corpus,
    directions: list[Direction],
    tokenizer: Tokenizer,
    begun: Beginning,
    examples: Sequence[Any],
    feed: Feed,
    outcome: Outcome,
    foreseen: dict[str, Any],
) -> dict[str, Any]:
    """Write the bundle and return what `inkstone train` prints."""
    import torch

    from inkstone.generate.torch_engine import TorchEngine
    from inkstone.judge.report import ReportCard
    from inkstone.model.bundle import describe, new_bundle
    from inkstone.model.checkpoint import save_model

    description = {
        "task": "translate",
        "name": recipe.name,
        "languages": sorted({code for direction in directions for code in direction}),
        "directions": [list(direction) for direction in directions],
        "script": recipe.script,
        "comfortable_tokens": int(np.percentile([len(example.source) for example in examples], 90)),
    }
    made = _made(recipe, corpus, examples, outcome) | begun.facts()
    model = begun.learnt()
    with new_bundle(out, description, made) as folder:
        save_model(model, folder, dtype=getattr(torch, recipe.weights))
        begun.write(folder)
        tokenizer.save(folder / "tokenizer.json")
        certificate = _ship(recipe, folder, TorchEngine.load(folder), tokenizer, corpus, directions)
        identical = f"{certificate.float32_identical} of {certificate.sentences}"
        say(f"engine {certificate.engine}: float32 export identical on {identical} sentences")
        describe(folder, description, made)
        results, samples = _judged(recipe, Translator(folder), corpus, directions, begun.base)
        card = ReportCard(
            name=recipe.name,
            task="translate",
            languages=tuple(description["languages"]),  # type: ignore[arg-type]
            data=_data(recipe, corpus),
            results=tuple(results),
            training=_training(model, begun, feed, recipe, outcome),
            preflight=foreseen,
            curve=tuple(_curve(outcome)),
            samples=tuple(samples),
            parity=certificate.facts(),
            good_at=recipe.good_at,
            bad_at=recipe.bad_at,
            licence=recipe.licence,
            size_bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        )
        card.save(folder)
    return _printed(out, results, outcome, certificate.engine)


def _printed(out: Path, results: Sequence[Any], outcome: Outcome, engine: str) -> dict[str, Any]:
    first = results[0]
    return {
        "bundle": str(out),
        "metrics": {f"{r.test_set} {r.direction}": _values(r.metrics) for r in results},
        "baseline": {
            f"{r.test_set} {r.direction}": {n: _values(m) for n, m in r.baselines.items()} for r in results
        },
        "seconds": round(outcome.seconds, 1),
        "tokens_per_second": round(outcome.tokens_per_second, 1),
        "peak_memory_bytes": outcome.peak_memory_bytes,
        "steps": outcome.steps,
        "engine": engine,
        "first_metric": {"test_set": first.test_set, "bleu": first.metrics["bleu"].as_json()},
    }


def _ship(
    recipe: TranslateRecipe,
    folder: Path,
    trained: Any,
    tokenizer: Tokenizer,
    corpus: Corpus,
    directions: Sequence[Direction],
) -> Any:
    """Export and prove on real sentences of the validation set, taken evenly from every direction."""
    from inkstone.ship.parity import PROBES, SENTENCES, ship_translator

    pairs = spread(corpus.valid, directions, SENTENCES)
    sources = [translation_sources(tokenizer, [p.source], p.target_language)[0] for p in pairs]
    probes = [
        (f"{source}-{target} {number}", translation_sources(tokenizer, [text], target)[0])
        for source, target in directions
        for number, text in enumerate(PROBES.get(source, PROBES["en"]), 1)
    ]
    return ship_translator(
        folder, trained, sources, [p.target for p in pairs], probes, limit=recipe.int8_limit
    )


def _judged(
    recipe: TranslateRecipe,
    translator: Translator,
    corpus: Corpus,
    directions: Sequence[Direction],
    base: Bundle | None,
) -> tuple[list[Any], list[Any]]:
    """Each test set in each direction, translated as it will be served, beside the baselines and the base."""
    from inkstone.judge.baselines import translation_baselines
    from inkstone.judge.evaluate import judge_translations, signatures, translation_tallies
    from inkstone.judge.facts import Result, Sample

    options = GenerationOptions(beam_size=recipe.beam_size)
    results, samples = [], []
    for source, target in directions:
        ways = {name: turned(pairs, (source, target)) for name, pairs in corpus.tests.items()}
        tests = {name: pairs for name, pairs in ways.items() if pairs}
        if not tests:
            continue
        say(f"baselines {source}-{target}: copy and dictionary")
        everything = [pair.source for pairs in tests.values() for pair in pairs]
        baselines = translation_baselines(
            turned(corpus.train, (source, target)), everything, tokenised=recipe.bleu == "none"
        )
        if base is not None:
            say(f"{base.name}, from which it began, on the same texts")
            before = Translator(base.path)
            found = before.translate(everything, to=target, source=source, options=options)
            baselines["before"] = [one.translation for one in found]
        start = 0
        for name, pairs in tests.items():
            say(f"testing on {name} {source}-{target}, {len(pairs):,} sentences")
            found = translator.translate([p.source for p in pairs], to=target, source=source, options=options)
            outputs, references = [one.translation for one in found], [pair.target for pair in pairs]
            how: dict[str, Any] = {"target_language": target, "tokenize": recipe.bleu}
            end = start + len(pairs)
            beside = {
                baseline: judge_translations(
                    texts[start:end], references, rng=np.random.default_rng(0), **how
                )
                for baseline, texts in baselines.items()
            }
            results.append(
                Result(
                    test_set=name,
                    n=len(pairs),
                    metrics=judge_translations(outputs, references, rng=np.random.default_rng(0), **how),
                    baselines=beside,
                    direction=f"{source}-{target}",
                    signatures=signatures(translation_tallies(outputs, references, **how)),
                )
            )
            samples += [
                Sample(pair.source, pair.target, output, f"{source}-{target}")
                for pair, output in list(zip(pairs, outputs, strict=True))[
                    : SAMPLES if len(tests) == 1 else 2
                ]
            ]
            start = end
    return results, samples


def _values(metrics: Any) -> dict[str, float]:
    return {name: round(measured.value, 4) for name, measured in metrics.items()}


def _data(recipe: TranslateRecipe, corpus: Corpus) -> tuple[Any, ...]:
    from inkstone.judge.facts import DataDescription

    counts = {"train": len(corpus.train), "valid": len(corpus.valid)}
    counts |= {f"test {name}": len(pairs) for name, pairs in corpus.tests.items()}
    cleaning = dict(corpus.dropped)
    if corpus.problems:
        cleaning["unreadable line"] = corpus.problems
    name = ", ".join(sorted({Path(path).parent.name or Path(path).name for path in recipe.data}))
    return (DataDescription(name, counts, cleaning, recipe.licence, recipe.quotable),)


def _training(model: Any, begun: Beginning, feed: Feed, recipe: TranslateRecipe, outcome: Outcome) -> Any:
    from inkstone.judge.facts import TrainingFacts
    from inkstone.learn.data.shares import steps_of

    options = recipe.training
    per_epoch = steps_of(len(feed.epoch(0)), options.accumulate)
    return TrainingFacts(
        seconds=round(outcome.seconds, 1),
        steps=outcome.steps,
        epochs=round(outcome.steps / per_epoch, 2),
        parameters=sum(p.numel() for p in model.parameters()),
        tokens_per_second=round(outcome.tokens_per_second, 1),
        peak_memory_bytes=outcome.peak_memory_bytes,
        device=f"{platform.machine()}, {next(model.parameters()).device.type}",
        begun_with=begun.base.name if begun.base is not None else "",
        learnt_parameters=begun.learns(),
    )


def _curve(outcome: Outcome) -> list[Any]:
    from inkstone.judge.facts import CurvePoint

    return [
        CurvePoint(
            int(point["step"]),
            point["seconds"],
            point["train_loss"],
            {
                name.removeprefix("valid_"): value
                for name, value in point.items()
                if name.startswith("valid_")
            },
        )
        for point in outcome.curve
    ]


def _made(
    recipe: TranslateRecipe, corpus: Corpus, examples: Sequence[Any], outcome: Outcome
) -> dict[str, Any]:
    """For the manifest: what the weights came from."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(repr((example.source, example.target)).encode())
    packages = ("inkstone", "torch", "numpy", "tokenizers", "ctranslate2", "onnxruntime", "sacrebleu")
    files: dict[str, Any] = {
        use: [short_path(path) for path in getattr(recipe, use)] for use in ("data", "valid")
    }
    files |= {
        use: path and short_path(path) for use in ("base", "vectors") for path in [getattr(recipe, use)]
    }
    tests = {name: [short_path(path) for path in paths] for name, paths in recipe.test.items()}
    kept = {**plain(recipe), **files, "test": tests}
    sources = [*corpus.files, *other_files("vectors", recipe.vectors), *other_files("base", recipe.base)]
    return {
        "recipe": kept,
        "examples_sha256": digest.hexdigest(),
        "seed": recipe.training.seed,
        "receipt": receipt(kept, sources, outcome.receipt),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }
