"""The second half of training a sentence encoder: from best weights to a bundle with engine, certificate, report card."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inkstone.apps.embed import SentenceEncoder
from inkstone.corpus.related import RelatedData
from inkstone.ground.configuration import plain
from inkstone.ground.progress import say
from inkstone.judge.retrieval import Retrieval
from inkstone.recipes.learning_facts import curve_points, training_facts
from inkstone.recipes.pairs import evenly
from inkstone.recipes.receipt import receipt
from inkstone.recipes.related import RelatedCorpus, sides_of
from inkstone.recipes.run import short_path
from inkstone.recipes.sources import IN_PACKAGE, other_files
from inkstone.text.reader import TextReader

if TYPE_CHECKING:
    from inkstone.ground.records import Related
    from inkstone.judge.facts import DataDescription, Result, Sample
    from inkstone.learn.loop import Outcome
    from inkstone.recipes.beginning import Beginning
    from inkstone.recipes.embed_recipe import EmbedRecipe, Files

PROVED = 500  # validation pairs on which int8 is measured
SAMPLES, SHOWN = 5, 200  # of each test set; characters of a text


def finish(
    recipe: EmbedRecipe,
    out: Path,
    corpus: RelatedCorpus,
    reader: TextReader,
    begun: Beginning,
    outcome: Outcome,
    per_epoch: int,
    foreseen: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the bundle and return what `inkstone train` prints."""
    import torch

    from inkstone.judge.report import ReportCard
    from inkstone.model.bundle import describe, new_bundle
    from inkstone.model.checkpoint import save_model
    from inkstone.ship.embed import ship_encoder

    model = begun.learnt().cpu()
    width = model.config.hidden_size
    description = {
        "task": "embed",
        "name": recipe.name,
        "languages": list(corpus.languages),
        "dimensions": sorted({width, *recipe.objective.dimensions}, reverse=True),
        "script": recipe.script,
    }
    made = _made(recipe, corpus, outcome) | begun.facts()
    with new_bundle(out, description, made) as folder:
        save_model(model, folder, dtype=getattr(torch, recipe.weights))
        begun.write(folder)
        reader.save(folder)
        proof = Retrieval.of(evenly(corpus.valid, PROVED))
        facts = ship_encoder(folder, proof.queries, proof.candidates, proof.right, limit=recipe.int8_limit)
        describe(folder, description, made)
        judged = list(_judged(recipe, SentenceEncoder(folder), corpus))
        results = tuple(result for result, _ in judged)
        card = ReportCard(
            name=recipe.name,
            task="embed",
            languages=corpus.languages,
            data=_data(recipe, corpus),
            results=results,
            training=training_facts(model, outcome, per_epoch, begun_with=begun.name, learnt=begun.learns()),
            preflight=foreseen,
            curve=curve_points(outcome, "recall_at_1", "mrr"),
            samples=tuple(sample for _, samples in judged for sample in samples),
            parity=facts,
            good_at=recipe.good_at,
            bad_at=recipe.bad_at,
            licence=recipe.licence,
            size_bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        )
        card.save(folder)
    return {
        "bundle": str(out),
        "metrics": {_called(one): _values(one.metrics) for one in results},
        "baseline": {
            _called(one): {name: _values(found) for name, found in one.baselines.items()} for one in results
        },
        "seconds": round(outcome.seconds, 1),
        "tokens_per_second": round(outcome.tokens_per_second, 1),
        "peak_memory_bytes": outcome.peak_memory_bytes,
        "steps": outcome.steps,
        "engine": facts["engine"],
        "parameters": sum(one.numel() for one in model.parameters()),
    }


def _called(result: Result) -> str:
    return f"{result.test_set} {result.direction}".strip()


def _values(metrics: Any) -> dict[str, Any]:
    return {name: measured.as_json() for name, measured in metrics.items()}


