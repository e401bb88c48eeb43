"""``up`` and ``down`` with real processes: what fails or is interrupted leaves nobody behind."""

import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import httpx
import psutil
import pytest

from governance.errors import AuricleError
from pipelines import _paths as paths
from pipelines import processes, service_control
from pipelines._champion import open_ledger
from pipelines._service_key import ensure_development_key, service_key
from pipelines.processes import free_port
from serving.packaging.bento import build_bento
from serving.tenants.store import KeyStore
from tests.support_bundle import make_bundle
from tests.support_tls import self_made
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


def auricle(
    workspace: Workspace, *arguments: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=workspace.root,
        env=ENVIRONMENT | variables,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def status_of(port: int, path: str, key: str = "") -> int:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
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
        key = (workspace.root / paths.DEVELOPMENT_KEY).read_text().strip()
        assert status_of(port, "/v1/models/auricle@champion") == 0  # refused without a key
        assert status_of(port, "/v1/models/auricle@champion", key) == 200
        assert status_of(port, "/v1/models/auricle@nonsense", key) == 0

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
    origin = "http://127.0.0.1:3000"
    shown = service_control.ready_to_use(origin, "auricle", None)
    assert f"{origin}/ in a browser" in shown
    assert "-F model=auricle" in shown and "-F file=@recording.wav" in shown
    assert "export" not in shown  # where no key is asked for, none is shown
    for title in ("curl", "Python", "Python, live", "JavaScript"):
        assert f"# {title}:" in shown
    for title in ("Python", "Python, live"):
        code = shown.partition(f"# {title}:")[2].partition("\n")[2].partition("\n# ")[0]
        compile(code, "snippet", "exec")
    for name in ("sample.flac", "sample.wav"):
        sample = tmp_path / "data" / "reports" / name
        sample.parent.mkdir(parents=True, exist_ok=True)
        sample.touch()
    shown = service_control.ready_to_use(origin, "auricle", tmp_path / "a key")
    assert "file=@data/reports/sample.flac" in shown and "recording.wav" not in shown
    assert 'wave.open("data/reports/sample.wav")' in shown  # which cannot read the other
    assert f"export AURICLE_API_KEY=\"$(cat '{tmp_path}/a key')\"" in shown
    assert "--cacert" in service_control.ready_to_use(
        "https://127.0.0.1:3000", "auricle", None, self_made(tmp_path)
    )


@pytest.mark.slow
def test_up_makes_a_key_that_everything_on_this_machine_finds(
    workspace: Workspace, tmp_path: Path
) -> None:
    """Over TLS 1.3 alone; the key is in its file and nowhere else."""
    tls, port = self_made(tmp_path), free_port()
    variables = {"AURICLE_TLS_CERTIFICATE": str(tls.certificate), "AURICLE_TLS_KEY": str(tls.key)}
    key_file = workspace.root / paths.DEVELOPMENT_KEY
    try:
        shown = auricle(
            workspace, "up", "--no-mlflow", "--port", str(port), "--tls-minimum", "1.3", **variables
        )
        assert shown.returncode == 0, shown.stderr
        key = key_file.read_text().strip()
        assert key_file.stat().st_mode & 0o777 == 0o600
        assert f"https://127.0.0.1:{port}/v1/audio/transcriptions" in shown.stdout
        trust = ssl.create_default_context(cafile=str(tls.certificate))
        with httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=trust) as client:
            assert client.get("/v1/models").status_code == 401
            assert client.get("/page/key").status_code == 204  # no page of ours asks
            page = client.get("/page/key", headers={"Sec-Fetch-Site": "same-origin"})
            assert page.json() == {"key": key} and page.headers["cache-control"] == "no-store"
            client.headers["Authorization"] = f"Bearer {key}"
            assert client.get("/v1/models").status_code == client.get("/metrics").status_code == 200
        old = ssl.create_default_context(cafile=str(tls.certificate))
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"https://127.0.0.1:{port}/", verify=old)
    finally:
        auricle(workspace, "down")
    secret = key.rsplit("_", 1)[1].encode()
    holders = [p for p in workspace.root.rglob("*") if p.is_file() and secret in p.read_bytes()]
    assert holders == [key_file] and secret.decode() not in shown.stdout + shown.stderr


@pytest.mark.slow
def test_without_a_key_the_service_is_open_to_this_machine(workspace: Workspace) -> None:
    port = free_port()
    try:
        shown = auricle(workspace, "up", "--no-mlflow", "--no-key", "--port", str(port))
        assert shown.returncode == 0, shown.stderr
        assert status_of(port, "/v1/models/auricle") == 200
        assert "export" not in shown.stdout
    finally:
        auricle(workspace, "down")


def test_the_development_key_is_made_once_and_anew_when_it_was_revoked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AURICLE_API_KEY", raising=False)
    near = "http://localhost:3000"
    assert service_key(near) == ""
    first = ensure_development_key().read_text()
    assert ensure_development_key().read_text() == first
    assert service_key(near) == service_key("https://127.0.0.1:1") == first.strip()
    assert service_key("http://shop.example") == ""  # it goes to no other machine
    store = KeyStore(paths.API_KEYS)
    (record,) = store.records()
    assert (record.tenant, record.near, record.name) == ("default", True, "development")
    store.revoke(record.id)
    second = ensure_development_key()
    assert second.read_text() != first and [r.near for r in store.records()] == [True, True]
    second.chmod(0o644)
    with pytest.raises(AuricleError, match="others may read it"):
        service_key(near)
    monkeypatch.setenv("AURICLE_API_KEY", "chosen")
    assert service_key(near) == service_key("http://shop.example") == "chosen"
