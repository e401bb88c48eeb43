"""The gate before every route: who calls, may they, and is there room; before any body is read.

It answers refusals itself, in OpenAI's shape and with ``dg-error`` for a WebSocket. What passes gets
its Caller in the scope, and no credential: no room behind the gate can log one.
"""

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from serving import logs
from serving.api.cutting import Line
from serving.problems import ApiProblem, too_large
from serving.tenants.authenticator import Identity, unauthenticated
from serving.tenants.caller import SCOPE_KEY
from serving.tenants.desk import TenantDesk, budget_headers
from serving.tenants.usage import Budget

_SCHEMES = ("bearer", "token")
_OPENAI_SUBPROTOCOL = "openai-insecure-api-key."
_SECRET_HEADERS = (b"authorization", b"x-api-key", b"sec-websocket-protocol", b"cookie")
_NEEDED = (
    ("/v1/audio/", "transcribe"),
    ("/v1/listen", "listen"),
    ("/v2/listen", "listen"),
    ("/v1/realtime", "listen"),
    ("/v1/jobs", "jobs"),
    ("/v1/webhook", "jobs"),
    ("/metrics", "admin"),
    ("/v1/admin", "admin"),
)
"""Scope that a path asks for; every other path asks for a valid credential only."""
_ROUTES = (
    ("/v1/audio/transcriptions", "transcriptions"),
    ("/v1/listen", "listen"),
    ("/v2/listen", "listen"),
    ("/v1/realtime", "realtime"),
    ("/v1/jobs", "jobs"),
    ("/v1/webhook", "webhooks"),
    ("/v1/models", "models"),
    ("/v1/usage", "usage"),
    ("/v1/auth/", "grant"),
    ("/metrics", "metrics"),
)
_UNMETERED = ("usage", "metrics")
_PUBLIC = ("/", "/docs", "/openapi.json", "/favicon.ico")


@dataclass(frozen=True, kw_only=True, repr=False)
class Presented:
    """What a request shows at the gate."""

    credential: str = ""
    subprotocol: str | None = None  # to be answered, so that a browser keeps the connection


@dataclass(frozen=True, kw_only=True)
class GateRules:
    """What the gate enforces besides keys."""

    max_body_bytes: int
    open_to_network: bool = False  # without a key store, answer other machines too
    origins: tuple[str, ...] = ()  # of pages that may use the service, besides its own


class Gate:
    """ASGI middleware around the routes."""

    def __init__(
        self, app: ASGIApp, desk: TenantDesk, rules: GateRules, refused: Callable[[str], None]
    ) -> None:
        self._app = app
        self._desk = desk
        self._rules = rules
        self._refused = refused  # told the code of every refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request or WebSocket in, or answer why not."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        entered = False
        try:
            if not self._desk.keyed:
                self._require_near(scope)
            if is_public(scope):
                entered = True
                await self._app(scope, receive, send)
                return
            presented = presented_by(scope)
            identity = self._identity(presented, scope)
            with self._admission(scope, identity) as budgets:
                entered = True
                inner = _without_secrets(scope) | {SCOPE_KEY: identity.caller}
                answer = with_headers(send, budget_headers(budgets)) if budgets else send
                line = Line(
                    scope,
                    _limited(receive, self._rules.max_body_bytes),
                    _answering(answer, presented.subprotocol),
                    partial(self._desk.holding, identity),
                )
                await line.run(self._app, inner)
                if line.fallen is not None:
                    self._desk.note("cut", identity.caller, route=route_of(scope["path"]))
                    self._tell("cut", line.fallen, scope)
                    if not line.answered:
                        await refuse(line.fallen, scope, receive, send)
        except ApiProblem as problem:
            if entered:  # the routes answer for what is theirs
                raise
            self._tell("refused", problem, scope)
            await refuse(problem, scope, receive, send)

    def _tell(self, event: str, problem: ApiProblem, scope: Scope) -> None:
        self._refused(problem.code or "")
        logs.event(event, code=problem.code or "", route=route_of(scope["path"]))

    def _identity(self, presented: Presented, scope: Scope) -> Identity:
        if self._desk.keyed and not presented.credential:
            raise unauthenticated(
                "You didn't provide an API key. Send `Authorization: Bearer KEY`."
            )
        identity = self._desk.identify(presented.credential)
        if identity.near and not is_local(scope.get("client")):
            self._desk.note("refused", identity.caller, route=route_of(scope["path"]))
            message = "This key is for the service's own machine only."
            raise ApiProblem(403, message, code="local_only")
        return identity

    def _require_near(self, scope: Scope) -> None:
        """Without keys the service trusts its own machine, and there no page of another site."""
        if not self._rules.open_to_network and not is_local(scope.get("client")):
            message = "This service has no key store and answers its own machine only."
            raise ApiProblem(403, message, code="local_only")
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        foreign = origin and urlsplit(origin).netloc != headers.get("host")
        if scope["type"] == "websocket" and foreign and origin not in self._rules.origins:
            raise ApiProblem(403, "Pages of this origin are not let in.", code="origin_refused")

    @contextmanager
    def _admission(self, scope: Scope, identity: Identity) -> Iterator[list[Budget]]:
        """The right to the route, room for it, and a line in the access log."""
        caller, route = identity.caller, route_of(scope["path"])
        needed = scope_needed(scope["type"], scope["path"])
        if needed is not None and needed not in caller.scopes:
            self._desk.note("refused", caller, route=route, scope=needed)
            message = f"This API key lacks the scope `{needed}`."
            raise ApiProblem(403, message, code="insufficient_scope")
        self._desk.note("access", caller, route=route, scope=needed or "")
        if route in _UNMETERED:
            yield []
            return
        with self._desk.admitted(identity, route=route, live=scope["type"] == "websocket") as left:
            yield left