def _judged(
    recipe: EmbedRecipe, encoder: SentenceEncoder, corpus: RelatedCorpus
) -> Iterator[tuple[Result, list[Sample]]]:
    """Each test set by the engine that is served, beside BM25: how high what belongs to a text stands among all."""
    from inkstone.judge.evaluate import measure, signatures
    from inkstone.judge.facts import Result, Sample

    for name, pairs in corpus.tests.items():
        ways = [("", pairs)]
        if recipe.both_ways:
            ways = [("source-target", pairs), ("target-source", [_reversed(pair) for pair in pairs])]
        for direction, turned in ways:
            sought = Retrieval.of(turned)
            say(f"testing on {name}: {len(sought.queries):,} among {len(sought.candidates):,} {direction}")
            scores_QN = encoder.encode(sought.queries) @ encoder.encode(sought.candidates).T
            tallies = sought.tallies(scores_QN)
            lexical = sought.tallies(sought.lexical())
            result = Result(
                test_set=f"{name}, among {len(sought.candidates):,}",
                n=len(sought.queries),
                metrics=measure(tallies, rng=np.random.default_rng(0)),
                baselines={"bm25": measure(lexical, rng=np.random.default_rng(0))},
                direction=direction,
                signatures=signatures(tallies),
            )
            best = sought.best(scores_QN[:SAMPLES])
            shown = zip(sought.queries, sought.right, best, strict=False)
            samples = [
                Sample(query[:SHOWN], sought.candidates[right[0]][:SHOWN], found[:SHOWN], direction)
                for query, right, found in shown
            ]
            yield result, samples


def _reversed(pair: Related) -> Related:
    return replace(pair, source=pair.target, target=pair.source, negatives=())


def _data(recipe: EmbedRecipe, corpus: RelatedCorpus) -> tuple[DataDescription, ...]:
    from inkstone.judge.facts import DataDescription

    tests = sum(map(len, corpus.tests.values()))
    counts = {"train": len(corpus.train), "valid": len(corpus.valid), "test": tests}
    paths = [Path(_file(one)) for one in recipe.data]
    name = ", ".join(dict.fromkeys(path.parent.name or path.name for path in paths))
    return (DataDescription(name, counts, dict(corpus.dropped), recipe.licence, recipe.quotable),)


def _file(one: str | RelatedData) -> str:
    return one if isinstance(one, str) else one.file


def _made(recipe: EmbedRecipe, corpus: RelatedCorpus, outcome: Outcome) -> dict[str, Any]:
    """For the manifest: what the weights came from."""
    packages = ("inkstone", "torch", "numpy", "tokenizers", "onnxruntime")
    tests = [pair for test in corpus.tests.values() for pair in test]
    sides = {"data": corpus.train, "valid": corpus.valid, "test": tests}
    kept = {
        **plain(recipe),
        "data": _short(recipe.data),
        "valid": _short(recipe.valid),
        "test": {name: _short(files) for name, files in recipe.test.items()},
        "base": short_path(recipe.base) if recipe.base else None,
    }
    given = {"data": recipe.data, "valid": recipe.valid}
    given |= {f"test {name}": files for name, files in recipe.test.items()}
    files = [
        file
        for use, some in given.items()
        for one in some
        for file in other_files(use, one if isinstance(one, str) else one.file)
    ]
    files += other_files("base", None if recipe.base == IN_PACKAGE else recipe.base)
    return {
        "recipe": kept,
        "data_sha256": {use: _digest(pairs) for use, pairs in sides.items()},
        "seed": recipe.training.seed,
        "receipt": receipt(kept, files, outcome.receipt),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }


def _short(files: Files) -> list[Any]:
    return [
        short_path(one) if isinstance(one, str) else plain(replace(one, file=short_path(one.file)))
        for one in files
    ]


def _digest(pairs: Sequence[Related]) -> str:
    digest = hashlib.sha256()
    for text in sides_of(pairs):
        digest.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    return digest.hexdigest()
