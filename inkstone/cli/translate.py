"""`inkstone translate`: texts, standard input or a file, line by line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from inkstone.ground.errors import ConfigError, DataError


def translate(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts to translate; - reads standard input.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="Target language code, such as en.")] = None,
    source: Annotated[str | None, typer.Option("--from", help="Source language code. Default: told by the text.")] = None,
    model: Annotated[str, typer.Option(help="A model folder, or the name of a bundled model.")] = "zh-en",
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Translate a text file line by line.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the translations here, a line each.")] = None,
    beam_size: Annotated[int | None, typer.Option(help="Width of the search; 1 is greedy.")] = None,
    length_penalty: Annotated[float, typer.Option(help="Above 1 favours longer translations.")] = 1.0,
    alternatives: Annotated[int, typer.Option(help="How many translations to give of each text.")] = 1,
    engine: Annotated[str, typer.Option(help="ctranslate2 or torch.")] = "ctranslate2",
    threads: Annotated[int, typer.Option(help="0 takes all cores.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Translate texts or files. Lines stay lines, blank ones blank."""
    from inkstone.apps.translate import Translator
    from inkstone.cli import print_json
    from inkstone.generate.engine import GenerationOptions
    from inkstone.ground.files import write_text

    wanted = _texts(texts or [], file)
    translator = Translator(model, engine=engine, threads=threads)  # type: ignore[arg-type]
    width = beam_size or max(alternatives, int(translator.bundle.description.get("beam_size", 4)))
    options = GenerationOptions(beam_size=width, alternatives=alternatives, length_penalty=length_penalty)
    found = translator.translate(wanted, to=to, source=source, options=options)
    if out is not None:
        write_text(out, "".join(f"{one.translation}\n" for one in found))
    if as_json:
        results = [
            {
                "source": one.source,
                "translation": one.translation,
                "score": round(one.score, 4),
                "from": one.source_language,
                "to": one.target_language,
                **({"alternatives": list(one.alternatives)} if alternatives > 1 else {}),
            }
            for one in found
        ]
        print_json({"model": translator.name, "results": results})
    elif out is None:
        for one in found:
            for line in (one.translation, *(f"  {other}" for other in one.alternatives)):
                print(line)


def _texts(texts: list[str], file: Path | None) -> list[str]:
    if file is not None:
        if texts:
            raise ConfigError("give texts or --file, not both.")
        try:
            return file.read_text("utf-8-sig").splitlines()
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error.strerror}.") from error
        except UnicodeDecodeError as error:
            raise DataError(
                f"{file} is not UTF-8 text (byte {error.start}). Convert it, or clean it with `inkstone corpus clean`."
            ) from error
    if texts == ["-"]:
        try:
            return sys.stdin.read().splitlines()
        except UnicodeDecodeError as error:
            raise DataError(f"standard input is not UTF-8 text (byte {error.start}).") from error
    if not texts:
        raise ConfigError("there is nothing to translate. Give a text, - for standard input, or --file FILE.")
    return texts
