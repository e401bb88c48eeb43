"""``POST /v1/auth/grant``: a short-lived token for a browser, in Deepgram's shape."""

import math
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serving.api.callers import caller_of
from serving.api.json_text import parsed
from serving.problems import ApiProblem
from serving.tenants.authenticator import GRANT_DEFAULT_S, GRANT_LONGEST_S
from serving.tenants.desk import TenantDesk

_BODY_BYTES = 4096


def routes() -> list[Route]:
    """The routes of this module."""
    return [Route("/v1/auth/grant", grant, methods=["POST"])]


async def grant(request: Request) -> Response:
    """``{"ttl_seconds": 30, "scopes": ["listen"]}``, both optional, to ``access_token``."""
    desk: TenantDesk = request.app.state.tenants
    if desk.authenticator is None:
        raise ApiProblem(404, "This service has no key store.", code="not_found")
    asked = await _body(request)
    if unknown := set(asked) - {"ttl_seconds", "scopes"}:
        raise _refused(min(unknown)[:80], "is not known here")
    ttl_s = _ttl(asked.get("ttl_seconds", GRANT_DEFAULT_S))
    caller = caller_of(request)
    token = desk.authenticator.grant(caller, ttl_s=ttl_s, scopes=_scopes(asked.get("scopes")))
    desk.note("grant", caller)
    return JSONResponse(
        {"access_token": token, "expires_in": ttl_s}, headers={"Cache-Control": "no-store"}
    )


async def _body(request: Request) -> dict[str, Any]:
    content = b""
    async for block in request.stream():
        content += block
        if len(content) > _BODY_BYTES:
            raise ApiProblem(413, "The request is too large.", code="invalid_body")
    try:
        asked = parsed(content or b"{}")
    except ValueError:
        asked = None
    if not isinstance(asked, dict):
        raise ApiProblem(400, "Send a JSON object.", code="invalid_body")
    return asked


def _ttl(value: object) -> int:
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        ttl_s = int(value)
        if 1 <= ttl_s <= GRANT_LONGEST_S:
            return ttl_s
    raise _refused("ttl_seconds", f"must be from 1 to {GRANT_LONGEST_S}")


def _scopes(value: object) -> list[str] | None:
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(scope, str) for scope in value):
        raise _refused("scopes", "must be a list of names")
    return [str(scope) for scope in value]


def _refused(name: str, why: str) -> ApiProblem:
    return ApiProblem(400, f"`{name}` {why}.", param=name, code="invalid_value")
