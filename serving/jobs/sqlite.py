"""The one-machine driver: SQLite in WAL mode on a local disk, durable at every commit."""

import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

from serving.jobs import schema
from serving.jobs.database import Database, Row

_BUSY_TIMEOUT_MS = 5000


def sqlite_database(path: Path) -> Database:
    """The database in this file; safe beside other processes of this machine."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600)  # it holds transcripts and signing secrets
    return Database(SqliteDriver(path))


class SqliteDriver:
    """Opens one file."""

    errors: tuple[type[Exception], ...] = (sqlite3.Error,)

    def __init__(self, path: Path) -> None:
        self._path = path

    def open(self) -> "SqliteConnection":
        """A connection to a database that has the tables."""
        connection = SqliteConnection(
            sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        )
        for pragma in (
            f"busy_timeout={_BUSY_TIMEOUT_MS}",
            "journal_mode=WAL",
            "synchronous=FULL",
            "secure_delete=ON",
        ):
            connection.rows(f"PRAGMA {pragma}")
        connection.begin()
        schema.create(connection, serial="INTEGER PRIMARY KEY AUTOINCREMENT", binary="BLOB")
        connection.commit()
        return connection


class SqliteConnection:
    """One connection in autocommit mode: every BEGIN is ours."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @property
    def changes(self) -> int:
        """Rows changed since it was opened."""
        return self._connection.total_changes

    def rows(self, sql: str, *values: Any) -> list[Row]:
        """Run one statement; what it returns."""
        cursor = self._connection.execute(sql, values)
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def row(self, sql: str, *values: Any) -> Row | None:
        """The first of what it returns."""
        found = self.rows(sql, *values)
        return found[0] if found else None

    def begin(self) -> None:
        """Begin as the only writer; others wait or are told that it is busy."""
        self._connection.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """On disk when this returns."""
        self._connection.execute("COMMIT")

    def wipe(self) -> None:
        """Deleted rows are zeroed already; the log that still has them is emptied."""
        with suppress(sqlite3.Error):  # a busy reader only delays it until the next time
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Let go; what is open is undone."""
        self._connection.close()
