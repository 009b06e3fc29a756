"""Train a translator: from raw pairs to a served bundle with its report card. Read it top to bottom.

    read and clean -> split -> tokenizer -> examples -> Transformer -> train -> checkpoint -> CTranslate2, proved equal
    -> judge beside the baselines -> report card -> bundle

While it runs, everything lives in `<out>.run/`: the resolved recipe, the tokenizer, checkpoints, logs. Killed at any
moment, it goes on with `inkstone train resume <out>.run` and ends with the same weights.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from inkstone.corpus.read import read_pairs
from inkstone.corpus.rules import Dropped, Settings, held_out_keys, judge, key_of, make_rules
from inkstone.ground.configuration import build, plain, read_yaml
from inkstone.ground.errors import ConfigError, DataError, require
from inkstone.ground.files import write_text
from inkstone.ground.progress import say
from inkstone.ground.records import Pair
from inkstone.learn.loop import TrainingOptions
from inkstone.text.normalize import Script, normalize
from inkstone.text.template import tags_for, translation_sources
from inkstone.text.tokenizer import Kind, Tokenizer

HELD_OUT_SHARE, FEWEST, MOST = 0.02, 20, 1000  # of the pairs, where no validation or test data is given
VALIDATED = 1000  # pairs at most that every validation looks at
RULES = ("length", "identical", "ratio", "overlap", "duplicate")


@dataclass(frozen=True, slots=True)
class TranslateRecipe:
    """Everything a run is made of. `data`, `valid` and `test` take any format that `corpus.read` reads."""

    name: str
    data: tuple[str, ...]
    valid: tuple[str, ...] = ()
    test: dict[str, tuple[str, ...]] = field(default_factory=dict)  # name: files
    source: str | None = None  # language codes; None: told by the data
    target: str | None = None
    both_directions: bool = False
    fields: dict[str, str] | None = None
    script: Script | None = None  # Chinese into one script
    rules: tuple[str, ...] = RULES
    cleaning: Settings = field(default_factory=Settings)
    tokenizer: Kind = "bpe"
    vocab_size: int = 8000
    size: str = "small"
    model: dict[str, Any] = field(default_factory=dict)  # fields of ModelConfig laid over the size
    max_length: int = 128  # tokens a side; longer pairs are dropped and counted
    training: TrainingOptions = field(default_factory=TrainingOptions)
    weights: Literal["float32", "float16"] = "float32"
    int8_limit: float = 1.0  # of chrF
    beam_size: int = 5
    bleu: Literal["none", "13a", "zh"] | None = None  # how BLEU cuts; None: by the target language
    licence: str = ""
    quotable: bool = False  # whether the card may show sentences of the data
    good_at: str = ""
    bad_at: str = ""


@dataclass(slots=True)
class Corpus:
    """The pairs of a run, in the forward direction, and what became of the others."""

    train: list[Pair]
    valid: list[Pair]
    tests: dict[str, list[Pair]]
    dropped: Counter[str]
    problems: int
    languages: tuple[str, str]


def train_translator(recipe: TranslateRecipe, out: Path) -> dict[str, Any]:
    """Run the recipe into the bundle `out`, or go on where a killed run stopped; what `inkstone train` prints.

    Raises InkstoneError subclasses for data, options and places that cannot be used, and `Interrupted` on Ctrl-C.
    """
    require("torch", "training", "train")
    import torch

    from inkstone.learn.data.batches import pair_batch
    from inkstone.learn.loop import train
    from inkstone.learn.objectives import OBJECTIVES
    from inkstone.model.config import preset
    from inkstone.model.transformer import Transformer

    run = run_folder(out)
    corpus = read_corpus(recipe)
    directions = _directions(recipe, corpus.languages)
    tokenizer = _tokenizer(recipe, corpus, directions, run)
    examples, too_long = encode(tokenizer, both(corpus.train, directions), recipe.max_length)
    corpus.dropped["too many tokens"] += too_long
    valid, _ = encode(tokenizer, evenly(both(corpus.valid, directions), VALIDATED), recipe.max_length)
    if not examples or not valid:
        raise DataError(f"no pair is left to {'train on' if not examples else 'validate with'} after cleaning.")
    say(f"{len(examples):,} examples, {len(valid):,} for validation, vocabulary {tokenizer.vocab_size:,}")

    config = preset(recipe.size, tokenizer.vocab_size, "encoder-decoder", recipe.model)
    _check_lengths(config.max_positions, recipe.max_length)
    generator = torch.Generator().manual_seed(recipe.training.seed)
    model = Transformer(config, generator)

    def collate(rows: Sequence[Any]) -> Any:
        return pair_batch(rows, pad_id=config.pad_id, bos_id=config.bos_id, eos_id=config.eos_id)

    outcome = train(
        model,
        OBJECTIVES["sequence-to-sequence"],
        examples,
        collate,
        validation(valid, collate, recipe.training.tokens_per_batch),
        recipe.training,
        run,
        fingerprint=_fingerprint(recipe, examples),
        title=recipe.name,
    )
    return _finish(recipe, out, corpus, directions, tokenizer, model, examples, outcome)


def run_folder(out: Path) -> Path:
    """Where a run keeps its state while it goes on."""
    return out.with_name(out.name + ".run")


def read_corpus(recipe: TranslateRecipe) -> Corpus:
    """Read, normalise and clean; training pairs that stand in a validation or test set are dropped."""
    tests = {name: list(_normalised(_read(recipe, paths), recipe)) for name, paths in recipe.test.items()}
    valid = list(_normalised(_read(recipe, recipe.valid), recipe)) if recipe.valid else []
    reading = _read(recipe, recipe.data)
    pairs = list(_normalised(reading, recipe))
    for read in reading.sources:
        say(read.describe())
    if not pairs:
        raise DataError(f"{', '.join(recipe.data)}: there is no pair to train on.")
    languages = {(pair.source_language, pair.target_language) for pair in pairs}
    if len(languages) > 1:
        listed = ", ".join(sorted("-".join(one) for one in languages))
        raise DataError(f"the data mixes several directions ({listed}). Give --from and --to, or separate files.")
    pairs, dropped = _cleaned(pairs, recipe, frozenset())
    pairs, valid, tests = _split(pairs, valid, tests)
    held_out = held_out_keys([*valid, *(pair for test in tests.values() for pair in test)])
    pairs, overlapping = _cleaned(pairs, replace(recipe, rules=("overlap",)), held_out)
    dropped += overlapping
    return Corpus(pairs, valid, tests, dropped, reading.problem_count, languages.pop())


def _read(recipe: TranslateRecipe, paths: Sequence[str]) -> Any:
    return read_pairs(
        list(paths), source_language=recipe.source, target_language=recipe.target, fields=recipe.fields
    )


def _normalised(pairs: Iterable[Pair], recipe: TranslateRecipe) -> Iterable[Pair]:
    for pair in pairs:
        source, target = (normalize(text, script=recipe.script) for text in (pair.source, pair.target))
        yield replace(pair, source=source, target=target)


def _cleaned(pairs: list[Pair], recipe: TranslateRecipe, held_out: frozenset[str]) -> tuple[list[Pair], Counter[str]]:
    rules = make_rules(replace(recipe.cleaning, held_out=held_out), recipe.rules)
    kept: list[Pair] = []
    dropped: Counter[str] = Counter()
    for found in judge(pairs, rules):
        if isinstance(found, Dropped):
            dropped[found.rule] += 1
        elif isinstance(found, Pair):
            kept.append(found)
    return kept, dropped


def _split(
    pairs: list[Pair], valid: list[Pair], tests: dict[str, list[Pair]]
) -> tuple[list[Pair], list[Pair], dict[str, list[Pair]]]:
    """Hold out validation and test pairs where none were given: by a hash of the source, so always the same ones."""
    size = min(MOST, max(FEWEST, int(len(pairs) * HELD_OUT_SHARE)))
    wanted = (0 if valid else size) + (0 if tests else size)
    if not wanted:
        return pairs, valid, tests
    if len(pairs) < 5 * wanted:
        raise DataError(f"{len(pairs)} pairs are too few to hold out {wanted}. Give --valid and --test, or more data.")
    ordered = sorted(pairs, key=lambda pair: hashlib.sha256(key_of(pair.source).encode()).digest())
    held, rest = ordered[:wanted], ordered[wanted:]
    if not tests:
        tests, held = {"held out": held[:size]}, held[size:]
    return rest, valid or held, tests


def _directions(recipe: TranslateRecipe, languages: tuple[str, str]) -> list[tuple[str, str]]:
    source, target = languages
    return [(source, target), (target, source)] if recipe.both_directions else [(source, target)]


def both(pairs: Sequence[Pair], directions: Sequence[tuple[str, str]]) -> list[Pair]:
    """The pairs in every direction of the model, alternating."""
    if len(directions) == 1:
        return list(pairs)
    return [turned for pair in pairs for turned in (pair, pair.reversed())]


def evenly(items: Sequence[Any], most: int) -> list[Any]:
    """At most so many of the items, taken evenly from all over."""
    return [items[n * len(items) // most] for n in range(most)] if len(items) > most else list(items)


def _tokenizer(
    recipe: TranslateRecipe, corpus: Corpus, directions: Sequence[tuple[str, str]], run: Path
) -> Tokenizer:
    file = run / "tokenizer.json"
    if not file.exists():
        texts = (side for pair in corpus.train for side in (pair.source, pair.target))
        tokenizer = Tokenizer.train(
            texts, kind=recipe.tokenizer, vocab_size=recipe.vocab_size, specials=tags_for(directions)
        )
        run.mkdir(parents=True, exist_ok=True)
        tokenizer.save(file)
    return Tokenizer.load(file)


def encode(tokenizer: Tokenizer, pairs: Sequence[Pair], max_length: int) -> tuple[list[Any], int]:
    """Pairs as examples, and how many were left out because a side has more than `max_length` tokens."""
    from inkstone.learn.data.batches import PairExample

    sources: list[list[int]] = [[] for _ in pairs]
    for language in {pair.target_language for pair in pairs}:
        numbers = [n for n, pair in enumerate(pairs) if pair.target_language == language]
        encoded = translation_sources(tokenizer, [pairs[n].source for n in numbers], language)
        for number, ids in zip(numbers, encoded, strict=True):
            sources[number] = ids
    targets = tokenizer.encode_batch([pair.target for pair in pairs])
    examples = [
        PairExample(source, target)
        for source, target in zip(sources, targets, strict=True)
        if len(source) <= max_length and len(target) < max_length
    ]
    return examples, len(pairs) - len(examples)


def _check_lengths(max_positions: int, max_length: int) -> None:
    if max_length > max_positions:
        raise ConfigError(f"max_length={max_length} is more than the model's max_positions={max_positions}.")


def validation(examples: Sequence[Any], collate: Any, tokens_per_batch: int) -> Any:
    """A function that measures loss (nats per token, no smoothing) and token accuracy of a model on these examples."""
    import torch

    from inkstone.learn.data.batches import Plan, chunks, to_device
    from inkstone.learn.objectives import sequence_to_sequence

    batches = [collate(chunks(examples, n)) for n in Plan(examples, tokens_per_batch=tokens_per_batch, seed=0).in_order()]

    def validate(model: torch.nn.Module) -> dict[str, float]:
        model.eval()
        device = next(model.parameters()).device
        with torch.no_grad():
            losses = [sequence_to_sequence(model, to_device(batch, device)) for batch in batches]
        count = sum(loss.count for loss in losses)
        return {
            "loss": sum(float(loss.mean) * loss.count for loss in losses) / count,
            "accuracy": sum(loss.correct for loss in losses) / count,
        }

    return validate


def _fingerprint(recipe: TranslateRecipe, examples: Sequence[Any]) -> str:
    """Of everything that decides the weights: the data as ids, the model and the training options."""
    digest = hashlib.sha256(repr((recipe.size, recipe.model, recipe.training)).encode())
    for example in examples:
        digest.update(repr((example.source, example.target)).encode())
    return digest.hexdigest()


def save_recipe(recipe: TranslateRecipe, out: Path) -> None:
    """Keep the resolved recipe in the run's folder, for `inkstone train resume`."""
    import yaml

    run = run_folder(out)
    run.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump({"task": "translate", "out": str(out), "recipe": plain(recipe)}, allow_unicode=True, sort_keys=False)
    write_text(run / "recipe.yaml", text)


def load_recipe(run: Path) -> tuple[TranslateRecipe, Path]:
    """The recipe and the output of an unfinished run."""
    saved = read_yaml(run / "recipe.yaml")
    return build(TranslateRecipe, saved["recipe"], str(run / "recipe.yaml")), Path(saved["out"])


def _finish(
    recipe: TranslateRecipe,
    out: Path,
    corpus: Corpus,
    directions: list[tuple[str, str]],
    tokenizer: Tokenizer,
    model: Any,
    examples: Sequence[Any],
    outcome: Any,
) -> dict[str, Any]:
    """Everything after training; see recipes/report_translator.py."""
    from inkstone.recipes.finish_translator import finish

    result = finish(recipe, out, corpus, directions, tokenizer, model, examples, outcome)
    shutil.rmtree(run_folder(out) / "checkpoints", ignore_errors=True)
    return result
