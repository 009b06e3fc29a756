"""`inkstone classify`, and `inkstone train classify`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from inkstone.cli.corpus import parse_fields
from inkstone.cli.training import AsJson, DryRun, Name, On, Out, Profile, RecipeFile, Workers
from inkstone.cli.translate import lines_of
from inkstone.ground.errors import ConfigError, DataError

_SHOWN = 3  # labels shown of each text


def classify(
    texts: Annotated[
        list[str] | None,
        typer.Argument(
            help="Texts, or one file of any format; - reads standard input.", metavar="[TEXT...|FILE]"
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="A model folder, or the name of a bundled model [default: intents-en]. Repeated: the mean of several."
        ),
    ] = None,
    fields: Annotated[
        str | None, typer.Option(help="The field of the text in a file, such as text=body.")
    ] = None,
    top: Annotated[
        int | None, typer.Option(min=1, help="How many probabilities to give; with --json, default all.")
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="0 takes all cores.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Give each text its label, with probabilities."""
    from inkstone.apps.classify import Classifier
    from inkstone.cli import print_json

    wanted = _texts(texts or [], parse_fields(fields))
    first, *others = model or ["intents-en"]
    classifier = Classifier(first, threads=threads, beside=others)
    found = classifier.predict(wanted)
    if as_json:
        results = []
        for one in found:
            labels: dict[str, Any] = (
                {"labels": list(one.labels)} if classifier.multi_label else {"label": one.label}
            )
            scores = {label: round(score, 6) for label, score in list(one.scores.items())[:top]}
            results.append({"text": one.text, **labels, "scores": scores})
        print_json({"model": classifier.name, "results": results})
        return
    for one in found:
        best = ", ".join(f"{label} {score:.0%}" for label, score in list(one.scores.items())[: top or _SHOWN])
        text = " ".join(one.text.split())
        print(f"{', '.join(one.labels) or '-'}\t{text if len(text) <= 60 else text[:59] + '…'}\t({best})")


def _texts(given: list[str], fields: dict[str, str] | None) -> list[str]:
    if given == ["-"]:
        return lines_of(sys.stdin.buffer, "standard input")
    if not given:
        raise ConfigError("there is nothing to classify. Give a text, a file, or - for standard input.")
    if len(given) == 1 and _is_file(given[0]):
        from inkstone.corpus.read import read_documents

        reading = read_documents(given, fields=fields)
        texts = [document.text for document in reading]
        if reading.problem_count:
            print(f"{reading.problem_count} bad lines; first: {reading.problems[0]}", file=sys.stderr)
        return texts
    if fields:
        raise ConfigError("--fields is for a file, and this is no file: " + given[0][:60])
    return given


def _is_file(text: str) -> bool:
    """Whether this is the path of a file, or looks so much like one that it must be a mistake."""
    try:
        path = Path(text)
        if path.is_file():
            return True
    except (OSError, ValueError):  # too long for a path, or a null in it: a text
        return False
    if path.suffix in (".jsonl", ".csv", ".tsv", ".txt", ".gz", ".parquet") and " " not in text:
        raise DataError(f"{text} does not exist. Give the path of a file, or a text.")
    return False


