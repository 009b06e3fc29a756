"""`inkstone doctor`: is this machine ready, and what to do where it is not.

Each check looks at one thing and changes nothing. Packages that an optional part needs may be missing: that
is told, with the command that installs them, and is no fault.
"""

from __future__ import annotations

import json
import operator
import os
import platform
import re
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer

MIN_PYTHON = (3, 11)
MIN_FREE_BYTES = 2 * 1024**3
GIB = 1024**3
EXTRAS = {"": "text", "serve": "serving", "train": "training (optional)", "dev": "development (optional)"}
REQUIREMENT = re.compile(
    r"(?P<name>[\w.-]+)(\[[^]]*])?\s*\(?(?P<versions>[^;()]*)\)?\s*(; extra == ['\"](?P<extra>\w+)['\"])?"
)
RELATIONS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<": operator.lt,
    "==": operator.eq,
    "<=": operator.le,
    ">": operator.gt,
    "!=": operator.ne,
}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. advice: what to do, empty when there is nothing to do."""

    name: str
    ok: bool
    detail: str
    advice: str = ""


def doctor(
    models: Annotated[
        Path | None,
        typer.Option(help="A model, or a folder of models, to verify. Default: the bundled ones."),
    ] = None,
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="The port that `inkstone serve` shall use.")
    ] = 8000,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Check this machine and say what to do. Exit code 2 when something is not well."""
    from inkstone.model.bundle import BUNDLED

    looks: list[Callable[[], Iterator[Check]]] = [
        python,
        packages,
        lambda: bundles(models or BUNDLED),
        processor,
        memory,
        lambda: disk(Path.cwd()),
        lambda: port_free(port),
        workbench,
    ]
    checks = [check for look in looks for check in look()]
    if as_json:
        print(json.dumps({"checks": [asdict(check) for check in checks]}, ensure_ascii=False, indent=2))
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            print(f"{'ok ' if check.ok else 'NOT'}  {check.name:<{width}}  {check.detail}")
            if check.advice:
                print(f"{'':<{width + 7}}→ {check.advice}")
    if not all(check.ok for check in checks):
        raise typer.Exit(2)


def python() -> Iterator[Check]:
    """The interpreter and the system."""
    fine = sys.version_info[:2] >= MIN_PYTHON
    detail = (
        f"{platform.python_implementation()} {platform.python_version()}, {platform.platform(terse=True)}"
    )
    yield Check("python", fine, detail, "" if fine else "Install Python 3.11 or newer.")


def packages() -> Iterator[Check]:
    """The packages of the core and of each extra, in versions that Inkstone works with."""
    try:
        lines = metadata.requires("inkstone") or []
    except metadata.PackageNotFoundError:
        yield Check("packages", False, "inkstone is not installed as a package", "Run: pip install -e .")
        return
    needs = [found.groupdict(default="") for found in map(REQUIREMENT.fullmatch, lines) if found]
    for extra in EXTRAS:
        wrong, names = [], []
        for need in (need for need in needs if need["extra"] == extra):
            names.append(need["name"])
            try:
                version = metadata.version(need["name"])
            except metadata.PackageNotFoundError:
                wrong.append(f"{need['name']} missing")
                continue
            if not fits(version, need["versions"]):
                wrong.append(f"{need['name']} {version} is not {need['versions']}")
        needed = extra in ("", "serve")
        name = f"packages for {EXTRAS[extra]}"
        what = f"inkstone[{extra}]" if extra else "inkstone"
        if not wrong:
            yield Check(name, True, f"{len(names)} packages, all there")
        else:
            yield Check(name, not needed, "; ".join(wrong), f'Run: pip install "{what}"')


def fits(version: str, bounds: str) -> bool:
    """Whether a release is within bounds such as ">=1.2,<2"; development suffixes are not looked at.

    >>> fits("1.26.0", ">=1.3,<2"), fits("2.0", ">=1.3,<2"), fits("2.13.0+cpu", "==2.13.0")
    (True, False, True)
    """
    release = _release(version)
    for bound in filter(None, bounds.replace(" ", "").split(",")):
        relation, limit = re.fullmatch("([<>=!~]+)(.*)", bound).groups()  # type: ignore[union-attr]
        compare = RELATIONS.get(relation)
        if compare is not None and not compare(release, _release(limit)):
            return False
    return True


