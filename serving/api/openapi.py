"""What this service says about itself: an OpenAPI 3.1 document, made from the code's own tables.

A test holds that every route is described here, and that real answers have the shapes that stand
here. ``/v1/listen`` is a WebSocket: described as the GET that opens it.
"""

import functools
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serving.api import openapi_shapes as shapes
from serving.api.listen_query import PARAMETERS, Parameter
from serving.api.openapi_jobs import job_operations
from serving.api.openapi_operation import Operation, path_parameter, query_parameter
from serving.tenants.authenticator import GRANT_DEFAULT_S, GRANT_LONGEST_S

PATH = "/openapi.json"
_VERSION = "1.0.0"  # of the HTTP surface, not of the program
_ABOUT = (
    "Speech to text on your own machine. Files in the shape that OpenAI's clients speak, live "
    "streams in Deepgram's, jobs with webhooks. What cannot be honoured is refused by name."
)
_ERRORS = {
    400: "A field is missing or cannot be honoured; `param` names it.",
    401: "No valid API key, where the service asks for one.",
    403: "The key may not do this.",
    404: "There is no such thing.",
    409: "Not in this state.",
    410: "It was there and has expired.",
    413: "Too large or too long.",
    422: "This idempotency key stands for another request.",
    429: "Too much at once; `Retry-After` says when to come again.",
    500: "The service failed.",
    503: "Stopping, or no free model in time; `Retry-After` says when to come again.",
}


def routes() -> list[Route]:
    """``/openapi.json``."""
    return [Route(PATH, _document, methods=["GET"])]


async def _document(_: Request) -> Response:
    return JSONResponse(document())


@functools.cache
def document() -> Mapping[str, Any]:
    """The whole document."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations():
        paths.setdefault(operation.path, {})[operation.verb] = operation.described()
    return {
        "openapi": "3.1.0",
        "info": {"title": "Auricle", "version": _VERSION, "description": _ABOUT},
        "servers": [{"url": "/"}],
        "security": [{}, {"apiKey": []}],
        "paths": paths,
        "components": {
            "schemas": shapes.components(),
            "responses": {f"Error{status}": _failure(why) for status, why in _ERRORS.items()},
            "securitySchemes": {
                "apiKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Where the service has a key store. WebSockets in a browser "
                    "send it as the subprotocols `token` and the key.",
                }
            },
        },
    }


def operations() -> tuple[Operation, ...]:
    """Every route, in the order in which people read it."""
    return (*_transcription(), _listen(), *_models(), *job_operations(), *_caller(), *_upkeep())


def _transcription() -> tuple[Operation, ...]:
    return (
        Operation(
            verb="post",
            path="/v1/audio/transcriptions",
            summary="A file to text",
            description="The shape of OpenAI's clients. `verbose_json` carries the whole "
            "Transcript under `auricle`: words with confidence, and where the time went.",
            parameters=(
                _header("X-Auricle-Speaker", "A pseudonym: start from this speaker's prior."),
            ),
            form=shapes.transcription_form(),
            answers={200: ("the text", _transcription_answers())},
            errors=(400, 401, 403, 404, 413, 429, 500, 503),
        ),
        Operation(
            verb="post",
            path="/v1/audio/translations",
            summary="Refused: no model here translates",
            answers={},
            errors=(400, 401, 403, 429),
        ),
    )


def _transcription_answers() -> dict[str, Any]:
    both = [shapes.ref("Transcription"), shapes.ref("VerboseTranscription")]
    return {
        "application/json": {"anyOf": both},
        "text/plain": shapes.text("with `response_format=text`"),
        "application/x-subrip": shapes.text("with `response_format=srt`"),
        "text/vtt": shapes.text("with `response_format=vtt`"),
    }


def _listen() -> Operation:
    return Operation(
        verb="get",
        path="/v1/listen",
        protocol="WS",
        summary="A live stream to text",
        description="The message grammar of Deepgram's clients. Send audio as binary messages of "
        "any cut; text messages are `KeepAlive`, `Finalize` and `CloseStream`. Answers are "
        "`Results` (partial, then `is_final`), and one `Metadata` before the close.\n\n"
        "A refusal comes before the upgrade, with its reason in the header `dg-error`.",
        parameters=tuple(_query(parameter) for parameter in PARAMETERS),
        answers={101: ("the stream is open", {})},
        errors=(400, 401, 403, 404, 429, 503),
    )


def _query(parameter: Parameter) -> dict[str, Any]:
    values = parameter.values
    if isinstance(values, str):
        return _parameter("query", parameter.name, shapes.text(), values)
    what = "accepted with this value, refused with any other"
    return _parameter("query", parameter.name, shapes.text(enum=list(values)), what)


def _models() -> tuple[Operation, ...]:
    return (
        Operation(
            verb="get",
            path="/v1/models",
            summary="What this service runs",
            answers={200: ("the models", {"application/json": shapes.ref("ModelList")})},
            errors=(401,),
        ),
        Operation(
            verb="get",
            path="/v1/models/{model}",
            summary="One model",
            parameters=(path_parameter("model", "its name"),),
            answers={200: ("the model", {"application/json": shapes.ref("Model")})},
            errors=(401, 404),
        ),
    )


def _caller() -> tuple[Operation, ...]:
    token = {
        "access_token": shapes.text("for a browser, instead of the key"),
        "expires_in": shapes.number("seconds", "integer"),
    }
    asked = {
        "ttl_seconds": shapes.number(f"1 to {GRANT_LONGEST_S} ({GRANT_DEFAULT_S})"),
        "scopes": shapes.rows(shapes.text()),
    }
    day = shapes.text("YYYY-MM-DD")
    return (
        Operation(
            verb="post",
            path="/v1/auth/grant",
            summary="A short-lived token for a browser",
            json=shapes.thing(asked, optional=tuple(asked)),
            answers={200: ("the token", {"application/json": shapes.thing(token)})},
            errors=(400, 401, 403, 404),
        ),
        Operation(
            verb="get",
            path="/v1/usage",
            summary="What you used, by day and route, and what is left",
            parameters=(
                query_parameter("start", day, "first day; of this month where it is absent"),
                query_parameter("end", day, "last day; today where it is absent"),
                query_parameter("tenant", shapes.text(), "another tenant, for `admin` keys"),
            ),
            answers={200: ("the days", {"application/json": {"type": "object"}})},
            errors=(400, 401, 403, 404),
        ),
    )


def _upkeep() -> tuple[Operation, ...]:
    plain = {"text/plain": shapes.text()}
    return (
        Operation(
            verb="get",
            path="/readyz",
            summary="Whether new work is taken",
            answers={200: ("warm, and not on the way out", plain), 503: ("not now", plain)},
        ),
        Operation(
            verb="get",
            path="/livez",
            summary="Whether the process answers",
            answers={200: ("it does", plain)},
        ),
        Operation(
            verb="get",
            path="/metrics",
            summary="Counters and times for Prometheus",
            answers={200: ("text exposition", plain)},
            errors=(401, 403),
        ),
        Operation(
            verb="get",
            path=PATH,
            summary="This document",
            answers={200: ("OpenAPI 3.1", {"application/json": {"type": "object"}})},
        ),
    )


def _header(name: str, description: str) -> dict[str, Any]:
    return _parameter("header", name, shapes.text(), description)


def _parameter(place: str, name: str, schema: Any, description: str) -> dict[str, Any]:
    return {"in": place, "name": name, "schema": schema, "description": description}


def _failure(why: str) -> dict[str, Any]:
    return {"description": why, "content": {"application/json": {"schema": shapes.ref("Error")}}}
