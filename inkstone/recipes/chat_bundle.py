"""The second half of instruction tuning: from best weights to a bundle with engine, certificate and report card."""

from __future__ import annotations

import hashlib
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inkstone.apps.language_model import LanguageModel
from inkstone.generate.foreign_options import FILE as GENERATION
from inkstone.ground.configuration import plain
from inkstone.ground.progress import say
from inkstone.recipes.chat_recipe import ADAPTER
from inkstone.recipes.documents import languages_of
from inkstone.recipes.learning_facts import curve_points, training_facts
from inkstone.recipes.pairs import evenly
from inkstone.recipes.receipt import receipt
from inkstone.recipes.run import short_path
from inkstone.recipes.sources import other_files
from inkstone.recipes.talks import Talks, replies_of

if TYPE_CHECKING:
    from inkstone.judge.facts import DataDescription, Result, Sample
    from inkstone.learn.data.conversations import ChatExample
    from inkstone.learn.loop import Outcome
    from inkstone.model.lora import Adapters
    from inkstone.model.transformer import Transformer
    from inkstone.recipes.chat import Taught
    from inkstone.recipes.chat_recipe import ChatRecipe

PROVED, PROMPTS = 60, 12  # conversations on which the engine is proved; beginnings that it goes on with
SAMPLES, WRITTEN = 8, 96  # answers shown, tokens of each at most


def finish(
    recipe: ChatRecipe,
    out: Path,
    talks: Talks,
    taught: Taught,
    model: Transformer,
    adapters: Adapters | None,
    before: Any,
    outcome: Outcome,
    per_epoch: int,
    foreseen: Mapping[str, Any],
) -> dict[str, Any]:
    """Write the bundle and return what `inkstone train` prints. before: what the base thought of the test's answers."""
    import torch

    from inkstone.judge.report import ReportCard
    from inkstone.model.bundle import describe, new_bundle
    from inkstone.model.checkpoint import save_model
    from inkstone.ship.language_model import ship_language_model

    said = [str(m.get("content")) for talk in talks.test_talks for m in talk.messages]
    languages = recipe.languages or taught.languages or languages_of(said)
    description = {
        "task": "language-model",
        "name": recipe.name,
        "languages": list(languages),
        "objective": "causal",
        "block": recipe.block,
        "chat": True,
    }
    made = _made(recipe, taught, talks, outcome)
    with new_bundle(out, description, made) as folder:
        save_model(model, folder, dtype=getattr(torch, recipe.weights))
        taught.tokenizer.save(folder)
        if (taught.folder / GENERATION).is_file() and not taught.new:
            shutil.copyfile(taught.folder / GENERATION, folder / GENERATION)
        _keep_adapter(recipe, taught, adapters, folder)
        rows = [list(one.ids) for one in evenly(talks.valid, PROVED)]
        prompts = [_prompt(one, recipe.block - 1) for one in evenly(talks.valid, PROMPTS)]
        certificate = ship_language_model(folder, model, rows, prompts, limit=recipe.int8_limit)
        describe(folder, description, made)
        result = _judged(recipe, replies_of(model, talks.test), before)
        samples = list(_samples(LanguageModel(folder), talks))
        card = ReportCard(
            name=recipe.name,
            task="language-model",
            languages=languages,
            data=_data(recipe, talks),
            results=(result,),
            training=training_facts(
                model,
                outcome,
                per_epoch,
                begun_with=str(recipe.plain_base()["name"]),
                learnt=_learnt(model, adapters),
            ),
            preflight=foreseen,
            curve=curve_points(outcome, "loss", "accuracy"),
            samples=tuple(samples),
            parity=certificate.facts(),
            good_at=recipe.good_at,
            bad_at=recipe.bad_at,
            licence=recipe.licence,
            size_bytes=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        )
        card.save(folder)
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


