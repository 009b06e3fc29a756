"""`inkstone tokenizer train|show`: learn a vocabulary, and look at what it makes of a text."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import typer

from inkstone.ground.errors import DataError

app = typer.Typer(help="Train a tokenizer, or look at one.", no_args_is_help=True)


@app.command()
def train(
    inputs: Annotated[
        list[str], typer.Argument(help="Files of pairs, labelled texts or plain text.", metavar="FILES...")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Where tokenizer.json goes.")],
    kind: Annotated[
        Literal["bpe", "unigram", "wordpiece", "byte-bpe"], typer.Option(help="How to cut words.")
    ] = "bpe",
    vocab_size: Annotated[int, typer.Option(help="Most tokens.")] = 8000,
    special: Annotated[
        list[str] | None, typer.Option(help="A further special token, such as '<2en>'. May be repeated.")
    ] = None,
    fields: Annotated[str | None, typer.Option(help="Field names, such as source=en,target=zh.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Learn a vocabulary from files and write tokenizer.json."""
    from inkstone.cli.corpus import parse_fields, with_standard_input
    from inkstone.recipes.clean import refuse_own_input
    from inkstone.text.tokenizer import Tokenizer

    refuse_own_input(inputs, [out])
    with with_standard_input(inputs) as files:
        texts = list(_texts(files, parse_fields(fields)))
    tokenizer = Tokenizer.train(texts, kind=kind, vocab_size=vocab_size, specials=special or ())
    tokenizer.save(out)
    sample = texts[: 1 + len(texts) // 20]
    tokens = sum(map(len, tokenizer.encode_batch(sample)))
    report = {
        "tokenizer": str(out),
        "kind": tokenizer.kind,
        "vocab_size": tokenizer.vocab_size,
        "specials": list(tokenizer.specials),
        "texts": len(texts),
        "characters_per_token": round(sum(map(len, sample)) / max(tokens, 1), 3),
    }
    if as_json:
        print(json.dumps(report, ensure_ascii=False, indent=2))
    else:
        print(f"{out}: {tokenizer.kind}, {tokenizer.vocab_size:,} tokens from {len(texts):,} texts")
        print(f"{report['characters_per_token']} characters a token")


@app.command()
def show(
    tokenizer: Annotated[Path, typer.Argument(help="A tokenizer.json, or a bundle.")],
    text: Annotated[str, typer.Argument(help="The text to cut; - reads it from stdin.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show the tokens of a text, their numbers, and whether the text comes back."""
    from inkstone.text.tokenizer import Tokenizer

    loaded = Tokenizer.load(tokenizer)
    if text == "-":
        data = sys.stdin.buffer.read()
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"standard input is not UTF-8 text (byte {error.start}).") from error
    ids = loaded.encode(text)
    back = loaded.decode(ids)
    report = {
        "tokenizer": str(tokenizer),
        "kind": loaded.kind,
        "vocab_size": loaded.vocab_size,
        "tokens": [loaded.token_of(number) for number in ids],
        "ids": ids,
        "decoded": back,
        "round_trip": back == text,
    }
    if as_json:
        print(json.dumps(report, ensure_ascii=False, indent=2))
        return
    print(f"{loaded.kind}, {loaded.vocab_size:,} tokens in the vocabulary; {len(ids)} in the text")
    print(" ".join(f"{loaded.token_of(number)}·{number}" for number in ids))
    print("comes back as it was" if back == text else f"comes back as: {back}")


def _texts(inputs: list[str], fields: dict[str, str] | None) -> Iterator[str]:
    """Every text of the files, whatever they hold; bad lines are named on stderr."""
    from inkstone.corpus.read import task_of
    from inkstone.corpus.rules import sides
    from inkstone.recipes.clean import Cleaning, open_reading

    ask = Cleaning(fields=fields)
    for path in inputs:
        reading = open_reading([path], task_of([path], fields), ask)
        for record in reading:
            yield from sides(record)
        if reading.problem_count:
            first = reading.problems[0]
            print(f"{path}: {reading.problem_count:,} bad lines, first {first}", file=sys.stderr)