def route_of(path: str) -> str:
    """A path's name in records: of a closed set, for a path may hold anything."""
    return next((name for prefix, name in _ROUTES if path.startswith(prefix)), "other")


def is_public(scope: Scope) -> bool:
    """The page and the reference hold nothing that needs a key."""
    path = scope["path"]
    return scope["type"] == "http" and (path in _PUBLIC or path.startswith("/page/"))


def scope_needed(kind: str, path: str) -> str | None:
    """What a caller must be allowed to; a recording sent to ``/v1/listen`` is a transcription."""
    if kind == "http" and path == "/v1/listen":
        return "transcribe"
    return next((scope for prefix, scope in _NEEDED if path.startswith(prefix)), None)


def presented_by(scope: Scope) -> Presented:
    """The credential of ``Authorization``, ``x-api-key`` or the WebSocket's subprotocols."""
    headers = Headers(scope=scope)
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() in _SCHEMES and value.strip():
        return Presented(credential=value.strip())
    if key := headers.get("x-api-key", "").strip():
        return Presented(credential=key)
    offered = [str(name) for name in scope.get("subprotocols", ())]
    if len(offered) == 2 and offered[0].lower() in _SCHEMES:
        return Presented(credential=offered[1], subprotocol=offered[0])
    for name in offered:
        if name.startswith(_OPENAI_SUBPROTOCOL):
            answer = "realtime" if "realtime" in offered else None
            return Presented(credential=name.removeprefix(_OPENAI_SUBPROTOCOL), subprotocol=answer)
    return Presented()


def is_local(client: Any) -> bool:
    """Whether a peer is this machine: loopback, a Unix socket, a program's own call."""
    try:
        address = ipaddress.ip_address(client[0])
    except (TypeError, IndexError, ValueError):
        return True
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


async def refuse(
    problem: ApiProblem,
    scope: Scope,
    receive: Receive,
    send: Send,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Answer instead of a route."""
    extra = dict(headers or {})
    if problem.status == 401:
        extra["WWW-Authenticate"] = "Bearer"
    if scope["type"] == "http":
        await problem.response(extra)(scope, receive, send)
        return
    extra["dg-error"] = problem.message.encode("ascii", "replace").decode()
    await WebSocket(scope, receive, send).send_denial_response(problem.response(extra))


def _without_secrets(scope: Scope) -> dict[str, Any]:
    headers = [(name, value) for name, value in scope["headers"] if name not in _SECRET_HEADERS]
    inner = dict(scope) | {"headers": headers}
    if scope["type"] == "websocket":
        inner["subprotocols"] = [
            name
            for name in scope.get("subprotocols", ())
            if name in ("realtime", "token", "bearer")
        ]
    return inner


def _limited(receive: Receive, limit: int) -> Receive:
    """``receive`` that ends a body which is longer than any may be, while it is read."""
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        if message["type"] == "http.request":
            seen += len(message.get("body", b""))
            if seen > limit:
                raise too_large(limit)
        return message

    return counted


def _answering(send: Send, subprotocol: str | None) -> Send:
    """``send`` that names the subprotocol which carried the credential."""
    if subprotocol is None:
        return send

    async def answering(message: Message) -> None:
        if message["type"] == "websocket.accept" and not message.get("subprotocol"):
            message = {**message, "subprotocol": subprotocol}
        await send(message)

    return answering


def with_headers(send: Send, headers: Mapping[str, str]) -> Send:
    """``send`` that adds headers to an answer's start."""

    async def adding(message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.accept"):
            answer = MutableHeaders(raw=list(message.get("headers", ())))
            for name, value in headers.items():
                answer[name] = value
            message = {**message, "headers": answer.raw}
        await send(message)

    return adding
