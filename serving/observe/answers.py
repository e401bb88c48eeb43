"""Every answer at the outermost place: its status, and how long its delivery took.

Whatever ends a request (the gate, admission, a route, a crash) is counted here once. A WebSocket's
status is the HTTP status of its refusal, or the code that it was closed with.
"""

import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.metrics import ServiceMetrics

_DELIVERED = ("transcriptions", "listen")  # routes whose answers are transcripts
_MODES = {"http": "file", "websocket": "stream"}
_IDLE_REASON = "NET-0001"  # the client's silence, not our failure
_ABNORMAL, _GONE = 1011, "gone"


class AnswerWatch:
    """ASGI middleware around everything else."""

    def __init__(
        self, app: ASGIApp, metrics: ServiceMetrics, route_of: Callable[[str], str]
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._route_of = route_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, watching what goes out."""
        if scope["type"] not in _MODES:
            await self._app(scope, receive, send)
            return
        route, mode = self._route_of(scope["path"]), _MODES[scope["type"]]
        status = _GONE  # the client left before there was one
        delivery_s = 0.0

        async def watched(message: Message) -> None:
            nonlocal status, delivery_s
            began = time.perf_counter()
            await send(message)
            spent_s = time.perf_counter() - began
            status = _status(message) or status
            if message["type"] == "websocket.send" and route in _DELIVERED:
                self._metrics.delivery.labels(mode).observe(spent_s)
            delivery_s += spent_s

        try:
            await self._app(scope, receive, watched)
        finally:
            self._metrics.answers.labels(route, status).inc()
            if mode == "file" and route in _DELIVERED:
                self._metrics.delivery.labels(mode).observe(delivery_s)


def _status(message: Message) -> str | None:
    if message["type"] in ("http.response.start", "websocket.http.response.start"):
        return str(message["status"])
    if message["type"] == "websocket.close":
        code = message.get("code", 1000)
        if code == _ABNORMAL and (message.get("reason") or "").startswith(_IDLE_REASON):
            return "idle"
        return str(code)
    return None
