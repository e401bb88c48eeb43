"""One route of the OpenAPI document."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serving.api.openapi_shapes import text

Answers = Mapping[int, tuple[str, Mapping[str, Any]]]
"""Status -> when it comes, and its shape by media type."""


@dataclass(frozen=True, kw_only=True)
class Operation:
    """What a method of a route takes and gives."""

    verb: str  # get, post, delete
    path: str
    summary: str
    answers: Answers
    description: str = ""
    parameters: tuple[Mapping[str, Any], ...] = ()
    form: Mapping[str, Any] | None = None  # multipart body
    json: Mapping[str, Any] | None = None  # JSON body
    errors: tuple[int, ...] = ()
    protocol: str | None = None  # shown instead of the verb

    def described(self) -> dict[str, Any]:
        """The operation object."""
        found: dict[str, Any] = {"summary": self.summary, "responses": self._responses()}
        if self.description:
            found["description"] = self.description
        if self.parameters:
            found["parameters"] = [dict(parameter) for parameter in self.parameters]
        bodies = {"multipart/form-data": self.form, "application/json": self.json}
        content = {media: {"schema": body} for media, body in bodies.items() if body is not None}
        if content:
            required = any(media["schema"]["required"] for media in content.values())
            found["requestBody"] = {"required": required, "content": content}
        if self.protocol:
            found["x-protocol"] = self.protocol
        return found

    def _responses(self) -> dict[str, Any]:
        good = {
            str(status): {
                "description": when,
                **({"content": {m: {"schema": s} for m, s in media.items()}} if media else {}),
            }
            for status, (when, media) in self.answers.items()
        }
        bad = {str(n): {"$ref": f"#/components/responses/Error{n}"} for n in self.errors}
        return good | bad


def path_parameter(name: str, description: str) -> dict[str, Any]:
    """A part of the path."""
    schema = text()
    return {
        "in": "path", "name": name, "required": True, "schema": schema, "description": description
    }  # fmt: skip


def query_parameter(name: str, schema: Mapping[str, Any], description: str) -> dict[str, Any]:
    """A part of the query."""
    return {"in": "query", "name": name, "schema": dict(schema), "description": description}
