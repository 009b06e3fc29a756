"""`inkstone rerun`: does the training of this model come out the same again?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer


def rerun(
    bundle: Annotated[str, typer.Argument(help="A model folder, or the name of a bundled model.")],
    steps: Annotated[int, typer.Option(help="Steps to repeat; the receipt has 50.")] = 50,
    data: Annotated[
        list[Path], typer.Option(help="A folder in which the data files are looked for first. Repeatable.")
    ] = [],  # noqa: B006
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Repeat the first steps of a model's training from its own recipe and data, and compare every loss."""
    from inkstone.cli import print_json

    # Threads that wait for work must sleep, not spin: on a busy machine spinning slows everything ten-fold.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from inkstone.recipes.rerun import rerun as run

    found = run(bundle, steps=steps, data=data)
    if as_json:
        print_json(found.as_json())
    else:
        for check in found.checks:
            print(f"{'ok    ' if check.passed else 'FAILED'}  {check.name}: {check.detail}")
    if not found.passed:
        raise typer.Exit(2)
