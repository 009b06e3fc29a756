"""The house holds its floors: imports point down, no room imports a neighbour or a circle, serving needs no torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "inkstone"

# From the ground up. A room imports from floors below its own, and from itself.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("ground",),
    ("text", "metrics"),
    ("corpus", "model", "vectors"),
    ("generate",),
    ("learn", "ship"),
    ("apps", "judge"),
    ("recipes", "serve"),
    ("cli",),
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

# Importing these modules must not load what only training needs.
TORCH_FREE = (
    "inkstone",
    "inkstone.cli",
    "inkstone.serve.application",
    "inkstone.apps.translate",
    "inkstone.apps.summarize",
    "inkstone.apps.classify",
    "inkstone.apps.embed",
    "inkstone.apps.language_model",
    "inkstone.apps.checkpoint",
    "inkstone.corpus.read",
    "inkstone.corpus.rules",
    "inkstone.text.tokenizer",
    "inkstone.text.foreign_tokenizer",
    "inkstone.text.template",
    "inkstone.metrics.text",
    "inkstone.model.bundle",
    "inkstone.model.config",
    "inkstone.model.presets",
    "inkstone.generate.ctranslate2_engine",
    "inkstone.generate.ctranslate2_decoder",
    "inkstone.generate.foreign_options",
    "inkstone.generate.streaming",
    "inkstone.generate.foresight",
    "inkstone.generate.onnx_engine",
    "inkstone.generate.onnx_decoder",
    "inkstone.generate.sentence_encoder",
    "inkstone.generate.classify_onnx",
    "inkstone.recipes.evaluate",
    "inkstone.recipes.clean",
    "inkstone.recipes.verify",
    "inkstone.ship.embed",
    "inkstone.ship.greedy",
    "inkstone.judge.kneser_ney",
    "inkstone.judge.retrieval",
    "inkstone.recipes.vectors",
)
HEAVY = (
    "torch",
    "transformers",
    "sklearn",
    "sacrebleu",
    "matplotlib",
    "pyarrow",
    "scipy",
    "sentencepiece",
    "google.protobuf",
)


def _imports(file: Path) -> set[str]:
    """The inkstone modules a file imports, inside functions too, but not those for type checking only."""
    tree = ast.parse(file.read_text("utf-8"))
    typing_only = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for child in branch.body
        for node in ast.walk(child)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] == "inkstone"}


def _rooms() -> dict[str, set[tuple[str, str]]]:
    """Room -> {(file, room it imports)}."""
    result: dict[str, set[tuple[str, str]]] = {room: set() for room in FLOOR_OF}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(PACKAGE).parts
        if len(parts) == 1:
            continue
        for name in _imports(file):
            pieces = name.split(".")
            if len(pieces) > 1 and pieces[1] in FLOOR_OF and pieces[1] != parts[0]:
                result[parts[0]].add(("/".join(parts), pieces[1]))
    return result


def test_every_room_is_on_the_plan() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert rooms == set(FLOOR_OF)


def test_imports_point_down() -> None:
    wrong = [
        f"{file} (floor {FLOOR_OF[room]}) imports {other} (floor {FLOOR_OF[other]})"
        for room, imports in _rooms().items()
        for file, other in sorted(imports)
        if FLOOR_OF[other] >= FLOOR_OF[room]
    ]
    assert not wrong, "\n".join(wrong)


def test_no_circles_between_modules() -> None:
    modules = {
        ".".join(("inkstone", *file.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
            ".__init__"
        ): file
        for file in PACKAGE.rglob("*.py")
    }
    graph = {
        name: {i for i in _imports(file) if i in modules and i != name} for name, file in modules.items()
    }
    # The package's own __init__ is a lazy table of contents, and the command line's is the door of its verbs.
    for names in graph.values():
        names -= {"inkstone", "inkstone.cli"}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, "a circle: " + " -> ".join((*path[path.index(name) :], name))
        if name not in done:
            for other in sorted(graph[name]):
                visit(other, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("module", TORCH_FREE)
def test_torch_free(module: str) -> None:
    code = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]", f"{module} loads {out.stdout.strip()}"


def test_help_is_light() -> None:
    code = (
        "import sys; from inkstone.cli import main; code = main(['--help']);"
        "heavy = [n for n in ('torch', 'numpy', 'pydantic', 'fastapi', 'tokenizers', 'ctranslate2') if n in sys.modules];"
        "print('HEAVY', heavy, file=sys.stderr); sys.exit(code)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "HEAVY []" in out.stderr
    for verb in (
        "translate",
        "classify",
        "train",
        "evaluate",
        "verify",
        "serve",
        "corpus",
        "tokenizer",
        "vectors",
        "doctor",
    ):
        assert verb in out.stdout


def test_nothing_is_unpickled() -> None:
    banned = ("import pickle", "torch.load(", "torch.save(", "np.load(", "yaml.load(", "eval(", "exec(")
    found = [
        f"{file.relative_to(PACKAGE)}: {word}"
        for file in PACKAGE.rglob("*.py")
        for word in banned
        if word in file.read_text("utf-8").replace("model.eval()", "").replace(".eval()", "")
    ]
    assert not found


def test_files_stay_readable() -> None:
    long = [
        f"{file.relative_to(PACKAGE)}: {lines} lines"
        for file in PACKAGE.rglob("*.py")
        if (lines := len(file.read_text("utf-8").splitlines())) > 600
    ]
    assert not long
