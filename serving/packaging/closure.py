"""Which of our modules a module needs, read from the sources: what a bento must carry, no more."""

import ast
from pathlib import Path

from governance.errors import AuricleError

PACKAGES = ("governance", "data", "features", "serving")


def import_closure(module: str, root: Path) -> tuple[list[Path], frozenset[str]]:
    """Files of ours that ``module`` reaches, relative to ``root``, and the other packages named.

    Imports inside functions count as well: they happen sooner or later.
    """
    waiting, seen, others = [module], set[str](), set[str]()
    files: set[Path] = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        path = _file_of(name, root)
        if path is None:
            continue
        files.add(path)
        for imported in _imports(root / path):
            if imported.partition(".")[0] in PACKAGES:
                waiting += _prefixes(imported)
            else:
                others.add(imported.partition(".")[0])
    if not files:
        raise AuricleError("no such module", item=module, mend=f"run it in {root}")
    return sorted(files), frozenset(others)


def _file_of(name: str, root: Path) -> Path | None:
    """The module's file; None where the name is something inside a module."""
    base = Path(*name.split("."))
    for candidate in (base.with_suffix(".py"), base / "__init__.py"):
        if (root / candidate).is_file():
            return candidate
    return None


def _prefixes(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts) + 1)]


def _imports(path: Path) -> list[str]:
    """Absolute names; ``from a import b`` may mean the module ``a.b``, so both are given."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names
