"""Runs the toy task as one of several processes, as torchrun starts it, for each case of a JSON file.

    torchrun --nproc-per-node 2 processes.py CASES FOLDER

cases: {name: {"model": overlay, "die_at": batch, "fail_at": batch, "run": name, ...training options}}. Every rank writes
FOLDER/NAME.RANK.safetensors (the weights it ends with) and FOLDER/NAME.RANK.json (the outcome); the run's own folder is
FOLDER/RUN, by default FOLDER/NAME.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import reversing
import torch
from safetensors.torch import save_file

from inkstone.ground.errors import InkstoneError
from inkstone.ground.processes import rank
from inkstone.learn import muon
from inkstone.learn.adversarial import AdversarialOptions
from inkstone.learn.regularize import Regularization


def run_case(name: str, case: dict[str, Any], folder: Path) -> None:
    """One run, its weights and outcome written for the test to see."""
    options = dict(case)
    model = reversing.small_model(**options.pop("model", {}))
    die_at, fail_at = options.pop("die_at", None), options.pop("fail_at", None)
    muon.PRECISION = torch.float32 if options.pop("exact_muon", False) else torch.bfloat16
    for record, kind in (("adversarial", AdversarialOptions), ("regularize", Regularization)):
        if record in options:
            options[record] = kind(**options[record])
    place = folder / options.pop("run", name)
    if options.get("fingerprint") == "by rank":
        options["fingerprint"] = str(rank())
    calls = 0

    def collate(rows: Sequence[Any]) -> Any:
        nonlocal calls
        calls += 1
        if fail_at == calls and rank() == 1:
            raise InkstoneError("row 7 is not a row")
        if die_at == calls:
            raise KeyboardInterrupt
        return reversing.collate(rows)

    try:
        outcome, _ = reversing.run(place, model=model, collate=collate, **options)
    except KeyboardInterrupt:
        return
    save_file(model.state_dict(), folder / f"{name}.{rank()}.safetensors")
    words = {"steps": outcome.steps, "stopped_early": outcome.stopped_early, "curve": outcome.curve}
    (folder / f"{name}.{rank()}.json").write_text(json.dumps(words))


if __name__ == "__main__":
    for name, case in json.loads(Path(sys.argv[1]).read_text()).items():
        try:
            run_case(name, case, Path(sys.argv[2]))
        except InkstoneError as error:
            sys.stderr.write(f"rank {rank()} said: {error}\n")
            sys.exit(2)
