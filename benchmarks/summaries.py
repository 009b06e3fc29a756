"""The classic base preset on real summaries: SciTLDR (English, one sentence) and CSL (Chinese, the title), ten passes.

    INKSTONE_DATA=... python benchmarks/summaries.py                                     # over an hour on two cores
    INKSTONE_DATA=... python benchmarks/summaries.py --set size=tiny --set training.epochs=1   # a quick look: minutes

One table: loss and accuracy of the tokens of both test sets; ROUGE with 95 % intervals over documents, of the served
engine and of the first sentence. Then what the training took.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
INKSTONE = str(Path(sys.executable).parent / "inkstone")
MEASURES = ("rouge1", "rouge2", "rougeL")


def main() -> None:
    """Train, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", action="append", default=[], help="anything of the recipe")
    parser.add_argument(
        "--out", type=Path, help="keep the model, and go on with a run that was stopped, in this folder"
    )
    asked = parser.parse_args()
    if "INKSTONE_DATA" not in os.environ:
        print("left out: set INKSTONE_DATA to the folder of data sets")
        return
    words = [word for setting in asked.set for word in ("--set", setting)]
    with tempfile.TemporaryDirectory(prefix="inkstone-bench-") as scratch:
        out = asked.out or Path(scratch) / "abstracts"
        run = out.with_name(out.name + ".run")
        command = [INKSTONE, "train", "summarize", "--recipe", "scitldr-csl", "--out", str(out), *words]
        if (run / "checkpoints").exists():
            command = [INKSTONE, "train", "resume", str(run)]
        subprocess.run([*command, "--json"], stdout=subprocess.DEVNULL, check=True)
        report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    print("| test set | system | nats a token | token accuracy | ROUGE-1 | ROUGE-2 | ROUGE-L |")
    print("|---|---|---|---|---|---|---|")
    for result in report["results"]:
        for system, metrics in {"Inkstone": result["metrics"], **result["baselines"]}.items():
            loss = f"{metrics['token_loss']['value']:.3f}" if "token_loss" in metrics else ""
            share = f"{metrics['token_accuracy']['value']:.1%}" if "token_accuracy" in metrics else ""
            rouge = " | ".join(
                f"{m['value']:.1f} ({m['low']:.1f}-{m['high']:.1f})"
                for m in (metrics[name] for name in MEASURES)
            )
            print(
                f"| {result['test_set']} ({result['direction']}), {result['n']} | {system} | {loss} | {share} | {rouge} |"
            )
    training = report["training"]
    print(
        f"\n{training['parameters']:,} parameters, {training['epochs']:.1f} passes, {training['steps']:,} steps, "
        f"{training['seconds'] / 60:.0f} minutes, {training['tokens_per_second']:,.0f} tokens/s, "
        f"{training['peak_memory_bytes'] / 2**20:,.0f} MB; on {training['device']}"
    )


if __name__ == "__main__":
    main()
