"""A real Postgres server of the tests' own, on a Unix socket, gone when they end."""

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support_packages import installed


def _program(name: str) -> str:
    if (found := _find(name)) is None:
        installed("servers.sh")
        found = _find(name)
    assert found, name
    return found


def _find(name: str) -> str | None:
    for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True):
        if (folder / name).exists():
            return str(folder / name)
    return shutil.which(name)


def _user() -> str | None:
    """Postgres refuses to run as root."""
    if os.getuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    pytest.skip("there is no user that Postgres could run as")


@contextmanager
def postgres_server() -> Iterator[str]:
    """The address of an empty database; ``postgres_schema`` makes room in it."""
    folder = Path(tempfile.mkdtemp(prefix="auricle-pg-", dir="/tmp"))
    user, data = _user(), folder / "data"
    if user is not None:
        shutil.chown(folder, user)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    command = [_program("initdb"), "-D", str(data), "-U", "auricle", "-A", "trust", "--no-sync"]
    subprocess.run(command, user=user, cwd=folder, check=True, **quiet)
    options = ["-c", "listen_addresses=", "-c", "fsync=off", "-k", str(folder)]
    server = subprocess.Popen(
        [_program("postgres"), "-D", str(data), *options], user=user, cwd=folder, **quiet
    )
    try:
        _wait(folder, server)
        yield f"postgresql://auricle@/postgres?host={folder}"
    finally:
        server.terminate()
        server.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def _wait(folder: Path, server: "subprocess.Popen[bytes]") -> None:
    ready = [_program("pg_isready"), "-q", "-h", str(folder)]
    for _ in range(600):
        assert server.poll() is None, "Postgres ended"
        if subprocess.run(ready, check=False, timeout=30).returncode == 0:
            return
    raise AssertionError("Postgres did not come up")


@contextmanager
def postgres_schema(address: str) -> Iterator[str]:
    """An address whose tables are its own."""
    import psycopg

    name = f"s{secrets.token_hex(6)}"
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}".encode())
        try:
            yield f"{address}&options=-csearch_path%3D{name}"
        finally:
            connection.execute(f"DROP SCHEMA {name} CASCADE".encode())
