"""The SQLite files of this room: how they are opened, and what a transaction is."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from governance.errors import AuricleError

_BUSY_TIMEOUT_S = 5.0


def opened(path: Path, *, schema: str, what: str, power_cut_safe: bool) -> sqlite3.Connection:
    """A connection to a file that only its owner may read; ``what`` names it in errors.

    Commits survive a crash in any case, a power cut only where that is asked for.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        connection = sqlite3.connect(
            path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={'FULL' if power_cut_safe else 'NORMAL'}")
        connection.executescript(schema)
    except (OSError, sqlite3.Error) as error:
        raise AuricleError(f"{what} cannot be opened ({error})", item=str(path)) from None
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection, path: Path, *, what: str) -> Iterator[None]:
    """All statements inside, or none; no other process writes meanwhile."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise AuricleError(f"{what} cannot be changed now ({error})", item=str(path)) from None
