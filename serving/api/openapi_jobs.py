"""Jobs and webhooks in the OpenAPI document."""

from typing import Any

from serving.api import openapi_shapes as shapes
from serving.api.openapi_operation import Answers, Operation, path_parameter, query_parameter
from serving.jobs.records import STATES

_READING = (401, 403, 404)
_JOB, _HOOK = "/v1/jobs/{job_id}", "/v1/webhooks/{endpoint_id}"
_JOB_ID = path_parameter("job_id", "the job")
_HOOK_ID = path_parameter("endpoint_id", "the endpoint")


def job_operations() -> tuple[Operation, ...]:
    """Every route of ``/v1/jobs`` and ``/v1/webhooks``."""
    return (*_jobs(), *_webhooks())


def _json(when: str, shape: str, status: int = 200) -> Answers:
    return {status: (when, {"application/json": shapes.ref(shape)})}


def _some(when: str, status: int = 200) -> Answers:
    return {status: (when, {"application/json": {"type": "object"}})}


def _jobs() -> tuple[Operation, ...]:
    fields: dict[str, Any] = {
        "model": shapes.text("as for `/v1/audio/transcriptions`"),
        "language": shapes.text("the model's own"),
        "metadata": {"type": "object", "description": "up to 16 pairs of text, given back"},
        "webhook": shapes.text("id of an endpoint of yours"),
        "redact": shapes.text("kinds of content to hide, with commas"),
        "redact_mode": shapes.text("mask or remove"),
    }
    upload = {"file": shapes.text("any audio or video format", format="binary"), **fields}
    named = {
        "url": shapes.text("where the service may fetch it"),
        "object": shapes.text("such as `s3://bucket/name`"),
        **fields,
    }
    optional = ("language", "metadata", "webhook", "redact", "redact_mode", "url", "object")
    limit = query_parameter("limit", shapes.number(kind="integer"), "1 to 100 (20)")
    return (
        Operation(
            verb="post",
            path="/v1/jobs",
            summary="Accept a recording now, transcribe it soon",
            description="When this answers, the job is on disk. Send a file, or name a `url` or an "
            "`object` that the operator allows.",
            parameters=(
                {
                    "in": "header",
                    "name": "Idempotency-Key",
                    "schema": shapes.text(),
                    "description": "A repeated request gets the first answer again.",
                },
            ),
            form=shapes.thing(upload, optional=optional),
            json=shapes.thing(named, optional=optional),
            answers=_json("accepted", "Job", 202),
            errors=(400, 401, 403, 404, 409, 413, 422, 429, 503),
        ),
        Operation(
            verb="get",
            path="/v1/jobs",
            summary="Your jobs, newest first",
            parameters=(
                limit,
                query_parameter("after", shapes.text(), "id of the last job of the page before"),
                query_parameter("status", shapes.text(enum=list(STATES)), "only these"),
            ),
            answers=_json("a page", "JobList"),
            errors=(400, *_READING),
        ),
        _one("get", "", "One job", _json("as it stands", "Job")),
        _one("delete", "", "Forget a job: audio, transcript and all", _some("gone")),
        _one("post", "/cancel", "Stop a job", _json("as it stands", "Job"), 409),
        _one(
            "get",
            "/events",
            "Progress as server-sent events",
            {200: ("until the job ends", {"text/event-stream": shapes.text()})},
        ),
        _one("get", "/result", "The transcript", _json("done", "Transcript"), 400, 409, 410),
    )


def _one(verb: str, path: str, summary: str, answers: Answers, *errors: int) -> Operation:
    formats = query_parameter(
        "response_format",
        shapes.text(enum=["transcript", "json", "text", "verbose_json"]),
        "Transcript v1, or one of OpenAI's shapes",
    )
    return Operation(
        verb=verb,
        path=_JOB + path,
        summary=summary,
        parameters=(_JOB_ID, formats) if path == "/result" else (_JOB_ID,),
        answers=answers,
        errors=(*_READING, *errors),
    )


def _webhooks() -> tuple[Operation, ...]:
    def one(verb: str, path: str, summary: str, answers: Answers) -> Operation:
        return Operation(
            verb=verb, path=_HOOK + path, summary=summary, parameters=(_HOOK_ID,),
            answers=answers, errors=_READING,
        )  # fmt: skip

    states = shapes.text(enum=["waiting", "pending", "delivered", "dead"])
    return (
        Operation(
            verb="post",
            path="/v1/webhooks",
            summary="Hear of your jobs",
            description="Messages are signed as Standard Webhooks says, and come at least once.",
            json=shapes.thing({"url": shapes.text("https address of your receiver")}),
            answers=_json("with the secret, shown only now", "Webhook", 201),
            errors=(400, *_READING),
        ),
        Operation(
            verb="get",
            path="/v1/webhooks",
            summary="Your endpoints",
            answers=_json("all of them", "WebhookList"),
            errors=_READING,
        ),
        Operation(
            verb="get",
            path="/v1/webhooks/messages",
            summary="What became of each message",
            parameters=(
                query_parameter("limit", shapes.number(kind="integer"), "1 to 100 (20)"),
                query_parameter("status", states, "only these; `dead` are the dead letters"),
                query_parameter("endpoint", shapes.text(), "only of this endpoint"),
            ),
            answers=_some("newest first"),
            errors=(400, *_READING),
        ),
        Operation(
            verb="post",
            path="/v1/webhooks/messages/{message_id}/redeliver",
            summary="Send a message again",
            parameters=(path_parameter("message_id", "the message"),),
            answers=_some("queued", 202),
            errors=_READING,
        ),
        one("get", "", "One endpoint", _json("as it stands", "Webhook")),
        one("delete", "", "Remove an endpoint and its messages", _some("gone")),
        one("post", "/enable", "Send again after a 410", _json("enabled", "Webhook")),
        one("post", "/rotate", "A new secret; both sign for a day", _some("with the secret")),
    )
