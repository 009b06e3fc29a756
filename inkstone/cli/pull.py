"""`inkstone pull`: a public checkpoint, fetched or copied, checked and sealed."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer


def pull(
    source: Annotated[
        str, typer.Argument(help="A hub id such as owner/model, or the folder of a checkpoint.")
    ],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The new folder. Default: models/NAME.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Bring a public checkpoint here: BERT, RoBERTa, GPT-2, Llama, Mistral, Qwen2, Qwen3, T5, BART or Marian."""
    from inkstone.cli import print_json
    from inkstone.recipes.pull import pull as run

    found = run(source, out or Path("models") / Path(source).name)
    if as_json:
        print_json(asdict(found))
    else:
        print(
            f"{found.folder}: {found.architecture}, {found.parameters:,} parameters, {found.size_bytes / 2**20:,.1f} MB"
        )
