"""What each tenant used, and how much is left: durable, exact over several worker processes.

One SQLite file holds usage by UTC day and route, token buckets, and who has a stream open. Every
change is one short transaction (WAL; a power cut may lose the last moments, a crash nothing).
"""

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from serving.tenants.files import opened, transaction
from serving.tenants.policy import Limits

_SCHEMA = """
CREATE TABLE IF NOT EXISTS usage (
    tenant TEXT NOT NULL, day TEXT NOT NULL, route TEXT NOT NULL,
    requests INTEGER NOT NULL, audio_s REAL NOT NULL, PRIMARY KEY (tenant, day, route)
) STRICT;
CREATE TABLE IF NOT EXISTS buckets (
    tenant TEXT NOT NULL, kind TEXT NOT NULL, level REAL NOT NULL, at REAL NOT NULL,
    PRIMARY KEY (tenant, kind)
) STRICT;
CREATE TABLE IF NOT EXISTS streams (
    id INTEGER PRIMARY KEY, tenant TEXT NOT NULL, pid INTEGER NOT NULL
) STRICT;
"""
_WHAT = "the usage record"
_MINUTE_S = 60.0
_LEAST_AUDIO_S = 0.001  # how long a recording is shows only when it was read: it may overdraw
REQUESTS, AUDIO = "requests", "audio-seconds"


@dataclass(frozen=True, kw_only=True)
class Budget:
    """One limit and what is left of it."""

    kind: str  # requests, audio-seconds, audio-seconds-day, audio-seconds-month, streams
    limit: float
    remaining: float
    reset_s: float  # until it is whole again
    wait_s: float  # until a request may be tried again; 0 when there is room


@dataclass(frozen=True, kw_only=True)
class UsageRow:
    """What a tenant used on one day by one route."""

    day: str
    route: str
    requests: int
    audio_s: float


