"""A full disk, an output nobody reads, Ctrl-C, a gigabyte in one line, another locale, and Python without asserts."""

from __future__ import annotations

import gzip
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from door import Call, listing, one_document, refused
from made_corpus import made_pairs, write_pairs

if TYPE_CHECKING:
    from conftest import Trained

INKSTONE = [sys.executable, "-c", "import sys; from inkstone.cli import main; sys.exit(main())"]
TINY = [
    *(
        "--set",
        "vocab_size=400",
        "--set",
        "max_length=48",
        "--set",
        "training.epochs=1",
        "--set",
        "beam_size=1",
    ),
    *(
        "--set",
        "model={hidden_size: 32, num_encoder_layers: 1, num_decoder_layers: 1, feed_forward_size: 64}",
    ),
    *("--size", "tiny", "--set", "training.tokens_per_batch=8192", "--set", "training.threads=1"),
]


@contextmanager
def files_of_at_most(size_bytes: int) -> Iterator[None]:
    """No file may grow beyond this, as on a disk that is full. (Python ignores the signal; writing fails with EFBIG.)"""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def full_disk(place: Path) -> Iterator[Path]:
    """A file system of 64 kB without a free byte."""
    disk = place / "disk"
    disk.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        pytest.skip("a file system can only be mounted by root: the limit on file sizes is tested instead")
    try:
        with (disk / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError, match="No space"):
            while True:
                filler.write(bytes(4096))
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def writers(bundle: Path, out: str) -> list[tuple[str, ...]]:
    """The commands that write a file or a folder of this name."""
    return [
        ("translate", "--model", str(bundle), "--file", "long.txt", "--to", "zh", "--out", out),
        ("corpus", "clean", "made.tsv", "-o", f"{out}.jsonl"),
        ("corpus", "clean", "made.tsv", "-o", f"{out}.jsonl.gz"),
        ("tokenizer", "train", "made.tsv", "-o", out),
    ]


UNFORESEEN = ("--set", "training.preflight=skip")  # the preflight would notice first


@pytest.fixture
def inputs(place: Path) -> None:
    write_pairs(place / "made.tsv", made_pairs(300))
    (place / "long.txt").write_text("I see the cat.\n" * 8 + "\n" * 5000, "utf-8")


def test_a_full_disk(call: Call, inputs: None, full_disk: Path, trained: Trained) -> None:
    for command in writers(trained.bundle, "disk/out"):
        refused(call, *command, words="cannot write disk/out … the disk is full. Free some space")


def test_a_full_disk_under_a_training(call: Call, inputs: None, full_disk: Path) -> None:
    pytest.importorskip("inkstone.cli.classify", reason="the classify verbs are not here yet")
    answer = call("train", "translate", "--data", "made.tsv", "--out", "disk/out", *TINY)
    assert (answer.code, answer.out) == (2, "")
    assert "the disk of" in answer.err and "needs 0.02 GB" in answer.err  # said before anything is written
    answer = call("train", "translate", "--data", "made.tsv", "--out", "disk/out", *TINY, *UNFORESEEN)
    assert (answer.code, answer.out) == (2, "")
    assert "cannot write disk/out.run" in answer.err
    assert "the disk is full" in answer.err
    assert not [name for name in listing(full_disk) if name.endswith(".part") or "checkpoints/" in name]


def test_no_larger_files_allowed(call: Call, inputs: None, place: Path, trained: Trained) -> None:
    for command in writers(trained.bundle, "out"):
        with files_of_at_most(512):
            refused(call, *command, words="cannot write out … larger than the system allows")


def test_an_old_file_stays_when_the_new_one_cannot_be_written(
    call: Call, inputs: None, place: Path, trained: Trained
) -> None:
    for command in writers(trained.bundle, "out"):
        Path(command[-1]).write_text("the old one")
        with files_of_at_most(512):
            refused(call, *command, words="cannot write out")
        assert Path(command[-1]).read_text() == "the old one"


def test_a_checkpoint_that_cannot_be_written(call: Call, inputs: None, place: Path) -> None:
    """Training ends, says how to go on, and - given space - goes on to a whole model."""
    pytest.importorskip("torch", reason="training needs torch")
    pytest.importorskip("inkstone.cli.classify", reason="the classify verbs are not here yet")
    with files_of_at_most(60_000):
        answer = call("train", "translate", "--data", "made.tsv", "--out", "model", *TINY, *UNFORESEEN)
    assert (answer.code, answer.out) == (2, ""), answer
    assert "cannot write model.run/checkpoints" in answer.err
    assert "Traceback" not in answer.err
    assert not (place / "model").exists()
    assert not list(place.rglob("*.part"))
    answer = call("train", "resume", "model.run", "--json")
    assert answer.code == 0, answer.err
    assert one_document(answer.out)["bundle"] == str(place / "model")
    assert call("verify", "model").code == 0


def process(*arguments: str, options: tuple[str, ...] = (), **rest: object) -> subprocess.Popen[bytes]:
    command = [INKSTONE[0], *options, *INKSTONE[1:], *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **rest.pop("environment", {})}  # type: ignore[dict-item]
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **rest}
    return subprocess.Popen(command, env=environment, **streams)  # type: ignore[call-overload,no-any-return]


def test_a_reader_that_leaves(place: Path, trained: Trained) -> None:
    """`inkstone … | head -0`, with more output than a pipe holds and with less."""
    (place / "many.txt").write_text("\n" * 20_000)
    for file in ("many.txt", "texts.txt"):
        run = process("translate", "--model", str(trained.bundle), "--file", file, "--to", "zh", "--json")
        assert run.stdout is not None
        run.stdout.close()
        assert run.stderr is not None
        errors = run.stderr.read()
        run.stderr.close()
        assert (run.wait(60), errors) == (141, b"")


