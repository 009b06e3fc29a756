"""`inkstone generate`: a language model goes on with a text, word by word as it comes."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inkstone.ground.errors import DataError

if TYPE_CHECKING:
    from inkstone.generate.streaming import Completion


def generate(
    model: Annotated[
        str,
        typer.Argument(
            help="A model of `inkstone pretrain`, or a public decoder of `inkstone pull` or `export`."
        ),
    ],
    prompt: Annotated[
        str, typer.Argument(help="The text to go on with; - reads standard input. Default: from nothing.")
    ] = "",
    chat: Annotated[
        bool,
        typer.Option(
            "--chat",
            help="The prompt is said by a user, to be answered (where a model knows conversations).",
        ),
    ] = False,
    max_length: Annotated[int, typer.Option(help="The most tokens to write.")] = 128,
    temperature: Annotated[
        float | None,
        typer.Option(help="0 takes the likeliest token each time. Default: as the model asks for."),
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Draw from the likeliest tokens with this much together.")
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(help="Draw from so many of the likeliest tokens; 0: all.")
    ] = None,
    repetition_penalty: Annotated[
        float | None, typer.Option(help="Above 1: what was there before is less likely.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed writes the same text.")] = None,
    stop: Annotated[list[str], typer.Option(help="End before this text. Repeatable.")] = [],  # noqa: B006
    alternatives: Annotated[int, typer.Option(help="How many texts to write.")] = 1,
    threads: Annotated[int, typer.Option(min=0, max=256, help="0 takes all cores.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Go on with a text. Prints what comes after the prompt, as it comes."""
    from inkstone.apps.checkpoint import open_continuing
    from inkstone.cli import print_json

    asked = {
        "max_length": max_length,
        "alternatives": alternatives,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "repetition_penalty": repetition_penalty,
        "seed": seed,
    }
    text = _standard_input() if prompt == "-" else prompt
    opened = open_continuing(model, threads=threads)
    options = opened.options(**{name: value for name, value in asked.items() if value is not None})
    how: Any = {"chat": True} if chat else {}
    if as_json:
        found = opened.generate(text, options, stop, **how)
        print_json({"model": opened.name, "prompt": text, "results": [_as_json(one) for one in found]})
    elif alternatives > 1 or options.beam_size > 1:
        for one in opened.generate(text, options, stop, **how):
            print(one.text)
            print()
    else:
        for piece in opened.stream(text, options, stop, **how):
            if isinstance(piece, str):
                print(piece, end="", flush=True)
        print()


def _as_json(one: Completion) -> dict[str, Any]:
    return {
        "text": one.text,
        "reason": one.reason,
        "tokens": len(one.hypothesis.ids),
        "score": round(one.hypothesis.score, 4),
    }


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError as error:
        raise DataError(
            f"standard input is not UTF-8 text (byte {error.start}). "
            "Find out its encoding and run: iconv -f ENCODING -t UTF-8"
        ) from error