class UsageStore:
    """One connection; used on one event loop."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._clock = clock
        self._connection = opened(path, schema=_SCHEMA, what=_WHAT, power_cut_safe=False)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def admit(self, tenant: str, limits: Limits, *, route: str) -> list[Budget]:
        """Book a request if every limit has room; the budgets say whether it was."""
        with self._transaction():
            budgets = self._budgets(tenant, limits)
            if not any(budget.wait_s for budget in budgets):
                budgets = [self._spent(tenant, budget) for budget in budgets]
                self._add(tenant, route, requests=1, audio_s=0.0)
            return budgets

    def hear(self, tenant: str, limits: Limits, seconds: float, *, route: str) -> list[Budget]:
        """Book seconds of audio, which may overdraw; budgets without room say so."""
        with self._transaction():
            self._add(tenant, route, requests=0, audio_s=seconds)
            if limits.audio_s_per_minute is not None:
                level = self._level(tenant, AUDIO, limits.audio_s_per_minute) - seconds
                self._set_level(tenant, AUDIO, level)
            return [b for b in self._budgets(tenant, limits) if b.kind.startswith(AUDIO)]

    def open_stream(self, tenant: str, limits: Limits) -> int | None:
        """A place among the tenant's live streams; None where all are taken."""
        with self._transaction():
            for (pid,) in self._connection.execute("SELECT DISTINCT pid FROM streams").fetchall():
                if not _alive(pid):  # a killed worker gave no place back
                    self._connection.execute("DELETE FROM streams WHERE pid = ?", (pid,))
            if limits.streams is not None and self.streams(tenant) >= limits.streams:
                return None
            row = self._connection.execute(
                "INSERT INTO streams (tenant, pid) VALUES (?, ?)", (tenant, os.getpid())
            )
            return row.lastrowid

    def close_stream(self, place: int) -> None:
        """Give a place back."""
        with self._transaction():
            self._connection.execute("DELETE FROM streams WHERE id = ?", (place,))

    def streams(self, tenant: str) -> int:
        """Live streams of a tenant."""
        row = self._connection.execute("SELECT count(*) FROM streams WHERE tenant = ?", (tenant,))
        return int(row.fetchone()[0])

    def rows(self, tenant: str, *, first_day: str, last_day: str) -> list[UsageRow]:
        """Usage of a tenant by day and route, oldest first."""
        rows = self._connection.execute(
            "SELECT day, route, requests, audio_s FROM usage "
            "WHERE tenant = ? AND day BETWEEN ? AND ? ORDER BY day, route",
            (tenant, first_day, last_day),
        )
        return [UsageRow(day=d, route=r, requests=n, audio_s=s) for d, r, n, s in rows]

    def today(self) -> str:
        """The present UTC day."""
        return datetime.fromtimestamp(self._clock(), UTC).date().isoformat()

    def _budgets(self, tenant: str, limits: Limits) -> list[Budget]:
        found = []
        for kind, size, least in (
            (REQUESTS, limits.requests_per_minute, 1.0),
            (AUDIO, limits.audio_s_per_minute, _LEAST_AUDIO_S),
        ):
            if size is not None:
                level = self._level(tenant, kind, size)
                found.append(
                    Budget(
                        kind=kind, limit=size, remaining=max(0.0, level),
                        reset_s=(size - level) * _MINUTE_S / size,
                        wait_s=max(0.0, least - level) * _MINUTE_S / size,
                    )
                )  # fmt: skip
        today = self.today()
        for kind, quota, first in (
            (f"{AUDIO}-day", limits.audio_s_per_day, today),
            (f"{AUDIO}-month", limits.audio_s_per_month, f"{today[:7]}-01"),
        ):
            if quota is not None:
                left = quota - self._audio_s(tenant, first, today)
                ends_s = self._until_next(kind)
                found.append(
                    Budget(
                        kind=kind, limit=quota, remaining=max(0.0, left), reset_s=ends_s,
                        wait_s=ends_s if left <= 0 else 0.0,
                    )
                )  # fmt: skip
        return found

    def _spent(self, tenant: str, budget: Budget) -> Budget:
        if budget.kind != REQUESTS:
            return budget
        self._set_level(tenant, REQUESTS, budget.remaining - 1)
        return Budget(
            kind=budget.kind, limit=budget.limit, remaining=budget.remaining - 1,
            reset_s=budget.reset_s + _MINUTE_S / budget.limit, wait_s=0.0,
        )  # fmt: skip

    def _level(self, tenant: str, kind: str, size: float) -> float:
        """What a token bucket holds now: it fills in a minute."""
        row = self._connection.execute(
            "SELECT level, at FROM buckets WHERE tenant = ? AND kind = ?", (tenant, kind)
        ).fetchone()
        if row is None:
            return size
        return min(size, row[0] + max(0.0, self._clock() - row[1]) * size / _MINUTE_S)

    def _set_level(self, tenant: str, kind: str, level: float) -> None:
        self._connection.execute(
            "INSERT INTO buckets VALUES (?, ?, ?, ?) "
            "ON CONFLICT (tenant, kind) DO UPDATE SET level = excluded.level, at = excluded.at",
            (tenant, kind, level, self._clock()),
        )

    def _add(self, tenant: str, route: str, *, requests: int, audio_s: float) -> None:
        self._connection.execute(
            "INSERT INTO usage VALUES (?, ?, ?, ?, ?) ON CONFLICT (tenant, day, route) DO UPDATE "
            "SET requests = requests + excluded.requests, audio_s = audio_s + excluded.audio_s",
            (tenant, self.today(), route, requests, audio_s),
        )

    def _audio_s(self, tenant: str, first: str, last: str) -> float:
        row = self._connection.execute(
            "SELECT total(audio_s) FROM usage WHERE tenant = ? AND day BETWEEN ? AND ?",
            (tenant, first, last),
        ).fetchone()
        return float(row[0])

    def _until_next(self, kind: str) -> float:
        now = datetime.fromtimestamp(self._clock(), UTC)
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        if kind.endswith("-month"):
            year, month = (now.year + 1, 1) if now.month == 12 else (now.year, now.month + 1)
            return (midnight.replace(year=year, month=month, day=1) - now).total_seconds()
        return 86_400 - (now - midnight).total_seconds()

    def _transaction(self) -> AbstractContextManager[None]:
        return transaction(self._connection, self._path, what=_WHAT)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
