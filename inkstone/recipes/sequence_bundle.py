"""The second half of a run that learnt to turn one text into another: from best weights to a bundle with engine,
certificate and report card. What a task measures, it says itself.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inkstone.ground.configuration import plain
from inkstone.ground.progress import say
from inkstone.judge.compare import PRIMARY
from inkstone.recipes.learning_facts import curve_points, training_facts
from inkstone.recipes.pairs import Corpus, Direction, spread
from inkstone.recipes.receipt import receipt
from inkstone.recipes.run import short_path
from inkstone.recipes.sources import other_files
from inkstone.text.template import translation_sources
from inkstone.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from inkstone.judge.facts import Result, Sample
    from inkstone.learn.loop import Outcome
    from inkstone.recipes.sequence_recipe import SequenceRecipe
    from inkstone.recipes.sequences import Learnt


Judged = tuple[list["Result"], list["Sample"]]


def finish(
    learnt: Learnt,
    out: Path,
    description: dict[str, Any],
    judged: Callable[[Path], Judged],
) -> dict[str, Any]:
    """Write the bundle and return what `inkstone train` prints.

    description: of the task, for `inkstone.json`. judged: what the model in a folder reaches on the test sets, and its
    first answers; the folder is the bundle as it will be, but for its card.
    """
    import torch

    from inkstone.generate.torch_engine import TorchEngine
    from inkstone.judge.report import ReportCard
    from inkstone.learn.data.shares import steps_of
    from inkstone.model.bundle import describe, new_bundle
    from inkstone.model.checkpoint import save_model

    recipe, begun, corpus = learnt.recipe, learnt.begun, learnt.corpus
    description = {
        "task": recipe.task,
        "name": recipe.name,
        "languages": sorted({code for direction in learnt.directions for code in direction}),
        "script": recipe.script,
        **description,
    }
    made = _made(recipe, corpus, learnt.examples, learnt.outcome) | begun.facts()
    model = begun.learnt()
    per_epoch = steps_of(len(learnt.feed.epoch(0)), recipe.training.accumulate)
    with new_bundle(out, description, made) as folder:
        save_model(model, folder, dtype=getattr(torch, recipe.weights))
        begun.write(folder)
        learnt.tokenizer.save(folder / "tokenizer.json")
        certificate = _ship(
            recipe, folder, TorchEngine.load(folder), learnt.tokenizer, corpus, learnt.directions
        )
        identical = f"{certificate.float32_identical} of {certificate.sentences}"
        say(f"engine {certificate.engine}: float32 export identical on {identical} sentences")
        describe(folder, description, made)
        results, samples = judged(folder)
        card = ReportCard(
            name=recipe.name,
            task=recipe.task,
            languages=tuple(description["languages"]),
            data=_data(recipe, corpus),
            results=tuple(results),
            training=training_facts(
                model, learnt.outcome, per_epoch, begun_with=begun.name, learnt=begun.learns()
            ),
            preflight=learnt.foreseen,
            curve=curve_points(learnt.outcome, "loss", "accuracy"),
            samples=tuple(samples),
            parity=certificate.facts(),
            good_at=recipe.good_at,
            bad_at=recipe.bad_at,
            licence=recipe.licence,
            size_bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        )
        card.save(folder)
    return _printed(out, results, learnt.outcome, certificate.engine, PRIMARY[recipe.task])


def _printed(
    out: Path, results: Sequence[Result], outcome: Outcome, engine: str, primary: str
) -> dict[str, Any]:
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
        "first_metric": {"test_set": first.test_set, primary: first.metrics[primary].as_json()},
    }


def _ship(
    recipe: SequenceRecipe,
    folder: Path,
    trained: Any,
    tokenizer: Tokenizer,
    corpus: Corpus,
    directions: Sequence[Direction],
) -> Any:
    """Export and prove on real sentences of the validation set, taken evenly from every direction."""
    from inkstone.ship.parity import PROBES, SENTENCES, ship_translator

    found = spread(corpus.valid, directions, SENTENCES)
    encoded = [translation_sources(tokenizer, [p.source], p.target_language)[0] for p in found]
    fitting = [n for n, source in enumerate(encoded) if len(source) <= recipe.max_length]
    pairs, sources = [found[n] for n in fitting], [encoded[n] for n in fitting]
    if len(pairs) < len(found):
        say(f"{len(found) - len(pairs)} of {len(found)} validation texts are too long to prove the engine on")
    probes = [
        (f"{source}-{target} {number}", translation_sources(tokenizer, [text], target)[0])
        for source, target in directions
        for number, text in enumerate(PROBES.get(source, PROBES["en"]), 1)
    ]
    return ship_translator(
        folder, trained, sources, [p.target for p in pairs], probes, limit=recipe.int8_limit
    )


def _values(metrics: Any) -> dict[str, float]:
    return {name: round(measured.value, 4) for name, measured in metrics.items()}


def _data(recipe: SequenceRecipe, corpus: Corpus) -> tuple[Any, ...]:
    from inkstone.judge.facts import DataDescription

    counts = {"train": len(corpus.train), "valid": len(corpus.valid)}
    counts |= {f"test {name}": len(pairs) for name, pairs in corpus.tests.items()}
    cleaning = dict(corpus.dropped)
    if corpus.problems:
        cleaning["unreadable line"] = corpus.problems
    name = ", ".join(sorted({Path(path).parent.name or Path(path).name for path in recipe.data}))
    return (DataDescription(name, counts, cleaning, recipe.licence, recipe.quotable),)


def _made(
    recipe: SequenceRecipe, corpus: Corpus, examples: Sequence[Any], outcome: Outcome
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
