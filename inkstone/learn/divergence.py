"""Training that diverged: a loss, or a gradient, that is no finite number, and the batch at which that was seen.

    <run>/not-finite-00000042/   batch.safetensors   what the model was given, tensor by tensor
                                 batch.json          step, epoch, index, the value, and the token ids of every row
                                 manifest.json

No step is taken on it: the weights stay as they were. A resumed run meets the same batch, since a batch is a function of
(epoch, index), and says the same again. `inkstone train look FOLDER` shows the texts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from inkstone.ground.errors import ConfigError, DataError, OutputError, TrainingError
from inkstone.ground.files import whole_folder, write_json
from inkstone.ground.manifest import problems, read_json, seal
from inkstone.learn.data.shares import Portion
from inkstone.text.tokenizer import Tokenizer

NOT_FINITE = "not-finite"  # what the folders' names begin with
RECORD = "batch.json"
TEXTS = (
    "source_BS",
    "target_BT",
    "target_PT",
    "ids_BS",
    "ids_BT",
)  # the fields of batches that hold token ids


def refuse_not_finite(
    run: Path,
    step: int,
    portions: Sequence[Portion],
    place: tuple[int, int],
    learning_rate: float,
    rank: int,
    what: str,
    value: float,
) -> None:
    """Raise TrainingError, with the batch saved in the run's folder, where the value is not finite.

    Of several processes each saves what it read itself.
    """
    if math.isfinite(value):
        return
    folder = run / (f"{NOT_FINITE}-{step:08d}" + (f"-{rank}" if rank else ""))
    said = {"step": step, "what": what, "value": str(value), "epoch": place[0], "index": place[1]}
    try:
        save_batch(folder, portions, said)
        saved = f"The batch is in {folder / RECORD}; look at its texts: inkstone train look {folder}"
    except OutputError as error:
        saved = f"The batch could not be saved: {error}"
    raise TrainingError(
        f"the {what} became {value} at step {step}. Lower the learning rate (now {learning_rate}) and begin again; the "
        f"last checkpoint is intact. {saved}"
    )


def save_batch(place: Path, portions: Sequence[Portion], said: Mapping[str, Any]) -> None:
    """Write what a step read, whole: tensors, and for people the token ids of the rows. Raises OutputError.

    Where a step reads several portions, the names of the tensors begin with the number of theirs.
    """
    tensors: dict[str, Tensor] = {}
    texts: list[dict[str, Any]] = []
    for number, portion in enumerate(portions):
        before = f"{number}." if len(portions) > 1 else ""
        found = {
            field.name: value.detach().cpu().contiguous()
            for field in fields(portion.batch)
            if isinstance(value := getattr(portion.batch, field.name), Tensor)
        }
        tensors |= {before + name: tensor for name, tensor in found.items()}
        texts.append({name: tensor.tolist() for name, tensor in found.items() if name in TEXTS})
    record = {**said, "tokens": sum(portion.batch.tokens for portion in portions), "texts": texts}
    with whole_folder(place, replace=True) as folder:
        try:
            save_file(tensors, folder / "batch.safetensors")
        except SafetensorError as error:
            raise OutputError(f"cannot write {place}: {error}") from error
        write_json(folder / RECORD, record)
        seal(folder, {"kind": "batch"})


def read_batch(place: Path) -> dict[str, Any]:
    """What `save_batch` wrote for people, with the texts in words where the run's tokenizer stands beside it.

    "rows": for each row, its texts by the names of the fields. Raises ConfigError where the folder holds no batch.
    """
    place = place.parent if place.name == RECORD else place
    wrong = problems(place) if place.is_dir() else [f"{place} is no folder"]
    if wrong or not (place / RECORD).exists():
        what = "; ".join(wrong) or f"{RECORD} is missing"
        raise ConfigError(f"{place} holds no saved batch: {what}. Give RUN/{NOT_FINITE}-STEP.")
    record = read_json(place / RECORD)
    texts: list[dict[str, list[list[int]]]] = record.pop("texts")
    try:
        tokenizer: Tokenizer | None = Tokenizer.load(place.parent / "tokenizer.json")
    except DataError:  # none, or one of another kind: ids are shown
        tokenizer = None
    rows = [
        {name: _words(ids[number], tokenizer) for name, ids in portion.items() if number < len(ids)}
        for portion in texts
        for number in range(max(map(len, portion.values()), default=0))
    ]
    return record | {"rows": rows}


def _words(ids: list[int], tokenizer: Tokenizer | None) -> str:
    """A row in words, with its marks but without the padding at its end; as numbers without a tokenizer."""
    if tokenizer is None:
        return " ".join(map(str, ids))
    end = len(ids)
    while end and ids[end - 1] == tokenizer.pad_id:
        end -= 1
    return tokenizer.decode(ids[:end], keep_specials=True)
