"""BentoML's middleware is passed by what needs none of it."""

from typing import Any

import bentoml
from starlette.responses import JSONResponse
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from serving.api.straight import StraightWay

_OF_BENTOML = "trace_id"  # what its context puts into every request's scope


async def _marks(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that says whether a request came through BentoML's layers."""
    await JSONResponse({"passed": _OF_BENTOML in scope})(scope, receive, send)


@bentoml.asgi_app(_marks)
@bentoml.service(name="straight", traffic={"timeout": 86_400}, metrics={"enabled": False})
class _Service:
    """A service of BentoML's, with every layer that it puts around an application."""


_service: Any = _Service  # BentoML's decorator is typed as if it gave the class
_service.add_asgi_middleware(StraightWay, routes=_marks)


def test_the_api_is_reached_past_bentoml_and_everything_else_through_it() -> None:
    with TestClient(_service.to_asgi()) as client:
        assert client.get("/v1/models").json() == {"passed": False}
        assert client.get("/page/app.js").json() == {"passed": True}
        assert client.get("/livez").status_code == 200
