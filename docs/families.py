"""The table of docs/families.md: every foreign checkpoint that the tests make, its axes, and what held.

python docs/families.py        # needs the dev extra; runs the parity tests and writes docs/families.md
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TESTS = HERE.parent / "tests" / "model"
sys.path.insert(0, str(TESTS))

from families import CASES, reference  # noqa: E402

from inkstone.model.config import ModelConfig  # noqa: E402
from inkstone.model.families.folder import read_folder  # noqa: E402
from inkstone.model.families.registry import FAMILIES  # noqa: E402

COLUMNS = {
    "in: logits": ("test_logits_alone_and_padded",),
    "in: greedy text": ("test_greedy_generation_is_theirs_token_for_token",),
    "out": ("test_it_goes_back_unchanged",),
    "onnxruntime": (
        "test_encoders", "test_logits_of_decoders", "test_greedy_text_over_20_steps", "test_beams", "test_scores",
    ),
}  # fmt: skip
AXES = (
    "shape", "positions", "rotary_scaling", "norm", "norm_place", "embedding_norm", "feed_forward", "activation", "bias",
    "query_key_norm", "scale_scores", "window", "scale_embeddings", "scale_output", "tie_embeddings", "output_bias",
    "token_types", "pooler", "prediction_head",
)  # fmt: skip

TEXT = """# Families of foreign checkpoints

`inkstone pull ID` brings one here, a folder on the same machine does as well, and the same Transformer runs it. Each
family is a table of names and one function each way in `inkstone/model/families/`; nothing is decided by a family's name.
What a family needs is an axis of `ModelConfig`, and every axis below is in a tiny random checkpoint that `transformers`
makes in the tests:

- **in: logits**: read here, the logits (or states) are those of transformers within 1e-4 in float32, alone and in a
  padded batch;
- **in: greedy text**: 20 greedy tokens are equal one for one, with and without cache, alone and in a padded batch;
- **out**: written back in shards, transformers opens it and computes the same logits, to the last bit;
- **onnxruntime**: exported to ONNX in float32, the logits or states are those of torch within 1e-4, and greedy text over
  20 steps, beams and scores are the same, alone and in a padded batch.

This table is written by `python docs/families.py`, which runs those tests (transformers {version}).

{table}

{passed} tests passed, {failed} failed.

## Which axis is needed by which family

{axes}

Refused, with every reason at once: pickles, remote code (`auto_map`), unknown options, dynamic and longrope positions
(they change with the length of the text, so cached and uncached differ), windows in some layers only, encoders and
decoders of unlike width, missing shards or tensors, wrong shapes, a tokenizer with more tokens than the embedding has
rows.
"""


def outcomes(*arguments: str) -> dict[tuple[str, str], bool]:
    """What each test of these did: (function, parameters) -> passed."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "results.xml"
        command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={file}", *arguments]
        subprocess.run(command, cwd=HERE.parent, check=False)
        found = {}
        for test in ElementTree.parse(file).iter("testcase"):
            function, _, parameters = str(test.get("name")).partition("[")
            found[function, parameters.rstrip("]")] = not any(
                test.find(wrong) is not None for wrong in ("failure", "error", "skipped")
            )
        return found


def configurations() -> dict[str, ModelConfig]:
    """The axes of each case, as they are read here."""
    found = {}
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder:
            reference(case).save_pretrained(folder)
            found[case] = read_folder(folder).config
    return found


def case_table(results: dict[tuple[str, str], bool]) -> str:
    """One row for each checkpoint."""
    rows = ["| checkpoint | " + " | ".join(COLUMNS) + " |", "|---|" + "---|" * len(COLUMNS)]
    signs = {True: "yes", False: "NO", None: "-"}
    for case in CASES:
        held = [
            [results[test, case] for test in tests if (test, case) in results] for tests in COLUMNS.values()
        ]
        cells = [signs[all(each) if each else None] for each in held]
        rows.append(f"| {case} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def axis_table(configs: dict[str, ModelConfig]) -> str:
    """For each value of each axis, the families with a checkpoint that has it."""
    rows = ["| axis | value | families |", "|---|---|---|"]
    for axis in AXES:
        users: dict[str, Counter[str]] = {}
        for case, config in configs.items():
            family = next(name for name in FAMILIES if case.split(" ")[0].rstrip(",") == name)
            value: Any = getattr(config, axis)
            value = bool(value) if axis in ("window", "token_types") else value
            users.setdefault(json.dumps(value), Counter())[family] += 1
        for value, families in sorted(users.items()):
            listed = ", ".join(f"{name} ({count})" if count > 1 else name for name, count in families.items())
            rows.append(f"| {axis} | {value.strip(chr(34))} | {listed} |")
    return "\n".join(rows)


def main() -> None:
    """Run the tests and write the file."""
    import transformers

    results = outcomes("tests/model/test_families.py", "tests/generate/test_onnx_transformers.py")
    text = TEXT.format(
        version=transformers.__version__,
        table=case_table(results),
        axes=axis_table(configurations()),
        passed=sum(results.values()),
        failed=len(results) - sum(results.values()),
    )
    (HERE / "families.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
