"""Where a figure was measured: interpreter, processor and commit, as every record carries it."""

import os
import platform
import subprocess
import sys
from pathlib import Path

_FLAGS_OF_INTEREST = ("avx2", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8")
_GIT_TIMEOUT_S = 5.0


def describe(root: Path | None = None) -> dict[str, str]:
    """Python, platform, processor and its flags of interest, usable cores, git commit and state.

    ``root`` is a folder of the checkout (the working directory by default). Without git, or outside
    a checkout, the commit is ``unknown`` and so is whether it is dirty.
    """
    commit = _git(root, "rev-parse", "HEAD")
    # --no-optional-locks: a stage must never hold the index lock against the user's own git
    changes = _git(root, "status", "--porcelain", "--untracked-files=no") if commit else None
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu_model(),
        "cpu_flags": " ".join(_cpu_flags()),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1),
        "git_commit": commit or "unknown",
        "git_dirty": "unknown" if changes is None else str(bool(changes)).lower(),
    }


def _git(root: Path | None, *arguments: str) -> str | None:
    """Output of a git command, or None where there is no git, no checkout or no answer in time."""
    command = ["git", "--no-optional-locks", *arguments]
    try:
        answer = subprocess.run(
            command, cwd=root, capture_output=True, text=True, timeout=_GIT_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


def _cpu_info(path: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """First processor's entries of /proc/cpuinfo; empty on other systems."""
    if not sys.platform.startswith("linux") or not path.exists():
        return {}
    info: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if not line.strip():
            break
        name, _, value = line.partition(":")
        info[name.strip()] = value.strip()
    return info


def _cpu_model() -> str:
    return _cpu_info().get("model name") or platform.processor() or platform.machine()


def _cpu_flags() -> list[str]:
    present = set(_cpu_info().get("flags", "").split())
    return [flag for flag in _FLAGS_OF_INTEREST if flag in present]
