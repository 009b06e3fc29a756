"""`inkstone export`: a model for other programs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from inkstone.cli.corpus import parse_fields
from inkstone.ground.errors import ConfigError


def export(
    bundle: Annotated[
        str, typer.Argument(help="A model folder, a checkpoint, or the name of a bundled model.")
    ],
    to: Annotated[str, typer.Option(help="hf (transformers, vLLM, llama.cpp), ct2 or onnx.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The new folder. Default: models/NAME-FORMAT.")
    ] = None,
    family: Annotated[
        str | None, typer.Option(help="For hf: llama, bert, ... Default: the first that fits.")
    ] = None,
    quantize: Annotated[str, typer.Option(help="For ct2 and onnx: float32 or int8.")] = "float32",
    adapter: Annotated[
        Path | None, typer.Option(help="The folder of a LoRA adapter on the model, to be merged into it.")
    ] = None,
    data: Annotated[
        list[str], typer.Option(help="Texts with answers to measure the task's metric on, before and after.")
    ] = [],  # noqa: B006
    fields: Annotated[str | None, typer.Option(help="Field names of --data, as source=en,target=zh.")] = None,
    direction: Annotated[
        str | None, typer.Option(help="Of --data, as zh-en, where neither model nor data tell.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Write a model for another program, proved equal to the original, or not at all."""
    from inkstone.cli import print_json
    from inkstone.recipes.evaluate import MeasuredOn
    from inkstone.recipes.export import export as run

    if not data and (fields or direction):
        raise ConfigError("--fields and --direction say how to read --data, which is not given.")
    on = MeasuredOn(tuple(data), parse_fields(fields), direction) if data else None
    out = out or Path("models") / f"{Path(bundle).resolve().name}-{to}"
    found = run(bundle, to, out, family=family, quantization=quantize, adapter=adapter, on=on)
    if as_json:
        print_json(asdict(found))
        return
    proof = found.proof
    kind = f"{found.format} ({found.family})" if found.family else found.format
    print(f"{found.folder}: {kind}, {proof.quantization}")
    print(f"{proof.compared} of {proof.inputs} inputs differ by at most {proof.largest_difference:.2g}")
    if isinstance(proof.task_metric, str):
        print(f"metric of the task: {proof.task_metric}")
    else:
        name, one = proof.task_metric["metric"], proof.task_metric
        print(f"{name}: {one['original'][name]} before, {one['export'][name]} after, on {one['n']} texts")
    print(f"greedy text identical: {proof.greedy_identical}; tokenizer: {proof.tokenizer}")