def _keep_adapter(recipe: ChatRecipe, taught: Taught, adapters: Adapters | None, folder: Path) -> None:
    """The adapter beside the merged weights, where it alone makes the model of the base."""
    from inkstone.model.lora_files import family_of, name_base, save_adapter

    if adapters is not None and not taught.new:
        base = str(recipe.plain_base()["name"])
        (folder / ADAPTER).mkdir()
        family = family_of(taught.folder)
        save_adapter(adapters, ADAPTER, folder / ADAPTER, family=family, base=base)
        if (taught.folder / "model.safetensors").exists():
            name_base(folder / ADAPTER, base, taught.folder)


def _prompt(one: ChatExample, most: int) -> list[int]:
    """A conversation up to where the assistant begins to speak, or of so many tokens."""
    return list(one.ids[: min(most, max(1, list(one.said).index(True)))])


def _judged(recipe: ChatRecipe, after: Any, before: Any) -> Result:
    from inkstone.judge.evaluate import measure, signatures
    from inkstone.judge.facts import Result
    from inkstone.judge.language_modelling import filling_tallies

    tallies = filling_tallies(after)
    return Result(
        test_set=", ".join(Path(path).name.split(".")[0] for path in recipe.test) or "conversations held out",
        n=len(after),
        metrics=measure(tallies, rng=np.random.default_rng(0)),
        baselines={"before": measure(filling_tallies(before), rng=np.random.default_rng(0))},
        signatures=signatures(tallies),
    )


def _samples(served: LanguageModel, talks: Talks) -> Iterator[Sample]:
    """What it answers to the first thing said in test conversations, greedily."""
    from inkstone.judge.facts import Sample

    room = served.engine.max_positions
    for talk in evenly(talks.test_talks, SAMPLES):
        first = next(n for n, one in enumerate(talk.messages) if one["role"] == "assistant")
        if first == 0:
            continue
        messages = talk.messages[:first]
        ids = served.chat_ids(messages)
        if room and len(ids) + 2 > room:
            continue
        options = served.options(temperature=0, max_length=WRITTEN)
        answer = served.reply(messages, options).text
        yield Sample(str(messages[-1].get("content")), str(talk.messages[first].get("content")), answer)
    say("answers written for the report card")


def _data(recipe: ChatRecipe, talks: Talks) -> tuple[DataDescription, ...]:
    from inkstone.judge.facts import DataDescription

    counts = {"train": len(talks.train), "valid": len(talks.valid), "test": len(talks.test)}
    name = ", ".join(sorted({Path(path).parent.name or Path(path).name for path in recipe.data}))
    return (DataDescription(name, counts, talks.dropped, recipe.licence, recipe.quotable),)


def _learnt(model: Transformer, adapters: Adapters | None) -> int:
    """How many parameters learnt."""
    if adapters is None:
        return sum(one.numel() for one in model.parameters())
    own = adapters.parts(ADAPTER).values()
    return sum(one.numel() for parts in own for part in parts for one in part.parameters())


def _made(recipe: ChatRecipe, taught: Taught, talks: Talks, outcome: Outcome) -> dict[str, Any]:
    """For the manifest: what the weights came from."""
    packages = ("inkstone", "torch", "numpy", "tokenizers", "ctranslate2")
    uses = ("data", "valid", "test")
    short = {use: [short_path(path) for path in getattr(recipe, use)] for use in uses}
    base = {**recipe.plain_base(), "sha256": taught.digest}
    sides = zip(uses, (talks.train, talks.valid, talks.test), strict=True)
    kept = {**plain(recipe), **short, "base": short_path(recipe.base)}
    files = [file for use in uses for path in getattr(recipe, use) for file in other_files(use, path)]
    files += other_files("base", recipe.base)
    return {
        "recipe": kept,
        "base": base,
        "data_sha256": {use: _digest(examples) for use, examples in sides},
        "seed": recipe.training.seed,
        "receipt": receipt(kept, files, outcome.receipt),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }


def _digest(examples: Sequence[ChatExample]) -> str:
    digest = hashlib.sha256()
    for one in examples:
        digest.update(repr((list(one.ids), list(one.said))).encode())
    return digest.hexdigest()
