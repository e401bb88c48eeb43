"""The driver for several machines: Postgres, with the same statements and the same guarantees.

A transaction begins with one advisory lock that all writers share, so that it sees and changes the
rows as if it were alone: what ``BEGIN IMMEDIATE`` is to SQLite. It is synchronous at the server.
"""

from typing import TYPE_CHECKING, Any

from governance.errors import ConfigError
from serving.jobs import schema
from serving.jobs.database import Database, Row

if TYPE_CHECKING:
    import psycopg

_LOCK = 0x4155_5249_434C_45  # "AURICLE"
_TIMEOUT_S = 5


def postgres_database(address: str) -> Database:
    """The database at ``postgresql://user:password@host/name``."""
    try:
        return Database(PostgresDriver(address))
    except ImportError:
        raise ConfigError(
            "needs the package psycopg",
            item="AURICLE_JOBS_DATABASE",
            mend="pip install 'psycopg[binary]'",
        ) from None


class PostgresDriver:
    """Opens one address."""

    def __init__(self, address: str) -> None:
        import psycopg

        self._address = address
        self.errors: tuple[type[Exception], ...] = (psycopg.Error,)

    def open(self) -> "PostgresConnection":
        """A connection to a database that has the tables."""
        import psycopg
        from psycopg.rows import dict_row

        connection = PostgresConnection(
            psycopg.connect(
                self._address,
                autocommit=True,
                row_factory=dict_row,
                connect_timeout=_TIMEOUT_S,
                application_name="auricle-jobs",
            )
        )
        connection.rows("SET synchronous_commit = on")
        connection.rows(f"SET lock_timeout = '{_TIMEOUT_S}s'")
        connection.begin()
        schema.create(
            connection, serial="BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY", binary="BYTEA"
        )
        connection.commit()
        return connection


class PostgresConnection:
    """One connection in autocommit mode: every BEGIN is ours."""

    def __init__(self, connection: "psycopg.Connection[dict[str, Any]]") -> None:
        self._connection = connection
        self.changes = 0

    def rows(self, sql: str, *values: Any) -> list[Row]:
        """Run one statement; what it returns."""
        cursor = self._connection.execute(sql.replace("?", "%s").encode(), values)
        if not (cursor.statusmessage or "").startswith("SELECT"):
            self.changes += max(0, cursor.rowcount)
        return list(cursor.fetchall()) if cursor.description else []

    def row(self, sql: str, *values: Any) -> Row | None:
        """The first of what it returns."""
        found = self.rows(sql, *values)
        return found[0] if found else None

    def begin(self) -> None:
        """Begin as the only writer."""
        self.rows("BEGIN")
        self.rows("SELECT pg_advisory_xact_lock(?)", _LOCK)

    def commit(self) -> None:
        """On the server's disk when this returns."""
        self.rows("COMMIT")

    def wipe(self) -> None:
        """Deleted rows are gone for every query; the server's VACUUM takes them out of its files."""

    def close(self) -> None:
        """Let go; what is open is undone by the server."""
        self._connection.close()
