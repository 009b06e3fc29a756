"""What a translator's bundle says of itself, and how it is judged: beside copying, a dictionary, and its beginning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inkstone.apps.translate import Translator
from inkstone.generate.engine import GenerationOptions
from inkstone.ground.progress import say
from inkstone.recipes import sequence_bundle
from inkstone.recipes.pairs import Corpus, Direction, turned

if TYPE_CHECKING:
    from inkstone.recipes.beginning import Base
    from inkstone.recipes.sequences import Learnt
    from inkstone.recipes.translator_recipe import TranslateRecipe

SAMPLES = 5  # shown in the card, of each test set and direction


def finish(recipe: TranslateRecipe, learnt: Learnt, out: Path) -> dict[str, Any]:
    """Write the bundle and return what `inkstone train` prints."""
    description = {
        "directions": [list(direction) for direction in learnt.directions],
        "comfortable_tokens": int(np.percentile([len(example.source) for example in learnt.examples], 90)),
    }

    def judged(folder: Path) -> sequence_bundle.Judged:
        return _judged(recipe, Translator(folder), learnt.corpus, learnt.directions, learnt.begun.base)

    return sequence_bundle.finish(learnt, out, description, judged)


def _judged(
    recipe: TranslateRecipe,
    translator: Translator,
    corpus: Corpus,
    directions: Sequence[Direction],
    base: Base | None,
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