def train_classify(
    data: Annotated[list[str], typer.Option(help="Texts with labels, any format. Repeatable.")] = [],  # noqa: B006
    out: Out = None,
    valid: Annotated[list[str], typer.Option(help="Validation texts. Default: held out of the data.")] = [],  # noqa: B006
    test: Annotated[list[str], typer.Option(help="Test texts. Default: held out of the data.")] = [],  # noqa: B006
    architecture: Annotated[
        Literal["auto", "bag", "transformer", "rnn", "cnn", "pretrained"] | None,
        typer.Option(help="auto trains a bag and a transformer and keeps the better. Default: auto."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="A pretrained encoder to read with: minilm (English), or a folder. auto tries it too."
        ),
    ] = None,
    size: Annotated[Literal["tiny", "small", "base"] | None, typer.Option(help="Not for a bag.")] = None,
    tune: Annotated[
        bool, typer.Option("--tune", help="With --base: train the encoder too, not just a layer on it.")
    ] = False,
    lora: Annotated[
        bool,
        typer.Option("--lora", help="With --tune: of the encoder only an adapter beside its weights learns."),
    ] = False,
    family: Annotated[
        str | None,
        typer.Option(help="Of public checkpoints, such as bert: programs that know it open the model."),
    ] = None,
    vectors: Annotated[
        str | None, typer.Option(help="Word vectors to begin the embedding with; any format. Not for a bag.")
    ] = None,
    fields: Annotated[str | None, typer.Option(help="Field names, such as text=body,label=topic.")] = None,
    name: Name = None,
    recipe: RecipeFile = None,
    settings: Annotated[
        list[str],
        typer.Option("--set", help="Anything of the recipe, as in options.bag.hidden_size=32. Repeatable."),
    ] = [],  # noqa: B006
    seed: Annotated[int | None, typer.Option(min=0, help="Where random numbers start.")] = None,
    dry_run: DryRun = False,
    profile: Profile = False,
    on: On = None,
    workers: Workers = 2,
    as_json: AsJson = False,
) -> None:
    """Train a classifier from texts with labels."""
    from inkstone.cli import recipe_of, recipe_values, training_manner
    from inkstone.ground.configuration import overlay, plain
    from inkstone.recipes.classify import ClassifyRecipe, check

    options: dict[str, Any] = {"architecture": architecture, "seed": seed}
    options = {key: value for key, value in options.items() if value is not None}
    if base and architecture not in (None, "auto", "pretrained"):
        raise ConfigError(f"--base goes with --architecture pretrained or auto, not {architecture}.")
    if tune and not base:
        raise ConfigError("--tune trains the encoder of --base, which is not given.")
    if lora and not tune:
        raise ConfigError(
            "--lora is an adapter that learns while the encoder is tuned: give --base and --tune too."
        )
    if base:
        from inkstone.learn.pretrained import ADAPTING, TUNING

        learning: dict[str, Any] = {"tuning": plain(TUNING)} if tune else {}
        learning = {"tuning": plain(ADAPTING), "lora": {}} if lora else learning
        options["pretrained"] = {"base": base, **learning}
    sized = {"size": size, "family": family}
    if given_sizes := {key: value for key, value in sized.items() if value}:
        options[architecture if architecture in ("rnn", "cnn") else "transformer"] = given_sizes
    given: dict[str, Any] = {
        "data": data,
        "valid": valid,
        "test": test,
        "fields": parse_fields(fields),
        "vectors": vectors,
        "name": name,
        "options": options,
    }
    given = {key: value for key, value in given.items() if value}
    values = recipe_values(recipe, given, settings, "classify")
    if manner := training_manner(dry_run, profile):
        loops: dict[str, Any] = {one: {"training": manner} for one in ("transformer", "rnn", "cnn")}
        tuned = isinstance(values.get("options"), dict) and values["options"].get("pretrained", {}).get(
            "tuning"
        )
        values = overlay(values, {"options": loops | ({"pretrained": {"tuning": manner}} if tuned else {})})
    resolved, place = recipe_of(
        ClassifyRecipe, values, out, str(recipe or "recipe"), "texts with labels", check
    )
    _train(resolved, place, as_json, on, workers)


def resume_classify(run: Path, *how: Any) -> None:
    """Go on with the unfinished run in this folder."""
    from inkstone.recipes.classify import load_recipe

    recipe, out = load_recipe(run)
    _train(recipe, out, *how)


def _train(recipe: Any, out: Path, *how: Any) -> None:
    from inkstone.cli import train_and_report
    from inkstone.recipes.classify import train_classifier

    train_and_report(train_classifier, recipe, out, *how)
