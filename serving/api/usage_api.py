"""``GET /v1/usage``: what the caller's tenant used, by day and route, and what is left."""

import re
from datetime import date
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serving.api.callers import caller_of
from serving.problems import ApiProblem
from serving.tenants.desk import TenantDesk

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


def routes() -> list[Route]:
    """The routes of this module."""
    return [Route("/v1/usage", usage, methods=["GET"])]


async def usage(request: Request) -> Response:
    """``?start=2026-11-01&end=2026-11-30&tenant=acme``, all optional; the month to date."""
    desk: TenantDesk = request.app.state.tenants
    if desk.usage is None:
        raise ApiProblem(404, "This service keeps no usage records.", code="not_found")
    for name in request.query_params:
        if name not in ("start", "end", "tenant"):
            raise ApiProblem(
                400, f"`{name[:80]}` is not known here.", param=name[:80], code="invalid_value"
            )
    caller = caller_of(request)
    tenant = request.query_params.get("tenant", caller.tenant)
    if tenant != caller.tenant and "admin" not in caller.scopes:
        raise ApiProblem(
            403, "Another tenant's usage needs the scope `admin`.", code="insufficient_scope"
        )
    end = _day(request, "end", desk.usage.today())
    start = _day(request, "start", f"{end[:7]}-01")
    rows = desk.usage.rows(tenant, first_day=start, last_day=end)
    body: dict[str, Any] = {
        "object": "list",
        "tenant": tenant,
        "start": start,
        "end": end,
        "data": [
            {
                "day": row.day,
                "route": row.route,
                "requests": row.requests,
                "audio_seconds": round(row.audio_s, 3),
            }
            for row in rows
        ],
        "total": {
            "requests": sum(row.requests for row in rows),
            "audio_seconds": round(sum(row.audio_s for row in rows), 3),
        },
        "limits": desk.limits(tenant),
        "streams_open": desk.usage.streams(tenant),
    }
    return JSONResponse(body)


def _day(request: Request, name: str, default: str) -> str:
    value = request.query_params.get(name, default)
    try:
        if _DAY.fullmatch(value):
            return date.fromisoformat(value).isoformat()
    except ValueError:
        pass  # a day that no month has
    message = f"`{name}` must be a day such as 2026-11-25."
    raise ApiProblem(400, message, param=name, code="invalid_value")
