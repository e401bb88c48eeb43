"""What the job store asks of a database, and its one-machine form: SQLite with one writer thread.

A write is a function of a session; all its statements commit together or not at all. Writes that
arrive while the thread is busy share the next commit, each behind a savepoint of its own, so that
one refused request spoils nobody else's. The caller goes on only after the commit is on disk.
"""

import queue
import sqlite3
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from governance.errors import AuricleError
from serving.jobs import schema
from serving.jobs.failpoints import COMMITS, failpoint

T = TypeVar("T")
Row = Mapping[str, Any]
_BUSY_TIMEOUT_MS = 5000
_GROUP = 32  # writes that may share a commit
_CHECKPOINTED = frozenset({"erase", "sweep"})  # after these the log must hold nothing either


class StoreUnavailable(AuricleError):
    """The database cannot be written now."""


class Session(Protocol):
    """Statements of one transaction; ``?`` stands for a value in every driver."""

    def rows(self, sql: str, *values: Any) -> list[Row]:
        """Run one statement; what it returns."""

    def row(self, sql: str, *values: Any) -> Row | None:
        """The first of what it returns."""


class Database(Protocol):
    """A driver."""

    def write(self, name: str, call: Callable[[Session], T]) -> T:
        """Run ``call`` in a transaction; its answer once it is committed and durable."""

    def read(self, call: Callable[[Session], T]) -> T:
        """Run ``call`` on committed rows."""

    def close(self) -> None:
        """Finish what was asked, then let go."""


class SqliteSession:
    """Statements on the thread's own connection."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def rows(self, sql: str, *values: Any) -> list[Row]:
        """Run one statement; what it returns."""
        cursor = self._connection.execute(sql, values)
        names = [column[0] for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def row(self, sql: str, *values: Any) -> Row | None:
        """The first of what it returns."""
        found = self.rows(sql, *values)
        return found[0] if found else None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Call:
    name: str  # of the commit; empty: a read
    call: Callable[[Session], Any]
    answer: "Future[Any]"


class SqliteDatabase:
    """WAL, FULL, BEGIN IMMEDIATE; safe beside other processes on the same local disk."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)  # it holds transcripts and signing secrets
        self._path = path
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._closed = False
        self._lock = threading.Lock()
        connection = self._open()
        self._thread = threading.Thread(
            target=self._serve, args=(connection,), name="job-store", daemon=True
        )
        self._thread.start()

    def write(self, name: str, call: Callable[[Session], T]) -> T:
        """Run ``call`` in a transaction; its answer once it is committed and durable."""
        assert name in COMMITS, name
        answer: Future[T] = Future()
        self._put(_Call(name=name, call=call, answer=answer))
        return answer.result()

    def read(self, call: Callable[[Session], T]) -> T:
        """Run ``call`` on committed rows."""
        answer: Future[T] = Future()
        self._put(_Call(name="", call=call, answer=answer))
        return answer.result()

    def close(self) -> None:
        """Finish what was asked, then let go."""
        with self._lock:
            self._closed = True
            self._calls.put(None)
        self._thread.join()

    def _put(self, call: _Call) -> None:
        with self._lock:
            if self._closed:
                raise StoreUnavailable("the job store is closed")
            self._calls.put(call)

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        for pragma in (
            f"busy_timeout={_BUSY_TIMEOUT_MS}",
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "secure_delete=ON",
        ):
            connection.execute(f"PRAGMA {pragma}")
        session = SqliteSession(connection)
        connection.execute("BEGIN IMMEDIATE")
        schema.create(session, serial="INTEGER PRIMARY KEY AUTOINCREMENT", binary="BLOB")
        connection.execute("COMMIT")
        return connection

    def _serve(self, connection: sqlite3.Connection) -> None:
        going = True
        while going:
            batch = [self._calls.get()]
            while len(batch) < _GROUP and not self._calls.empty():
                batch.append(self._calls.get())
            going = None not in batch
            calls = [call for call in batch if call is not None]
            if writes := [call for call in calls if call.name]:
                _commit_together(connection, writes)
            for call in calls:
                if not call.name:
                    _answer(call, SqliteSession(connection))
        connection.close()


def _answer(call: _Call, session: Session) -> None:
    try:
        call.answer.set_result(call.call(session))
    except Exception as error:  # belongs to the caller, whatever it is
        call.answer.set_exception(error)


def _commit_together(connection: sqlite3.Connection, writes: list[_Call]) -> None:
    session = SqliteSession(connection)
    kept: list[tuple[_Call, Any]] = []
    changed: list[str] = []  # commits that change something: to look for work is none
    try:
        connection.execute("BEGIN IMMEDIATE")
        for write in writes:
            connection.execute("SAVEPOINT one")
            before = connection.total_changes
            try:
                kept.append((write, write.call(session)))
            except Exception as error:  # this caller's alone
                connection.execute("ROLLBACK TO one")
                write.answer.set_exception(error)
            else:
                changed += [write.name] if connection.total_changes > before else []
            connection.execute("RELEASE one")
        for name in changed:
            failpoint(f"before_{name}")
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        failed = StoreUnavailable(f"the job store cannot be written ({error})")
        for write in writes:
            if not write.answer.done():
                write.answer.set_exception(failed)
        return
    for name in changed:
        failpoint(f"after_{name}")
    if not _CHECKPOINTED.isdisjoint(changed):
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # busy readers only delay it
    for write, value in kept:
        write.answer.set_result(value)
