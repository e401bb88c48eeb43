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


def test_environment_is_read_at_the_top_only() -> None:
    """Below ``pipelines`` only the service's wiring reads variables; vendor opt-outs are written."""
    allowed = {"serving/service.py"}
    readers = []
    for path in MODULES:
        name = path.relative_to(ROOT).as_posix()
        if name.startswith("pipelines/") or name in allowed:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            is_get = isinstance(node, ast.Attribute) and node.attr in ("getenv",)
            is_environ_read = (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "get"
                and isinstance(node.func.value, ast.Attribute)
                and node.func.value.attr == "environ"
            )
            if is_get or is_environ_read:
                readers.append(f"{name}:{node.lineno}")
    assert not readers


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