def _release(version: str) -> tuple[int, ...]:
    numbers = [int(number) for number in re.findall(r"\d+", version.partition("+")[0])][:3]
    return tuple(numbers + [0] * (3 - len(numbers)))


def bundles(folder: Path) -> Iterator[Check]:
    """Every model of the folder, all its files hashed."""
    from inkstone.ground.errors import BundleError
    from inkstone.model.bundle import list_bundles, open_bundle

    paths = list_bundles(folder)
    if not paths:
        yield Check("models", False, f"no model in {folder}", "Train one: inkstone train translate --help")
    for path in paths:
        try:
            bundle = open_bundle(path)
        except BundleError as error:
            advice = "Copy or train it again; a file that changed after training is not used."
            yield Check(f"model {path.name}", False, str(error), advice)
            continue
        languages = ", ".join(bundle.languages)
        detail = (
            f"{bundle.task} ({languages}), {bundle.size_bytes / 1e6:.1f} MB, every file as it was written"
        )
        yield Check(f"model {bundle.name}", True, detail)


def processor() -> Iterator[Check]:
    """Cores that may be used, and what the serving engine makes of the processor."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    detail = f"{platform.machine()}, {cores} cores"
    flags = _cpu_flags() & {"avx", "avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimd"}
    detail += f", {' '.join(sorted(flags))}" if flags else ""
    try:
        import ctranslate2

        kinds = ctranslate2.get_supported_compute_types("cpu")
    except ImportError:
        yield Check("processor", True, f"{detail}; ctranslate2 is not installed")
        return
    fast = "int8" in kinds
    advice = "" if fast else "Models will run in float32: right, but slower and larger."
    yield Check("processor", True, f"{detail}; computes in {', '.join(sorted(kinds))}", advice)


def _cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8", "replace")
    except OSError:
        return set()
    lines = [line for line in text.splitlines() if line.startswith(("flags", "Features"))]
    return set(lines[0].split()) if lines else set()


def memory() -> Iterator[Check]:
    """Memory that is free for use (Linux)."""
    try:
        rows = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text("ascii").splitlines())
        free, total = (int(rows[key].split()[0]) * 1024 for key in ("MemAvailable", "MemTotal"))
    except (OSError, KeyError, ValueError):
        yield Check("memory", True, "not known on this system")
        return
    fine = free >= MIN_FREE_BYTES // 4
    advice = "" if fine else "Close other programs: serving takes 0.3 GiB, training 2 GiB and more."
    yield Check("memory", fine, f"{free / GIB:.1f} of {total / GIB:.1f} GiB available", advice)


def disk(folder: Path) -> Iterator[Check]:
    """Space in the working folder."""
    free = shutil.disk_usage(folder).free
    fine = free >= MIN_FREE_BYTES
    advice = (
        ""
        if fine
        else f"Free some: training writes checkpoints, {MIN_FREE_BYTES / GIB:.0f} GiB is a fair reserve."
    )
    yield Check("disk", fine, f"{free / GIB:.1f} GiB free here", advice)


def port_free(port: int) -> Iterator[Check]:
    """Whether `inkstone serve` would get its port, or has it already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            if _is_inkstone(port):
                yield Check("port", True, f"{port} is in use by a running `inkstone serve`")
            else:
                advice = f"Choose another: inkstone serve --port {port + 1 if port < 65535 else port - 1}"
                yield Check("port", False, f"{port}: {(error.strerror or str(error)).lower()}", advice)
            return
    yield Check("port", True, f"{port} is free")


def _is_inkstone(port: int) -> bool:
    from http.client import HTTPConnection, HTTPException

    connection = HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/health")
        answer = json.loads(connection.getresponse().read(1000))
    except (OSError, HTTPException, ValueError):
        return False
    finally:
        connection.close()
    return isinstance(answer, dict) and answer.get("service") == "inkstone"


def workbench() -> Iterator[Check]:
    """The web page's files."""
    folder = Path(__file__).parent.parent / "serve" / "workbench"
    there = (folder / "index.html").is_file()
    detail = "its files are there" if there else "its files are not there"
    yield Check("workbench", there, detail, "" if there else "Run: make page")
