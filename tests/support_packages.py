"""What some tests need besides: Debian's packages, and environments of foreign Python packages."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
_LIMIT_S = 240


def installed(script: str) -> str:
    """What ``deploy/SCRIPT`` prints once all is there; where nothing can be installed, a skip."""
    done = subprocess.run(
        ["bash", f"deploy/{script}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"deploy/{script} could install nothing here: {done.stderr.strip()[-300:]}")
    return done.stdout.strip()


def interpreter(name: str) -> str:
    """Python of the environment that ``deploy/clients/NAME.txt`` pins, made where it is missing."""
    made = subprocess.run(
        ["bash", "deploy/client-env.sh", name],
        cwd=ROOT,
        env={**os.environ, "BASE_PYTHON": sys.executable},
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )
    assert made.returncode == 0, f"no environment for {name}: {made.stderr[-2000:]}"
    return made.stdout.strip()


def without_python(environment: Mapping[str, str]) -> dict[str, str]:
    """What a program of another environment inherits: nothing of ours."""
    return {name: value for name, value in environment.items() if not name.startswith("PYTHON")}
