"""Webhook endpoints and the messages on their way to them, in the jobs' own database.

A message is claimed like a job: ``due_s`` is when it may be sent and, while it is being sent, until
when its sender is waited for; ``token`` fences a sender who comes back too late. Its body was
written once, with the end of its job, and nothing here ever writes it.
"""

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from serving.delivery.signing import new_secret
from serving.jobs.database import Database, Row, Session
from serving.jobs.store import trace_of

_ENDPOINT = "id, tenant, url, disabled, created_s"
_MESSAGE = (
    "id, tenant, job_id, endpoint_id, state, attempts, token, due_s, last_status, last_error, "
    "created_s, settled_s"
)
_OLD_SECRET_S = 24 * 3600.0
MessageState = Literal["waiting", "pending", "delivered", "dead"]


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A place of a tenant's that wants to hear of its jobs."""

    id: str
    tenant: str
    url: str
    disabled: str | None  # why
    created_s: float

    def body(self) -> dict[str, Any]:
        """What callers see; never the secret."""
        return {
            "id": self.id,
            "object": "webhook_endpoint",
            "url": self.url,
            "enabled": self.disabled is None,
            "disabled_reason": self.disabled,
            "created_at": int(self.created_s),
        }


@dataclass(frozen=True, kw_only=True)
class Sending:
    """A message in the hands of its sender."""

    id: str
    token: int
    attempts: int  # this one included
    body: bytes
    endpoint_id: str
    url: str
    secrets: tuple[str, ...]
    trace: str = ""  # of the request that brought its job


@dataclass(frozen=True, kw_only=True)
class Settlement:
    """How an attempt ended."""

    state: Literal["pending", "delivered", "dead"]
    status: int | None = None  # of the receiver's answer
    error: str | None = None
    due_s: float = 0.0  # of the next attempt
    gone: bool = False  # the receiver wants no more of any message


