"""The service as a process of its own, started and ended as an operator's would be."""

import re
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks._report import ROOT
from pipelines import processes
from pipelines.run import child_environment
from serving.client import Client
from serving.packaging.launch import SERVICE, serve_command, serve_environment

_LIMIT_S = 120.0
_MB = 1e6


@dataclass(frozen=True, kw_only=True)
class Running:
    """A service that has said that it is ready."""

    process: "subprocess.Popen[bytes]"
    port: int
    ready_s: float  # from the start of the process until it answered /readyz

    @property
    def client(self) -> Client:
        """A client of it."""
        return Client(url=f"http://127.0.0.1:{self.port}", timeout_s=30)

    def family(self) -> list[psutil.Process]:
        """The process and all that came from it."""
        leader = psutil.Process(self.process.pid)
        return [leader, *leader.children(recursive=True)]

    def memory_mb(self) -> float:
        """Resident memory of all its processes."""
        return float(sum(one.memory_info().rss for one in self.family())) / _MB

    def cpu_s(self) -> float:
        """CPU time that all its processes have taken."""
        return float(sum(sum(one.cpu_times()[:2]) for one in self.family()))

    def gauge(self, name: str) -> float:
        """A figure of its metrics page, summed over its workers."""
        _, page = self.client._request("GET", "/metrics", None, {})
        pattern = rf"^{name}(?:{{[^}}]*}})? ([0-9.e+]+)$"
        found = re.findall(pattern, page.decode(), re.MULTILINE)
        return sum(map(float, found)) if found else float("nan")


@contextmanager
def service(
    home: Path,
    *,
    target: str = SERVICE,
    bundle: Path | None = None,
    log: Path,
    variables: Mapping[str, str] | None = None,
) -> Iterator[Running]:
    """Serve a bento (``target``) or a bundle from this checkout; nothing is left afterwards."""
    environment = serve_environment(child_environment(), bundle_dir=bundle, bentoml_home=home)
    environment |= variables or {}
    if bundle is not None:
        environment["PYTHONPATH"] = str(ROOT)
    else:
        environment.pop("PYTHONPATH", None)
    port = processes.free_port()
    with log.open("wb") as sink:
        process = subprocess.Popen(
            serve_command(port=port, target=target),
            cwd=ROOT if bundle is not None else log.parent,
            env=environment,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        )
    try:
        ready_s = processes.wait_ready(
            f"http://127.0.0.1:{port}/readyz",
            timeout_s=_LIMIT_S,
            alive=lambda: process.poll() is None,
            log=log,
        )
        yield Running(process=process, port=port, ready_s=ready_s)
    finally:
        processes.end_group(process.pid)
        process.wait()


def answers(port: int) -> bool:
    """Whether anybody accepts connections on a loopback port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
