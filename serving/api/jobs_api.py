"""``/v1/jobs``: transcriptions that are accepted now and done soon.

A job that was answered with 202 is on disk. With an ``Idempotency-Key`` a repeated request gets the
first answer again, byte for byte. Results come by polling, by server-sent events, or by webhook.
"""

import time
from typing import Any

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from serving.api.callers import caller_of, speaker_of
from serving.api.jobs_accept import PATH, accept_blocking, idempotency_key
from serving.api.jobs_events import event_stream
from serving.api.jobs_form import (
    check_submission,
    fields_of,
    read_json,
    redacted_for,
    refused,
)
from serving.api.openai_answers import letters_of, plain, verbose
from serving.api.openai_form import read_form
from serving.api.redaction_choice import shown_to
from serving.job_service import JobService
from serving.jobs.aside import aside
from serving.jobs.changes import NEW_WEBHOOK, NEW_WORK, followers, holder
from serving.jobs.records import STATES, Job
from serving.observe.spans import traceparent
from serving.problems import ApiProblem, draining
from serving.schema import Transcript

ROUTE = "jobs"
_FORMATS = ("transcript", "json", "text", "srt", "vtt", "verbose_json")
_LIMITS = (1, 100)


async def create(request: Request) -> Response:
    """``POST /v1/jobs``."""
    jobs = service_of(request)
    began, outcome = time.perf_counter(), "failed"
    try:
        response = await _create(request, jobs)
        outcome = "ok"
        return response
    except ApiProblem:
        outcome = "refused"
        raise
    finally:
        jobs.runtime.metrics.finished(ROUTE, outcome, time.perf_counter() - began)


async def _create(request: Request, jobs: JobService) -> Response:
    if not jobs.runtime.ready:
        raise draining()
    tenant = tenant_of(request)
    key = idempotency_key(request)
    with jobs.only_one(tenant, PATH, key):
        form: FormData | None = None
        try:
            if request.headers.get("content-type", "").lower().startswith("application/json"):
                fields = await read_json(request)
            else:
                form = await read_form(request, jobs.runtime.settings)
                fields = fields_of(form)
            submission = check_submission(fields, jobs.runtime, jobs.sources)
            submission = redacted_for(request, submission)
            speaker = speaker_of(request)
            accepted = await aside(
                accept_blocking, jobs, submission, tenant, speaker, key, traceparent()
            )
        finally:
            if form is not None:
                await form.close()
    if not accepted.replayed:
        jobs.runtime.metrics.jobs.labels("accepted").inc()
        await jobs.bell.ring(NEW_WORK)
    headers = {"Location": f"{PATH}/{accepted.job_id}"}
    if accepted.replayed:
        headers["Idempotent-Replayed"] = "true"
    return Response(accepted.reply, 202, headers, media_type="application/json")


async def listing(request: Request) -> Response:
    """``GET /v1/jobs``: newest first."""
    jobs, tenant = service_of(request), tenant_of(request)
    query = request.query_params
    if unknown := set(query) - {"limit", "after", "status"}:
        raise refused(min(unknown), "is not supported by this route")
    limit = page_limit(request)
    state, after = query.get("status"), query.get("after")
    if state is not None and state not in STATES:
        raise refused("status", f"must be one of {', '.join(STATES)}")
    if after is not None and await aside(jobs.store.get, tenant, after) is None:
        raise refused("after", "must be the id of a job")
    found = await aside(lambda: jobs.store.page(tenant, limit=limit + 1, after=after, state=state))
    data = [job.body() for job in found[:limit]]
    return JSONResponse(
        {
            "object": "list",
            "data": data,
            "first_id": data[0]["id"] if data else None,
            "last_id": data[-1]["id"] if data else None,
            "has_more": len(found) > limit,
        }
    )


async def retrieve(request: Request) -> Response:
    """``GET /v1/jobs/{id}``."""
    return JSONResponse((await _job(request)).body())


async def result(request: Request) -> Response:
    """``GET /v1/jobs/{id}/result``: Transcript v1, or one of OpenAI's shapes."""
    jobs, job = service_of(request), await _job(request)
    query = request.query_params
    shape = query.get("response_format", "transcript")
    if shape not in _FORMATS:
        raise refused("response_format", f"must be one of {', '.join(_FORMATS)}")
    words = tuple(query.getlist("timestamp_granularities[]")) or ("segment",)
    if not set(words) <= {"word", "segment"}:
        raise refused("timestamp_granularities[]", "must be of word, segment")
    text = await aside(jobs.store.result, job.tenant, job.id)
    if text is None:
        raise _no_result(job)
    if shape == "transcript" and not caller_of(request).redact:
        return Response(text, media_type="application/json")
    transcript = shown_to(request, Transcript.model_validate_json(text))
    if shape == "transcript":
        return Response(transcript.model_dump_json(), media_type="application/json")
    if shape in ("text", "srt", "vtt"):
        return PlainTextResponse(plain(transcript, shape))
    if shape == "json":
        return JSONResponse({"text": transcript.text, "warnings": list(transcript.warnings)})
    model = jobs.runtime.model
    answered = transcript.model.bundle_digest == model.facts.bundle_digest
    tokens_of = letters_of(model.recognizer.table) if answered else None
    return JSONResponse(verbose(transcript, words, tokens_of))


