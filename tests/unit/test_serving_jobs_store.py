"""The job store: what must hold beside any order of calls."""

import io
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from governance.errors import ConfigError
from serving.jobs.blobs import BlobStore, content_digest
from serving.jobs.database import Database, StoreUnavailable
from serving.jobs.records import (
    IdempotencyKey,
    KeyReused,
    Outcome,
    UnknownEndpoint,
)
from serving.jobs.sqlite import sqlite_database
from serving.jobs.store import JobStore, StoreRules
from tests.support_job_store import RULES, Clock, draft, key


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = sqlite_database(tmp_path / "jobs.db")
    yield database
    database.close()


@pytest.fixture
def store(database: Database, clock: Clock) -> JobStore:
    return JobStore(database, RULES, clock=clock)


def test_two_processes_never_hold_the_same_job(
    store: JobStore, clock: Clock, tmp_path: Path
) -> None:
    """Two stores on one file, each with its own connection and writer thread."""
    rules = StoreRules(max_open_jobs=100)
    other = sqlite_database(tmp_path / "jobs.db")
    stores = [store, JobStore(other, rules, clock=clock)]
    for i in range(5):
        store.accept(draft(f"job_{i}"))
        store.accept(draft(f"job_s{i}", "south"))
    held: list[str] = []

    def drain(mine: JobStore) -> None:
        while job := mine.claim():
            held.append(job.id)

    threads = [threading.Thread(target=drain, args=(one,)) for one in stores for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()
    assert len(held) == 10 and len(set(held)) == 10


def test_writes_that_meet_share_a_commit_and_one_refusal_spoils_nobody(
    database: Database, store: JobStore
) -> None:
    """The writer thread is held until all have queued, so they fall into one group."""
    gate, holding = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        holding.set()
        gate.wait(30)

    blocker = threading.Thread(target=lambda: database.read(hold))
    blocker.start()
    assert holding.wait(30)
    outcomes: dict[str, Any] = {}

    def accept(name: str, given: IdempotencyKey | None) -> None:
        try:
            outcomes[name] = store.accept(draft(name), given)
        except KeyReused as error:
            outcomes[name] = error

    calls: list[Callable[[], None]] = [
        lambda: accept("job_a", key("k", "one")),
        lambda: accept("job_b", key("k", "two")),
        lambda: accept("job_c", None),
    ]
    threads = []
    for call in calls:
        threads.append(threading.Thread(target=call))
        threads[-1].start()
        while database._calls.qsize() < len(threads):
            pass
    gate.set()
    for thread in [blocker, *threads]:
        thread.join()
    assert isinstance(outcomes["job_b"], KeyReused)
    assert outcomes["job_a"].job_id == "job_a" and outcomes["job_c"].job_id == "job_c"
    assert {job.id for job in store.page("north", limit=9)} == {"job_a", "job_c"}


def test_a_read_that_is_refused_spoils_nobody_else(store: JobStore) -> None:
    store.accept(draft("job_1"), key("k", "one"))
    with pytest.raises(KeyReused):
        store.stored_reply(key("k", "two"))
    replay = store.stored_reply(key("k", "one"))
    assert replay is not None and replay.job_id == "job_1"


def test_a_webhook_of_another_tenant_is_no_webhook(store: JobStore) -> None:
    with pytest.raises(UnknownEndpoint):
        store.accept(draft("job_1", webhook="we_elsewhere"))
    assert store.page("north", limit=9) == []


def test_the_store_is_private_and_wiped_of_what_was_erased(store: JobStore, tmp_path: Path) -> None:
    store.accept(draft("job_1", metadata={"who": "a secret remark"}, speaker="p-77"), key("k"))
    job = store.claim()
    assert job is not None and job.speaker == "p-77"
    assert store.finish(job, Outcome(result='{"text":"words of somebody"}'))
    held = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"words of somebody" in held
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert set(modes.values()) == {0o600}, modes
    finished = store.get("north", "job_1")
    assert finished is not None and finished.speaker is None
    assert store.erase("north", "job_1") == "blob.job_1"
    held = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for words in (b"words of somebody", b"a secret remark", b"p-77"):
        assert words not in held


def test_a_database_of_another_release_and_a_closed_one_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    sqlite_database(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE job_schema SET version = 99")
    with pytest.raises(ConfigError, match="schema 99"):
        sqlite_database(path)
    other = sqlite_database(tmp_path / "other.db")
    other.close()
    with pytest.raises(StoreUnavailable):
        JobStore(other).claim()


def test_a_database_that_another_holds_says_so(tmp_path: Path) -> None:
    database = sqlite_database(tmp_path / "jobs.db")
    database.read(lambda session: session.rows("PRAGMA busy_timeout=1"))
    holder = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="OperationalError"):
        JobStore(database).accept(draft("job_1"))
    holder.execute("ROLLBACK")
    assert JobStore(database).accept(draft("job_1")).job_id == "job_1"
    database.close()


def test_a_page_goes_on_where_the_last_ended(store: JobStore) -> None:
    for i in range(5):
        store.accept(draft(f"job_{i}"))
    first = store.page("north", limit=2)
    second = store.page("north", limit=2, after=first[-1].id)
    assert [job.id for job in (*first, *second)] == ["job_4", "job_3", "job_2", "job_1"]
    store.cancel("north", "job_3")
    assert [job.id for job in store.page("north", limit=9, state="cancelled")] == ["job_3"]


def test_blobs_are_private_whole_and_swept(tmp_path: Path) -> None:
    clock = Clock(now_s=2e9)  # every file is older than an hour
    blobs = BlobStore(tmp_path, clock=clock)
    content = b"some audio" * 1000
    source = io.BytesIO(content)
    name = blobs.put(source, job_id="job_1", digest=content_digest(source))
    lost = blobs.put(io.BytesIO(b"x"), job_id="job_2", digest="sha256:00")
    (tmp_path / "incoming" / "half").write_bytes(b"half")
    assert blobs.read(name) == content
    paths = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "half"]
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in paths)
    assert (tmp_path / "blobs").stat().st_mode & 0o777 == 0o700
    assert blobs.remove_orphans(lambda: {name}) == 2
    assert blobs.read(name) == content and not (tmp_path / "blobs" / lost).exists()
    blobs.remove(name)
    blobs.remove(name)
    assert not list((tmp_path / "blobs").iterdir())


def test_a_young_file_is_no_orphan(tmp_path: Path) -> None:
    """Its upload may be about to commit."""
    blobs = BlobStore(tmp_path)
    name = blobs.put(io.BytesIO(b"x"), job_id="job_1", digest="sha256:00")
    assert blobs.remove_orphans(set) == 0
    assert blobs.read(name) == b"x"
