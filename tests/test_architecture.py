"""The house stands as ARCHITECTURE.md says: import law, sizes, types, and packages from this tree."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("pipelines", "serving", "training", "features", "data", "governance")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
FILE_LINES_MAX, FUNCTION_LINES_MAX = 400, 60
_GETTERS, _MAPPINGS = ("getenv", "getenvb"), ("environ", "environb")


@pytest.mark.parametrize("package", PACKAGES)
def test_package_is_the_one_of_this_tree(package: str) -> None:
    found = Path(str(importlib.import_module(package).__file__)).resolve()
    assert found == ROOT / package / "__init__.py", "a stray package in site-packages wins"


def test_import_law_is_kept() -> None:
    code = (
        "import sys; from importlinter.cli import lint_imports_command as run; "
        "sys.argv = ['lint-imports', '--no-cache']; run()"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stdout


def test_files_and_functions_stay_small() -> None:
    too_long = []
    for path in MODULES:
        text = path.read_text()
        if text.count("\n") > FILE_LINES_MAX:
            too_long.append(f"{path.relative_to(ROOT)}: {text.count(chr(10))} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > FUNCTION_LINES_MAX:
                    too_long.append(f"{path.relative_to(ROOT)}:{node.name}: {lines} lines")
    assert not too_long, "\n".join(too_long)


def test_every_module_says_what_it_is() -> None:
    silent = [path for path in MODULES if not ast.get_docstring(ast.parse(path.read_text()))]
    assert not silent


def environment_uses(tree: ast.Module) -> list[tuple[int, str]]:
    """Line and kind of every use of the environment: ``read``, ``write`` or ``whole``.

    ``whole`` is the mapping itself, handed on or copied, as for a child process.
    """
    parents = {child: node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
    aliases = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name == "os"
    }
    uses = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            if any(alias.name in (*_GETTERS, *_MAPPINGS, "*") for alias in node.names):
                uses.append((node.lineno, "read"))
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in aliases
        ):
            if node.attr in _GETTERS:
                uses.append((node.lineno, "read"))
            elif node.attr in _MAPPINGS:
                uses.append((node.lineno, _kind(parents[node])))
    return uses


def _kind(parent: ast.AST) -> str:
    """What an expression around ``os.environ`` does with it."""
    if isinstance(parent, ast.Subscript):
        return "read" if isinstance(parent.ctx, ast.Load) else "write"
    if isinstance(parent, ast.Attribute):
        whole = parent.attr in ("copy", "items")
        return "write" if parent.attr == "setdefault" else "whole" if whole else "read"
    return "read" if isinstance(parent, ast.Compare | ast.For | ast.comprehension) else "whole"


@pytest.mark.parametrize(
    ("statement", "kinds"),
    [
        ('os.environ["A"]', ["read"]),
        ('os.environ.get("A")', ["read"]),
        ('os.environ.pop("A")', ["read"]),
        ('os.getenv("A")', ["read"]),
        ('"A" in os.environ', ["read"]),
        ("[name for name in os.environ]", ["read"]),
        ("from os import environ", ["read"]),
        ("from os import getenv as g", ["read"]),
        ("from os import *", ["read"]),
        ("import os as o; o.environ['A']", ["read"]),
        ('os.environ["A"] = "1"', ["write"]),
        ('del os.environ["A"]', ["write"]),
        ("dict(os.environ)", ["whole"]),
        ("os.environ.copy()", ["whole"]),
        ("{**os.environ}", ["whole"]),
        ("os.environ | {}", ["whole"]),
        ("variables = os.environ", ["whole"]),
        ("run(env=os.environ)", ["whole"]),
        ("process.environ()", []),
        ("os.path.join('a', 'b')", []),
    ],
)
def test_every_way_to_the_environment_is_seen(statement: str, kinds: list[str]) -> None:
    uses = environment_uses(ast.parse(f"import os\n{statement}\n"))
    assert [kind for _line, kind in uses] == kinds


ENVIRONMENT_ALLOWED: dict[tuple[str, str], str] = {
    ("serving/service.py", "read"): "the service's wiring: variables become its settings",
    ("serving/service.py", "whole"): "the address is judged with the variables of the supervisor",
    ("serving/packaging/bento.py", "whole"): "handed on to `bentoml build`, a child process",
    ("governance/registry/client.py", "whole"): "opt-outs are written where MLflow looks for them",
    ("data/contracts.py", "write"): "an opt-out that Great Expectations reads when it is imported",
}
"""What may touch the environment below ``pipelines``, how, and why."""


def test_environment_is_read_at_the_top_only() -> None:
    """Below ``pipelines`` only what the table names, in the way that it names."""
    found = {
        (path.relative_to(ROOT).as_posix(), kind): line
        for path in MODULES
        for line, kind in environment_uses(ast.parse(path.read_text()))
        if path.relative_to(ROOT).parts[0] != "pipelines"
    }
    strangers = set(found) - set(ENVIRONMENT_ALLOWED)
    assert not sorted(f"{name}:{found[name, kind]}: {kind}" for name, kind in strangers)
    assert set(ENVIRONMENT_ALLOWED) <= set(found), "a line of the table that nothing needs"


@pytest.mark.parametrize("package", [p for p in PACKAGES if p not in ("pipelines", "training")])
def test_importing_a_package_is_light(package: str) -> None:
    """No module below training imports a heavy vendor when it is imported."""
    heavy = ("torch", "mlflow", "feast", "great_expectations", "evidently", "pytorch_lightning")
    names = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in MODULES
        if path.relative_to(ROOT).parts[0] == package
        and path.name not in ("__init__.py", "definitions.py", "service.py")
    ]
    code = (
        f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == "[]"
