"""Tables of the job database, in SQL that SQLite and Postgres both read. Times are Unix seconds."""

from typing import Any, Protocol

from governance.errors import ConfigError

VERSION = 1
_TABLES = (
    "CREATE TABLE IF NOT EXISTS job_schema (version INTEGER NOT NULL)",
    """CREATE TABLE IF NOT EXISTS jobs (
        seq {serial}, id TEXT NOT NULL UNIQUE, tenant TEXT NOT NULL, state TEXT NOT NULL,
        request TEXT NOT NULL, speaker TEXT, blob TEXT NOT NULL, metadata TEXT NOT NULL,
        webhook TEXT, progress DOUBLE PRECISION NOT NULL, attempts INTEGER NOT NULL,
        token INTEGER NOT NULL, revision INTEGER NOT NULL, due_s DOUBLE PRECISION NOT NULL,
        created_s DOUBLE PRECISION NOT NULL, started_s DOUBLE PRECISION,
        finished_s DOUBLE PRECISION, expires_s DOUBLE PRECISION NOT NULL,
        error TEXT, result TEXT)""",
    """CREATE INDEX IF NOT EXISTS jobs_open ON jobs (tenant, seq)
        WHERE state IN ('queued', 'running')""",
    "CREATE INDEX IF NOT EXISTS jobs_of_tenant ON jobs (tenant, seq)",
    "CREATE INDEX IF NOT EXISTS jobs_expiry ON jobs (expires_s)",
    "CREATE TABLE IF NOT EXISTS job_traces (job_id TEXT PRIMARY KEY, parent TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS turns (tenant TEXT PRIMARY KEY, turn BIGINT NOT NULL)",
    """CREATE TABLE IF NOT EXISTS idempotency (
        tenant TEXT NOT NULL, route TEXT NOT NULL, key TEXT NOT NULL, fingerprint TEXT NOT NULL,
        job_id TEXT NOT NULL, reply TEXT NOT NULL, expires_s DOUBLE PRECISION NOT NULL,
        PRIMARY KEY (tenant, route, key))""",
    "CREATE INDEX IF NOT EXISTS idempotency_of_job ON idempotency (job_id)",
    """CREATE TABLE IF NOT EXISTS endpoints (
        id TEXT PRIMARY KEY, tenant TEXT NOT NULL, url TEXT NOT NULL, secret TEXT NOT NULL,
        old_secret TEXT, old_until_s DOUBLE PRECISION NOT NULL, disabled TEXT,
        created_s DOUBLE PRECISION NOT NULL)""",
    """CREATE TABLE IF NOT EXISTS outbox (
        id TEXT PRIMARY KEY, tenant TEXT NOT NULL, job_id TEXT NOT NULL, endpoint_id TEXT NOT NULL,
        state TEXT NOT NULL, body {binary}, attempts INTEGER NOT NULL, token INTEGER NOT NULL,
        due_s DOUBLE PRECISION NOT NULL, last_status INTEGER, last_error TEXT,
        created_s DOUBLE PRECISION NOT NULL, settled_s DOUBLE PRECISION)""",
    "CREATE INDEX IF NOT EXISTS outbox_due ON outbox (due_s) WHERE state = 'pending'",
    "CREATE INDEX IF NOT EXISTS outbox_of_tenant ON outbox (tenant, created_s)",
    "CREATE INDEX IF NOT EXISTS outbox_of_job ON outbox (job_id)",
)


class Statements(Protocol):
    """What creation needs of a session."""

    def rows(self, sql: str, *values: Any) -> list[Any]:
        """Run one statement."""


def create(session: Statements, *, serial: str, binary: str) -> None:
    """Make what is missing; a database of a later release is refused, not guessed at."""
    for statement in _TABLES:
        session.rows(statement.format(serial=serial, binary=binary))
    found = session.rows("SELECT version FROM job_schema")
    if not found:
        session.rows("INSERT INTO job_schema (version) VALUES (?)", VERSION)
    elif found[0]["version"] != VERSION:
        raise ConfigError(
            f"has schema {found[0]['version']}, this release reads {VERSION}",
            item="job store",
            mend="serve it with the release that wrote it, or name an empty folder",
        )
