"""One run on several processes and GPUs: what a large model would need, and what two processes bring here.

    python benchmarks/scaling.py --plan 1b 7b     # memory of each GPU and time, as docs/scaling.md shows them; seconds
    python benchmarks/scaling.py                  # the same, then tokens/s of one and of two processes on this machine

The plan comes from `inkstone.learn.layout`; the machine it assumes is printed with it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from inkstone.model.config import ModelConfig

COMMON: dict[str, Any] = {"shape": "decoder", "num_encoder_layers": 0, "norm": "rms", "dropout": 0.0}
MODELS: dict[str, ModelConfig] = {
    # The sizes of Llama 3.2 1B and Llama 2 7B, with a vocabulary of 32,000.
    "1b": ModelConfig(
        vocab_size=32_000, hidden_size=2048, num_heads=32, num_kv_heads=8, feed_forward_size=8192,
        num_decoder_layers=16, max_positions=2048, **COMMON,
    ),
    "7b": ModelConfig(
        vocab_size=32_000, hidden_size=4096, num_heads=32, num_kv_heads=32, feed_forward_size=11_008,
        num_decoder_layers=32, max_positions=4096, tie_embeddings=False, **COMMON,
    ),
}  # fmt: skip
GPUS = {"1b": (1, 2, 8, 16), "7b": (4, 8, 16, 64)}
ROWS = {"1b": 8, "7b": 4}  # of each GPU in a step
TOKENS_A_PARAMETER = 20  # about as many as a budget is best spent on (Hoffmann et al., 2022)


def plan(name: str) -> str:
    """The layouts of one model, as Markdown."""
    from inkstone.learn.layout import Machine, layout, parameters, table, without_memory

    config, machine, rows = MODELS[name], Machine(), ROWS[name]
    count, length = parameters(without_memory(config)), MODELS[name].max_positions
    tokens = TOKENS_A_PARAMETER * count
    parts = [
        f"**{name}**: {count / 1e9:.2f} billion parameters, {config.num_decoder_layers} layers, "
        f"{config.hidden_size} wide. {tokens / 1e9:,.0f} billion tokens in all; each GPU reads {rows} rows of "
        f"{length:,} a step."
    ]
    for recompute in (False, True):
        found = [
            layout(config, gpus, rows=rows, length=length, recompute=recompute, machine=machine)
            for gpus in GPUS[name]
        ]
        what = "true" if recompute else "false"
        parts.append(f"`training.checkpoint_activations: {what}`\n\n{table(found, machine, tokens)}")
    return "\n\n".join(parts)


def assumed() -> str:
    """What the plan assumes of the machine, in a sentence."""
    from inkstone.learn.layout import Machine

    machine = Machine()
    return (
        f"Assumed: GPUs of {machine.memory_bytes / 1e9:.0f} GB that multiply bfloat16 matrices at "
        f"{machine.peak_flops / 1e12:.0f} TFLOP/s, of which training reaches {machine.share:.0%}, and send "
        f"{machine.bandwidth / 1e9:.0f} GB/s to each other."
    )


def tokens_per_second(processes: int) -> float:
    """Of the small decoder on random tokens, in so many processes of one thread each."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            str(processes),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*command, __file__, "--process", folder], stdout=subprocess.PIPE, text=True, check=True, env=environment
        )  # fmt: skip
    return float(done.stdout.split()[-1])


def run(folder: Path) -> None:
    """One process of the measurement; the leader prints the tokens a second of all."""
    import numpy as np
    import torch

    from inkstone.ground.processes import leads
    from inkstone.learn.data.documents import PackedFeed
    from inkstone.learn.loop import TrainingOptions, train_on
    from inkstone.learn.objectives import causal
    from inkstone.model.config import preset
    from inkstone.model.transformer import Transformer

    documents = np.random.default_rng(0).integers(4, 2000, (32, 257)).tolist()
    feed = PackedFeed(documents, block=256, tokens_per_batch=1024, seed=1, pad_id=0)
    model = Transformer(preset("small", 2000, "decoder", {"dropout": 0.0}), torch.Generator().manual_seed(1))
    options = TrainingOptions(epochs=1, accumulate=2, threads=1, patience=0, save_every_s=1e9, metric="loss")
    outcome = train_on(model, causal, feed, lambda _: {"loss": 0.0}, options, folder)
    if leads():
        print(outcome.tokens_per_second)


def main() -> None:
    """Print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plan", nargs="+", choices=MODELS, help="only the plans of these models")
    parser.add_argument("--process", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.process:
        run(asked.process)
        return
    print(assumed())
    for name in asked.plan or MODELS:
        print(f"\n{plan(name)}")
    if not asked.plan:
        one, two = tokens_per_second(1), tokens_per_second(2)
        print(f"\n| processes | tokens/s |\n|---:|---:|\n| 1 | {one:,.0f} |\n| 2 | {two:,.0f} |")


if __name__ == "__main__":
    main()
