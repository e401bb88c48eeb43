"""The ASGI application: routes, and OpenAI's error shape for everything that is not an answer."""

import asyncio
from contextlib import suppress
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from serving import logs
from serving.api import jobs_api, listen_api, openai_api, openapi, webhooks_api
from serving.api.doorway import Doorway
from serving.api.gate import route_of
from serving.api.protection import protected, tenant_routes
from serving.job_service import JobService
from serving.metrics import CONTENT_TYPE
from serving.observe.answers import AnswerWatch
from serving.observe.traces import Tracing
from serving.page.routes import Page
from serving.problems import ApiProblem
from serving.runtime import Runtime
from serving.tenants.desk import TenantDesk

_FAILED = {
    "type": "websocket.close", "code": 1011, "reason": "the service failed on this stream"
}  # fmt: skip
_CODES = {404: "not_found", 405: "method_not_allowed"}


class Application:
    """A plain ASGI callable around Starlette.

    Being no Starlette itself, it gets every path that BentoML does not serve, so that unknown
    routes answer in the same shape; and no exception passes it, so no traceback reaches anyone.
    """

    def __init__(self) -> None:
        routes = [
            Route("/v1/audio/transcriptions", openai_api.transcriptions, methods=["POST"]),
            Route("/v1/audio/translations", openai_api.translations, methods=["POST"]),
            Route("/v1/models", openai_api.models, methods=["GET"]),
            Route("/v1/models/{model}", openai_api.model, methods=["GET"]),
            *jobs_api.routes(),
            *webhooks_api.routes(),
            *tenant_routes(),
            Route("/metrics", _metrics, methods=["GET"]),
            *openapi.routes(),
            *Page().routes(),
            WebSocketRoute("/v1/listen", listen_api.listen),
            WebSocketRoute("/{path:path}", _no_such_socket),
        ]
        handlers: Any = {ApiProblem: _problem, HTTPException: _http_error}
        self._routes = Starlette(
            routes=routes, exception_handlers=handlers, middleware=[Middleware(Doorway)]
        )
        self._app: ASGIApp = self._routes

    def attach(
        self,
        runtime: Runtime,
        jobs: JobService | None = None,
        tenants: TenantDesk | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        """Let the routes serve; called once the runtime is warm and started."""
        self._routes.state.runtime = runtime
        self._routes.state.jobs = jobs
        desk = tenants or TenantDesk()
        if jobs is not None:
            jobs.book_on(desk)
            if tracing is not None:
                jobs.trace_with(tracing.work)
        guarded = protected(self._routes, runtime, desk)
        watched = AnswerWatch(guarded, runtime.metrics, route_of)
        self._app = watched if tracing is None else tracing.around(watched, route_of)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request or WebSocket."""
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except ClientDisconnect:
            return
        except Exception as error:
            logs.crash("request_failed", error)
            if scope["type"] == "http" and not started:
                problem = ApiProblem(500, "The service failed on this request.", code="internal")
                await problem.response()(scope, receive, send)
            elif scope["type"] == "websocket":
                with suppress(Exception):  # it may be closed already
                    await send(_FAILED)


async def _metrics(request: Request) -> Response:
    runtime: Runtime = request.app.state.runtime
    runtime.metrics.tasks.set(len(asyncio.all_tasks()))
    return Response(runtime.metrics.exposition(), media_type=CONTENT_TYPE)


async def _no_such_socket(websocket: WebSocket) -> None:
    problem = ApiProblem(404, "No such route.", code=_CODES[404])
    await websocket.send_denial_response(problem.response({"dg-error": problem.message}))


async def _problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, ApiProblem)
    return error.response()


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    messages = {404: "No such route.", 405: f"{request.method} is not allowed on this route."}
    message = messages.get(error.status_code, "The request cannot be served.")
    problem = ApiProblem(error.status_code, message, code=_CODES.get(error.status_code))
    return problem.response(error.headers)
