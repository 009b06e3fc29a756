"""The options that every verb which trains has, each said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Out = Annotated[Path | None, typer.Option(help="The folder of the new model.")]
Name = Annotated[str | None, typer.Option(help="The model's name. Default: the folder's.")]
RecipeFile = Annotated[
    Path | None, typer.Option(help="A recipe in YAML, or the name of one of ours; options are laid over it.")
]
Settings = Annotated[
    list[str], typer.Option("--set", help="Anything of the recipe, as in training.epochs=3. Repeatable.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what it will take and what is wrong with the data, and stop.")
]
Profile = Annotated[bool, typer.Option("--profile", help="Trace some steps, and say where their time went.")]
On = Annotated[str | None, typer.Option(help="A Ray cluster: ray (on this machine) or ray://HOST:PORT.")]
Workers = Annotated[int, typer.Option(help="With --on: processes that train.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
