"""`inkstone translate`: texts, standard input or a file, line by line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from inkstone.corpus.lines import LINE_LIMIT
from inkstone.ground.errors import ConfigError, DataError

if TYPE_CHECKING:
    from inkstone.apps.translate import Translation


def translate(
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts to translate; - reads standard input.")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", help="Target language code, such as en.")] = None,
    source: Annotated[
        str | None, typer.Option("--from", help="Source language code. Default: told by the text.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="A model folder, or the name of a bundled model [default: zh-en]. Repeated: the mean of several."
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Translate a text file line by line.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write the translations here, a line each.")
    ] = None,
    beam_size: Annotated[
        int | None, typer.Option(min=1, max=64, help="Width of the search; 1 is greedy.")
    ] = None,
    length_penalty: Annotated[float, typer.Option(help="Above 1 favours longer translations.")] = 1.0,
    alternatives: Annotated[
        int, typer.Option(min=1, max=64, help="How many translations to give of each text.")
    ] = 1,
    engine: Annotated[
        str, typer.Option(help="ctranslate2, onnx or torch. Default: what the model was shipped with.")
    ] = "auto",
    adapter: Annotated[
        str | None, typer.Option(help="A LoRA adapter on the model: FOLDER or NAME=FOLDER. Runs in torch.")
    ] = None,
    threads: Annotated[int, typer.Option(min=0, max=256, help="0 takes all cores.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Translate texts or files. Lines stay lines, blank ones blank."""
    from inkstone.apps.translate import Translator
    from inkstone.cli import print_json
    from inkstone.generate.engine import GenerationOptions
    from inkstone.ground.files import write_text

    if file is not None and out is not None and out.exists() and file.exists() and out.samefile(file):
        raise ConfigError(f"{out} is also the input. Choose another name for the output.")
    wanted = _texts(texts or [], file)
    adapters = named_folder(adapter)
    first, *others = model or ["zh-en"]
    translator = Translator(first, engine=engine, threads=threads, adapters=adapters, beside=others)  # type: ignore[arg-type]
    width = beam_size or max(alternatives, GenerationOptions().beam_size)
    options = GenerationOptions(
        beam_size=width,
        alternatives=alternatives,
        length_penalty=length_penalty,
        adapter=next(iter(adapters), None),
    )
    found = translator.translate(wanted, to=to, source=source, options=options)
    if out is not None:
        write_text(out, "".join(f"{one.translation}\n" for one in found))
    if as_json:
        results = [_as_json(one, alternatives) for one in found]
        print_json({"model": translator.name, "results": results})
    elif out is None:
        for one in found:
            for line in (one.translation, *(f"  {other}" for other in one.alternatives)):
                print(line)


def _as_json(one: Translation, alternatives: int) -> dict[str, Any]:
    return {
        "source": one.source,
        "translation": one.translation,
        "score": round(one.score, 4),
        "from": one.source_language,
        "to": one.target_language,
        **({"alternatives": list(one.alternatives)} if alternatives > 1 else {}),
    }


def named_folder(given: str | None) -> dict[str, str]:
    """FOLDER or NAME=FOLDER as the name and its folder; a folder without a name is called as it is. Empty for none."""
    if given is None:
        return {}
    name, equals, folder = given.partition("=")
    if not equals or "/" in name:
        name, folder = Path(given).name.replace(".", "-") or "adapter", given
    if not name or not folder:
        raise ConfigError(f'--adapter "{given}" names no folder. Write --adapter FOLDER or NAME=FOLDER.')
    return {name: folder}


def _texts(texts: list[str], file: Path | None) -> list[str]:
    if file is not None:
        if texts:
            raise ConfigError("give texts or --file, not both.")
        try:
            with file.open("rb") as opened:
                return lines_of(opened, str(file))
        except OSError as error:
            raise DataError(f"{file} cannot be read: {error.strerror}.") from error
    if texts == ["-"]:
        return lines_of(sys.stdin.buffer, "standard input")
    if not texts:
        raise ConfigError("there is nothing to translate. Give a text, - for standard input, or --file FILE.")
    return texts


def lines_of(file: IO[bytes], name: str) -> list[str]:
    """The lines of a text, as many as other programs count: only a line feed ends one. Raises DataError.

    A line over the limit is refused before it is read: it is no text for people, and would fill the memory.
    """
    lines: list[str] = []
    while line := file.readline(LINE_LIMIT + 1):
        where = f"{name}, line {len(lines) + 1}"
        if len(line) > LINE_LIMIT:
            raise DataError(f"{where} is longer than {LINE_LIMIT:,} bytes. Break the text into paragraphs.")
        try:
            text = line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError as error:
            advice = "Find out its encoding and run: iconv -f ENCODING -t UTF-8"
            raise DataError(f"{where} is not UTF-8 text (byte {error.start}). {advice}") from error
        lines.append(text if lines else text.removeprefix("\ufeff"))
    if not lines:
        raise DataError(f"{name} is empty. There is nothing to work on.")
    return lines
