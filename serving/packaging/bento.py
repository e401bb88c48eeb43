"""The bento: our modules that the service reaches, one model bundle, a short list of packages.

Nothing is included by default: the build happens in a folder that holds the listed files and
nothing else. Equal code, bundle and variant give the same tag, and an existing bento is kept.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any, Literal

from features.bundle import BUNDLE_FILE, Bundle
from governance.canonical import canonical_json, digest, file_digest, write_atomic
from governance.errors import AuricleError
from governance.telemetry import OPT_OUT, disable_vendor_telemetry
from serving.packaging.closure import import_closure
from serving.packaging.launch import SERVICE, keep_byte_code

Variant = Literal["cpu", "gpu"]
NAME = "auricle"
DATA_FOLDERS = (Path("serving/page/static"), Path("serving/page/snippets"))
"""Files that the service reads besides modules."""
# BentoML names itself; starlette, uvicorn and python-multipart come with it. uvicorn takes
# httptools and uvloop where they are there, in place of a parser and a loop in Python.
_PACKAGES = (
    "numpy",
    "soundfile",
    "av",
    "soxr",
    "pydantic",
    "prometheus-client",
    "websockets",
    "httptools",
    "uvloop",
    "cryptography",
    "psycopg",
    "psycopg-binary",
    "redis",
    "obstore",
)
_RUNTIME, _SERVER = "onnxruntime", "bentoml"
PINNED = (*_PACKAGES, _RUNTIME, _SERVER)
"""Distributions whose installed versions are part of a bento."""
_TAIL_CHARACTERS = 2000


@dataclass(frozen=True, kw_only=True)
class ImageSpec:
    """What the container of a variant is made of, besides our modules and the bundle."""

    runtime: str
    """Distribution that runs the graphs; pinned to the installed onnxruntime's version."""
    environment: Mapping[str, str]
    """Variables of the container."""
    docker: Mapping[str, Any]
    """BentoML's image options."""


_IMAGES: Mapping[Variant, ImageSpec] = {
    "cpu": ImageSpec(
        runtime="onnxruntime",
        environment={"AURICLE_PROVIDER": "cpu"},
        docker={"distro": "debian", "python_version": "3.11"},
    ),
    # CUDA and cuDNN come as wheels with onnxruntime-gpu, in the versions that it was built for. The
    # driver comes from the host: NVIDIA's container runtime mounts it where these variables ask.
    "gpu": ImageSpec(
        runtime="onnxruntime-gpu[cuda,cudnn]",
        environment={
            "AURICLE_PROVIDER": "cuda",
            "NVIDIA_VISIBLE_DEVICES": "all",
            "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
        },
        docker={"distro": "debian", "python_version": "3.11"},
    ),
}


@dataclass(frozen=True, kw_only=True)
class BuiltBento:
    """A bento in the store below the build root."""

    tag: str  # name:version
    folder: Path
    size_bytes: int


def build_bento(
    bundle_dir: Path,
    *,
    build_root: Path,
    variant: Variant = "cpu",
    source_root: Path = Path(),
    model_version: str = "",
    labels: Mapping[str, str] | None = None,
) -> BuiltBento:
    """Build the service around a bundle; ``build_root/home`` is the bento store."""
    bundle = Bundle.load(bundle_dir)
    modules, _ = import_closure(SERVICE.partition(":")[0], source_root)
    files = [*modules, *data_files(source_root)]
    plan = _bentofile(bundle, files, variant, model_version, labels or {})
    code = {path.as_posix(): file_digest(source_root / path) for path in files}
    server = installed_version(_SERVER)  # BentoML pins itself, outside the plan
    identity = digest({"bundle": bundle.bundle_digest, "code": code, "plan": plan, _SERVER: server})
    version = identity.removeprefix("sha256:")[:12]
    home = build_root.absolute() / "home"
    folder = home / "bentos" / NAME / version
    if not (folder / "bento.yaml").is_file():
        context = build_root.absolute() / "context"
        _stage(context, source_root, files, bundle, plan)
        _build(context, home, version)
        shutil.rmtree(context)
    if not (folder / "bento.yaml").is_file():
        raise AuricleError("the build left no bento", item=str(folder))
    return BuiltBento(tag=f"{NAME}:{version}", folder=folder, size_bytes=_size(folder))


def data_files(source_root: Path) -> list[Path]:
    """Files besides the modules that the service reads, relative to ``source_root``."""
    found = (path for folder in DATA_FOLDERS for path in (source_root / folder).iterdir())
    return sorted(path.relative_to(source_root) for path in found if path.is_file())


def requirements(variant: Variant) -> list[str]:
    """Exact pins of what is installed here: what was tested is what is shipped."""
    runtime = f"{_IMAGES[variant].runtime}=={installed_version(_RUNTIME)}"
    return [*(f"{name}=={installed_version(name)}" for name in _PACKAGES), runtime]


def _bentofile(
    bundle: Bundle,
    files: list[Path],
    variant: Variant,
    model_version: str,
    labels: Mapping[str, str],
) -> dict[str, Any]:
    environment = {name: OPT_OUT[name] for name in ("DO_NOT_TRACK", "BENTOML_DO_NOT_TRACK")}
    environment["OMP_NUM_THREADS"] = "1"
    # Read by BentoML's command line in the container, where loopback would reach nobody; a bento
    # served by hand stays on the loopback address of the service's own configuration.
    environment["BENTOML_HOST"] = "0.0.0.0"
    environment |= _IMAGES[variant].environment
    if model_version:
        environment["AURICLE_MODEL_VERSION"] = model_version
    carried = [f"bundle/{name}" for name in sorted({BUNDLE_FILE, *bundle.files})]
    return {
        "service": SERVICE,
        "name": NAME,
        "description": f"{bundle.config.name} ({bundle.config.variant}): {bundle.config.domain}",
        "labels": {"variant": variant, "bundle": bundle.bundle_digest[7:19], **labels},
        "include": [*(path.as_posix() for path in files), *carried],
        "python": {"packages": requirements(variant), "lock_packages": False},
        "docker": dict(_IMAGES[variant].docker),
        "envs": [{"name": name, "value": value} for name, value in sorted(environment.items())],
    }


def _stage(
    context: Path, source_root: Path, files: list[Path], bundle: Bundle, plan: dict[str, Any]
) -> None:
    shutil.rmtree(context, ignore_errors=True)
    for path in files:
        (context / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source_root / path, context / path)
    (context / "bundle").mkdir()
    for name in (BUNDLE_FILE, *bundle.files):
        shutil.copyfile(bundle.folder / name, context / "bundle" / name)
    write_atomic(context / "bentofile.yaml", canonical_json(plan))  # JSON is YAML


def _build(context: Path, home: Path, version: str) -> None:
    home.mkdir(parents=True, exist_ok=True)
    environment = dict(os.environ)
    disable_vendor_telemetry(environment)
    keep_byte_code(environment, home)
    environment |= {"BENTOML_HOME": str(home), "PYTHONPATH": str(context)}
    command = [sys.executable, "-m", "bentoml", "build", "--version", version, "--output", "tag"]
    done = subprocess.run(
        command, cwd=context, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise AuricleError(
            f"bentoml build failed: {(done.stderr or done.stdout)[-_TAIL_CHARACTERS:].strip()}",
            item=str(context),
        )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
