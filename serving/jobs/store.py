"""The job store and the queue in it: every change of a job is one transaction.

A job waits as ``queued`` until a worker claims it: ``due_s`` is when it may be claimed, and while it
runs the end of the worker's lease. Each claim raises ``token``, and whoever holds an older one can
write nothing more. Tenants take turns. When a job ends, the webhook that tells of it is frozen in
the same transaction, so that neither can be without the other.
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from governance.canonical import canonical_json
from serving.jobs.database import Database, Row, Session
from serving.jobs.records import (
    JOB_COLUMNS,
    Accepted,
    IdempotencyKey,
    Job,
    JobDraft,
    KeyReused,
    Outcome,
    QueueFull,
    UnknownEndpoint,
    event_body,
    job_of,
)

_OPEN = "state IN ('queued', 'running')"
SWEEP_ROWS = 500
_OF_A_JOB = ("outbox", "idempotency", "job_traces")
_LOST = {
    "message": "The service stopped each time while it worked on this job.",
    "type": "server_error",
    "param": None,
    "code": "attempts_exhausted",
}


@dataclass(frozen=True, kw_only=True)
class StoreRules:
    """How long things last and how many there may be."""

    lease_s: float = 30.0  # a silent worker's job is given to another after this
    max_attempts: int = 3
    ttl_s: float = 72 * 3600.0  # a job, its transcript and its webhook go this long after its end
    key_ttl_s: float = 24 * 3600.0
    max_open_jobs: int = 1000  # of one tenant


class JobStore:
    """Jobs of all tenants; who asks as a tenant sees that tenant's only. Blocking, thread-safe."""

    def __init__(
        self,
        database: Database,
        rules: StoreRules | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.rules = rules or StoreRules()
        self._database = database
        self._clock = clock

    def stored_reply(self, key: IdempotencyKey) -> Accepted | None:
        """The first answer to this key; `KeyReused` if it was given for other content."""
        return self._database.read(lambda session: self._reply(session, key))

    def accept(self, draft: JobDraft, key: IdempotencyKey | None = None) -> Accepted:
        """Take a job on: it, its key and its webhook's place are on disk when this returns."""
        return self._database.write("accept", lambda session: self._accept(session, draft, key))

    def get(self, tenant: str, job_id: str) -> Job | None:
        """One job of this tenant."""
        sql = f"SELECT {JOB_COLUMNS} FROM jobs WHERE tenant = ? AND id = ?"
        return _job(self._database.read(lambda session: session.row(sql, tenant, job_id)))

    def result(self, tenant: str, job_id: str) -> str | None:
        """The transcript as JSON, while there is one."""
        sql = "SELECT result FROM jobs WHERE tenant = ? AND id = ?"
        row = self._database.read(lambda session: session.row(sql, tenant, job_id))
        return row["result"] if row else None

    def page(
        self, tenant: str, *, limit: int, after: str | None = None, state: str | None = None
    ) -> list[Job]:
        """Newest first; ``after`` is the id of the last job of the page before."""
        sql = f"SELECT {JOB_COLUMNS} FROM jobs WHERE tenant = ?"
        values: list[str | int] = [tenant]
        if after is not None:
            sql += " AND seq < (SELECT seq FROM jobs WHERE tenant = ? AND id = ?)"
            values += [tenant, after]
        if state is not None:
            sql += " AND state = ?"
            values.append(state)
        sql += " ORDER BY seq DESC LIMIT ?"
        rows = self._database.read(lambda session: session.rows(sql, *values, limit))
        return [job_of(row) for row in rows]

    def waiting(self) -> int:
        """Jobs that no worker holds."""
        sql = "SELECT COUNT(*) AS n FROM jobs WHERE state = 'queued'"
        row = self._database.read(lambda session: session.row(sql))
        return int(row["n"]) if row else 0

    def claim(self) -> Job | None:
        """The next job, now held by the caller until its lease ends."""
        return self._database.write("claim", self._claim)

    def heartbeat(self, job: Job, progress: float) -> bool:
        """Hold a job for another lease; False: it is no longer the caller's."""
        sql = """UPDATE jobs SET due_s = ?, progress = ?, revision = revision + 1
            WHERE id = ? AND token = ? AND state = 'running' RETURNING id"""
        due_s = self._clock() + self.rules.lease_s
        return bool(
            self._database.write(
                "heartbeat", lambda session: session.rows(sql, due_s, progress, job.id, job.token)
            )
        )

    def release(self, job: Job, *, delay_s: float = 0.0, counted: bool = True) -> bool:
        """Give a job back; ``counted`` says whether this was one of its attempts."""
        sql = """UPDATE jobs SET state = 'queued', due_s = ?, token = token + 1, progress = 0,
            attempts = attempts - ?, revision = revision + 1
            WHERE id = ? AND token = ? AND state = 'running' RETURNING id"""
        values = (self._clock() + delay_s, 0 if counted else 1, job.id, job.token)
        return bool(self._database.write("release", lambda session: session.rows(sql, *values)))

    def finish(self, job: Job, outcome: Outcome) -> Job | None:
        """End a job and freeze its webhook; None: it is no longer the caller's."""

        def write(session: Session) -> Job | None:
            where = ("id = ? AND token = ? AND state = 'running'", job.id, job.token)
            return self._end(session, outcome.state, outcome, where)

        return self._database.write("finish", write)

    def cancel(self, tenant: str, job_id: str) -> Job | None:
        """End an open job at once, whoever holds it; None: there is no such open job."""

        def write(session: Session) -> Job | None:
            where = (f"tenant = ? AND id = ? AND {_OPEN}", tenant, job_id)
            return self._end(session, "cancelled", Outcome(), where)

        return self._database.write("cancel", write)

    def erase(self, tenant: str, job_id: str) -> str | None:
        """Forget a job, its transcript, key and webhook; its blob's name, None if there is none."""

        def write(session: Session) -> str | None:
            sql = "DELETE FROM jobs WHERE tenant = ? AND id = ? RETURNING blob"
            row = session.row(sql, tenant, job_id)
            if row is None:
                return None
            for table in _OF_A_JOB:
                session.rows(f"DELETE FROM {table} WHERE job_id = ?", job_id)
            return str(row["blob"])

        return self._database.write("erase", write)

    def sweep(self) -> list[str]:
        """Let go of what is past its time; a blob's name (or none) for each of these jobs.

        At most `SWEEP_ROWS` at once, so that others get their turn at the database.
        """
        return self._database.write("sweep", self._sweep)

    def blobs_in_use(self) -> set[str]:
        """Blobs of jobs that still need them."""
        sql = f"SELECT blob FROM jobs WHERE {_OPEN}"
        rows = self._database.read(lambda session: session.rows(sql))
        return {row["blob"] for row in rows}

    def _reply(self, session: Session, key: IdempotencyKey) -> Accepted | None:
        sql = """SELECT fingerprint, job_id, reply FROM idempotency
            WHERE tenant = ? AND route = ? AND key = ? AND expires_s > ?"""
        row = session.row(sql, key.tenant, key.route, key.key, self._clock())
        if row is None:
            return None
        if row["fingerprint"] != key.fingerprint:
            raise KeyReused("the Idempotency-Key stands for another request")
        return Accepted(job_id=row["job_id"], reply=row["reply"], replayed=True)

    def _accept(self, session: Session, draft: JobDraft, key: IdempotencyKey | None) -> Accepted:
        if key is not None and (known := self._reply(session, key)) is not None:
            return known
        now_s = self._clock()
        open_sql = f"SELECT COUNT(*) AS n FROM jobs WHERE tenant = ? AND {_OPEN}"
        held = session.row(open_sql, draft.tenant)
        if held and held["n"] >= self.rules.max_open_jobs:
            raise QueueFull(f"{held['n']} jobs are waiting or running already")
        row = session.row(
            f"""INSERT INTO jobs (id, tenant, state, request, speaker, blob, metadata, webhook,
                progress, attempts, token, revision, due_s, created_s, expires_s)
                VALUES (?, ?, 'queued', ?, ?, ?, ?, ?, 0, 0, 0, 1, ?, ?, ?)
                RETURNING {JOB_COLUMNS}""",
            draft.id,
            draft.tenant,
            draft.request.text(),
            draft.speaker,
            draft.blob,
            canonical_json(dict(draft.metadata)),
            draft.webhook,
            now_s,
            now_s,
            now_s + self.rules.ttl_s,
        )
        assert row is not None
        reply = canonical_json(job_of(row).body())
        if draft.trace:
            session.rows(
                "INSERT INTO job_traces (job_id, parent) VALUES (?, ?)", draft.id, draft.trace
            )
        if draft.webhook is not None:
            _reserve_webhook(session, draft, now_s)
        if key is not None:
            session.rows(
                "DELETE FROM idempotency WHERE tenant = ? AND route = ? AND key = ?",
                key.tenant, key.route, key.key,
            )  # fmt: skip
            session.rows(
                "INSERT INTO idempotency VALUES (?, ?, ?, ?, ?, ?, ?)",
                key.tenant, key.route, key.key, key.fingerprint, draft.id, reply,
                now_s + self.rules.key_ttl_s,
            )  # fmt: skip
        return Accepted(job_id=draft.id, reply=reply, replayed=False)

    def _claim(self, session: Session) -> Job | None:
        now_s = self._clock()
        exhausted = f"{_OPEN} AND due_s <= ? AND attempts >= ?"
        while self._end(
            session, "failed", Outcome(error=_LOST),
            (f"id = (SELECT id FROM jobs WHERE {exhausted} LIMIT 1)", now_s,
             self.rules.max_attempts),
        ):  # fmt: skip
            pass
        row = session.row(
            f"""UPDATE jobs SET state = 'running', token = token + 1, attempts = attempts + 1,
                progress = 0, due_s = ?, started_s = COALESCE(started_s, ?), revision = revision + 1
                WHERE seq = (SELECT MIN(j.seq) AS first FROM jobs j
                    LEFT JOIN turns t ON t.tenant = j.tenant
                    WHERE j.{_OPEN} AND j.due_s <= ? GROUP BY j.tenant
                    ORDER BY COALESCE(MAX(t.turn), 0), first LIMIT 1)
                RETURNING {JOB_COLUMNS}""",
            now_s + self.rules.lease_s,
            now_s,
            now_s,
        )
        if row is None:
            return None
        session.rows(
            """INSERT INTO turns (tenant, turn)
                VALUES (?, (SELECT COALESCE(MAX(turn), 0) + 1 FROM turns))
                ON CONFLICT (tenant) DO UPDATE SET turn = excluded.turn""",
            row["tenant"],
        )
        return replace(job_of(row), trace=trace_of(session, row["id"]))

    def _end(
        self, session: Session, state: str, outcome: Outcome, where: tuple[str | float, ...]
    ) -> Job | None:
        """Move one job into a final state and freeze what its webhook will say, for ever."""
        now_s = self._clock()
        error = canonical_json(dict(outcome.error)) if outcome.error else None
        row = session.row(
            f"""UPDATE jobs SET state = ?, result = ?, error = ?, speaker = NULL,
                progress = CASE WHEN ? = 'done' THEN 1 ELSE progress END, token = token + 1,
                revision = revision + 1, finished_s = ?, expires_s = ?
                WHERE {where[0]} RETURNING {JOB_COLUMNS}""",
            state, outcome.result, error, state, now_s, now_s + self.rules.ttl_s, *where[1:],
        )  # fmt: skip
        if row is None:
            return None
        job = job_of(row)
        session.rows(
            """UPDATE outbox SET state = 'pending', body = ?, due_s = ?
                WHERE job_id = ? AND state = 'waiting'""",
            event_body(job, outcome.result), now_s, job.id,
        )  # fmt: skip
        return job

    def _sweep(self, session: Session) -> list[str]:
        now_s = self._clock()
        session.rows("DELETE FROM idempotency WHERE expires_s <= ?", now_s)
        rows = session.rows(
            "SELECT id, blob, state FROM jobs WHERE expires_s <= ? AND state <> 'running' LIMIT ?",
            now_s,
            SWEEP_ROWS,
        )
        for row in rows:
            if row["state"] == "queued":  # nobody came for it: its webhook says so
                self._end(session, "expired", Outcome(), ("id = ?", row["id"]))
            else:
                session.rows("DELETE FROM outbox WHERE job_id = ?", row["id"])
                session.rows("DELETE FROM job_traces WHERE job_id = ?", row["id"])
            if row["state"] == "expired":
                session.rows("DELETE FROM jobs WHERE id = ?", row["id"])
                continue
            session.rows("DELETE FROM idempotency WHERE job_id = ?", row["id"])
            session.rows(
                """UPDATE jobs SET state = 'expired', result = NULL, error = NULL, speaker = NULL,
                    metadata = '{}', blob = '', revision = revision + 1, expires_s = ?
                    WHERE id = ?""",
                now_s + self.rules.ttl_s,
                row["id"],
            )
        return [row["blob"] for row in rows]


def _reserve_webhook(session: Session, draft: JobDraft, now_s: float) -> None:
    """The message's id is fixed with the job's acceptance; its body comes with the job's end."""
    made = session.rows(
        """INSERT INTO outbox (id, tenant, job_id, endpoint_id, state, attempts, token, due_s,
            created_s) SELECT ?, tenant, ?, id, 'waiting', 0, 0, 0, ? FROM endpoints
            WHERE id = ? AND tenant = ? AND disabled IS NULL RETURNING id""",
        f"msg_{secrets.token_hex(12)}", draft.id, now_s, draft.webhook, draft.tenant,
    )  # fmt: skip
    if not made:
        raise UnknownEndpoint("there is no such enabled webhook endpoint")


def trace_of(session: Session, job_id: str) -> str:
    """The trace of the request that brought a job."""
    row = session.row("SELECT parent FROM job_traces WHERE job_id = ?", job_id)
    return "" if row is None else str(row["parent"])


def _job(row: Row | None) -> Job | None:
    return None if row is None else job_of(row)
