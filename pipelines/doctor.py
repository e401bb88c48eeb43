"""Operation ``doctor``: what is installed, what is wrong, and the mend."""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import psutil

from pipelines._paths import LEDGER
from pipelines.processes import require_free, running

Level = Literal["ok", "note", "wrong"]
_EXTRAS = {
    "serve": ("bentoml", "onnxruntime", "soundfile", "av", "soxr"),
    "data": ("dvc", "great-expectations", "pyarrow", "pandas"),
    "synth": ("espeakng-loader",),
    "train": ("torch", "torchaudio", "pytorch-lightning", "mlflow", "feast", "onnx"),
}
_MINIMUM_FREE_GB, _MINIMUM_MEMORY_GB = 2.0, 4.0


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report."""

    level: Level
    subject: str
    detail: str
    mend: str = ""


def main(args: argparse.Namespace) -> int:
    """Entry of ``auricle doctor``: exit status 2 when something is wrong."""
    findings = [finding for check in CHECKS for finding in check()]
    if args.json:
        sys.stdout.write(json.dumps([asdict(finding) for finding in findings]) + "\n")
    else:
        _print(findings)
    return 2 if any(finding.level == "wrong" for finding in findings) else 0


def _print(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    marks = {"ok": "[green]ok   [/]", "note": "[yellow]note [/]", "wrong": "[red]wrong[/]"}
    for finding in findings:
        mend = f"\n              [dim]mend:[/] {escape(finding.mend)}" if finding.mend else ""
        line = f"{marks[finding.level]} {finding.subject:7} {escape(finding.detail)}{mend}"
        console.print(line, soft_wrap=True)  # a pipe gets whole lines; a terminal wraps by itself


def _python() -> Iterator[Finding]:
    found = ".".join(str(part) for part in sys.version_info[:3])
    good = (3, 11) <= sys.version_info < (3, 12)
    yield Finding(
        level="ok" if good else "wrong",
        subject="python",
        detail=found,
        mend="" if good else "use Python 3.11: BASE_PYTHON=python3.11 make setup",
    )


def _packages() -> Iterator[Finding]:
    for extra, names in _EXTRAS.items():
        have, missing = [], []
        for name in names:
            try:
                have.append(f"{name} {version(name)}")
            except PackageNotFoundError:
                missing.append(name)
        yield Finding(
            level="note" if missing else "ok",
            subject=extra,
            detail=", ".join(have) + (f" (missing: {', '.join(missing)})" if missing else ""),
            mend=f"bash deploy/setup.sh {extra}" if missing else "",
        )


def _machine() -> Iterator[Finding]:
    from governance.environment import describe

    facts = describe()
    memory_gb = psutil.virtual_memory().total / 1e9
    free_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    yield Finding(
        level="ok" if memory_gb >= _MINIMUM_MEMORY_GB else "wrong",
        subject="machine",
        detail=f"{facts.get('cpu', 'processor')}, {facts.get('cores', '?')} cores "
        f"({facts.get('cpu_flags', '')}), {memory_gb:.0f} GB memory",
        mend="" if memory_gb >= _MINIMUM_MEMORY_GB else "training needs about 4 GB of memory",
    )
    yield Finding(
        level="ok" if free_gb >= _MINIMUM_FREE_GB else "wrong",
        subject="disk",
        detail=f"{free_gb:.0f} GB free",
        mend="" if free_gb >= _MINIMUM_FREE_GB else "free some disk; `make clean` removes outputs",
    )


def _accelerators() -> Iterator[Finding]:
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        yield Finding(level="ok", subject="gpu", detail="none; everything runs on the CPU")
        return
    yield Finding(level="ok", subject="gpu", detail=answer.stdout.strip().replace("\n", "; "))


def _ports() -> Iterator[Finding]:
    from governance.errors import AuricleError

    for name, port in (("service", 3000), ("mlflow", 5000)):
        if facts := running(name):
            yield Finding(level="ok", subject=name, detail=f"runs on port {facts['port']:.0f}")
            continue
        try:
            require_free(port, item=name)
        except AuricleError as error:
            yield Finding(level="wrong", subject=name, detail=error.message, mend=error.mend or "")
        else:
            yield Finding(level="ok", subject=name, detail=f"stopped; port {port} is free")


def _workspace() -> Iterator[Finding]:
    if not Path(".dvc").is_dir():
        yield Finding(
            level="wrong",
            subject="dvc",
            detail="this folder is no DVC project",
            mend="clone with git, or run `dvc init --no-scm`",
        )
    remotes = Path(".dvc/config").read_text() if Path(".dvc/config").exists() else ""
    local = Path(".dvc/config.local")
    remotes += local.read_text() if local.exists() else ""
    has_remote = "remote" in remotes
    yield Finding(
        level="ok" if has_remote else "note",
        subject="remote",
        detail="DVC remote configured" if has_remote else "no DVC remote: data lives here only",
        mend="" if has_remote else "dvc remote add -d store FOLDER_OR_S3_URL, then dvc push",
    )
    if not LEDGER.exists():
        yield Finding(
            level="note", subject="model", detail="nothing promoted yet", mend="make demo"
        )
        return
    from governance.errors import AuricleError
    from pipelines.audit import champion_line, check_ledger

    report = check_ledger()
    yield Finding(
        level="ok" if report.ok else "wrong",
        subject="ledger",
        detail=f"{report.events} events" if report.ok else report.reason,
        mend="" if report.ok else "auricle audit verify",
    )
    try:
        yield Finding(level="ok", subject="model", detail=champion_line())
    except AuricleError as error:
        detail = f"{error.item}: {error.message}"
        yield Finding(level="note", subject="model", detail=detail, mend=error.mend or "")


def _calibration() -> Iterator[Finding]:
    """What the service measured of this machine, where it was told to keep it."""
    folder = os.environ.get("AURICLE_CACHE")
    for path in sorted(Path(folder).glob("calibration-*.json")) if folder else ():
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            detail = (
                f"{path.stem}: {1000 * kept['per_call_s']:.1f} ms a call and "
                f"{1000 * kept['per_audio_s']:.1f} ms a second of audio, "
                f"{kept['max_rows']} rows of files, {kept['max_stream_rows']} of streams"
            )
            yield Finding(level="ok", subject="speed", detail=detail)
        except (OSError, ValueError, KeyError, TypeError):
            yield Finding(
                level="note", subject="speed", detail=f"{path} cannot be read",
                mend="the service measures again at its next start",
            )  # fmt: skip


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    _python, _packages, _machine, _accelerators, _ports, _workspace,
    _calibration,
)  # fmt: skip
