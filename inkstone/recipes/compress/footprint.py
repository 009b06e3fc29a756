"""What a model costs where it runs: bytes on disk, memory of the process, seconds for one text at a time.

Each engine is measured in a process of its own (`python -m inkstone.recipes.compress.footprint`), which opens it,
answers every text, and then times single texts; so memory is that of the whole process with everything it had to load,
torch or not, and no engine profits from what another left in the caches. The processor is busy with other things too,
so each text is timed a few times and the fastest counts.

    torch          the trained checkpoint in float32, by torch
    torch-int8, torch-int4        the quantised checkpoint in the bundle's folder of that name
    served         what the bundle is shipped with: CTranslate2, onnxruntime or numpy
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inkstone.ground.manifest import read_json

REPEATS = 5
READ_BESIDE = ("tokenizer.json", "features.json")  # what an engine reads besides its weights
Answer = Callable[[Sequence[Any]], list[Any]]


@dataclass(frozen=True, slots=True)
class Footprint:
    """The costs of one engine, and what it answered: token ids of a translator, label scores of a classifier."""

    engine: str
    size_bytes: int
    memory_bytes: int  # the most the process held
    latency_s: float  # mean over the timed texts, each by itself
    answers: list[Any]


def measure(
    folder: Path,
    engine: str,
    inputs: Sequence[Any],
    *,
    architecture: str = "",
    timed: int = 20,
    beam_size: int = 4,
    threads: int = 1,
) -> Footprint:
    """Open an engine of a folder in a new process and let it answer.

    inputs: source ids with their marks for a translator, texts for a classifier. architecture: of a classifier, empty
    for a translator. timed: how many of the inputs, evenly taken, are timed one by one. Raises RuntimeError with the
    process's last words when it fails: that is our fault.
    """
    asked = {
        "folder": str(folder), "engine": engine, "inputs": list(inputs), "architecture": architecture,
        "timed": timed, "beam_size": beam_size, "threads": threads,
    }  # fmt: skip
    words = [sys.executable, "-m", "inkstone.recipes.compress.footprint"]
    surroundings = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(words, input=json.dumps(asked), capture_output=True, text=True, env=surroundings)
    if done.returncode:
        raise RuntimeError(f"measuring {engine} failed:\n{done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return Footprint(engine=found.pop("engine"), size_bytes=size_of(folder, engine), **found)


def size_of(folder: Path, engine: str) -> int:
    """The bytes of all that an engine reads."""
    exported = _exported(folder) if engine == "served" else [folder / engine]
    if engine == "torch" or not exported:  # numpy reads the checkpoint, too
        files = [folder / "model.safetensors", folder / "config.json"]
    else:
        files = [file for file in exported[0].rglob("*") if file.is_file()]
    files += [folder / name for name in READ_BESIDE if (folder / name).exists()]
    return sum(file.stat().st_size for file in files)


def _exported(folder: Path) -> list[Path]:
    return sorted(
        place for kind in ("ctranslate2-*", "onnx-*") for place in folder.glob(kind) if place.is_dir()
    )


def _translator(folder: Path, asked: dict[str, Any]) -> tuple[str, Answer]:
    """What the engine calls itself, and what answers."""
    from inkstone.apps.translate import open_engine
    from inkstone.generate.engine import GenerationOptions
    from inkstone.text.tokenizer import Tokenizer

    options = GenerationOptions(beam_size=asked["beam_size"])
    if asked["engine"] == "served":
        tokenizer = Tokenizer.load(folder / "tokenizer.json")
        runs = open_engine(folder, tokenizer, "auto", asked["threads"])
    else:
        from inkstone.generate.torch_engine import TorchEngine

        runs = TorchEngine(_torch_model(folder, asked))
    return runs.name, lambda sources: [list(found[0].ids) for found in runs.generate(sources, options)]


def _torch_model(folder: Path, asked: dict[str, Any]) -> Any:
    import torch

    from inkstone.model.checkpoint import load_model
    from inkstone.model.quantized import load_quantized

    torch.set_num_threads(asked["threads"])
    return load_model(folder) if asked["engine"] == "torch" else load_quantized(folder / asked["engine"])


def _classifier(folder: Path, asked: dict[str, Any]) -> tuple[str, Answer]:
    from inkstone.generate.classify_open import open_classify_engine

    if asked["engine"] == "served":
        served = open_classify_engine(folder, asked["architecture"], threads=asked["threads"])
        return served.name, lambda texts: [row.tolist() for row in served.logits(texts)]
    import torch

    if asked["architecture"] == "bag":
        encode, model = _torch_bag(folder)
    else:
        encode, model = _reader(folder), _torch_model(folder, asked)

    def answer(texts: Sequence[str]) -> list[Any]:
        with torch.inference_mode():
            return [model(torch.tensor([encode(text)])).float()[0].tolist() for text in texts]

    return asked["engine"], answer


def _reader(folder: Path) -> Callable[[str], list[int]]:
    """Texts as ids, as long as the model reads."""
    from inkstone.text.reader import TextReader

    reader = TextReader.load(folder)
    longest = int(read_json(folder / "config.json").get("max_positions", 2**31))
    return lambda text: reader.cut([text], longest)[0][0]


def _torch_bag(folder: Path) -> tuple[Callable[[str], list[int]], Any]:
    from inkstone.recipes.compress.bag import read_bag

    model, features = read_bag(folder)
    return lambda text: features.encode(text) or [0], model.eval()


def _answered(asked: dict[str, Any]) -> dict[str, Any]:
    """The work of the process: everything answered at once, then some one by one."""
    folder, inputs = Path(asked["folder"]), asked["inputs"]
    name, answer = (_classifier if asked["architecture"] else _translator)(folder, asked)
    answers = answer(inputs)
    count = min(asked["timed"], len(inputs))
    sample = [inputs[number * len(inputs) // count] for number in range(count)]
    seconds = 0.0
    for one in sample:
        tries = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            answer([one])
            tries.append(time.perf_counter() - start)
        seconds += min(tries)
    return {
        "engine": name,
        "memory_bytes": _peak_memory(),
        "latency_s": seconds / max(1, count),
        "answers": answers,
    }


def _peak_memory() -> int:
    """The most this process has held, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says on Linux counts the process that started this one, too
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_answered(json.load(sys.stdin))) + "\n")