class Outbox:
    """Endpoints and messages of all tenants. Blocking, thread-safe."""

    def __init__(
        self, database: Database, *, lease_s: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._lease_s = lease_s
        self.clock = clock

    def create(self, tenant: str, url: str) -> tuple[Endpoint, str]:
        """Register an endpoint; its secret is shown this once."""
        secret = new_secret()
        sql = f"""INSERT INTO endpoints (id, tenant, url, secret, old_until_s, created_s)
            VALUES (?, ?, ?, ?, 0, ?) RETURNING {_ENDPOINT}"""
        values = (f"we_{secrets.token_hex(12)}", tenant, url, secret, self.clock())
        row = self._database.write("endpoint", lambda session: session.row(sql, *values))
        assert row is not None
        return Endpoint(**row), secret

    def endpoints(self, tenant: str) -> list[Endpoint]:
        """A tenant's endpoints, oldest first."""
        sql = f"SELECT {_ENDPOINT} FROM endpoints WHERE tenant = ? ORDER BY created_s, id"
        rows = self._database.read(lambda session: session.rows(sql, tenant))
        return [Endpoint(**row) for row in rows]

    def endpoint(self, tenant: str, endpoint_id: str) -> Endpoint | None:
        """One of a tenant's endpoints."""
        sql = f"SELECT {_ENDPOINT} FROM endpoints WHERE tenant = ? AND id = ?"
        row = self._database.read(lambda session: session.row(sql, tenant, endpoint_id))
        return Endpoint(**row) if row else None

    def enable(self, tenant: str, endpoint_id: str) -> Endpoint | None:
        """Send to it again; what waited for it is sent now."""
        sql = f"""UPDATE endpoints SET disabled = NULL WHERE tenant = ? AND id = ?
            RETURNING {_ENDPOINT}"""
        row = self._database.write("endpoint", lambda s: s.row(sql, tenant, endpoint_id))
        return Endpoint(**row) if row else None

    def rotate(self, tenant: str, endpoint_id: str) -> str | None:
        """A new secret; the old one signs beside it for a day."""
        secret = new_secret()
        sql = """UPDATE endpoints SET old_secret = secret, old_until_s = ?, secret = ?
            WHERE tenant = ? AND id = ? RETURNING id"""
        values = (self.clock() + _OLD_SECRET_S, secret, tenant, endpoint_id)
        found = self._database.write("endpoint", lambda session: session.row(sql, *values))
        return secret if found else None

    def delete(self, tenant: str, endpoint_id: str) -> bool:
        """Forget an endpoint and every message to it."""

        def write(session: Session) -> bool:
            sql = "DELETE FROM endpoints WHERE tenant = ? AND id = ? RETURNING id"
            if session.row(sql, tenant, endpoint_id) is None:
                return False
            session.rows("DELETE FROM outbox WHERE endpoint_id = ?", endpoint_id)
            return True

        return self._database.write("endpoint", write)

    def claim(self) -> Sending | None:
        """The message that is due first, now in the caller's hands until its lease ends."""

        def write(session: Session) -> Sending | None:
            now_s = self.clock()
            row = session.row(
                """UPDATE outbox SET token = token + 1, attempts = attempts + 1, due_s = ?
                    WHERE id = (SELECT o.id FROM outbox o JOIN endpoints e ON e.id = o.endpoint_id
                        WHERE o.state = 'pending' AND o.due_s <= ? AND e.disabled IS NULL
                        ORDER BY o.due_s LIMIT 1)
                    RETURNING id, token, attempts, body, endpoint_id, job_id""",
                now_s + self._lease_s,
                now_s,
            )
            return None if row is None else _sending(session, row, now_s)

        return self._database.write("delivery_claim", write)

    def settle(self, sending: Sending, settlement: Settlement) -> bool:
        """Book an attempt's end; False: another sender has the message now, or it is gone."""

        def write(session: Session) -> bool:
            settled_s = None if settlement.state == "pending" else self.clock()
            row = session.row(
                """UPDATE outbox SET state = ?, last_status = ?, last_error = ?, due_s = ?,
                    settled_s = ? WHERE id = ? AND token = ? AND state = 'pending' RETURNING id""",
                settlement.state, settlement.status, settlement.error, settlement.due_s, settled_s,
                sending.id, sending.token,
            )  # fmt: skip
            if row is not None and settlement.gone:
                sql = "UPDATE endpoints SET disabled = ? WHERE id = ?"
                session.rows(sql, "the receiver answered 410 Gone", sending.endpoint_id)
            return row is not None

        return self._database.write("delivery_settle", write)

    def messages(
        self, tenant: str, *, limit: int, endpoint_id: str | None = None, state: str | None = None
    ) -> list[dict[str, Any]]:
        """Messages to a tenant's endpoints, newest first, as callers see them."""
        sql, values = f"SELECT {_MESSAGE} FROM outbox WHERE tenant = ?", [tenant]
        for column, value in (("endpoint_id", endpoint_id), ("state", state)):
            if value is not None:
                sql += f" AND {column} = ?"
                values.append(value)
        sql += " ORDER BY created_s DESC, id LIMIT ?"
        rows = self._database.read(lambda session: session.rows(sql, *values, limit))
        return [_shown(row) for row in rows]

    def redeliver(self, tenant: str, message_id: str) -> dict[str, Any] | None:
        """Send a message again, byte for byte; None: there is none that has a body."""
        sql = f"""UPDATE outbox SET state = 'pending', due_s = ?, attempts = 0, token = token + 1,
            settled_s = NULL WHERE tenant = ? AND id = ? AND state <> 'waiting'
            RETURNING {_MESSAGE}"""
        values = (self.clock(), tenant, message_id)
        row = self._database.write("redeliver", lambda session: session.row(sql, *values))
        return None if row is None else _shown(row)


def _sending(session: Session, row: Row, now_s: float) -> Sending:
    sql = "SELECT url, secret, old_secret, old_until_s FROM endpoints WHERE id = ?"
    endpoint = session.row(sql, row["endpoint_id"])
    assert endpoint is not None
    keys = [endpoint["secret"]]
    if endpoint["old_secret"] and endpoint["old_until_s"] > now_s:
        keys.append(endpoint["old_secret"])
    return Sending(
        id=row["id"],
        token=row["token"],
        attempts=row["attempts"],
        body=bytes(row["body"]),
        endpoint_id=row["endpoint_id"],
        url=endpoint["url"],
        secrets=tuple(keys),
        trace=trace_of(session, row["job_id"]),
    )


def _shown(row: Row) -> dict[str, Any]:
    return {
        "id": row["id"],
        "object": "webhook_message",
        "job": row["job_id"],
        "endpoint": row["endpoint_id"],
        "status": row["state"],
        "attempts": row["attempts"],
        "last_status": row["last_status"],
        "last_error": row["last_error"],
        "next_attempt_at": int(row["due_s"]) if row["state"] == "pending" else None,
        "created_at": int(row["created_s"]),
        "settled_at": None if row["settled_s"] is None else int(row["settled_s"]),
    }
