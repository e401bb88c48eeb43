"""A straight way from the HTTP server to the routes, past BentoML's middleware.

BentoML puts four layers around every application that it mounts. Of these ours needs none, and each
request pays for all: spans of every message that nobody exports, a context that nothing reads, and
a timer for the request's time limit that is never cancelled. The limit is a day, since a live stream
may last for hours, so a busy service would collect a day's worth of timers. Requests for the API
go straight to its routes; probes, pages and the rest stay with BentoML.
"""

from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

_PREFIX = "/v1/"


class StraightWay:
    """ASGI middleware: when the server starts, it moves to the outermost place of its application."""

    def __init__(self, app: ASGIApp, *, routes: ASGIApp) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on. The lifespan says in which application this middleware is."""
        if scope["type"] == "lifespan":
            around: Starlette = scope["app"]
            assert around.middleware_stack is not None, "it is being called"
            around.middleware_stack = _Fork(around.middleware_stack, self._routes)
        await self._app(scope, receive, send)


class _Fork:
    """The API's paths go one way, everything else the other."""

    def __init__(self, app: ASGIApp, routes: ASGIApp) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        straight = scope["type"] != "lifespan" and scope["path"].startswith(_PREFIX)
        await (self._routes if straight else self._app)(scope, receive, send)
