"""`inkstone compress` with what cannot be: one message, exit code 2, nothing written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from door import Call, refused

pytest.importorskip("torch", reason="compression needs torch")

GOOD = ["--data", "pairs.tsv", "-o", "new"]
BAD: dict[str, tuple[list[str], str]] = {
    "no data": (["-o", "new"], "nothing to measure on … --data FILE … was made from … not found here"),
    "a taken place": (
        ["--data", "pairs.tsv", "-o", "folder"],
        "folder already exists … Choose another --out",
    ),
    "a dangling link": (["--data", "pairs.tsv", "-o", "dangling"], "dangling already exists"),
    "below a file": (["--data", "pairs.tsv", "-o", "pairs.tsv/new"], "pairs.tsv is a file, not a folder"),
    "no file": (["--data", "nothing.tsv", "-o", "new"], "nothing.tsv"),
    "an empty file": (["--data", "empty.tsv", "-o", "new"], "empty.tsv"),
    "a binary file": (["--data", "binary.tsv", "-o", "new"], "binary.tsv"),
    "labels": (["--data", "labelled.tsv", "-o", "new"], "labelled.tsv"),
    "other languages": (
        ["--data", "german.tsv", "-o", "new"],
        "german.tsv … has the columns en, de … two language codes with zh and en",
    ),
    "three bits": ([*GOOD, "--quantize", "int3"], "int3 … int8 … int4"),
    "a share of two": ([*GOOD, "--prune", "2"], "prune=2.0 must be at least 0 and below 1"),
    "no share": ([*GOOD, "--prune", "a third"], "--prune"),
    "a negative share": ([*GOOD, "--prune", "-0.5"], "prune=-0.5"),
    "no limit": ([*GOOD, "--limit", "little"], '--limit "little" is no share … 1% or 0.01'),
    "a limit above all": ([*GOOD, "--limit", "200%"], "limit=2.0 must be between 0 and 1"),
    "a limit that is no number": ([*GOOD, "--limit", "nan%"], "limit=nan"),
    "one layer": ([*GOOD, "--layers", "3"], '--layers "3" is not two numbers … --layers 4,1'),
    "an unknown size": ([*GOOD, "--distill", "huge"], 'distil="huge" is not known … tiny, small, base'),
    "an unknown option": ([*GOOD, "--set", "trainig.epochs=1"], 'trainig … Did you mean "training"'),
    "an unknown option inside": ([*GOOD, "--set", "distillation.temprature=1"], "temprature"),
    "a cold teacher": ([*GOOD, "--set", "distillation.temperature=0"], "temperature=0"),
    "a student without a size": ([*GOOD, "--set", "student.hidden_size=8"], "student … --distill SIZE"),
    "too few to learn from": ([*GOOD, "--prune", "0.3"], "too few"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_options(case: str, call: Call, trained: Any, place: Path) -> None:
    arguments, words = BAD[case]
    refused(call, "compress", str(trained.bundle), *arguments, words=words)


@pytest.mark.parametrize("model", ["nothing", "folder", "pairs.tsv"])
def test_bad_models(model: str, call: Call, place: Path) -> None:
    refused(call, "compress", model, *GOOD, words=model)


def test_a_student_that_is_larger(
    call: Call, trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from made_corpus import made_pairs, write_pairs

    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path / "pairs.tsv", made_pairs(300))
    words = "a student of size base has … parameters, the model … nothing would become smaller"
    refused(call, "compress", str(trained.bundle), *GOOD, "--distill", "base", words=words)


def test_more_layers_than_there_are(
    call: Call, trained: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from made_corpus import made_pairs, write_pairs

    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path / "pairs.tsv", made_pairs(300))
    refused(
        call,
        "compress",
        str(trained.bundle),
        *GOOD,
        "--layers",
        "9,1",
        words="9 encoder layers cannot be kept of 1",
    )
