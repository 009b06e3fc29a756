"""A model for other programs: as a Hugging Face folder, for CTranslate2 or for onnxruntime; proved equal, or not written.

    bundle or checkpoint ─ load ─> model ─ write ─> a hidden folder ─ run or read back ─ prove ─> parity.json ─> its name

An adapter (LoRA) of the model is merged into it first: what is written is an ordinary model.

Besides the numbers and texts of `ship/proof.py`, the tokenizer is compared on sentences of several languages, with its
special tokens and its chat template. Given data, the metric of the task is measured before and after
(`recipes.task_metric`).
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from inkstone.ground.errors import BundleError, ConfigError, not_known, raise_all, require
from inkstone.ground.files import whole_folder, write_json
from inkstone.ground.manifest import read_json, seal

if TYPE_CHECKING:
    from inkstone.recipes.evaluate import MeasuredOn
    from inkstone.ship.proof import Proof
    from inkstone.text.foreign_tokenizer import ForeignTokenizer

Format = Literal["hf", "ct2", "onnx"]
Quantization = Literal["float32", "int8"]
FORMATS: tuple[str, ...] = get_args(Format)
QUANTIZATIONS: tuple[str, ...] = get_args(Quantization)
TEXTS = (
    "The door is open.",
    "你昨天买了几本书？",
    "Zwei Hunde laufen im Schnee .",
    "x = [1, 2]  # 🙂",
    " a  b\n",
)


@dataclass(frozen=True, slots=True)
class Exported:
    """Where the export is, what it is, and its proof."""

    folder: str
    format: str
    family: str | None
    proof: Proof


def export(
    source: str | Path,
    to: str,
    out: str | Path,
    *,
    family: str | None = None,
    quantization: str = "float32",
    adapter: str | Path | None = None,
    on: MeasuredOn | None = None,
) -> Exported:
    """Write the model of a bundle or of a checkpoint folder for another program, proved equal.

    family: for hf, instead of the first that can hold the model. adapter: the folder of one on this model, to be merged
    into what is written. on: texts to measure the task's metric on, of the model and of the export. Raises ConfigError
    listing what the target cannot hold, BundleError where the export does not agree; nothing is written then.
    """
    require("torch", "exporting models", "train")
    for name, value, valid in (("--to", to, FORMATS), ("--quantize", quantization, QUANTIZATIONS)):
        if value not in valid:
            raise ConfigError(not_known(name, value, valid))
    if to == "hf" and quantization != "float32":
        raise ConfigError("a Hugging Face folder is written in float32. Leave --quantize out.")
    if family is not None and to != "hf":
        raise ConfigError(f"--family={family} goes with --to hf only.")
    name = (place := _place(source)).name
    if on is not None:
        _refuse_unmeasurable(place)
    writers: dict[str, Any] = {"hf": _to_hugging_face, "ct2": _to_ctranslate2, "onnx": _to_onnx}
    with _merged(place, adapter) as (model, folder), whole_folder(out) as staging:
        family, proof = writers[to](model, folder, staging, family, quantization)
        if on is not None:
            proof = replace(proof, task_metric=_measured(place, model, folder, staging, to, quantization, on))
        write_json(staging / "parity.json", asdict(proof))
        made = {"exported_from": name, "to": to}
        seal(staging, made if adapter is None else {**made, "adapter_merged": Path(adapter).name})
    return Exported(str(out), to, family, proof)


def _place(source: str | Path) -> Path:
    from inkstone.model.bundle import open_bundle
    from inkstone.model.families.folder import is_foreign

    return Path(source) if is_foreign(Path(source)) else open_bundle(source).path


def _refuse_unmeasurable(place: Path) -> None:
    from inkstone.model.families.folder import is_foreign

    if is_foreign(place):
        raise ConfigError(
            f"{place} is a checkpoint without a task, so there is nothing to measure on --data. Leave it out."
        )
    kinds = {"language-model": "a language model", "embed": "a sentence encoder", "summarize": "a summariser"}
    if (task := read_json(place / "inkstone.json").get("task")) in kinds:
        raise ConfigError(
            f"{place} is {kinds[task]}: measure it with `inkstone evaluate`, and leave --data out."
        )


def _measured(
    place: Path, model: Any, folder: Path, staging: Path, to: str, quantization: str, on: MeasuredOn
) -> dict[str, Any]:
    from inkstone.model.bundle import open_bundle
    from inkstone.recipes.task_metric import task_metric

    return task_metric(open_bundle(place), model, folder, staging, to, quantization, on)


def _model(folder: Path) -> Any:
    from inkstone.model.checkpoint import load_model

    if read_json(folder / "config.json").get("model_type") == "inkstone-bag":
        raise ConfigError(
            f"{folder} holds a bag of features, which is served as it is; there is nothing to export."
        )
    return load_model(folder)


@contextmanager
def _merged(folder: Path, adapter: str | Path | None) -> Iterator[tuple[Any, Path]]:
    """The model and its folder; with an adapter, the merged model and a folder of it that goes when the block ends."""
    model = _model(folder)
    if adapter is None:
        yield model, folder
        return
    from inkstone.model.checkpoint import save_model
    from inkstone.model.families.folder import write_folder
    from inkstone.model.lora_files import family_of, open_adapters

    model = open_adapters(model, folder, {"merged": adapter}).merged("merged")
    with tempfile.TemporaryDirectory(prefix="inkstone-export-") as scratch:
        place = Path(scratch) / folder.name
        shutil.copytree(
            folder, place, ignore=shutil.ignore_patterns("*.safetensors*", "ctranslate2-*", "onnx-*")
        )
        family = family_of(folder)
        if family is None:
            save_model(model, place)
        else:
            write_folder(model, place, family)
        yield model, place


def _to_hugging_face(
    model: Any, folder: Path, staging: Path, family: str | None, quantization: str
) -> tuple[str, Proof]:
    from inkstone.model.families.folder import read_folder, write_folder
    from inkstone.ship.proof import prove_read_back

    _refuse_others(model, "hf")
    name = family or _fitting(model)
    write_folder(model, staging, name)
    _keep_names(model, folder, staging)
    cut = _tokenizer(folder, staging)
    return name, replace(prove_read_back(model, read_folder(staging)), tokenizer=cut)


def _keep_names(model: Any, folder: Path, staging: Path) -> None:
    """What is no part of a model but goes with it: the names of its labels, and how it is to generate."""
    from inkstone.model.families.folder import GENERATION, is_foreign

    if is_foreign(folder):
        config = read_json(folder / "config.json")
        named = {key: config[key] for key in ("id2label", "label2id") if key in config}
        if model.config.has_decoder and (folder / GENERATION).is_file():
            shutil.copyfile(folder / GENERATION, staging / GENERATION)
    else:
        labels = read_json(folder / "inkstone.json").get("labels", []) if model.config.num_labels else []
        named = {
            "id2label": dict(enumerate(labels)),
            "label2id": {label: n for n, label in enumerate(labels)},
        }
    if model.config.num_labels and named.get("id2label"):
        write_json(staging / "config.json", {**read_json(staging / "config.json"), **named})


def _to_ctranslate2(
    model: Any, folder: Path, staging: Path, family: str | None, quantization: str
) -> tuple[None, Proof]:
    from inkstone.ship.ctranslate2 import export_ctranslate2
    from inkstone.ship.proof import prove_ctranslate2

    _refuse_others(model, "ct2")
    if model.config.num_labels:
        raise ConfigError(
            f"CTranslate2 gives the states of an encoder and no scores of its {model.config.num_labels} labels, "
            "which would be lost. Use --to onnx."
        )
    export_ctranslate2(folder, staging, quantization=quantization)  # type: ignore[arg-type]
    proof = prove_ctranslate2(model, staging, quantization)
    return None, replace(proof, tokenizer=_tokenizer(folder, staging))


def _to_onnx(
    model: Any, folder: Path, staging: Path, family: str | None, quantization: str
) -> tuple[None, Proof]:
    from inkstone.ship.onnx import export_onnx
    from inkstone.ship.proof import prove_onnx

    export_onnx(folder, staging, quantization=quantization)  # type: ignore[arg-type]
    proof = prove_onnx(model, staging, quantization)
    if has_foreign_tokenizer(folder):
        return None, replace(proof, tokenizer=_tokenizer(folder, staging))
    shutil.copyfile(folder / "tokenizer.json", staging / "tokenizer.json")
    return None, replace(proof, tokenizer="the same file")


def _refuse_others(model: Any, to: str) -> None:
    from inkstone.model.transformer import Transformer

    if not isinstance(model, Transformer):
        kind = type(model).__name__
        raise ConfigError(f"only Transformers go to {to}; this is a {kind} model. Use --to onnx for it.")


def _fitting(model: Any) -> str:
    """The first family that can hold the model. Raises ConfigError with what stands between it and the nearest."""
    from inkstone.model.families.folder import misfits
    from inkstone.model.families.registry import FAMILIES

    found = {name: misfits(family, model.config) for name, family in FAMILIES.items()}
    for name, problems in found.items():
        if not problems:
            return name
    nearest = min(
        found, key=lambda name: (FAMILIES[name].architecture_of(model.config) is None, len(found[name]))
    )
    raise ConfigError(
        f"no family known here can hold this model. The nearest, {nearest}, has other axes: "
        f"{'; '.join(found[nearest])}. CTranslate2 or onnxruntime may hold it: --to ct2, --to onnx. A model trained "
        f"with --family {nearest} opens in transformers."
    )


def _tokenizer(folder: Path, staging: Path) -> str:
    """Write the tokenizer as others read it, and prove it on sentences. Raises BundleError where it differs."""
    from inkstone.text.foreign_tokenizer import ForeignTokenizer

    mine = _opened_tokenizer(folder)
    if mine is None:
        return "none in the folder"
    mine.save(staging)
    again = ForeignTokenizer.load(staging)
    problems = [f"{text!r} is cut otherwise" for text in TEXTS if again.encode(text) != mine.encode(text)]
    if dict(again.named_ids) != dict(mine.named_ids):
        problems.append(f"special tokens are {dict(again.named_ids)}, not {dict(mine.named_ids)}")
    if again.chat_templates != mine.chat_templates:
        problems.append("the chat template is another")
    raise_all(BundleError, "the exported tokenizer does not agree; nothing was written", problems)
    return f"{len(TEXTS)} of {len(TEXTS)} sentences cut alike; special tokens and template equal"


def has_foreign_tokenizer(folder: Path) -> bool:
    """Whether the tokenizer of a model's folder, or the lack of one, came with a foreign checkpoint."""
    from inkstone.model.families.folder import is_foreign

    return is_foreign(folder) or (folder / "tokenizer_config.json").exists()


def _opened_tokenizer(folder: Path) -> ForeignTokenizer | None:
    from inkstone.text.foreign_files import has_tokenizer
    from inkstone.text.foreign_tokenizer import ForeignTokenizer
    from inkstone.text.tokenizer import BOS, EOS, Tokenizer

    if not has_tokenizer(folder):
        return None
    if has_foreign_tokenizer(folder):
        return ForeignTokenizer.load(folder)
    mine = Tokenizer.load(folder / "tokenizer.json")
    translates = read_json(folder / "config.json").get("shape", "encoder-decoder") == "encoder-decoder"
    return ForeignTokenizer.of(mine, (), (EOS,)) if translates else ForeignTokenizer.of(mine, (BOS,))
