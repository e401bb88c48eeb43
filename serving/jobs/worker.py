"""Takes jobs out of the queue, one after another, and runs them behind live work.

A worker holds a job by a lease that it renews. Whoever is cancelled, erased or has lost its lease
stops at the next renewal, and can write nothing in any case. A stopping process finishes what it
can within its drain and gives the rest back, not counted as an attempt.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

from data.audio_errors import AudioError
from serving import logs
from serving.admission.policy import Priority
from serving.jobs.aside import aside
from serving.jobs.bell import Bell
from serving.jobs.blobs import BlobStore
from serving.jobs.changes import NEW_WEBHOOK, NEW_WORK, Changes, followers, holder
from serving.jobs.database import StoreUnavailable
from serving.jobs.records import Job, Outcome
from serving.jobs.store import JobStore
from serving.observe.spans import Trace, took, untraced
from serving.problems import ApiProblem, from_audio_error
from serving.redaction.policy import policy_of_options
from serving.redaction.transcripts import redact_transcript
from serving.runtime import Runtime

Fetch = Callable[[Job], Awaitable[Callable[[], bytes]]]
"""Brings a job's audio near and gives what reads it; `ApiProblem` says why it cannot."""
Booked = Callable[[str], AbstractContextManager[None]]
"""Books the audio that is heard inside on a tenant."""
_POLL_S = 1.0
_BEHIND_S = 3600.0  # rows of a job are due this late: whoever waits for an answer goes first
_RETRY_S = (5.0, 30.0, 120.0)  # after the first, second, third attempt that failed on our side
_BUSY_RETRY_S = 2.0
_GRACE_S = 1.0  # for the commit of what has just been transcribed


class JobWorker:
    """Several runners on one event loop."""

    def __init__(
        self,
        runtime: Runtime,
        store: JobStore,
        blobs: BlobStore,
        changes: Changes,
        bell: Bell,
        fetch: Fetch,
        *,
        runners: int,
    ) -> None:
        self._runtime = runtime
        self._store = store
        self._blobs = blobs
        self._changes = changes
        self._bell = bell
        self._fetch = fetch
        self._runners = runners
        self._tasks: list[asyncio.Task[None]] = []
        self.trace: Trace = untraced
        self.booked: Booked = lambda tenant: nullcontext()

    def start(self) -> None:
        """Begin to take jobs."""
        self._tasks = [asyncio.create_task(self._serve()) for _ in range(self._runners)]

    async def close(self) -> None:
        """End; a job that is not done within a moment is given back."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_GRACE_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self) -> None:
        with self._bell.listening(NEW_WORK) as ear:
            while self._runtime.ready:
                try:
                    job = await aside(self._store.claim)
                except StoreUnavailable as error:
                    logs.crash("job_store_unavailable", error)
                    job = None
                if job is None:
                    await ear.heard()
                else:
                    await self._hold(job)

    async def _hold(self, job: Job) -> None:
        """Run a job, renewing its lease; stop as soon as it is somebody else's."""
        self._changes.tell(followers(job.id))
        progress = [0.0]
        run = asyncio.create_task(self._run(job, progress))
        try:
            with self._changes.following(holder(job.id)) as news:
                await self._renew(job, run, progress, news)
        except asyncio.CancelledError:
            await _ended(run)
            await asyncio.shield(aside(self._store.release, job, counted=False))
            raise
        except StoreUnavailable as error:
            logs.crash("job_store_unavailable", error)  # the lease runs out; the job comes again
        finally:
            await _ended(run)

    async def _renew(
        self, job: Job, run: "asyncio.Task[None]", progress: list[float], news: asyncio.Event
    ) -> None:
        every_s = self._store.rules.lease_s / 3
        renewed_s, told = time.monotonic(), 0.0
        while not run.done():
            changed = asyncio.create_task(news.wait())
            await asyncio.wait(
                {run, changed}, timeout=min(_POLL_S, every_s), return_when=asyncio.FIRST_COMPLETED
            )
            changed.cancel()
            if run.done():
                break
            due = time.monotonic() - renewed_s >= every_s
            if not (news.is_set() or due or progress[0] > told):
                continue
            news.clear()
            renewed_s, told = time.monotonic(), progress[0]
            if not await aside(self._store.heartbeat, job, told):
                return  # cancelled, erased, or its lease was given to another
            self._changes.tell(followers(job.id))
        await run

    async def _run(self, job: Job, progress: list[float]) -> None:
        with self.trace("job", job.trace, job.attempts) as span:
            outcome = await self._attempt(job, progress)
            if span is not None:
                span.ended(outcome, failed=outcome in ("failed", "retry"))

    async def _attempt(self, job: Job, progress: list[float]) -> str:
        """Run once; how it ended, or whether the job was put back."""
        began = time.perf_counter()
        try:
            outcome = await self._outcome(job, progress)
        except StoreUnavailable:
            raise
        except ApiProblem as problem:
            if problem.status in (429, 503):  # too busy or stopping: not this job's fault
                await aside(self._store.release, job, delay_s=_BUSY_RETRY_S, counted=False)
                return "released"
            outcome = Outcome(error=problem.body()["error"])
            if problem.status >= 500 and await self._again(job):
                return "retry"
        except Exception as error:
            logs.crash("job_failed", error)
            if await self._again(job):
                return "retry"
            failed = ApiProblem(500, "The service failed on this job.", code="internal")
            outcome = Outcome(error=failed.body()["error"])
        await self._finish(job, outcome, time.perf_counter() - began)
        return outcome.state

    async def _outcome(self, job: Job, progress: list[float]) -> Outcome:
        def tell(fraction: float) -> None:
            progress[0] = fraction

        began = time.perf_counter()
        read = await self._fetch(job)
        took("network", began)
        try:
            with self.booked(job.tenant):
                transcript = await self._runtime.transcribe(
                    read,
                    name="audio",
                    speaker=job.speaker,
                    network_s=time.perf_counter() - began,
                    tenant=job.tenant,
                    priority=Priority.BATCH,
                    deadline_s=_BEHIND_S,
                    on_progress=tell,
                )
        except AudioError as error:
            return Outcome(error=from_audio_error(error).body()["error"])
        if policy := policy_of_options(job.request.options):  # what is hidden is never stored
            transcript = await self._runtime.work(redact_transcript, transcript, policy)
        return Outcome(result=transcript.model_dump_json())

    async def _again(self, job: Job) -> bool:
        """Whether a job that failed on our side was put back for another attempt."""
        if job.attempts >= self._store.rules.max_attempts:
            return False
        delay_s = _RETRY_S[min(job.attempts, len(_RETRY_S)) - 1]
        await aside(self._store.release, job, delay_s=delay_s)
        self._changes.tell(followers(job.id))
        return True

    async def _finish(self, job: Job, outcome: Outcome, seconds: float) -> None:
        ended = await aside(self._store.finish, job, outcome)
        if ended is None:
            return
        await aside(self._blobs.remove, job.blob)
        self._runtime.metrics.jobs.labels(ended.state).inc()
        logs.event("job_ended", outcome=ended.state, total_ms=round(seconds * 1000, 1))
        self._changes.tell(followers(job.id))
        await self._bell.ring(NEW_WEBHOOK)


async def _ended(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError, Exception):
        await task
