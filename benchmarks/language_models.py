"""Language models trained for about half an hour on two cores, beside n-gram models made of the same tokens.

    INKSTONE_DATA=... python benchmarks/language_models.py                      # both recipes: over an hour
    INKSTONE_DATA=... python benchmarks/language_models.py --only tang-poems --set training.epochs=0.1   # a quick look

One table: held-out bits per byte and perplexity per character with 95 % intervals over documents, of the served engine
and of the interpolated modified Kneser-Ney model; seconds, tokens/s, peak memory. Then ten samples of each, as they came.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RECIPES = ("english-novels", "tang-poems")


def pretrained(name: str, folder: Path, settings: list[str]) -> dict[str, Any]:
    """What `inkstone pretrain --json` prints of a recipe, run in a process of its own."""
    recipe = ROOT / "inkstone" / "recipes" / f"{name}.yaml"
    words = [word for setting in settings for word in ("--set", setting)]
    command = [
        *(sys.executable, "-c", "import sys; from inkstone.cli import main; sys.exit(main())"),
        *("pretrain", "--recipe", str(recipe), "--out", str(folder / name), "--json", *words),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def shown(measured: dict[str, float]) -> str:
    """A figure with its interval."""
    return f"{measured['value']:.3f} ({measured['low']:.3f}-{measured['high']:.3f})"


def main() -> None:
    """Train, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=RECIPES)
    parser.add_argument("--set", action="append", default=[], help="anything of the recipe")
    asked = parser.parse_args()
    if "INKSTONE_DATA" not in os.environ:
        print("left out: set INKSTONE_DATA to the folder of data sets")
        return
    print("| recipe | system | bits per byte | perplexity per character | seconds | tokens/s | peak MB |")
    print("|---|---|---|---|---|---|---|")
    samples: dict[str, list[dict[str, str]]] = {}
    with tempfile.TemporaryDirectory(prefix="inkstone-bench-") as scratch:
        for name in [asked.only] if asked.only else RECIPES:
            found = pretrained(name, Path(scratch), asked.set)
            samples[name] = found["samples"]
            systems = {"Inkstone": found["metrics"], **found["baseline"]}
            for system, metrics in systems.items():
                cost = (
                    f"{found['seconds']:.0f} | {found['tokens_per_second']:,.0f} | "
                    f"{found['peak_memory_bytes'] / 1e6:.0f}"
                    if system == "Inkstone"
                    else " | | "
                )
                print(
                    f"| {name} | {system} | {shown(metrics['bits_per_byte'])} | "
                    f"{shown(metrics['character_perplexity'])} | {cost} |",
                    flush=True,
                )
    for name, written in samples.items():
        print(
            f"\n{name}: the beginnings are of held-out documents (of books, from their middle), the rest is drawn "
            "(0.8, top-p 0.95, seeds 0-9)\n"
        )
        for one in written:
            print(f"- **{one['prompt']}**{one['text']}".replace("\n", " / "))


if __name__ == "__main__":
    main()
