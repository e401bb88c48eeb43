"""The job store against a dictionary: any order of calls of two tenants, any clock."""

from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from serving.jobs.database import Database
from serving.jobs.records import (
    OPEN,
    Job,
    KeyReused,
    Outcome,
    QueueFull,
)
from serving.jobs.sqlite import sqlite_database
from serving.jobs.store import JobStore
from tests.support_job_store import RULES, Clock, draft, key

TENANTS = ("north", "south")


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


TestStoreAgainstDictionary = StoreAgainstDictionary.TestCase


StoreAgainstDictionary.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
