"""Debian's packages that some tests need, installed by the project's own scripts where missing."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def installed(script: str) -> str:
    """What ``deploy/SCRIPT`` prints once all is there; where nothing can be installed, a skip."""
    done = subprocess.run(
        ["bash", f"deploy/{script}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"deploy/{script} could install nothing here: {done.stderr.strip()[-300:]}")
    return done.stdout.strip()
