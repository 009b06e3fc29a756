"""Runs the toy task as one of several processes, as torchrun starts it, for each case of a JSON file.

    torchrun --nproc-per-node 2 processes.py CASES FOLDER

cases: {name: {"model": overlay, "die_at": batch, "fail_at": batch, "run": name, ...training options}}. Every rank writes
FOLDER/NAME.RANK.safetensors (the weights it ends with), FOLDER/NAME.RANK.gradients.safetensors (what the first step goes
by, in the optimisers' order) and FOLDER/NAME.RANK.json (the outcome); the run's own folder is FOLDER/RUN, by default
FOLDER/NAME.
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
from torch.distributed.tensor import DTensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

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

    gradients: dict[str, torch.Tensor] = {}
    stepped: list[torch.optim.Optimizer] = []

    def first(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        if any(one is optimizer for one in stepped):
            return
        stepped.append(optimizer)
        for one in (one.grad for group in optimizer.param_groups for one in group["params"]):
            whole = one.full_tensor() if isinstance(one, DTensor) else one
            gradients[f"{len(gradients):03}"] = whole.detach().clone()

    hook = register_optimizer_step_pre_hook(first)
    try:
        outcome, _ = reversing.run(place, model=model, collate=collate, **options)
    except KeyboardInterrupt:
        return
    finally:
        hook.remove()
    save_file(model.state_dict(), folder / f"{name}.{rank()}.safetensors")
    save_file(gradients, folder / f"{name}.{rank()}.gradients.safetensors")
    words = {"steps": outcome.steps, "stopped_early": outcome.stopped_early, "curve": outcome.curve}
    (folder / f"{name}.{rank()}.json").write_text(json.dumps(words))


if __name__ == "__main__":
    for name, case in json.loads(Path(sys.argv[1]).read_text()).items():
        try:
            run_case(name, case, Path(sys.argv[2]))
        except InkstoneError as error:
            sys.stderr.write(f"rank {rank()} said: {error}\n")
            sys.exit(2)
