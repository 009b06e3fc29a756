"""What a summariser's bundle says of itself, and how it is judged: beside the first sentence, and what it began with.

ROUGE is of what is served. Beside it stand the loss and the accuracy of the trained model on the tokens of the first
reference, each foreseen from the right ones before it: what validation measures, on the test set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inkstone.apps.summarize import SEARCH, Summarizer
from inkstone.ground.progress import say
from inkstone.ground.records import Pair
from inkstone.judge.baselines import lead
from inkstone.judge.evaluate import judge_summaries, measure, signatures, summary_tallies
from inkstone.judge.facts import Result, Sample
from inkstone.metrics.statistics import Tally
from inkstone.recipes import sequence_bundle
from inkstone.recipes.pairs import encode, turned
from inkstone.recipes.sequences import foreseen

if TYPE_CHECKING:
    from inkstone.recipes.sequences import Learnt
    from inkstone.recipes.summarizer_recipe import SummarizeRecipe

SAMPLES = 5  # shown in the card, of each test set and language


def finish(recipe: SummarizeRecipe, learnt: Learnt, out: Path) -> dict[str, Any]:
    """Write the bundle and return what `inkstone train` prints."""
    description = {"max_tokens": recipe.max_length}
    return sequence_bundle.finish(learnt, out, description, lambda folder: _judged(recipe, learnt, folder))


def documents(pairs: Sequence[Pair]) -> dict[str, list[str]]:
    """Each document once, with all of its summaries."""
    found: dict[str, list[str]] = {}
    for pair in pairs:
        found.setdefault(pair.source, []).append(pair.target)
    return found


def _judged(recipe: SummarizeRecipe, learnt: Learnt, folder: Path) -> sequence_bundle.Judged:
    """Each test set in each language, summarised as it will be served."""
    summarizer = Summarizer(folder)
    base = learnt.begun.base
    search = replace(SEARCH, beam_size=recipe.beam_size)
    results, samples = [], []
    for name, everything in learnt.corpus.tests.items():
        for language, _ in learnt.directions:
            tests = documents(turned(everything, (language, language)))
            if not tests:
                continue
            say(f"testing on {name} ({language}), {len(tests):,} documents")
            texts, references = list(tests), list(tests.values())

            def written(by: Summarizer, texts: Sequence[str] = texts, language: str = language) -> list[str]:
                return [one.summary for one in by.summarize(texts, language=language, options=search)]

            summaries, tokens = written(summarizer), _foreseen(learnt, tests, language)
            others = {"lead": lead(texts)}
            if base is not None:
                say(f"{base.name}, from which it began, on the same texts")
                others["before"] = written(Summarizer(base.path))
            results.append(
                Result(
                    test_set=name,
                    n=len(texts),
                    metrics=judge_summaries(summaries, references, rng=np.random.default_rng(0))
                    | measure(tokens, rng=np.random.default_rng(0)),
                    baselines={
                        baseline: judge_summaries(found, references, rng=np.random.default_rng(0))
                        for baseline, found in others.items()
                    },
                    direction=language,
                    signatures=signatures(summary_tallies(summaries, references) | tokens),
                )
            )
            samples += [
                Sample(text, several[0], summary, language)
                for (text, several), summary in list(zip(tests.items(), summaries, strict=True))[:SAMPLES]
            ]
    return results, samples


def _foreseen(learnt: Learnt, tests: dict[str, list[str]], language: str) -> dict[str, Tally]:
    """Loss and accuracy of the tokens of the first references; documents too long for training are left out, and said."""
    pairs = [Pair(text, several[0], language, language) for text, several in tests.items()]
    examples, too_long = encode(learnt.tokenizer, pairs, learnt.recipe.max_length)
    if not examples:
        say(f"all {len(pairs)} documents are longer than max_length: there is no loss to measure")
        return {}
    found = foreseen(learnt, examples)
    if not too_long:
        return found
    note = f"without {too_long} of {len(pairs)} documents, which are longer than max_length"
    return {name: replace(tally, signature=f"{tally.signature}, {note}") for name, tally in found.items()}
