"""A real Redis server of the tests' own, on a Unix socket, gone when they end."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support_packages import installed


def _program() -> str | None:
    return shutil.which("redis-server") or shutil.which("valkey-server")


@contextmanager
def redis_server() -> Iterator[str]:
    """Its address; nothing is kept on disk."""
    if not (program := _program()):
        installed("servers.sh")
        program = _program()
    assert program
    import redis

    folder = Path(tempfile.mkdtemp(prefix="auricle-redis-", dir="/tmp"))
    path = folder / "socket"
    options = ["--port", "0", "--unixsocket", str(path), "--save", "", "--appendonly", "no"]
    server = subprocess.Popen(
        [program, *options], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while not path.exists():
            assert server.poll() is None, "Redis ended"
        client = redis.Redis(unix_socket_path=str(path))
        assert client.ping()
        client.close()
        yield f"unix://{path}"
    finally:
        server.terminate()
        server.wait(30)
        shutil.rmtree(folder, ignore_errors=True)
