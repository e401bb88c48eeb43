"""What the job store asks of a database, and the one thread of a process that talks to it.

A write is a function of a session; all its statements commit together or not at all. Writes that
arrive while the thread is busy share the next commit, each behind a savepoint of its own, so that
one refused request spoils nobody else's. The caller goes on only after the commit is durable.
"""

import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from serving.jobs.failpoints import COMMITS, failpoint
from serving.problems import ApiProblem

T = TypeVar("T")
Row = Mapping[str, Any]
_RETRY_AFTER_S = 5
_GROUP = 32  # writes that may share a commit
_WIPED = frozenset({"erase", "sweep"})  # after these nothing may be left in the files either


class StoreUnavailable(ApiProblem):
    """The database cannot be reached or written now: 503 to whoever asked."""

    def __init__(self, why: str) -> None:
        message = f"The job store is not there at the moment: {why}."
        super().__init__(503, message, code="job_store", retry_after_s=_RETRY_AFTER_S)


class Session(Protocol):
    """Statements of one transaction; ``?`` stands for a value in every driver."""

    def rows(self, sql: str, *values: Any) -> list[Row]:
        """Run one statement; what it returns."""

    def row(self, sql: str, *values: Any) -> Row | None:
        """The first of what it returns."""


class Connection(Session, Protocol):
    """A driver's connection; used by one thread."""

    @property
    def changes(self) -> int:
        """Rows changed since it was opened."""

    def begin(self) -> None:
        """Begin a transaction that no other process writes beside."""

    def commit(self) -> None:
        """Make it durable."""

    def wipe(self) -> None:
        """Let nothing of deleted rows stay in the files, as far as the driver can."""

    def close(self) -> None:
        """Let go; what is not committed is undone."""


class Driver(Protocol):
    """A kind of database."""

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """What its connections raise when they cannot do what they are asked."""

    def open(self) -> Connection:
        """A connection to a database that has the tables."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Call:
    name: str  # of the commit; empty: a read
    call: Callable[[Session], Any]
    answer: "Future[Any]"


class Database:
    """Calls from any thread, run one after another by the thread that owns the connection."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._connection: Connection | None = driver.open()  # what is wrong with it is said at once
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._closed = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._serve, name="job-store", daemon=True)
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
                raise StoreUnavailable("it is closed")
            self._calls.put(call)

    def _serve(self) -> None:
        going = True
        while going:
            batch = [self._calls.get()]
            while len(batch) < _GROUP and not self._calls.empty():
                batch.append(self._calls.get())
            going = None not in batch
            self._run([call for call in batch if call is not None])
        self._let_go()

    def _run(self, calls: list[_Call]) -> None:
        try:
            connection = self._connection = self._connection or self._driver.open()
            if writes := [call for call in calls if call.name]:
                _commit_together(connection, writes, self._driver.errors)
            for call in calls:
                if not call.name:
                    _answer(call, connection, self._driver.errors)
        except self._driver.errors as error:
            self._let_go()  # the next call opens anew
            failed = StoreUnavailable(f"it does not answer ({type(error).__name__})")
            failed.__cause__ = error
            for call in calls:
                if not call.answer.done():
                    call.answer.set_exception(failed)

    def _let_go(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _answer(read: _Call, connection: Connection, errors: tuple[type[Exception], ...]) -> None:
    try:
        read.answer.set_result(read.call(connection))
    except errors:
        raise
    except Exception as error:  # a refusal: this caller's alone
        read.answer.set_exception(error)


def _commit_together(
    connection: Connection, writes: list[_Call], errors: tuple[type[Exception], ...]
) -> None:
    kept: list[tuple[_Call, Any]] = []
    changed: list[str] = []  # commits that change something: to look for work is none
    connection.begin()
    for write in writes:
        connection.rows("SAVEPOINT one")
        before = connection.changes
        try:
            kept.append((write, write.call(connection)))
        except errors:
            raise
        except Exception as error:  # a refusal: this caller's alone
            connection.rows("ROLLBACK TO SAVEPOINT one")
            write.answer.set_exception(error)
        else:
            changed += [write.name] if connection.changes > before else []
        connection.rows("RELEASE SAVEPOINT one")
    for name in changed:
        failpoint(f"before_{name}")
    connection.commit()
    for name in changed:
        failpoint(f"after_{name}")
    if not _WIPED.isdisjoint(changed):
        connection.wipe()
    for write, value in kept:
        write.answer.set_result(value)
