"""Background processes of a workspace: started in groups of their own, stopped as groups."""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from governance.canonical import write_atomic
from governance.errors import AuricleError
from pipelines._paths import RUN

_GRACE_S = 15.0


def start(name: str, command: Sequence[str], environment: dict[str, str], *, port: int) -> int:
    """Start ``command`` as its own process group, log to ``data/state/run/<name>.log``; its pid."""
    require_free(port, item=name)
    RUN.mkdir(parents=True, exist_ok=True)
    with (RUN / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    facts = {"pid": process.pid, "born": psutil.Process(process.pid).create_time(), "port": port}
    write_atomic(RUN / f"{name}.pid.json", json.dumps(facts))
    return process.pid


def stop(name: str) -> bool:
    """Stop what :func:`start` started under ``name``; False when nothing runs."""
    path = RUN / f"{name}.pid.json"
    facts = running(name)
    if facts is not None:
        end_group(int(facts["pid"]))
    path.unlink(missing_ok=True)
    return facts is not None


def running(name: str) -> dict[str, float] | None:
    """Facts of the process started under ``name`` while it lives (a recycled pid does not count)."""
    try:
        facts: dict[str, float] = json.loads((RUN / f"{name}.pid.json").read_text())
        born = psutil.Process(int(facts["pid"])).create_time()
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
        return None
    return facts if abs(born - facts["born"]) < 1 else None


def end_group(pid: int, grace_s: float = _GRACE_S) -> None:
    """SIGTERM to the whole group, SIGKILL to whatever is left after ``grace_s``."""
    members = _family(pid)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGTERM)
    _gone, alive = psutil.wait_procs(members, timeout=grace_s)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=2)


def _family(pid: int) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        leader = psutil.Process(pid)
        return [leader, *leader.children(recursive=True)]
    return []


def wait_ready(url: str, *, timeout_s: float, alive: Callable[[], bool], log: Path) -> float:
    """Poll ``url`` until it answers 200; seconds waited. A process that died is reported at once."""
    begin_s = time.monotonic()
    while time.monotonic() - begin_s < timeout_s:
        if _answers(url):
            return time.monotonic() - begin_s
        if not alive():
            raise AuricleError("it ended before it was ready", item=url, mend=f"read {log}")
        time.sleep(0.1)
    raise AuricleError(f"not ready after {timeout_s:.0f} s", item=url, mend=f"read {log}")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:  # refused, timed out, or an error status
        return False


def require_free(port: int, *, item: str) -> None:
    """Refuse a taken port, saying which."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise AuricleError(
                f"port {port} is taken", item=item, mend="`make down`, or give another --port"
            ) from None


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
