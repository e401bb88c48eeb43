"""Stages that are run, fail and are interrupted: exit statuses, and nobody is left behind."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pipelines.code import STAGES
from tests.support_workspace import Workspace, environment, python

ROOT = Path(__file__).resolve().parent.parent.parent
Capture = pytest.CaptureFixture[str]


# Running stages: a real DVC project whose stages are small scripts.


def pipeline(folder: Path, **scripts: str) -> Workspace:
    folder.mkdir(exist_ok=True)
    lines = ["stages:"]
    for stage, script in scripts.items():
        (folder / f"{stage}.py").write_text(script)
        lines += [f"  {stage}:", f"    cmd: python {stage}.py", "    always_changed: true"]
    (folder / "dvc.yaml").write_text("\n".join(lines) + "\n")
    shutil.copyfile(ROOT / "params.yaml", folder / "params.yaml")
    workspace = Workspace(root=folder)
    if not (folder / ".dvc").exists():
        workspace.dvc("init", "--no-scm", "--quiet")
    return workspace


def test_a_stage_that_fails_decides_the_exit_status(tmp_path: Path) -> None:
    mendable = "import sys; sys.stderr.write('auricle ingest: a.wav: empty\\n'); sys.exit(2)"
    workspace = pipeline(tmp_path / "a b", ingest=mendable)
    answer = auricle(workspace, "run", "--json")
    outcome = json.loads(answer.stdout)
    assert answer.returncode == 2 and outcome["failed"] == "ingest"
    assert "auricle ingest: a.wav: empty" in answer.stderr
    pipeline(tmp_path / "a b", ingest="raise ValueError('a defect')")
    answer = auricle(workspace, "run")
    assert answer.returncode == 1
    assert "ValueError: a defect" in answer.stdout
    assert "ingest     failed" in answer.stdout


def test_the_demo_says_what_is_left_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No report, nothing changed, something changed with and without a time of the last run."""
    from governance.records import StageRecord, write_record
    from pipelines import _paths as paths
    from pipelines import demo, run

    workspace = pipeline(tmp_path, code="", train="print(1)", package="print(2)")
    text = (tmp_path / "dvc.yaml").read_text().splitlines()
    deps = {"train": "    deps: [words.txt]", "package": "    deps: [words.txt]"}
    kept = [
        deps[text[at - 2].strip(" :")] if "always_changed" in line and at > 3 else line
        for at, line in enumerate(text)
    ]
    (tmp_path / "dvc.yaml").write_text("\n".join(kept) + "\n")
    (tmp_path / "words.txt").write_text("one")
    monkeypatch.chdir(tmp_path)
    assert demo._expected() == "5 to 12 minutes"
    workspace.dvc("repro", "--quiet")
    for stage in STAGES[STAGES.index("train") :]:
        write_record(paths.report(stage), StageRecord(stage=stage, started_at="now", wall_s=30.0))
    assert demo._expected() == "under a minute" and run.stale_stages() == []
    (tmp_path / "words.txt").write_text("two")
    took = -(-30 * len(STAGES[STAGES.index("train") :]) // 60)
    assert demo._expected() == f"up to about {1 + took} minutes (changed: train, package)"
    paths.report("evaluate").unlink()
    assert demo._expected() == "up to 12 minutes (changed: train, package)"


def auricle(workspace: Workspace, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = f"import sys; from pipelines.cli import main; sys.exit(main({list(arguments)!r}))"
    return python(code, cwd=workspace.root)


_SLEEPER = """
import os, pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path("pids.tmp").write_text(f"{os.getpid()} {child.pid} {os.getppid()}")
os.rename("pids.tmp", "pids")
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_run_leaves_nobody(tmp_path: Path, number: signal.Signals) -> None:
    """The signal goes to `auricle run` alone; DVC, its stage and the stage's child must all go."""
    workspace = pipeline(tmp_path / "a b", synth=_SLEEPER)
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", "run"],
        cwd=workspace.root,
        env=environment() | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    family: list[psutil.Process] = []
    try:
        noted = workspace.root / "pids"
        end = time.monotonic() + 120
        while not noted.exists():
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.05)
        family = psutil.Process(process.pid).children(recursive=True)
        assert {int(pid) for pid in noted.read_text().split()} <= {child.pid for child in family}
        assert len(family) >= 3  # dvc, the stage, its child; perhaps a shell
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130, out + err
        assert "interrupted" in err and "Traceback" not in err
        _gone, alive = psutil.wait_procs(family, timeout=5)
        assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]
    finally:
        for child in [*family, *([psutil.Process(process.pid)] if process.poll() is None else [])]:
            if child.is_running():
                child.kill()
    pipeline(tmp_path / "a b", synth="print('  done')")
    answer = auricle(workspace, "run")
    assert answer.returncode == 0 and "  done" in answer.stdout, "a lock was left behind"