def test_an_output_on_a_full_disk(place: Path, trained: Trained) -> None:
    with Path("/dev/full").open("wb") as full:
        run = process(
            "translate", "--model", str(trained.bundle), "--file", "texts.txt", "--to", "zh", stdout=full
        )
        _, errors = run.communicate(timeout=60)
    assert run.returncode == 2
    assert (
        errors == b"inkstone: cannot write the output: the disk is full. Free some space and run it again.\n"
    )


def test_other_locales(place: Path, trained: Trained) -> None:
    """Texts are UTF-8 whatever the terminal says of itself; bytes that are no UTF-8 spoil nothing."""
    name = os.fsdecode(b"caf\xe9.tsv")
    for variables in ({"LC_ALL": "C"}, {"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "POSIX", "PYTHONUTF8": "0"}):
        run = process("translate", "I see the cat.", "--model", str(trained.bundle), environment=variables)
        out, errors = run.communicate(timeout=60)
        assert (run.returncode, errors) == (0, b"")
        assert out.decode("utf-8").strip()
    run = process("translate", "--file", name, "--model", str(trained.bundle))
    out, errors = run.communicate(timeout=60)
    assert (run.returncode, out) == (2, b"")
    assert b"cannot be read: No such file" in errors
    assert b"Traceback" not in errors


def test_ctrl_c(call: Call, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from inkstone.cli import translate

    def interrupted(*_: object) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(translate, "_texts", interrupted)
    answer = call("translate", "x", "--json")
    assert answer == type(answer)(130, "", "inkstone: interrupted\n")


@pytest.mark.slow
def test_a_gigabyte_in_one_line(place: Path, trained: Trained) -> None:
    """It is passed over (or refused) with its number, and memory never holds it."""
    part = gzip.compress(b"a" * (1 << 26), 1)
    with (place / "gigabyte.txt.gz").open("wb") as file:  # gzip parts one after another are one file
        file.write(gzip.compress(b"This is the first line of the text.\n"))
        file.writelines([part] * 16)
        file.write(gzip.compress(b"\nAnd this is the last line of it.\n"))
    script = (
        "import pathlib, re, sys; from inkstone.cli import main\n"
        "code = main(); status = pathlib.Path('/proc/self/status').read_text()\n"
        "print(re.search(r'VmHWM:\\s+(\\d+) kB', status)[1], file=sys.stderr); sys.exit(code)"
    )  # not ru_maxrss, which counts what this process had before it became that one

    def peak(*arguments: str) -> tuple[int, bytes, bytes, int]:
        run = subprocess.run(
            [sys.executable, "-c", script, *arguments], capture_output=True, check=False, timeout=120
        )
        *errors, kilobytes = run.stderr.splitlines()
        return run.returncode, run.stdout, b"\n".join(errors), int(kilobytes) << 10

    code, out, errors, most = peak("corpus", "clean", "gigabyte.txt.gz", "-o", "clean.jsonl", "--json")
    assert code == 0, errors
    document = one_document(out.decode())
    assert (document["kept"], document["problem_count"]) == (2, 1)
    assert b"gigabyte.txt.gz:2: is too long: 1,073,741,824 bytes, where at most 1,048,576" in errors
    assert most < 300 << 20

    with (place / "gigabyte.txt").open("wb") as file:
        file.write(b"short\n")
        file.truncate(1 << 30)
    code, out, errors, most = peak(
        "translate", "--file", "gigabyte.txt", "--to", "zh", "--out", "out", "--model", str(trained.bundle)
    )
    assert (code, out) == (2, b"")
    assert b"gigabyte.txt, line 2 is longer than 1,048,576 bytes" in errors
    assert not (place / "out").exists()
    assert most < 300 << 20


def test_no_check_is_an_assert(place: Path, trained: Trained) -> None:
    """python -O takes assertions away; every refusal must still be one."""
    shutil.copytree(trained.bundle, "altered")
    Path("altered/README.md").write_text("a better model")
    script = """
import json, sys
from inkstone.cli import main
assert False, "this must not run"
for line in sys.stdin:
    print("@", line, end="", file=sys.stderr)
    print("@", main(json.loads(line)), file=sys.stderr)
"""
    commands = [
        (["translate", "x", "--to", "zh", "--model", "altered"], "README.md"),
        (["translate", "x", "--to", "fr", "--model", str(trained.bundle)], 'to="fr"'),
        (["translate", "x", "--beam-size", "0", "--model", str(trained.bundle)], "--beam-size"),
        (["translate", "--file", "binary.tsv", "--model", str(trained.bundle)], "not UTF-8"),
        (["verify", "missing"], "missing"),
        (["evaluate", str(trained.bundle), "--data", "columns.csv"], "columns a, b"),
        (["corpus", "clean", "binary.tsv", "-o", "o.jsonl"], "binary file"),
        (["corpus", "clean", "corpus.{en,zh}", "-o", "o.jsonl"], "corpus.en does not exist"),
        (["tokenizer", "train", "texts.txt", "-o", "t.json", "--special", "a"], "special token"),
        (["tokenizer", "show", "document.json", "x"], "not a tokenizer.json"),
    ]
    import json

    lines = "".join(json.dumps(command) + "\n" for command, _ in commands)
    before = listing(place)
    run = subprocess.run(
        [sys.executable, "-O", "-c", script],
        input=lines,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (run.returncode, run.stdout) == (0, ""), run.stderr
    assert "Traceback" not in run.stderr
    messages = run.stderr.split("@ [")[1:]
    assert len(messages) == len(commands)
    for message, (command, words) in zip(messages, commands, strict=True):
        assert message.rstrip().endswith("@ 2"), message
        assert words in message.split("\n", 1)[1], (command, message)
    assert listing(place) == before
