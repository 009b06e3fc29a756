"""`inkstone verify`: is this model whole, and does it still do what it was certified to do?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer


def verify(
    bundle: Annotated[str, typer.Argument(help="A model folder, or the name of a bundled model.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Check every file of a model, and that its engine still answers as certified."""
    from inkstone.cli import print_json
    from inkstone.model.bundle import BUNDLED, open_bundle
    from inkstone.recipes.verify import verify as run

    if not Path(bundle).is_dir():
        open_bundle(bundle)  # which says what is wrong, unless it is the name of a bundled model
    path = Path(bundle) if Path(bundle).exists() or not (BUNDLED / bundle).exists() else BUNDLED / bundle
    checks = list(run(path))
    passed = all(check.passed for check in checks)
    if as_json:
        print_json({"bundle": str(path), "checks": [asdict(check) for check in checks], "passed": passed})
    else:
        for check in checks:
            print(f"{'ok    ' if check.passed else 'FAILED'}  {check.name}: {check.detail}")
    if not passed:
        raise typer.Exit(2)