async def events(request: Request) -> Response:
    """``GET /v1/jobs/{id}/events``: server-sent events until the job ends."""
    job = await _job(request)
    if job.ended and request.headers.get("last-event-id") == str(job.revision):
        return Response(status_code=204)  # an EventSource that has seen the end stops at this
    return StreamingResponse(
        event_stream(service_of(request), job),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def cancel(request: Request) -> Response:
    """``POST /v1/jobs/{id}/cancel``; a cancelled job stays as it is, another ended one is 409."""
    jobs, job = service_of(request), await _job(request)
    ended = await aside(jobs.store.cancel, job.tenant, job.id)
    if ended is None:
        ended = await _job(request)
        if ended.state != "cancelled":
            message = f"The job is {ended.state} already."
            raise ApiProblem(409, message, code="job_ended")
        return JSONResponse(ended.body())
    await aside(jobs.blobs.remove, job.blob)
    jobs.runtime.metrics.jobs.labels("cancelled").inc()
    _tell_all(jobs, job.id)
    await jobs.bell.ring(NEW_WEBHOOK)
    return JSONResponse(ended.body())


async def erase(request: Request) -> Response:
    """``DELETE /v1/jobs/{id}``: audio, transcript, key and webhook are gone when this answers."""
    jobs, tenant = service_of(request), tenant_of(request)
    job_id = request.path_params["job_id"]
    blob = await aside(jobs.store.erase, tenant, job_id)
    if blob is None:
        raise _no_such_job()
    await aside(jobs.blobs.remove, blob)
    _tell_all(jobs, job_id)
    return JSONResponse({"id": job_id, "object": "transcription.job", "deleted": True})


def service_of(request: Request) -> JobService:
    """The jobs behind the routes; 404 where the operator gave them no folder."""
    jobs: JobService | None = getattr(request.app.state, "jobs", None)
    if jobs is None:
        message = "This service keeps no jobs: its operator has set no AURICLE_JOBS_DIR."
        raise ApiProblem(404, message, code="jobs_disabled")
    return jobs


def tenant_of(request: Request) -> str:
    """Whose jobs these are; the caller's key must be good for jobs."""
    caller = caller_of(request)
    if "jobs" not in caller.scopes:
        raise ApiProblem(403, "This key may not use jobs.", code="insufficient_scope")
    return caller.tenant


def page_limit(request: Request) -> int:
    """``limit`` of a listing."""
    text = request.query_params.get("limit", "20")
    low, high = _LIMITS
    if not (text.isascii() and text.isdigit() and len(text) < 5 and low <= int(text) <= high):
        raise refused("limit", f"must be a whole number from {low} to {high}")
    return int(text)


async def _job(request: Request) -> Job:
    jobs, tenant = service_of(request), tenant_of(request)
    job = await aside(jobs.store.get, tenant, request.path_params["job_id"])
    if job is None:
        raise _no_such_job()
    return job


def _tell_all(jobs: JobService, job_id: str) -> None:
    jobs.changes.tell(holder(job_id))
    jobs.changes.tell(followers(job_id))


def _no_such_job() -> ApiProblem:
    return ApiProblem(404, "There is no such job.", code="job_not_found")


def _no_result(job: Job) -> ApiProblem:
    if job.state == "expired":
        return ApiProblem(410, "The job's transcript has expired.", code="job_expired")
    if job.ended:
        return ApiProblem(409, f"The job is {job.state}: it has no transcript.", code="no_result")
    return ApiProblem(409, f"The job is {job.state} yet.", code="job_not_finished", retry_after_s=1)


def routes() -> list[Any]:
    """The routes of this room."""
    one = f"{PATH}/{{job_id}}"
    return [
        Route(PATH, create, methods=["POST"]),
        Route(PATH, listing, methods=["GET"]),
        Route(one, retrieve, methods=["GET"]),
        Route(one, erase, methods=["DELETE"]),
        Route(f"{one}/cancel", cancel, methods=["POST"]),
        Route(f"{one}/events", events, methods=["GET"]),
        Route(f"{one}/result", result, methods=["GET"]),
    ]
