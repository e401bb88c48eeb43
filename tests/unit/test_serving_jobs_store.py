"""The job store against a dictionary, and what must hold beside any order of calls."""

import io
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from governance.errors import ConfigError
from serving.jobs.blobs import BlobStore, content_digest
from serving.jobs.database import Database, StoreUnavailable
from serving.jobs.records import (
    OPEN,
    IdempotencyKey,
    Job,
    JobDraft,
    JobRequest,
    KeyReused,
    Outcome,
    QueueFull,
    UnknownEndpoint,
)
from serving.jobs.sqlite import sqlite_database
from serving.jobs.store import JobStore, StoreRules

RULES = StoreRules(lease_s=30, max_attempts=2, ttl_s=100, key_ttl_s=50, max_open_jobs=5)
TENANTS = ("north", "south")


@dataclass
class Clock:
    now_s: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


def draft(job_id: str, tenant: str = "north", **choices: Any) -> JobDraft:
    request = JobRequest(model="tiny")
    return JobDraft(id=job_id, tenant=tenant, request=request, blob=f"blob.{job_id}", **choices)


def key(name: str, fingerprint: str = "f", tenant: str = "north") -> IdempotencyKey:
    return IdempotencyKey(tenant=tenant, route="/v1/jobs", key=name, fingerprint=fingerprint)


@dataclass
class Known:
    """What the model remembers of a job."""

    tenant: str
    seq: int
    expires_s: float
    state: str = "queued"
    due_s: float = 0.0
    token: int = 0
    attempts: int = 0
    result: str | None = None


@dataclass
class Model:
    jobs: dict[str, Known] = field(default_factory=dict)
    keys: dict[tuple[str, str], tuple[str, str, float]] = field(default_factory=dict)
    turns: dict[str, int] = field(default_factory=dict)

    def open_jobs(self, tenant: str) -> int:
        return sum(job.tenant == tenant and job.state in OPEN for job in self.jobs.values())

    def next(self, now_s: float) -> str | None:
        due = [(i, job) for i, job in self.jobs.items() if job.state in OPEN and job.due_s <= now_s]
        for job_id, job in due:
            if job.attempts >= RULES.max_attempts:
                self.end(job_id, "failed", now_s)
        first: dict[str, str] = {}
        for job_id, job in sorted(due, key=lambda pair: pair[1].seq):
            if job.state in OPEN:
                first.setdefault(job.tenant, job_id)
        if not first:
            return None
        tenant = min(first, key=lambda name: (self.turns.get(name, 0), self.jobs[first[name]].seq))
        self.turns[tenant] = max(self.turns.values(), default=0) + 1
        return first[tenant]

    def end(self, job_id: str, state: str, now_s: float, result: str | None = None) -> None:
        job = self.jobs[job_id]
        job.state, job.result, job.token = state, result, job.token + 1
        job.expires_s = now_s + RULES.ttl_s


