"""What ``POST /v1/jobs`` may carry: a form with a file, or JSON that names a URL or an object.

======================================  =========================================================
field                                   what happens
======================================  =========================================================
file | url | object                     exactly one; ``url`` and ``object`` as the operator allows
model                                   required, as for ``/v1/audio/transcriptions``
language                                the model's language, others are refused
metadata                                up to 16 pairs of text, given back with the job
webhook                                 id of one of the caller's webhook endpoints
redact, redact_mode                     what is hidden before the transcript is stored
everything else                         refused, named in ``param``
======================================  =========================================================
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.requests import HTTPConnection, Request

from serving.api.callers import require_language, require_model
from serving.api.json_text import parsed
from serving.api.redaction_choice import choose_redaction
from serving.delivery.sources import Sources
from serving.jobs.records import JobRequest, SourceKind
from serving.problems import ApiProblem
from serving.redaction.policy import policy_options
from serving.runtime import Runtime

_FIELDS = ("model", "language", "metadata", "webhook", "redact", "redact_mode")
_REFERENCES = ("url", "object")
_SOURCES: dict[str, SourceKind] = {"file": "upload", "url": "url", "object": "object"}
_PAIRS, _NAME_CHARACTERS, _VALUE_CHARACTERS = 16, 64, 512
_JSON_BYTES = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A checked request; ``upload`` where its source is an upload."""

    request: JobRequest
    metadata: Mapping[str, str]
    webhook: str | None
    upload: UploadFile | None
    redact: str = ""
    redact_mode: str = ""


async def read_json(request: Request) -> dict[str, Any]:
    """A small JSON object."""
    content = bytearray()
    async for block in request.stream():
        content += block
        if len(content) > _JSON_BYTES:
            raise ApiProblem(413, "The JSON body is too large.", code="invalid_body")
    try:
        document = parsed(bytes(content))
    except ValueError:
        raise ApiProblem(400, "The body is no JSON.", code="invalid_body") from None
    if not isinstance(document, dict):
        raise ApiProblem(400, "The body must be a JSON object.", code="invalid_body")
    return document


def fields_of(form: FormData) -> dict[str, Any]:
    """A form's fields, each given once."""
    fields: dict[str, Any] = {}
    for name, value in form.multi_items():
        if name in fields:
            raise refused(name, "is given more than once")
        fields[name] = value
    return fields


def check_submission(fields: Mapping[str, Any], runtime: Runtime, sources: Sources) -> Submission:
    """Every field is honoured or refused by name."""
    upload = fields.get("file")
    for name, value in fields.items():
        if name not in ("file", *_FIELDS, *_REFERENCES):
            shown = name[:80]
            message = f"`{shown}` is not supported by this route."
            raise ApiProblem(400, message, param=shown, code="unsupported_parameter")
        if isinstance(value, UploadFile) != (name == "file"):
            kind = "a file" if name == "file" else "text, not a file"
            raise refused(name, f"must be {kind}")
    named = [name for name in ("file", *_REFERENCES) if name in fields]
    if len(named) != 1:
        raise ApiProblem(
            400,
            "Name exactly one source: `file`, `url` or `object`.",
            param=named[1] if named else "file",
            code="invalid_value" if named else "missing_required_parameter",
        )
    model, language = _text(fields, "model"), _text(fields, "language")
    require_model(model, runtime)
    require_language(language, runtime)
    reference = "" if upload is not None else _text(fields, named[0])
    if named[0] == "url":
        sources.policy.check_url(reference, sources.outbound)
    elif named[0] == "object":
        sources.policy.check_object(reference)
    return Submission(
        request=JobRequest(
            model=model,
            language=language,
            source=_SOURCES[named[0]],
            reference=reference,
        ),
        metadata=_metadata(fields.get("metadata")),
        webhook=_text(fields, "webhook") or None,
        upload=upload,
        redact=_text(fields, "redact"),
        redact_mode=_text(fields, "redact_mode"),
    )


def redacted_for(connection: HTTPConnection, submission: Submission) -> Submission:
    """The submission with what its transcript hides, by its own wish and its tenant's rule."""
    if submission.redact_mode == "both":
        raise refused("redact_mode", "must be mask or remove: one transcript is stored")
    asked = [submission.redact] if submission.redact else []
    choice = choose_redaction(connection, asked, submission.redact_mode, route="jobs")
    if not choice.policy:
        return submission
    options = {**submission.request.options, **policy_options(choice.policy)}
    return replace(submission, request=replace(submission.request, options=options))


def refused(name: str, why: str) -> ApiProblem:
    """400 that names the field."""
    shown = name[:80]
    return ApiProblem(400, f"`{shown}` {why}.", param=shown, code="invalid_value")


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name, "")
    if value is None:
        return ""
    if not isinstance(value, str) or "\x00" in value:
        raise refused(name, "must be text")
    return value


def _metadata(value: Any) -> dict[str, str]:
    if isinstance(value, str):
        try:
            value = parsed(value)
        except ValueError:
            raise refused("metadata", "must be a JSON object") from None
    if value is None:
        return {}
    limits = f"must be at most {_PAIRS} pairs of text, names up to {_NAME_CHARACTERS} characters, "
    limits += f"values up to {_VALUE_CHARACTERS}"
    if not isinstance(value, dict) or len(value) > _PAIRS:
        raise refused("metadata", limits)
    for name, text in value.items():
        fits = isinstance(text, str) and len(text) <= _VALUE_CHARACTERS
        if not fits or len(name) > _NAME_CHARACTERS:
            raise refused("metadata", limits)
    return dict(value)
