"""Who watches a run: the log always, TensorBoard by default, Weights & Biases on request and offline where so told."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from reversing import run  # noqa: E402

from inkstone.ground import errors  # noqa: E402
from inkstone.ground.errors import ConfigError, MissingPackage  # noqa: E402
from inkstone.learn.loop import TrainingOptions  # noqa: E402

CODE = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from reversing import run
print(run(Path({place!r}), watch=("wandb",), epochs=6)[1])
"""


def test_nobody_but_the_log(tmp_path: Path) -> None:
    run(tmp_path, epochs=6, watch=())
    assert (tmp_path / "log.jsonl").read_text() and not (tmp_path / "tensorboard").exists()


def test_who_watches_is_no_part_of_a_run_s_fingerprint() -> None:
    assert repr(TrainingOptions(watch=("wandb",), profile=True, preflight="only")) == repr(TrainingOptions())
    with pytest.raises(ConfigError, match=r'watch="wandbb" is not known.*Did you mean "wandb"'):
        TrainingOptions(watch=("wandbb",))


def test_weights_and_biases_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = errors.find_spec
    monkeypatch.setattr(errors, "find_spec", lambda name: None if name == "wandb" else found(name))
    with pytest.raises(MissingPackage, match=r'pip install "inkstone\[wandb\]"'):
        run(tmp_path, watch=("wandb",))


def test_weights_and_biases_offline(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    _, without = run(tmp_path / "without", epochs=6)
    code = CODE.format(tests=str(Path(__file__).parent), place=str(tmp_path / "run"))
    with socket.create_server(("127.0.0.1", 0)) as nobody:  # whoever tries the network comes here
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        told = {
            "WANDB_MODE": "offline",
            "WANDB_BASE_URL": address,
            "HTTPS_PROXY": address,
            "HTTP_PROXY": address,
        }
        home = {"HOME": str(tmp_path), "WANDB_CONFIG_DIR": str(tmp_path), "WANDB_CACHE_DIR": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **told, **home}
        )
        nobody.settimeout(0.2)
        with pytest.raises(TimeoutError):
            nobody.accept()
    assert done.returncode == 0, done.stderr
    assert done.stdout == without + "\n", "only what was printed here"
    files = list((tmp_path / "run" / "wandb").rglob("*.wandb"))
    assert len(files) == 1
    stored = files[0].read_bytes()
    logged = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert logged and all(name.encode() in stored for line in logged for name in line if name != "step")
