"""Which pages of other sites may read answers: none, unless the operator lists their origins."""

from collections.abc import Sequence

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

_HEADERS = (
    "authorization", "x-api-key", "content-type", "idempotency-key", "x-auricle-speaker",
    "openai-organization", "openai-project", "x-stainless-arch", "x-stainless-lang",
    "x-stainless-os", "x-stainless-package-version", "x-stainless-retry-count",
    "x-stainless-runtime", "x-stainless-runtime-version", "x-stainless-timeout",
)  # fmt: skip
_EXPOSED = (
    "retry-after", "location", "dg-request-id", "dg-error", "idempotent-replayed",
    "x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests",
    "x-ratelimit-limit-audio-seconds", "x-ratelimit-remaining-audio-seconds",
    "x-ratelimit-reset-audio-seconds",
)  # fmt: skip


def cross_origin(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """``app`` for its own pages and those of the given origins, such as ``https://a.example``.

    No cookies: a page must hold a key or a token, so that a listed origin gains nothing by itself.
    """
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "POST", "DELETE"),
        allow_headers=_HEADERS,
        expose_headers=_EXPOSED,
        allow_credentials=False,
        max_age=600,
    )
