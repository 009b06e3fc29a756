"""The second half of pre-training: from best weights to a bundle with engine, certificate and report card."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from inkstone.ground.configuration import plain
from inkstone.ground.progress import progress, say
from inkstone.recipes.documents import Documents, passages
from inkstone.recipes.learning_facts import curve_points, training_facts
from inkstone.recipes.receipt import receipt
from inkstone.recipes.run import short_path
from inkstone.recipes.sources import other_files
from inkstone.text.segment import words
from inkstone.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from inkstone.apps.language_model import LanguageModel
    from inkstone.judge.facts import DataDescription, Result, Sample
    from inkstone.learn.data.batches import Feed
    from inkstone.learn.loop import Outcome
    from inkstone.recipes.beginning import Base, Beginning
    from inkstone.recipes.pretrain_recipe import PretrainRecipe

COMPARED = 16_384  # tokens of held-out text on which the engine is proved
PROMPTS, PROMPT = 16, 9  # beginnings that it is proved to go on with, and tokens of each
SAMPLES = 10  # texts written for the report, each after the first words of a held-out document
BEGINNING, WRITTEN = 5, 64  # words of a prompt, tokens after it
BOOK = 20_000  # characters
LOOKED_AT = 400  # characters in which its words are looked for
AT_ONCE = 8  # documents that are tested between two looks at the clock
COUNTED = 200  # batches from which the frequencies of the baseline are counted
DRAWN = {"temperature": 0.8, "top_p": 0.95}  # how the samples are drawn


def finish(
    recipe: PretrainRecipe,
    out: Path,
    texts: Documents,
    tokenizer: Tokenizer,
    begun: Beginning,
    outcome: Outcome,
    feed: Feed,
    foreseen: dict[str, Any],
) -> dict[str, Any]:
    """Write the bundle and return what `inkstone pretrain` prints."""
    import torch

    from inkstone.judge.report import ReportCard
    from inkstone.learn.data.shares import steps_of
    from inkstone.model.bundle import describe, new_bundle
    from inkstone.model.checkpoint import save_model

    description = {
        "task": "language-model",
        "name": recipe.name,
        "languages": list(texts.languages),
        "objective": recipe.objective,
        "block": recipe.block,
        "script": recipe.script,
    }
    made = _made(recipe, texts, outcome) | begun.facts()
    model = begun.learnt().cpu()
    per_epoch = steps_of(len(feed.epoch(0)), recipe.training.accumulate)
    with new_bundle(out, description, made) as folder:
        save_model(model, folder, dtype=getattr(torch, recipe.weights))
        begun.write(folder)
        tokenizer.save(folder / "tokenizer.json")
        parity: dict[str, Any] = {}
        samples: list[Sample] = []
        if recipe.objective == "causal":
            parity = _ship(recipe, folder, texts, tokenizer)
            describe(folder, description, made)
            result, samples = _judged_causal(recipe, folder, texts, tokenizer, begun.base)
        else:
            result = _judged_filling(recipe, model, texts, tokenizer, feed, begun.base)
        card = ReportCard(
            name=recipe.name,
            task="language-model",
            languages=texts.languages,
            data=_data(recipe, texts),
            results=(result,),
            training=training_facts(model, outcome, per_epoch, begun_with=begun.name, learnt=begun.learns()),
            preflight=foreseen,
            curve=curve_points(outcome, "loss", "accuracy"),
            samples=tuple(samples),
            parity=parity,
            good_at=recipe.good_at,
            bad_at=recipe.bad_at,
            licence=recipe.licence,
            size_bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        )
        card.save(folder)
    return _printed(out, result, outcome, samples)


def _printed(out: Path, result: Result, outcome: Outcome, samples: Sequence[Sample]) -> dict[str, Any]:
    return {
        "bundle": str(out),
        "metrics": {name: measured.as_json() for name, measured in result.metrics.items()},
        "baseline": {
            baseline: {name: measured.as_json() for name, measured in metrics.items()}
            for baseline, metrics in result.baselines.items()
        },
        "seconds": round(outcome.seconds, 1),
        "tokens_per_second": round(outcome.tokens_per_second, 1),
        "peak_memory_bytes": outcome.peak_memory_bytes,
        "steps": outcome.steps,
        "n": result.n,
        "samples": [{"prompt": one.source, "text": one.hypothesis} for one in samples],
    }


def _ship(recipe: PretrainRecipe, folder: Path, texts: Documents, tokenizer: Tokenizer) -> dict[str, Any]:
    """Export and prove on held-out text."""
    from inkstone.learn.data.documents import parts
    from inkstone.learn.pretraining import marked
    from inkstone.model.checkpoint import load_model
    from inkstone.model.transformer import Transformer
    from inkstone.recipes.pairs import evenly
    from inkstone.ship.language_model import ship_language_model

    held = marked(tokenizer, passages(texts.valid))
    rows = [part for ids in held for part in parts(ids, recipe.block)]
    rows = evenly(rows, max(1, COMPARED * len(rows) // max(1, sum(map(len, rows)))))
    prompts = [list(ids[:PROMPT]) for ids in evenly(held, PROMPTS)]
    saved = load_model(folder)
    assert isinstance(saved, Transformer), type(saved)
    certificate = ship_language_model(
        folder, saved, rows, [p[: recipe.block - 1] for p in prompts], limit=recipe.int8_limit
    )
    identical = f"{certificate.float32_identical} of {certificate.prompts}"
    say(f"engine {certificate.engine}: float32 export identical after {identical} prompts")
    return certificate.facts()


def _judged_causal(
    recipe: PretrainRecipe, folder: Path, texts: Documents, tokenizer: Tokenizer, base: Base | None
) -> tuple[Result, list[Sample]]:
    """The test documents, by the engine that is served, beside the n-gram model on the same tokens."""
    from inkstone.apps.language_model import LanguageModel
    from inkstone.judge.evaluate import measure, signatures
    from inkstone.judge.facts import Result
    from inkstone.judge.kneser_ney import KneserNey
    from inkstone.judge.language_modelling import foresight_tallies
    from inkstone.learn.pretraining import marked

    say(f"baseline: an n-gram model of order {recipe.ngram_order}")
    ngrams = KneserNey.fit(
        marked(tokenizer, texts.train), order=recipe.ngram_order, vocab_size=tokenizer.vocab_size
    )
    rivals = foresight_tallies(texts.test, ngrams.score(marked(tokenizer, texts.test)))
    say(f"testing on {len(texts.test):,} held-out documents")
    served = LanguageModel(folder)
    tallies = foresight_tallies(texts.test, _scored(served, texts.test))
    others = {"kneser-ney": rivals}
    if base is not None:
        say(f"{base.name}, from which it began, on the same documents")
        others["before"] = foresight_tallies(texts.test, _scored(LanguageModel(base.path), texts.test))
    result = Result(
        test_set=_named(recipe),
        n=len(texts.test),
        metrics=measure(tallies, rng=np.random.default_rng(0)),
        baselines={name: measure(one, rng=np.random.default_rng(0)) for name, one in others.items()},
        signatures=signatures(tallies),
    )
    return result, _samples(served, texts.test)


def _scored(served: LanguageModel, texts: Sequence[str]) -> list[Any]:
    """What the served engine thinks of each token of each text, telling how far it has come."""
    found: list[Any] = []
    with progress("testing", len(texts)) as bar:
        for start in range(0, len(texts), AT_ONCE):
            found += served.log_probabilities(texts[start : start + AT_ONCE])
            bar.advance(len(found))
    return found


def _samples(served: LanguageModel, texts: Sequence[str]) -> list[Sample]:
    """What it writes after the first words of held-out documents, drawn with the seeds 0, 1, 2 ..."""
    from inkstone.generate.engine import GenerationOptions
    from inkstone.judge.facts import Sample
    from inkstone.recipes.pairs import evenly

    tokenizer, room = served.tokenizer, served.engine.max_positions or LOOKED_AT
    found = []
    for seed, text in enumerate(map(inside, evenly(texts, SAMPLES))):
        prompt = beginning(text)
        if len(tokenizer.encode(prompt)) + 2 > room:
            continue
        options = GenerationOptions(beam_size=1, max_length=WRITTEN, seed=seed, **DRAWN)  # type: ignore[arg-type]
        written = served.generate(prompt, options)[0].text
        found.append(Sample(prompt, text[len(prompt) :][: max(80, len(written))], written))
    return found


def inside(text: str) -> str:
    """A book from a paragraph in its middle on, for it begins with its title; anything shorter as it is."""
    if len(text) < BOOK:
        return text
    place = text.find("\n\n", len(text) // 2)
    return text[place:].lstrip() if place >= 0 else text


def beginning(text: str) -> str:
    """The first words of a text, as it stands there."""
    place = 0
    for word in words(text[:LOOKED_AT])[:BEGINNING]:
        place = text.index(word, place) + len(word)
    return text[:place]


def _judged_filling(
    recipe: PretrainRecipe,
    model: Any,
    texts: Documents,
    tokenizer: Tokenizer,
    feed: Feed,
    base: Base | None,
) -> Result:
    """The test documents, with something hidden that is always the same, beside guessing by frequency."""
    import torch

    from inkstone.judge.evaluate import measure
    from inkstone.judge.facts import Result
    from inkstone.judge.language_modelling import filling_tallies
    from inkstone.learn.pretraining import COURSES
    from inkstone.model.checkpoint import load_model

    say(f"testing on {len(texts.test):,} held-out documents")
    course, options = COURSES[recipe.objective], recipe.course_options()
    counts = np.ones(tokenizer.vocab_size)  # so that every token has a chance
    for make in feed.epoch(0)[:COUNTED]:
        counts += np.bincount(make().wanted_N.numpy(), minlength=tokenizer.vocab_size)  # type: ignore[union-attr]
    logs = np.log(counts / counts.sum())

    def by(one: Any, batch: Any) -> tuple[float, int, int]:
        with torch.no_grad():
            loss = course.objective(one, batch)
        return float(loss.mean) * loss.count, loss.correct, loss.count

    def by_frequency(batch: Any) -> tuple[float, int, int]:
        wanted = batch.wanted_N.numpy()
        return -logs[wanted].sum(), (wanted == counts.argmax()).sum(), len(wanted)

    systems: dict[str, Callable[[Any], tuple[float, int, int]]]
    systems = {"": partial(by, model.eval()), "frequency": by_frequency}
    if base is not None:
        say(f"{base.name}, from which it began, on the same documents")
        systems["before"] = partial(by, load_model(base.path).eval())
    rows: dict[str, list[NDArray[np.float64]]] = {name: [] for name in systems}
    for text in texts.test:
        batches = list(course.fixed([text], tokenizer, options, recipe.training.tokens_per_batch))
        if batches:
            for name, system in systems.items():
                rows[name].append(np.sum([system(batch) for batch in batches], axis=0))
    measured = {
        name: measure(filling_tallies(np.array(side)), rng=np.random.default_rng(0))
        for name, side in rows.items()
    }
    return Result(_named(recipe), len(rows[""]), measured.pop(""), measured)


def _named(recipe: PretrainRecipe) -> str:
    names = ", ".join(Path(path).name.split(".")[0] for path in recipe.test)
    folders = {Path(path).parent.name for path in recipe.test} - {""}
    return (f"{folders.pop()} {names}" if len(folders) == 1 else names) or "documents held out"


def _data(recipe: PretrainRecipe, texts: Documents) -> tuple[DataDescription, ...]:
    from inkstone.judge.facts import DataDescription

    counts = {"train": len(texts.train), "valid": len(texts.valid), "test": len(texts.test)}
    name = ", ".join(sorted({Path(path).parent.name or Path(path).name for path in recipe.data}))
    return (DataDescription(name, counts, dict(texts.dropped), recipe.licence, recipe.quotable),)


def _made(recipe: PretrainRecipe, texts: Documents, outcome: Outcome) -> dict[str, Any]:
    """For the manifest: what the weights came from."""
    packages = ("inkstone", "torch", "numpy", "tokenizers", "ctranslate2")
    uses = ("data", "valid", "test")
    kept = {**plain(recipe), **{use: [short_path(p) for p in getattr(recipe, use)] for use in uses}}
    kept["base"] = recipe.base and short_path(recipe.base)
    return {
        "recipe": kept,
        "data_sha256": {
            use: _digest(side) for use, side in zip(uses, (texts.train, texts.valid, texts.test), strict=True)
        },
        "seed": recipe.training.seed,
        "receipt": receipt(kept, [*texts.files, *other_files("base", recipe.base)], outcome.receipt),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }


def _digest(texts: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest())
    return digest.hexdigest()
