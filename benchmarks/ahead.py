"""Batches made ahead: tokens a second with none, with a thread, with two processes. The weights are the same.

    python benchmarks/ahead.py [--steps 60] [--threads 1]

A small encoder-decoder (64 wide, 1+1 layers) learns span corruption, whose batches cost the most to make. The weights of
all runs must have one sha256, or the program fails.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

import numpy as np
import torch

from inkstone.learn.data.batches import Batch, Feed, Varied
from inkstone.learn.data.corruption import Gaps
from inkstone.learn.loop import TrainingOptions, train_on
from inkstone.learn.objectives import OBJECTIVES
from inkstone.learn.receipt import digest_of_weights, processor
from inkstone.model.config import tiny
from inkstone.model.transformer import Transformer


class InThread:
    """A feed whose batches a thread makes: the way that was not taken."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed

    def epoch(self, number: int) -> Sequence[Callable[[], Batch]]:
        """See `Feed`; good for taking every batch in order."""
        calls, made = self.feed.epoch(number), Queue[Any](4)
        Thread(target=lambda: [made.put(call()) for call in calls], daemon=True).start()
        return [made.get] * len(calls)


def trained(feed: Any, workers: int, steps: int, threads: int) -> tuple[float, str]:
    """Tokens a second, and the sha256 of the weights."""
    sizes = {"hidden_size": 64, "feed_forward_size": 128, "num_encoder_layers": 1, "num_decoder_layers": 1}
    model = Transformer(tiny(8000, **sizes, max_positions=320), torch.Generator().manual_seed(1))
    options = TrainingOptions(
        stop_after=steps, patience=0, validate_every=2**62, save_every_s=1e9, threads=threads, workers=workers,
        preflight="skip", watch=(), metric="loss",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as run:
        outcome = train_on(model, OBJECTIVES["span"], feed, lambda model: {"loss": 0.0}, options, Path(run))
    return outcome.tokens_per_second, digest_of_weights(model)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    random = np.random.default_rng(0)
    documents = [random.integers(64, 8000, 256).tolist() for _ in range(3000)]
    hide = Gaps(0, 2, 3, tuple(range(20, 60)), 0.15, 3.0)
    feed = Varied(hide.parts(documents, 256), hide, tokens_per_batch=8192, seed=1)
    ways = {"none": (feed, 0), "a thread": (InThread(feed), 0), "2 processes": (feed, 2)}
    print(f"{processor()}, {asked.threads} threads for arithmetic, {asked.steps} steps\n")
    print("| made ahead by | tokens/s |\n|---|---:|")
    digests = set()
    for name, (fed, workers) in ways.items():
        speed, digest = trained(fed, workers, asked.steps, asked.threads)
        digests.add(digest)
        print(f"| {name} | {speed:,.0f} |", flush=True)
    if len(digests) > 1:
        raise SystemExit(f"the weights differ: {sorted(digests)}")


if __name__ == "__main__":
    main()
