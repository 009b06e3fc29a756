"""Multi30k by the committed recipes, as one table: BLEU, time, tokens/s, memory.

    INKSTONE_DATA=... python benchmarks/multi30k.py                  # to German and to French: 10 to 20 minutes each
    INKSTONE_DATA=... python benchmarks/multi30k.py --recipe multi30k-en-de --seeds 1 2 3   # spread, and the three as one
    INKSTONE_DATA=... python benchmarks/multi30k.py --recipe multi30k-all    # twelve directions in one model
    INKSTONE_DATA=... python benchmarks/multi30k.py --recipe multi30k-en-de --kill 3   # and again, killed three times
    INKSTONE_DATA=... python benchmarks/multi30k.py --kill 3 --whole models/multi30k   # the first run is there already

Minutes are those of the whole command, from raw files to a judged bundle. With --kill, a second run with the same recipe
is killed (SIGKILL) at random moments, resumed each time, and must end with the same weights, byte for byte.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

INKSTONE = str(Path(sys.executable).parent / "inkstone")


def begin(out: Path, settings: list[str]) -> list[str]:
    """The command that begins a run."""
    return [INKSTONE, "train", "translate", "--out", str(out), *settings, "--json"]


def train(out: Path, settings: list[str]) -> tuple[dict[str, Any], float]:
    """One uninterrupted run: what it printed, and the wall seconds of the whole command."""
    start = time.perf_counter()
    done = subprocess.run(begin(out, settings), check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout), time.perf_counter() - start


def train_killed(out: Path, settings: list[str], kills: int, seconds: float, seed: int) -> None:
    """The same run, killed at random moments of its first 80 % and resumed each time."""
    generator = random.Random(seed)
    command = begin(out, settings)
    for number in range(kills):
        wait = generator.uniform(0.3, 0.8) * seconds / kills
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
        saved = sorted(path.name for path in out.with_name(out.name + ".run").glob("checkpoints/last-*"))
        print(
            f"kill {number + 1} after {wait:.0f} s; checkpoint {saved[-1] if saved else 'none'}",
            file=sys.stderr,
        )
        command = [INKSTONE, "train", "resume", str(out.with_name(out.name + ".run")), "--json"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


HEAD = """| recipe | seed | test | BLEU | chrF | dictionary, BLEU | parameters | minutes | of training | tokens/s | MB |
|---|---|---|---|---|---|---|---|---|---|---|"""


def rows(recipe: str, seed: int | None, bundle: Path, seconds: float) -> list[str]:
    """The table's lines of an uninterrupted run: one for each test set and direction."""
    report = json.loads((bundle / "report.json").read_text(encoding="utf-8"))
    training = report["training"]
    cost = (
        f"{training['parameters'] / 1e6:.1f} M | {seconds / 60:.1f} | {training['seconds'] / 60:.1f} | "
        f"{training['tokens_per_second']:,.0f} | {training['peak_memory_bytes'] / 2**20:,.0f}"
    )
    return [
        f"| {recipe} | {seed or 1} | {result['test_set']} {result['direction']} | {shown(result['metrics']['bleu'])} | "
        f"{result['metrics']['chrf']['value']:.2f} | {result['baselines']['dictionary']['bleu']['value']:.2f} | {cost} |"
        for result in report["results"]
    ]


def shown(measured: dict[str, float]) -> str:
    """A figure with its interval."""
    return f"{measured['value']:.2f} ({measured['low']:.2f}-{measured['high']:.2f})"


def seeded(seed: int | None = None) -> list[str]:
    """The setting of a training's seed."""
    return [] if seed is None else ["--set", f"training.seed={seed}"]


def spread(results: list[dict[str, Any]]) -> None:
    """Mean and spread over the seeds."""
    if len(results) < 2:
        return
    for name in results[0]["metrics"]:
        scores = [result["metrics"][name]["bleu"] for result in results]
        mean, apart = statistics.mean(scores), statistics.stdev(scores)
        print(f"{name}: BLEU over {len(scores)} seeds {mean:.2f}, standard deviation {apart:.2f}")


def together(bundles: list[Path]) -> None:
    """What the models of all seeds say as one, file by file of the test sets; the parameters of all together."""
    first, *others = bundles
    run = first.with_name(first.name + ".run")
    recipe = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8"))["recipe"]
    beside = [word for other in others for word in ("--beside", str(other))]
    reports = [json.loads((bundle / "report.json").read_text(encoding="utf-8")) for bundle in bundles]
    millions = sum(report["training"]["parameters"] for report in reports) / 1e6
    for name, files in recipe["test"].items():
        for file in files:
            command = [INKSTONE, "evaluate", str(first), *beside, "--data", file, "--json"]
            command += ["--beam-size", str(recipe["beam_size"])]
            command += ["--tokenize", recipe["bleu"]] if recipe["bleu"] else []
            source, target = file[file.index("{") + 1 : file.index("}")].split(",")
            for one, other in [(source, target), (target, source)][: 1 + recipe["both_directions"]]:
                way = [*command, "--from", one, "--to", other]
                found = json.loads(subprocess.run(way, check=True, stdout=subprocess.PIPE).stdout)
                bleu = shown(found["metrics"]["bleu"])
                print(
                    f"{name} {found['direction']}: the {len(bundles)} as one ({millions:.1f} M parameters), BLEU {bleu}"
                )


def weights(bundle: Path) -> str:
    """The sha256 of the trained weights."""
    return hashlib.sha256((bundle / "model.safetensors").read_bytes()).hexdigest()


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kill", type=int, default=0, help="also a run that is killed this often")
    parser.add_argument(
        "--whole", type=Path, help="the bundle of an uninterrupted run, instead of training it now"
    )
    parser.add_argument("--set", action="append", default=[], help="laid over the recipe")
    parser.add_argument(
        "--recipe",
        nargs="+",
        default=["multi30k-en-de", "multi30k-en-fr"],
        help="names of recipes, or their files",
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[], help="of the trainings, one after another"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the moments of killing")
    asked = parser.parse_args()
    if "INKSTONE_DATA" not in os.environ:
        print("left out: set INKSTONE_DATA to the folder of data sets")
        return
    settings = ["--recipe", asked.recipe[0], *(word for one in asked.set for word in ("--set", one))]
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = asked.whole or Path(folder) / "whole", Path(folder) / "killed"
        if asked.whole is None:
            print(HEAD)
            for recipe in asked.recipe:
                results, places = [], []
                for number, seed in enumerate(asked.seeds or [None]):
                    place = (
                        whole
                        if recipe == asked.recipe[0] and not number
                        else Path(folder) / f"{Path(recipe).stem}-{seed}"
                    )
                    result, seconds = train(place, ["--recipe", recipe, *settings[2:], *seeded(seed)])
                    print("\n".join(rows(recipe, seed, place, seconds)), flush=True)
                    results.append(result)
                    places.append(place)
                if len(results) > 1:
                    print()
                    spread(results)
                    together(places)
        if asked.kill:
            usual = json.loads((whole / "report.json").read_text(encoding="utf-8"))["training"]["seconds"]
            train_killed(killed, [*settings, *seeded(*asked.seeds[:1])], asked.kill, usual, asked.seed)
            equal = weights(whole) == weights(killed)
            print(f"killed {asked.kill} times (seed {asked.seed}): weights {'equal' if equal else 'DIFFER'}")
            if not equal:
                sys.exit(1)


if __name__ == "__main__":
    main()
