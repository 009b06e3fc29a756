"""Bad files of every kind in the working folder, the door to knock at, and damaged copies of a real bundle."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from door import Call, caller

PAIRS = "zh\ten\n我看见这只猫。\tI see the cat.\n你喜欢一些茶。\tyou like some tea.\n"


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Runs `inkstone` in this process."""
    return caller(capsys, monkeypatch)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, full of files that are not what a command needs."""
    bad: dict[str, bytes] = {
        "empty.tsv": b"",
        "blank.txt": b"\n  \n\t\n",
        "binary.tsv": bytes(range(256)) * 40,
        "picture.jsonl": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "latin1.txt": ("café olé, señor\n" * 9).encode("latin-1"),
        "utf16.txt": "你好\n".encode("utf-16"),
        "damaged.gz": gzip.compress(b"hello world\n" * 10_000)[:60],
        "columns.csv": b"a,b\n1,2\n3,4\n",
        "three.tsv": b"a\tb\tc\n1\t2\t3\n",
        "labelled.tsv": b"text\tlabel\nhello\tgreeting\nbye\tfarewell\n",
        "document.json": b'[{"source": "a", "target": "b"}]',
        "broken.jsonl": '{"source": "我看见", "target": "I see"}\nno JSON\n[1]\n{"source": 1}\n'.encode(),
        "german.tsv": b"en\tde\nthe cat\tdie Katze\nthe dog\tder Hund\n",
        "pairs.tsv": PAIRS.encode(),
        "texts.txt": b"I see the cat.\n\nTom likes some tea.\n",
        "yaml.yaml": b"a: [1",
        "list.yaml": b"- 1\n",
        "binary.yaml": b"\xff\xfe\x00",
        "unknown.yaml": b"data: [pairs.tsv]\nvocab_siz: 3\ntraining: {epoch: 3, patience: often}\n",
        "out.yaml": b"out: 7\ndata: [pairs.tsv]\n",
        "one-file.yaml": b"data: pairs.tsv\nname: x\n",
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def damaged(trained: object, place: Path) -> Callable[[Callable[[Path], None]], str]:
    """A copy of the trained bundle after this damage; its name in the working folder."""

    def copy(damage: Callable[[Path], None]) -> str:
        bundle = place / "model"
        shutil.copytree(trained.bundle, bundle)  # type: ignore[attr-defined]
        damage(bundle)
        return "model"

    return copy
