"""Jobs and webhooks of one process, put together: store, worker, dispatcher and their retention."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from serving import logs
from serving.delivery.addresses import parse_openings
from serving.delivery.dispatcher import Backoff, Dispatcher
from serving.delivery.outbound import Outbound, OutboundPolicy, Resolver, system_resolver
from serving.delivery.outbox import Outbox
from serving.delivery.sources import SourcePolicy, Sources
from serving.jobs import failpoints
from serving.jobs.aside import aside
from serving.jobs.bell import Bell, LocalBell, RedisBell
from serving.jobs.blobs import BlobStore
from serving.jobs.changes import Changes
from serving.jobs.database import Database, StoreUnavailable
from serving.jobs.postgres import postgres_database
from serving.jobs.sqlite import sqlite_database
from serving.jobs.store import SWEEP_ROWS, JobStore, StoreRules
from serving.jobs.worker import JobWorker
from serving.observe.spans import Trace
from serving.problems import ApiProblem
from serving.runtime import Runtime
from serving.settings import JobSettings, ServeSettings
from serving.tenants.desk import TenantDesk

ROUTE = "jobs"  # in usage records
_SWEEP_S = 60.0
_SENDERS = 4
_LEASE_MARGIN_S = 30.0  # a message's lease is longer than its attempt can last


class JobService:
    """Everything behind ``/v1/jobs`` and ``/v1/webhooks``. Started and used on one event loop."""

    def __init__(
        self, settings: JobSettings, runtime: Runtime, *, resolver: Resolver = system_resolver
    ) -> None:
        failpoints.arm(settings.failpoints_dir)
        self.settings = settings
        self.runtime = runtime
        self.changes = Changes()
        self.bell: Bell = RedisBell(settings.redis) if settings.redis else LocalBell(self.changes)
        self._database = _database(settings)
        self.blobs = BlobStore(settings.folder)
        rules = StoreRules(
            lease_s=settings.lease_s,
            max_attempts=settings.max_attempts,
            ttl_s=settings.ttl_s,
            max_open_jobs=settings.max_open_jobs,
        )
        self.store = JobStore(self._database, rules)
        self.outbox = Outbox(self._database, lease_s=settings.webhook_timeout_s + _LEASE_MARGIN_S)
        policy = OutboundPolicy(
            openings=parse_openings(settings.outbound_openings), ca_file=settings.outbound_ca_file
        )
        self.outbound = Outbound(policy, resolver=resolver)
        sources = SourcePolicy(
            url_hosts=settings.url_hosts,
            object_prefixes=settings.object_prefixes,
            max_bytes=runtime.settings.max_upload_bytes,
        )
        self.sources = Sources(sources, self.outbound, self.blobs)
        self._worker = JobWorker(
            runtime, self.store, self.blobs, self.changes, self.bell, self.sources.fetch,
            runners=settings.runners,
        )  # fmt: skip
        self._dispatcher = Dispatcher(
            self.outbox, self.outbound, self.bell, runtime.metrics, senders=_SENDERS,
            timeout_s=settings.webhook_timeout_s,
            backoff=Backoff(
                first_s=settings.webhook_backoff_s, attempts=settings.webhook_attempts
            ),
            tell_trace=settings.webhook_traceparent,
        )  # fmt: skip
        self._in_flight: set[tuple[str, str, str]] = set()
        self._retention: asyncio.Task[None] | None = None

    def book_on(self, tenants: TenantDesk) -> None:
        """Count the audio of jobs as their tenants' usage."""
        self._worker.booked = lambda tenant: tenants.booked(tenant, route=ROUTE)

    def trace_with(self, trace: Trace) -> None:
        """Tell a tracer of every run and every attempt to deliver."""
        self._worker.trace = self._dispatcher.trace = trace

    async def start(self) -> None:
        """Go on where the last process ended."""
        self._worker.start()
        self._dispatcher.start()
        self._retention = asyncio.create_task(self._keep_tidy())

    async def close(self) -> None:
        """Give back what is unfinished, then let go of the store."""
        if self._retention is not None:
            self._retention.cancel()
            with suppress(asyncio.CancelledError):
                await self._retention
        await self._worker.close()
        await self._dispatcher.close()
        await self.bell.close()
        await aside(self._database.close)

    @contextmanager
    def only_one(self, tenant: str, route: str, key: str | None) -> Iterator[None]:
        """Refuse a request while another of the same key is being read."""
        if key is None:
            yield
            return
        scope = (tenant, route, key)
        if scope in self._in_flight:
            raise ApiProblem(
                409,
                "Another request with this Idempotency-Key is in flight.",
                param="Idempotency-Key",
                code="idempotency_key_in_flight",
                retry_after_s=1,
            )
        self._in_flight.add(scope)
        try:
            yield
        finally:
            self._in_flight.discard(scope)

    def tidy(self) -> None:
        """Let go of what is past its time, and of what a crash left behind. Blocking."""
        swept = SWEEP_ROWS
        while swept == SWEEP_ROWS:
            names = self.store.sweep()
            swept = len(names)
            for blob in names:
                self.blobs.remove(blob)
        self.blobs.remove_orphans(self.store.blobs_in_use)

    async def _keep_tidy(self) -> None:
        while True:
            try:
                await aside(self.tidy)
                waiting = await aside(self.store.waiting)
                self.runtime.metrics.jobs_waiting.set(waiting)
            except (StoreUnavailable, OSError) as error:
                logs.crash("job_retention_failed", error)
            await asyncio.sleep(_SWEEP_S)


def load_jobs(settings: ServeSettings, runtime: Runtime) -> JobService | None:
    """Jobs, where the operator gave them a folder."""
    return None if settings.jobs is None else JobService(settings.jobs, runtime)


def _database(settings: JobSettings) -> Database:
    if settings.database:
        return postgres_database(settings.database)
    return sqlite_database(settings.folder / "jobs.db")
