"""Background processes of a workspace: started in groups of their own, stopped as groups."""

import json
import os
import signal
import socket
import ssl
import subprocess
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPException
from pathlib import Path
from typing import Any

import psutil

from governance.canonical import write_atomic
from governance.errors import AuricleError
from pipelines._paths import RUN

_GRACE_S = 15.0
# Asked on loopback whether a process that was just started is ready: its certificate names another
# host, and nothing is sent or believed.
_UNCHECKED = ssl._create_unverified_context()
_MARK = "AURICLE_STARTED_AS"


def start(name: str, command: Sequence[str], environment: dict[str, str], *, port: int) -> int:
    """Start ``command`` as its own process group, log to ``data/state/run/<name>.log``; its pid.

    From here on :func:`stop` knows it, whatever interrupts this process. A mark in its environment
    names all that descend from it, even those that left the group and lost their parent.
    """
    mark = uuid.uuid4().hex
    RUN.mkdir(parents=True, exist_ok=True)
    with (RUN / f"{name}.log").open("wb") as log, _signals_held():
        process = subprocess.Popen(
            command,
            env=environment | {_MARK: mark},
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        born = psutil.Process(process.pid).create_time()
        facts = {"pid": process.pid, "born": born, "port": port, "mark": mark}
        write_atomic(RUN / f"{name}.pid.json", json.dumps(facts))
    return process.pid


@contextmanager
def _signals_held() -> Iterator[None]:
    """Signals that would interrupt here arrive afterwards: no child without its note."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals interrupt the main thread only
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    arrived: list[int] = []
    before = [signal.signal(number, lambda n, _frame: arrived.append(n)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler or signal.SIG_DFL)
        for late in arrived:
            signal.raise_signal(late)


def stop(name: str) -> bool:
    """Stop what :func:`start` started under ``name``; False when nothing of it runs."""
    facts = _noted(name)
    if facts is None:
        return False
    lives = running(name) is not None
    if lives:
        end_group(int(facts["pid"]))
    left = _marked(facts["mark"])  # of a leader that was killed, or that did not wait for them
    _end(left, _GRACE_S)
    (RUN / f"{name}.pid.json").unlink(missing_ok=True)
    return lives or bool(left)


def running(name: str) -> dict[str, Any] | None:
    """Facts of the process started under ``name`` while it lives.

    A recycled pid does not count, nor does a zombie: it has ended and waits for its parent.
    """
    facts = _noted(name)
    try:
        if facts is None:
            return None
        process = psutil.Process(int(facts["pid"]))
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return facts if abs(process.create_time() - facts["born"]) < 1 else None
    except psutil.NoSuchProcess:
        return None


def _noted(name: str) -> dict[str, Any] | None:
    """What :func:`start` wrote; a note that cannot be read is none."""
    try:
        facts: dict[str, Any] = json.loads((RUN / f"{name}.pid.json").read_text())
        return facts if {"pid", "born", "port", "mark"} <= facts.keys() else None
    except (FileNotFoundError, ValueError, AttributeError):
        return None


def _marked(mark: str) -> list[psutil.Process]:
    """Living processes that carry the mark of a start in their environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.environ().get(_MARK) == mark:
                found.append(process)
    return found


def end_group(pid: int, grace_s: float = _GRACE_S) -> None:
    """SIGTERM to the whole group, SIGKILL to whatever is left after ``grace_s``."""
    members = _family(pid)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGTERM)
    _gone, alive = psutil.wait_procs(members, timeout=grace_s)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    _kill(alive)


def _end(members: list[psutil.Process], grace_s: float) -> None:
    """SIGTERM to each, SIGKILL to whatever is left after ``grace_s``."""
    for process in members:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _gone, alive = psutil.wait_procs(members, timeout=grace_s)
    _kill(alive)


def _kill(members: list[psutil.Process]) -> None:
    for process in members:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(members, timeout=2)


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
        with urllib.request.urlopen(url, timeout=2, context=_UNCHECKED) as answer:
            return bool(answer.status == 200)
    except (OSError, HTTPException):  # refused, timed out, an error status, or no HTTP at all
        return False


def require_free(port: int, *, item: str, option: str = "--port") -> None:
    """Refuse a port that cannot be listened on, saying why."""
    if not 0 < port < 65_536:
        raise AuricleError(
            f"{port} is no port", item=item, mend=f"give {option} a number from 1 to 65535"
        )
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:
            raise AuricleError(
                f"port {port} is for the administrator only",
                item=item,
                mend=f"give {option} a number above 1023",
            ) from None
        except OSError:
            raise AuricleError(
                f"port {port} is taken", item=item, mend=f"`make down`, or give another {option}"
            ) from None


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
