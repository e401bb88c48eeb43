"""Routes of the page and of the API reference, under a policy that lets nothing foreign in."""

from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serving.page.files import PageFile, page_files
from serving.page.local_key import key_for
from serving.page.snippets import snippets
from serving.problems import ApiProblem
from serving.runtime import Runtime

# No script, style, font, frame or connection but our own; text reaches the page as text only.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "media-src blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=(), display-capture=()",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-cache",  # asked again each time; the tag makes it a short answer
}
PATHS = ("/", "/docs", "/page/{name}")  # of people, not of programs: no entry in OpenAPI


class Page:
    """Serves the page; its files are read once, when the process starts."""

    def __init__(self) -> None:
        self._files = page_files()
        self._snippets = {"snippets": [asdict(snippet) for snippet in snippets()]}

    def routes(self) -> list[Route]:
        """``/``, ``/docs`` and what both load."""
        home, docs, file = PATHS
        return [
            Route(home, self._home, methods=["GET"]),
            Route(docs, self._docs, methods=["GET"]),
            Route("/page/snippets.json", self._code, methods=["GET"]),
            Route("/page/key", self._key, methods=["GET"]),
            Route(file, self._file, methods=["GET"]),
        ]

    async def _home(self, request: Request) -> Response:
        return _answer(request, self._files["index.html"])

    async def _docs(self, request: Request) -> Response:
        return _answer(request, self._files["docs.html"])

    async def _code(self, _: Request) -> Response:
        return JSONResponse(self._snippets, headers=_HEADERS)

    async def _key(self, request: Request) -> Response:
        runtime: Runtime = request.app.state.runtime
        key = key_for(request, runtime.settings.protection.page_key_path)
        headers = {**_HEADERS, "Cache-Control": "no-store"}
        if key is None:
            return Response(status_code=204, headers=headers)
        return JSONResponse({"key": key}, headers=headers)

    async def _file(self, request: Request) -> Response:
        found = self._files.get(request.path_params["name"])
        if found is None:
            raise ApiProblem(404, "No such route.", code="not_found")
        return _answer(request, found)


def _answer(request: Request, file: PageFile) -> Response:
    headers = {**_HEADERS, "ETag": file.etag}
    if request.headers.get("if-none-match") == file.etag:
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)
