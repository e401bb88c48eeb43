"""``up`` and ``down`` with real processes: what fails or is interrupted leaves nobody behind."""

import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from governance.errors import AuricleError
from pipelines import _paths as paths
from pipelines import processes, service_control
from pipelines._champion import open_ledger
from pipelines.processes import free_port
from serving.packaging.bento import build_bento
from tests.support_bundle import make_bundle
from tests.support_workspace import Workspace, environment

ROOT = Path(__file__).resolve().parent.parent.parent
COMMAND = [sys.executable, "-m", "pipelines.cli"]
ENVIRONMENT = environment() | {"PYTHONPATH": str(ROOT)}
PROMOTED = {
    "model": "auricle", "alias": "champion", "version": 3, "variant": "fp32", "bundle": "bundle",
    "bundle_digest": "none", "run_id": "none", "domain": "noise", "records": "none",
}  # fmt: skip


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace whose ledger has promoted a bento of the tiny bundle."""
    root = tmp_path_factory.mktemp("promoted") / "a work space"
    root.mkdir()
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copyfile(ROOT / name, root / name)
    bundle = make_bundle(root / "bundle")
    built = build_bento(bundle, build_root=root / paths.BENTO_ROOT, source_root=ROOT)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        ledger = open_ledger()
        ledger.append("promote", PROMOTED | {"bento": built.tag}, actor="test")
        ledger.checkpoint()
    return Workspace(root=root)


def auricle(workspace: Workspace, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=workspace.root,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def status_of(port: int, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return int(answer.status)
    except OSError:
        return 0


def family_of(pid: int) -> list[psutil.Process]:
    leader = psutil.Process(pid)
    return [leader, *leader.children(recursive=True)]


def gone(members: list[psutil.Process]) -> bool:
    """Whether none of them lives any more; whoever does is ended, so that the test leaves nobody."""
    _gone, alive = psutil.wait_procs(members, timeout=5)
    left = [one for one in alive if one.status() != psutil.STATUS_ZOMBIE]
    for process in left:
        process.kill()
    return not left


def interrupted_once(workspace: Workspace, noted: str, *arguments: str) -> str:
    """``auricle up``, interrupted as soon as it has started ``noted``; what it said to that."""
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=workspace.root,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    note = workspace.root / paths.RUN / f"{noted}.pid.json"
    end_s = time.monotonic() + 60
    while not note.exists():
        assert process.poll() is None and time.monotonic() < end_s
        time.sleep(0.02)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert family and gone(family)
    assert process.returncode == 130, err
    return err


# Processes.


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def started(code: str) -> int:
    return processes.start("it", [sys.executable, "-c", code], environment(), port=1)


def test_a_process_that_ends_at_once_is_said_so_at_once(here: Path) -> None:
    started("raise SystemExit(3)")
    with pytest.raises(AuricleError, match="it ended before it was ready"):
        processes.wait_ready(
            f"http://127.0.0.1:{free_port()}/",
            timeout_s=10,
            alive=lambda: processes.running("it") is not None,
            log=here / "log",
        )
    assert processes.stop("it") is False


def test_what_a_killed_leader_leaves_is_stopped_too(here: Path) -> None:
    """Even a grandchild in a session of its own, which no signal to the group would reach."""
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],"
        " start_new_session=True)\n"
        "open('child', 'w').write(f'{child.pid} ')\ntime.sleep(600)"
    )
    pid = started(code)
    while not (here / "child").exists() or not (here / "child").read_text().endswith(" "):
        time.sleep(0.02)
    child = psutil.Process(int((here / "child").read_text()))
    psutil.Process(pid).kill()
    psutil.Process(pid).wait(10)
    assert processes.running("it") is None and child.is_running()
    assert processes.stop("it") is True
    assert gone([child])
    assert processes.stop("it") is False


def test_an_interruption_waits_until_the_child_is_noted() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), processes._signals_held():
        signal.raise_signal(signal.SIGINT)
        done.append("noted")
    assert done == ["noted"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(
    ("port", "message"), [(0, "0 is no port"), (-1, "-1 is no port"), (70_000, "70000 is no port")]
)
def test_what_is_no_port_is_refused(port: int, message: str) -> None:
    with pytest.raises(AuricleError, match=message):
        processes.require_free(port, item="it")


# The service and the UI.


def test_an_interruption_while_the_service_warms_leaves_nobody(workspace: Workspace) -> None:
    port = free_port()
    err = interrupted_once(workspace, "service", "up", "--no-mlflow", "--port", str(port))
    assert "interrupted" in err and "Traceback" not in err
    assert status_of(port, "/readyz") == 0
    assert auricle(workspace, "down").stdout.count("was not running") == 2


@pytest.mark.slow
def test_an_interruption_while_the_ui_starts_takes_both_back(workspace: Workspace) -> None:
    port, ui = free_port(), free_port()
    arguments = ("up", "--port", str(port), "--mlflow-port", str(ui))
    err = interrupted_once(workspace, "mlflow", *arguments)
    assert "interrupted" in err and "Traceback" not in err
    assert status_of(port, "/readyz") == 0
    assert auricle(workspace, "down").stdout.count("was not running") == 2


@pytest.mark.slow
def test_a_failing_ui_spares_the_service_and_comes_later_alone(workspace: Workspace) -> None:
    port, ui = free_port(), free_port()
    members: list[psutil.Process] = []
    try:
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            taken = other.getsockname()[1]
            answer = auricle(workspace, "up", "--port", str(port), "--mlflow-port", str(taken))
        assert answer.returncode == 2
        assert f"http://127.0.0.1:{port}" in answer.stdout
        assert f"MLflow UI: port {taken} is taken; the service goes on" in answer.stderr
        assert "--mlflow-port" in answer.stderr and "`auricle up`" in answer.stderr
        assert status_of(port, "/readyz") == 200
        assert status_of(port, "/v1/models/auricle@champion") == 200
        assert status_of(port, "/v1/models/auricle@nonsense") == 0

        answer = auricle(workspace, "up", "--port", str(port), "--mlflow-port", str(ui))
        assert answer.returncode == 0, answer.stderr
        assert f"{port}  (runs already)" in answer.stdout
        assert status_of(ui, "/health") == 200 and status_of(port, "/readyz") == 200
        notes = [workspace.read_json(f"data/state/run/{n}.pid.json") for n in ("service", "mlflow")]
        members = [one for note in notes for one in family_of(note["pid"])]
        assert len(members) >= 4  # each has a supervisor and a worker

        answer = auricle(workspace, "up", "--port", str(free_port()))
        assert answer.returncode == 2 and "service and mlflow: runs already" in answer.stderr
    finally:
        stopped = auricle(workspace, "down")
    assert stopped.stdout.count(": stopped") == 2
    assert gone(members)
    assert status_of(port, "/readyz") == status_of(ui, "/health") == 0


def test_what_up_prints_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = service_control.ready_to_use("http://127.0.0.1:3000", "auricle")
    assert "http://127.0.0.1:3000/ in a browser" in shown
    assert "-F model=auricle" in shown and "-F file=@recording.wav" in shown
    assert "keys create" not in shown  # without a key store nobody needs a key
    code = shown.partition("# Python:")[2].partition("\n")[2].partition("# live")[0]
    compile(code, "snippet", "exec")
    sample = tmp_path / "data" / "reports" / "sample.flac"
    sample.parent.mkdir(parents=True)
    sample.touch()
    paths.API_KEYS.parent.mkdir(parents=True)
    paths.API_KEYS.touch()
    shown = service_control.ready_to_use("http://127.0.0.1:3000", "auricle")
    assert "file=@data/reports/sample.flac" in shown and "recording.wav" not in shown
    assert "auricle keys create" in shown
