"""The end of a stream whose key has fallen: no route has to know of it.

To the route it looks as if its client had gone, a case that every route masters and that ends the
work. The client gets a close frame (1008) or a last event that says why.
"""

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from serving.problems import ApiProblem
from serving.tenants.authenticator import Standing
from serving.tenants.watch import Cut

_POLICY_VIOLATION = 1008
_GOODBYE_S = 5.0  # how long a client that does not read is waited for
_EVENTS = "text/event-stream"
_DISCONNECT: dict[str, Message] = {
    "http": {"type": "http.disconnect"},
    "websocket": {"type": "websocket.disconnect", "code": _POLICY_VIOLATION},
}
Hold = Callable[[Cut], AbstractContextManager[None]]


class Line:
    """One request or WebSocket on its way to a route, which can be cut while it streams."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, hold: Hold) -> None:
        """``hold`` is entered while a stream is open, with what cuts it."""
        self._kind = scope["type"]
        self._receive = receive
        self._send = send
        self._hold = hold
        self._held = ExitStack()
        self._waiting: set[asyncio.Timeout] = set()  # of the route's calls of `receive`
        self._over = False
        self.answered = False
        self.fallen: ApiProblem | None = None

    async def run(self, app: ASGIApp, scope: Scope) -> None:
        """Serve to the end, or until the stream is cut and its client knows why.

        A WebSocket that falls before it was opened is left to be refused.
        """
        with self._held:
            if self._kind == "websocket":
                self._held.enter_context(self._hold(self._cut))
            try:
                await app(scope, self._receive_or_gone, self._send_or_gone)
            except (OSError, ClientDisconnect, WebSocketDisconnect):
                if self.fallen is None:
                    raise
        if self.fallen is not None and self.answered and not self._over:
            with suppress(TimeoutError, OSError, RuntimeError):  # the client may really have gone
                async with asyncio.timeout(_GOODBYE_S):
                    await self._send(self._goodbye(self.fallen))

    def _cut(self, standing: Standing) -> None:
        if self._over:
            return
        self.fallen = ApiProblem(401, standing.reason, code=standing.code)
        now = asyncio.get_running_loop().time()
        for limit in self._waiting:
            limit.reschedule(now)

    async def _receive_or_gone(self) -> Message:
        if self.fallen is None:
            limit = asyncio.timeout(None)
            try:
                async with limit:
                    self._waiting.add(limit)
                    try:
                        return await self._receive()
                    finally:
                        self._waiting.discard(limit)
            except TimeoutError:
                if not limit.expired():
                    raise
        return _DISCONNECT[self._kind]

    async def _send_or_gone(self, message: Message) -> None:
        if self.fallen is not None:
            raise OSError("the stream is cut")  # as ASGI tells that a client has gone
        kind = message["type"]
        if kind == "http.response.start" and _is_events(message):
            self._held.enter_context(self._hold(self._cut))
        self.answered = self.answered or kind in ("http.response.start", "websocket.accept")
        self._over = kind in ("websocket.close", "websocket.http.response.start") or (
            kind == "http.response.body" and not message.get("more_body", False)
        )
        await self._send(message)

    def _goodbye(self, fallen: ApiProblem) -> Message:
        if self._kind == "websocket":
            return {
                "type": "websocket.close",
                "code": _POLICY_VIOLATION,
                "reason": f"{fallen.code}: {fallen.message}",
            }
        text = json.dumps({"type": "error", **fallen.body()}, separators=(",", ":"))
        return {"type": "http.response.body", "body": f"event: error\ndata: {text}\n\n".encode()}


def _is_events(start: Message) -> bool:
    kind = Headers(raw=list(start.get("headers", ()))).get("content-type", "")
    return kind.partition(";")[0].strip() == _EVENTS
