"""What a person is told before anything is fetched."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def planned(*arguments: str) -> str:
    """What ``make`` would run, without running it."""
    answer = subprocess.run(
        ["make", "--dry-run", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def test_the_demo_names_its_totals_before_the_set_up() -> None:
    plan = planned("demo", "STAMP=.venv/.ready-never")
    said, set_up, demo = (
        plan.index(text) for text in ("demo: in all", "deploy/setup.sh dev", "pipelines.cli demo")
    )
    assert said < set_up < demo
    line = plan[said:].splitlines()[0]
    assert "GB of disk" in line and "fetched from PyPI" in line and "minutes" in line
