"""What a job is, from its acceptance to its end, and the JSON in which callers see it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from governance.canonical import canonical_json
from governance.errors import AuricleError
from serving.jobs.database import Row

State = Literal["queued", "running", "done", "failed", "cancelled", "expired"]
OPEN: frozenset[str] = frozenset({"queued", "running"})
STATES: tuple[State, ...] = ("queued", "running", "done", "failed", "cancelled", "expired")
SourceKind = Literal["upload", "url", "object"]
JOB_COLUMNS = (
    "id, tenant, state, request, speaker, blob, metadata, webhook, progress, attempts, token, "
    "revision, created_s, started_s, finished_s, expires_s, error"
)


class KeyReused(AuricleError):
    """An idempotency key that stands for other content."""


class QueueFull(AuricleError):
    """A tenant has as many unfinished jobs as it may have."""


class UnknownEndpoint(AuricleError):
    """A webhook endpoint that this tenant does not have."""


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """What is to be done; kept as long as the job."""

    model: str
    language: str = ""
    source: SourceKind = "upload"
    reference: str = ""  # a URL or an object's address
    options: Mapping[str, Any] = field(default_factory=dict)  # of the transcription

    def text(self) -> str:
        """Canonical JSON, as stored."""
        return canonical_json(
            {
                "model": self.model,
                "language": self.language,
                "source": self.source,
                "reference": self.reference,
                "options": dict(self.options),
            }
        )


@dataclass(frozen=True, kw_only=True)
class JobDraft:
    """A job before its acceptance; its audio, if uploaded, is on disk already."""

    id: str
    tenant: str
    request: JobRequest
    speaker: str | None = None  # pseudonym; forgotten when the job ends
    blob: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)  # the caller's own words
    webhook: str | None = None  # id of an endpoint
    trace: str = ""  # traceparent of the request that brought it; empty: nobody traces it


@dataclass(frozen=True, kw_only=True)
class IdempotencyKey:
    """A caller's promise that requests of this key are one request."""

    tenant: str
    route: str
    key: str
    fingerprint: str  # of the content and its options


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """The answer to an accepted job; for a repeated request the first answer's very text."""

    job_id: str
    reply: str
    replayed: bool


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended: a transcript, or an error in OpenAI's shape."""

    result: str | None = None  # Transcript v1 as JSON
    error: Mapping[str, Any] | None = None

    @property
    def state(self) -> State:
        """The state that follows."""
        return "done" if self.error is None else "failed"


@dataclass(frozen=True, kw_only=True)
class Job:
    """A stored job."""

    id: str
    tenant: str
    state: State
    request: JobRequest
    speaker: str | None
    blob: str
    metadata: Mapping[str, str]
    webhook: str | None
    progress: float  # 0 to 1
    attempts: int
    token: int  # the fence: only the holder of the newest may write
    revision: int  # grows with every change
    created_s: float
    started_s: float | None
    finished_s: float | None
    expires_s: float
    error: Mapping[str, Any] | None
    trace: str = ""  # told to the worker that holds it

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it, but for its expiry."""
        return self.state not in OPEN

    def body(self) -> dict[str, Any]:
        """What callers see."""
        return {
            "id": self.id,
            "object": "transcription.job",
            "status": self.state,
            "model": self.request.model,
            "source": self.request.source,
            "progress": round(self.progress, 3),
            "attempts": self.attempts,
            "created_at": int(self.created_s),
            "started_at": _whole(self.started_s),
            "finished_at": _whole(self.finished_s),
            "expires_at": int(self.expires_s),
            "metadata": dict(self.metadata),
            "webhook": self.webhook,
            "error": dict(self.error) if self.error else None,
        }


def job_of(row: Row) -> Job:
    """A row of ``jobs`` in `JOB_COLUMNS`."""
    request = json.loads(row["request"])
    return Job(
        id=row["id"],
        tenant=row["tenant"],
        state=cast(State, row["state"]),
        request=JobRequest(**request),
        speaker=row["speaker"],
        blob=row["blob"],
        metadata=json.loads(row["metadata"]),
        webhook=row["webhook"],
        progress=row["progress"],
        attempts=row["attempts"],
        token=row["token"],
        revision=row["revision"],
        created_s=row["created_s"],
        started_s=row["started_s"],
        finished_s=row["finished_s"],
        expires_s=row["expires_s"],
        error=json.loads(row["error"]) if row["error"] else None,
    )


def event_body(job: Job, result: str | None) -> bytes:
    """The webhook that tells of a job's end; made once, in the transaction that ends the job."""
    event = {
        "type": f"job.{job.state}",
        "timestamp": job.finished_s,
        "data": {"job": job.body(), "transcript": json.loads(result) if result else None},
    }
    return canonical_json(event).encode()


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)
