"""From a checked request to an accepted job: on disk, under its key, or refused by name."""

import errno
import re
import secrets

from starlette.requests import Request

from governance.canonical import digest
from serving.api.jobs_form import Submission, refused
from serving.job_service import JobService
from serving.jobs.blobs import content_digest
from serving.jobs.database import StoreUnavailable
from serving.jobs.records import (
    Accepted,
    IdempotencyKey,
    JobDraft,
    KeyReused,
    QueueFull,
    UnknownEndpoint,
)
from serving.problems import ApiProblem

PATH = "/v1/jobs"
_KEY_HEADER = "idempotency-key"
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


def idempotency_key(request: Request) -> str | None:
    """The caller's promise, if it made one."""
    key = request.headers.get(_KEY_HEADER)
    if key is not None and not _KEY.fullmatch(key):
        raise refused("Idempotency-Key", "must be 1 to 255 printable ASCII characters")
    return key


def accept_blocking(
    jobs: JobService,
    submission: Submission,
    tenant: str,
    speaker: str | None,
    key: str | None,
    trace: str = "",
) -> Accepted:
    """The blob first, then the job; what was refused leaves no blob.

    Where it cannot be said whether a commit happened the blob stays: retention finds orphans.
    """
    upload = submission.upload.file if submission.upload is not None else None
    content = content_digest(upload) if upload is not None else submission.request.reference
    promise = None
    if key is not None:
        options = [
            content, submission.request.text(), dict(submission.metadata), submission.webhook,
            speaker,
        ]  # fmt: skip
        promise = IdempotencyKey(tenant=tenant, route=PATH, key=key, fingerprint=digest(options))
    job_id, blob = f"job_{secrets.token_hex(12)}", ""
    try:
        if promise is not None and (known := jobs.store.stored_reply(promise)) is not None:
            return known
        if upload is not None:
            blob = jobs.blobs.put(upload, job_id=job_id, digest=content)
        draft = JobDraft(
            id=job_id, tenant=tenant, request=submission.request, speaker=speaker, blob=blob,
            metadata=submission.metadata, webhook=submission.webhook, trace=trace,
        )  # fmt: skip
        accepted = jobs.store.accept(draft, promise)
    except (KeyReused, QueueFull, UnknownEndpoint) as error:
        jobs.blobs.remove(blob)
        raise _as_problem(error) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreUnavailable("its disk is full") from error
        raise
    if accepted.replayed:
        jobs.blobs.remove(blob)
    return accepted


def _as_problem(error: KeyReused | QueueFull | UnknownEndpoint) -> ApiProblem:
    if isinstance(error, KeyReused):
        return ApiProblem(
            422,
            "This Idempotency-Key was used for another request.",
            param="Idempotency-Key",
            code="idempotency_key_reused",
        )
    if isinstance(error, QueueFull):
        return ApiProblem(
            429,
            f"Too many unfinished jobs: {error.message}.",
            code="too_many_jobs",
            retry_after_s=5,
        )
    return ApiProblem(
        400,
        "There is no such enabled webhook endpoint.",
        param="webhook",
        code="webhook_not_found",
    )
