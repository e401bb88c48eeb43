"""Everything between the network and the routes, put together."""

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp

from serving.api import auth_api, usage_api
from serving.api.cors import cross_origin
from serving.api.gate import Gate, GateRules
from serving.runtime import Runtime
from serving.tenants.desk import TenantDesk


def tenant_routes() -> list[Route]:
    """Routes about the caller."""
    return [*auth_api.routes(), *usage_api.routes()]


def protected(routes: Starlette, runtime: Runtime, tenants: TenantDesk) -> ASGIApp:
    """``routes`` behind the gate, and the gate behind the rule about other sites' pages."""
    routes.state.tenants = tenants
    protection = runtime.settings.protection
    rules = GateRules(
        max_body_bytes=runtime.settings.max_upload_bytes,
        open_to_network=protection.open_to_network,
        origins=protection.origins,
    )

    def refused(code: str) -> None:
        runtime.metrics.refused.labels(code).inc()

    return cross_origin(Gate(routes, tenants, rules, refused), protection.origins)