class StoreAgainstDictionary(RuleBasedStateMachine):
    """Any order of calls by two tenants, two workers and a clock; the store may restart anytime."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = TemporaryDirectory()
        self.clock = Clock()
        self.model = Model()
        self.held: list[Job] = []
        self.made = 0
        self._begin()

    def open_database(self) -> Database:
        return sqlite_database(Path(self._folder.name) / "jobs.db")

    def _begin(self) -> None:
        self.database = self.open_database()
        self.store = JobStore(self.database, RULES, clock=self.clock)

    def teardown(self) -> None:
        self.database.close()
        self._folder.cleanup()

    @rule(
        tenant=st.sampled_from(TENANTS),
        name=st.sampled_from(["", "a", "b"]),
        fingerprint=st.sampled_from(["x", "y"]),
    )
    def accept(self, tenant: str, name: str, fingerprint: str) -> None:
        job_id = f"job_{self.made}"
        given = key(name, fingerprint, tenant) if name else None
        known = self.model.keys.get((tenant, name)) if name else None
        if known and known[2] <= self.clock.now_s:
            known = None
        if known and known[1] != fingerprint:
            with pytest.raises(KeyReused):
                self.store.accept(draft(job_id, tenant), given)
        elif known:
            again = self.store.accept(draft(job_id, tenant), given)
            assert again.replayed and again.job_id == known[0]
        elif self.model.open_jobs(tenant) >= RULES.max_open_jobs:
            with pytest.raises(QueueFull):
                self.store.accept(draft(job_id, tenant), given)
        else:
            assert not self.store.accept(draft(job_id, tenant), given).replayed
            expires_s = self.clock.now_s + RULES.ttl_s
            self.model.jobs[job_id] = Known(
                tenant=tenant, seq=self.made, expires_s=expires_s, due_s=self.clock.now_s
            )
            if name:
                until_s = self.clock.now_s + RULES.key_ttl_s
                self.model.keys[tenant, name] = (job_id, fingerprint, until_s)
        self.made += 1

    @rule()
    def claim(self) -> None:
        expected = self.model.next(self.clock.now_s)
        job = self.store.claim()
        assert (job.id if job else None) == expected
        if job is not None:
            known = self.model.jobs[job.id]
            known.state, known.due_s = "running", self.clock.now_s + RULES.lease_s
            known.token, known.attempts = known.token + 1, known.attempts + 1
            assert (job.token, job.attempts, job.state) == (known.token, known.attempts, "running")
            self.held.append(job)

    def _mine(self, job: Job) -> bool:
        known = self.model.jobs.get(job.id)
        return known is not None and known.state == "running" and known.token == job.token

    @rule(choice=st.integers(min_value=0, max_value=30), progress=st.floats(0, 1))
    def heartbeat(self, choice: int, progress: float) -> None:
        if self.held:
            job = self.held[choice % len(self.held)]
            assert self.store.heartbeat(job, progress) == self._mine(job)
            if self._mine(job):
                self.model.jobs[job.id].due_s = self.clock.now_s + RULES.lease_s

    @rule(choice=st.integers(min_value=0, max_value=30), counted=st.booleans())
    def release(self, choice: int, counted: bool) -> None:
        if self.held:
            job = self.held[choice % len(self.held)]
            mine = self._mine(job)
            assert self.store.release(job, delay_s=3.0, counted=counted) == mine
            if mine:
                known = self.model.jobs[job.id]
                known.state, known.due_s = "queued", self.clock.now_s + 3.0
                known.token, known.attempts = known.token + 1, known.attempts - (not counted)

    @rule(choice=st.integers(min_value=0, max_value=30), good=st.booleans())
    def finish(self, choice: int, good: bool) -> None:
        if self.held:
            job = self.held[choice % len(self.held)]
            mine = self._mine(job)
            outcome = Outcome(result='{"text":"x"}') if good else Outcome(error={"message": "no"})
            assert (self.store.finish(job, outcome) is not None) == mine
            if mine:
                self.model.end(job.id, outcome.state, self.clock.now_s, outcome.result)

    @rule(tenant=st.sampled_from(TENANTS), choice=st.integers(min_value=0, max_value=30))
    def cancel(self, tenant: str, choice: int) -> None:
        job_id = f"job_{choice % max(1, self.made)}"
        known = self.model.jobs.get(job_id)
        can = known is not None and known.tenant == tenant and known.state in OPEN
        assert (self.store.cancel(tenant, job_id) is not None) == can
        if can:
            self.model.end(job_id, "cancelled", self.clock.now_s)

    @rule(tenant=st.sampled_from(TENANTS), choice=st.integers(min_value=0, max_value=30))
    def erase(self, tenant: str, choice: int) -> None:
        job_id = f"job_{choice % max(1, self.made)}"
        known = self.model.jobs.get(job_id)
        can = known is not None and known.tenant == tenant
        assert (self.store.erase(tenant, job_id) is not None) == can
        if can:
            del self.model.jobs[job_id]
            self._forget_key(job_id)

    def _forget_key(self, job_id: str) -> None:
        keys = self.model.keys
        self.model.keys = {k: value for k, value in keys.items() if value[0] != job_id}

    @rule()
    def sweep(self) -> None:
        self.store.sweep()
        for job_id, known in list(self.model.jobs.items()):
            if known.expires_s > self.clock.now_s or known.state == "running":
                continue
            if known.state == "expired":
                del self.model.jobs[job_id]
                continue
            self._forget_key(job_id)
            known.token += known.state == "queued"
            known.state, known.result = "expired", None
            known.expires_s = self.clock.now_s + RULES.ttl_s

    @rule(seconds=st.sampled_from([1.0, 10.0, 31.0, 60.0]))
    def wait(self, seconds: float) -> None:
        self.clock.now_s += seconds

    @rule()
    def restart(self) -> None:
        self.database.close()
        self._begin()

    @invariant()
    def tenants_see_their_own_and_all_of_it(self) -> None:
        for tenant in TENANTS:
            expected = {
                job_id: (known.state, known.token, known.attempts)
                for job_id, known in self.model.jobs.items()
                if known.tenant == tenant
            }
            page = self.store.page(tenant, limit=100)
            assert {job.id: (job.state, job.token, job.attempts) for job in page} == expected
            seqs = [self.model.jobs[job.id].seq for job in page]
            assert seqs == sorted(seqs, reverse=True)
            other = TENANTS[tenant == TENANTS[0]]
            for job_id, known in self.model.jobs.items():
                if known.tenant == tenant:
                    assert self.store.result(tenant, job_id) == known.result
                    assert self.store.get(other, job_id) is None
                    assert self.store.result(other, job_id) is None


StoreAgainstDictionary.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestStoreAgainstDictionary = StoreAgainstDictionary.TestCase


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
