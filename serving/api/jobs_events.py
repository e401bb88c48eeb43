"""A job's progress as server-sent events: what it is now, every change, and its end."""

import json
import time
from collections.abc import AsyncIterator

from serving.job_service import JobService
from serving.jobs.aside import aside
from serving.jobs.changes import followers, happened
from serving.jobs.records import Job

_LOOK_S = 1.0  # another process's changes are seen this late
_SILENCE_S = 15.0  # a comment keeps proxies from closing a quiet stream
_RETRY_MS = 1000


async def event_stream(jobs: JobService, job: Job) -> AsyncIterator[str]:
    """Events named ``progress``, then one named as the job's final state (or ``erased``).

    Each ``id`` is the job's revision. A stopping service ends the stream; the client comes again.
    """
    yield f"retry: {_RETRY_MS}\n\n"
    yield _event(job)
    seen, spoke_s = job.revision, time.monotonic()
    with jobs.changes.following(followers(job.id)) as news:
        while not job.ended and jobs.runtime.ready:
            await happened(news, within_s=_LOOK_S)
            found = await aside(jobs.store.get, job.tenant, job.id)
            if found is None:
                yield f"event: erased\ndata: {json.dumps({'id': job.id})}\n\n"
                return
            job = found
            if job.revision != seen:
                seen, spoke_s = job.revision, time.monotonic()
                yield _event(job)
            elif time.monotonic() - spoke_s > _SILENCE_S:
                spoke_s = time.monotonic()
                yield ": still here\n\n"


def _event(job: Job) -> str:
    name = job.state if job.ended else "progress"
    data = json.dumps(job.body(), ensure_ascii=False, separators=(",", ":"))
    return f"event: {name}\nid: {job.revision}\ndata: {data}\n\n"
