"""What compression costs and gains: `inkstone compress` on the bundled models and on a small Transformer classifier.

    INKSTONE_DATA=... python benchmarks/compression.py            # a few minutes on one core
    INKSTONE_DATA=... python benchmarks/compression.py --prune    # a quarter of an hour: fewer heads, too

Every table is the command's own: sizes, memory and seconds by `recipes.compress.footprint`, one text at a time on one
thread. "original" is the trained checkpoint in float32, run by torch; what is shipped today has a row of its own. The
torch kernels behind the int8 and int4 rows are timed by themselves at the end, beside float32: one matrix of a large
model, where they pay, and one of the bundled translator, where they do not.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

INKSTONE = str(Path(sys.executable).parent / "inkstone")
SETTINGS = ["--set", "most=300", "--set", "timed=30"]
ALL = ["--set", "most=5500"]  # texts of a classifier cost next to nothing


def compress(model: str, out: Path, *words: str) -> None:
    """Print the table of one command, also where it refuses to write."""
    command = [INKSTONE, "compress", model, "-o", str(out), *SETTINGS, *words]
    print(f"\n$ inkstone compress {Path(model).name} {' '.join(w.split('/')[-1] for w in words)}", flush=True)
    done = subprocess.run(command, capture_output=True, text=True)
    print(done.stdout, flush=True)
    if done.returncode:  # a refusal, or a failure
        print(
            "\n".join(line for line in done.stderr.splitlines() if line.startswith("inkstone: ")), flush=True
        )


def best_of(times: int, work: Callable[[], object]) -> float:
    """The fastest of several tries, in seconds."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return min(found)


def kernels() -> None:
    """Milliseconds of one linear layer in float32, int8 and int4, for several numbers of rows."""
    import torch

    from inkstone.model.quantized import Int4Linear, Int8Linear

    torch.set_num_threads(1)
    print("\none linear layer, one thread, ms: rows, float32, int8, int4")
    for inputs, outputs in ((192, 576), (1024, 4096)):
        layer = torch.nn.Linear(inputs, outputs)
        forms = (layer, Int8Linear.of(layer), Int4Linear.of(layer, 32))
        for rows in (1, 8, 64):
            x = torch.randn(rows, inputs)
            with torch.inference_mode():
                times = [1000 * best_of(30, lambda f=form, x=x: f(x)) for form in forms]  # type: ignore[misc]
            print(f"{inputs:>5} x {outputs:<5} {rows:>3}  " + "  ".join(f"{one:7.3f}" for one in times))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--prune", action="store_true", help="also prune the translator and heal it")
    asked = parser.parse_args()
    kernels()
    if "INKSTONE_DATA" not in os.environ:
        print("tables skipped: INKSTONE_DATA does not name the folder of data sets")
        return
    data = Path(os.environ["INKSTONE_DATA"])
    pairs, clinc, trec = data / "tatoeba_en_zh", data / "clinc150", data / "kimcnn_sentences"
    both = ["--from", "en", "--to", "zh"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        compress("zh-en", folder / "int8", "--data", str(pairs / "test.jsonl.gz"), *both, "--torch")
        compress(
            "zh-en", folder / "int4", "--data", str(pairs / "test.jsonl.gz"), *both, "--quantize", "int4"
        )
        compress("intents-en", folder / "bag", "--data", str(clinc / "test.jsonl.gz"), *ALL)
        half = [
            "--data",
            str(clinc / "train.jsonl.gz"),
            "--test",
            str(clinc / "test.jsonl.gz"),
            "--prune",
            "0.3",
        ]
        compress("intents-en", folder / "bag-small", *half, *ALL)
        train = ["--data", str(trec / "trec.train.jsonl.gz"), "--test", str(trec / "trec.test.jsonl")]
        encoder = [INKSTONE, "train", "classify", "--architecture", "transformer", *train]
        epochs = ["--set", "options.transformer.training.epochs=8"]
        subprocess.run([*encoder, "--out", str(folder / "trec"), *epochs], check=True, capture_output=True)
        compress(str(folder / "trec"), folder / "trec8", "--data", train[3], "--torch", *ALL)
        compress(
            str(folder / "trec"),
            folder / "trec-pruned",
            *train,
            *ALL,
            "--prune",
            "0.5",
            "--set",
            "training.tokens_per_batch=1024",
        )
        if asked.prune:
            words = ["--data", str(pairs / "train.jsonl.gz"), "--test", str(pairs / "test.jsonl.gz"), *both]
            compress("zh-en", folder / "pruned", *words, "--prune", "0.25", "--set", "training.threads=1")


if __name__ == "__main__":
    main()
