"""Stage ``code`` (always run): one digest per stage over every module that the stage imports.

DVC does not see imports. So each stage depends on ``data/code/<stage>.json``, the digests of the
syntax trees, without comments and docstrings, of the stage's transitive imports: a comment reruns
nothing, a statement reruns exactly the stages that import it, and plain ``dvc repro`` stays right.
``package`` pins what is installed here in a bento, so those versions are in its digests too.
"""

import ast
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from governance.canonical import bytes_digest, canonical_json, write_atomic

PACKAGES = ("pipelines", "serving", "training", "features", "data", "governance")
STAGES = (
    "synth",
    "ingest",
    "validate",
    "split",
    "tokens",
    "featurize",
    "publish",
    "train",
    "evaluate",
    "export",
    "quantize",
    "benchmark",
    "gate",
    "package",
)
# Modules that a stage runs without importing them: another process or a framework loads them.
ALSO_RUNS: dict[str, tuple[str, ...]] = {
    "synth": ("data.synth_voices",),
    "publish": ("features.store.definitions",),
    "package": ("serving.service",),
}


def main(root: Path = Path(), out: Path = Path("data/code")) -> None:
    """Write the digests of every stage."""
    for stage, modules in closures().items():
        content = {name: statement_digest(module_path(root, name)) for name in sorted(modules)}
        if stage == "package":
            content |= pins()
        write_atomic(out / f"{stage}.json", canonical_json(content) + "\n")


def closures() -> dict[str, set[str]]:
    """Stage -> names of all modules of this project that it imports, itself included."""
    import grimp

    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    result: dict[str, set[str]] = {}
    for stage in STAGES:
        roots = (f"pipelines.{stage}", *ALSO_RUNS.get(stage, ()))
        result[stage] = set(roots).union(*(graph.find_upstream_modules(name) for name in roots))
    return result


def pins() -> dict[str, str]:
    """Installed version of every distribution that a bento pins; a part of the set-up lacks some."""
    from serving.packaging.bento import PINNED

    found = {}
    for name in PINNED:
        try:
            found[f"{name}=="] = version(name)
        except PackageNotFoundError:
            found[f"{name}=="] = "not installed"
    return found


def module_path(root: Path, name: str) -> Path:
    """File of a dotted module name."""
    path = root.joinpath(*name.split("."))
    module = path.with_suffix(".py")
    return module if module.exists() else path / "__init__.py"  # data/shards is a folder of bytes


def statement_digest(path: Path) -> str:
    """Digest of a module's statements: comments, docstrings and layout do not count."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=path.name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            _drop_docstring(node)
    return bytes_digest(ast.dump(tree).encode())


def _drop_docstring(
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef,
) -> None:
    first = node.body[0] if node.body else None
    text = first.value if isinstance(first, ast.Expr) else None
    if isinstance(text, ast.Constant) and isinstance(text.value, str):
        node.body = node.body[1:]


if __name__ == "__main__":
    main()
