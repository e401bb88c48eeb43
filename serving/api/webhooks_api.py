"""``/v1/webhooks``: where a tenant wants to hear of its jobs, and what became of each message."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serving.api.jobs_api import page_limit, service_of, tenant_of
from serving.api.jobs_form import read_json, refused
from serving.delivery.addresses import parse_url
from serving.jobs.aside import aside
from serving.jobs.changes import NEW_WEBHOOK
from serving.problems import ApiProblem

_PATH = "/v1/webhooks"
_MESSAGE_STATES = ("waiting", "pending", "delivered", "dead")
_MOST_ENDPOINTS = 20  # of one tenant


async def create(request: Request) -> Response:
    """``POST /v1/webhooks``: register a URL; the secret is shown in this answer only."""
    jobs, tenant = service_of(request), tenant_of(request)
    fields = await read_json(request)
    if unknown := set(fields) - {"url"}:
        raise refused(min(unknown), "is not supported by this route")
    url = fields.get("url")
    if not isinstance(url, str) or not url:
        raise refused("url", "must be the https URL of your receiver")
    parse_url(url, jobs.outbound.policy.openings, param="url")
    if len(await aside(jobs.outbox.endpoints, tenant)) >= _MOST_ENDPOINTS:
        message = f"A tenant may have {_MOST_ENDPOINTS} webhook endpoints."
        raise ApiProblem(400, message, code="too_many_endpoints")
    endpoint, secret = await aside(jobs.outbox.create, tenant, url)
    return JSONResponse({**endpoint.body(), "secret": secret}, 201)


async def listing(request: Request) -> Response:
    """``GET /v1/webhooks``."""
    jobs, tenant = service_of(request), tenant_of(request)
    endpoints = await aside(jobs.outbox.endpoints, tenant)
    return JSONResponse({"object": "list", "data": [endpoint.body() for endpoint in endpoints]})


async def retrieve(request: Request) -> Response:
    """``GET /v1/webhooks/{id}``."""
    jobs, tenant = service_of(request), tenant_of(request)
    endpoint = await aside(jobs.outbox.endpoint, tenant, _id(request))
    if endpoint is None:
        raise _no_such("webhook endpoint")
    return JSONResponse(endpoint.body())


async def delete(request: Request) -> Response:
    """``DELETE /v1/webhooks/{id}``: its messages are forgotten with it."""
    jobs, tenant = service_of(request), tenant_of(request)
    if not await aside(jobs.outbox.delete, tenant, _id(request)):
        raise _no_such("webhook endpoint")
    return JSONResponse({"id": _id(request), "object": "webhook_endpoint", "deleted": True})


async def enable(request: Request) -> Response:
    """``POST /v1/webhooks/{id}/enable``: after a 410; what waited for it is sent."""
    jobs, tenant = service_of(request), tenant_of(request)
    endpoint = await aside(jobs.outbox.enable, tenant, _id(request))
    if endpoint is None:
        raise _no_such("webhook endpoint")
    await jobs.bell.ring(NEW_WEBHOOK)
    return JSONResponse(endpoint.body())


async def rotate(request: Request) -> Response:
    """``POST /v1/webhooks/{id}/rotate``: a new secret; both sign for a day."""
    jobs, tenant = service_of(request), tenant_of(request)
    secret = await aside(jobs.outbox.rotate, tenant, _id(request))
    if secret is None:
        raise _no_such("webhook endpoint")
    return JSONResponse({"id": _id(request), "object": "webhook_endpoint", "secret": secret})


async def messages(request: Request) -> Response:
    """``GET /v1/webhooks/messages``: newest first; ``status=dead`` are the dead letters."""
    jobs, tenant = service_of(request), tenant_of(request)
    query = request.query_params
    if unknown := set(query) - {"limit", "status", "endpoint"}:
        raise refused(min(unknown), "is not supported by this route")
    state = query.get("status")
    if state is not None and state not in _MESSAGE_STATES:
        raise refused("status", f"must be one of {', '.join(_MESSAGE_STATES)}")
    limit, endpoint = page_limit(request), query.get("endpoint")
    found = await aside(
        lambda: jobs.outbox.messages(tenant, limit=limit, endpoint_id=endpoint, state=state)
    )
    return JSONResponse({"object": "list", "data": found})


async def redeliver(request: Request) -> Response:
    """``POST /v1/webhooks/messages/{id}/redeliver``: the same id and bytes, signed anew."""
    jobs, tenant = service_of(request), tenant_of(request)
    message_id = request.path_params["message_id"]
    message = await aside(jobs.outbox.redeliver, tenant, message_id)
    if message is None:
        raise _no_such("webhook message")
    await jobs.bell.ring(NEW_WEBHOOK)
    return JSONResponse(message, 202)


def routes() -> list[Any]:
    """The routes of this room."""
    one = f"{_PATH}/{{endpoint_id}}"
    return [
        Route(_PATH, create, methods=["POST"]),
        Route(_PATH, listing, methods=["GET"]),
        Route(f"{_PATH}/messages", messages, methods=["GET"]),
        Route(f"{_PATH}/messages/{{message_id}}/redeliver", redeliver, methods=["POST"]),
        Route(one, retrieve, methods=["GET"]),
        Route(one, delete, methods=["DELETE"]),
        Route(f"{one}/enable", enable, methods=["POST"]),
        Route(f"{one}/rotate", rotate, methods=["POST"]),
    ]


def _id(request: Request) -> str:
    return str(request.path_params["endpoint_id"])


def _no_such(what: str) -> ApiProblem:
    return ApiProblem(404, f"There is no such {what}.", code="not_found")
