"""The door of the routes that take recordings: room or a refusal, before a byte of the body is read.

A client that sends its whole body before it listens must still see the refusal. A short body is
passed over by the HTTP server. Of a long one the answer goes out first and the connection is closed
only when the client has stopped sending, or after a while: closing it under an upload would reset it,
and the reset may overtake the answer.
"""

import asyncio
from contextlib import suppress

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving import logs
from serving.api.callers import caller_of
from serving.problems import ApiProblem
from serving.runtime import Runtime

PATHS = ("/v1/audio/transcriptions", "/v1/listen")
_SHORT_BYTES = 1 << 20
_LINGER_S = 5.0


class Doorway:
    """ASGI middleware behind the gate: the caller is known."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a recording in, or say when to come again."""
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in PATHS:
            await self._app(scope, receive, send)
            return
        runtime: Runtime = scope["app"].state.runtime
        entered = False
        try:
            tenant = caller_of(HTTPConnection(scope)).tenant
            with runtime.door(tenant, _content_length(scope)):
                entered = True
                await self._app(scope, receive, send)
        except ApiProblem as problem:
            if entered:
                raise
            runtime.metrics.refused.labels(problem.code or "").inc()
            logs.event("refused", code=problem.code or "")
            await refuse_unread(problem, scope, receive, send)


async def refuse_unread(problem: ApiProblem, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request whose body was not read, and see to it that the answer arrives."""
    length = _content_length(scope)
    if length is not None and length <= _SHORT_BYTES:
        await problem.response()(scope, receive, send)
        return
    response = problem.response({"Connection": "close"})
    awaited = Headers(scope=scope).get("expect", "").lower() == "100-continue"
    start = {"type": "http.response.start", "status": problem.status}
    await send({**start, "headers": response.raw_headers})
    body = {"type": "http.response.body", "body": bytes(response.body)}
    await send({**body, "more_body": not awaited})
    if awaited:  # the client sends nothing before it is told to
        return
    with suppress(TimeoutError, ApiProblem):  # slow, or longer than any body may be
        async with asyncio.timeout(_LINGER_S):
            await _passed_over(receive)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _passed_over(receive: Receive) -> None:
    message: Message = {"more_body": True}
    while message.get("more_body"):  # a disconnect has none
        message = await receive()


def _content_length(scope: Scope) -> int | None:
    text = Headers(scope=scope).get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else None
