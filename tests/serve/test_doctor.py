"""`inkstone doctor`: what it finds, and what it advises."""

from __future__ import annotations

import json
import socket
from importlib import metadata
from pathlib import Path

import pytest
import typer
from standins import write_bundles

from inkstone.cli import doctor as verb
from inkstone.cli.doctor import Check, bundles, disk, doctor, fits, packages, port_free, processor


def test_a_healthy_machine_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    doctor(models=write_bundles(tmp_path), port=port, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert set(document) == {"checks"}
    for check in document["checks"]:
        assert set(check) == {"name", "ok", "detail", "advice"}
        assert check["ok"], check
    names = {check["name"] for check in document["checks"]}
    assert {"python", "processor", "memory", "disk", "port", "workbench", "model zh-en"} <= names


def test_something_wrong_is_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_bundles(tmp_path)
    (tmp_path / "zh-en" / "README.md").write_text("altered", "utf-8")
    with pytest.raises(typer.Exit) as caught:
        doctor(models=tmp_path, port=8000, as_json=False)
    assert caught.value.exit_code == 2
    output = capsys.readouterr().out
    assert "NOT" in output
    assert "README.md" in output
    assert "→" in output


def test_no_models(tmp_path: Path) -> None:
    (check,) = bundles(tmp_path)
    assert not check.ok
    assert "inkstone train" in check.advice


def test_a_port_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (check,) = port_free(port)
    assert not check.ok
    assert f"--port {port + 1}" in check.advice or f"--port {port - 1}" in check.advice


def test_missing_and_wrong_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = ["numpy>=1", "no-such-package>=1", "pydantic>=99", "torch-of-nobody==1; extra == 'train'"]
    monkeypatch.setattr(metadata, "requires", lambda name: needs)
    checks = {check.name: check for check in packages()}
    core, train = checks["packages for text"], checks["packages for training (optional)"]
    assert not core.ok
    assert "no-such-package missing" in core.detail
    assert "is not >=99" in core.detail
    assert core.advice == 'Run: pip install "inkstone"'
    assert train == Check(train.name, True, "torch-of-nobody missing", 'Run: pip install "inkstone[train]"')


def test_every_requirement_of_this_installation_is_understood() -> None:
    lines = metadata.requires("inkstone") or []
    assert lines
    assert [line for line in lines if not verb.REQUIREMENT.fullmatch(line)] == []


@pytest.mark.parametrize(
    ("version", "bounds", "fine"),
    [
        ("2.13.0+cpu", "==2.13.0", True),
        ("2.13.1", "==2.13.0", False),
        ("0.165.0", "<0.166,>=0.165", True),
        ("0.166", "<0.166,>=0.165", False),
        ("3.0", ">=2.14,<3", False),
        ("15.0.0", ">=15", True),
        ("1.0", "", True),
    ],
)
def test_versions(version: str, bounds: str, fine: bool) -> None:
    assert fits(version, bounds) is fine


def test_little_space_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(verb, "MIN_FREE_BYTES", 1 << 62)
    (check,) = disk(tmp_path)
    assert not check.ok
    assert check.advice


def test_the_processor_is_described() -> None:
    (check,) = processor()
    assert "cores" in check.detail
    assert "int8" in check.detail
