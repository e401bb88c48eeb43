"""The OpenAPI document is valid, names every route, and tells the truth about real answers."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient

from serving.api.app import Application
from serving.api.listen_query import PARAMETERS
from serving.api.openai_form import NEUTRAL
from serving.api.openapi import document, operations
from serving.page.routes import PATHS
from tests.support_bundle import babble, make_bundle
from tests.support_service import running, wav

BENTOMLS = {("get", "/livez"), ("get", "/readyz")}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    with running(make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")) as (client, _):
        yield client


def problems_of(value: Any, shape: str) -> list[str]:
    schema = {"$ref": f"#/components/schemas/{shape}", "components": document()["components"]}
    return [error.message for error in Draft202012Validator(schema).iter_errors(value)]


def test_the_document_is_valid_and_served(client: TestClient) -> None:
    answer = client.get("/openapi.json")
    assert answer.status_code == 200 and answer.json() == json.loads(json.dumps(document()))
    OpenAPIV31SpecValidator(answer.json()).validate()


def test_every_route_is_described_and_nothing_else() -> None:
    served = set()
    for route in Application()._app.routes:
        assert isinstance(route, Route | WebSocketRoute)
        path = route.path.replace(":path", "")
        if path in ("/{path}", "/page/snippets.json", "/page/key", *PATHS):
            continue
        methods = (route.methods or set()) if isinstance(route, Route) else {"GET"}
        served |= {(method.lower(), path) for method in methods - {"HEAD"}}
    described = {(operation.verb, operation.path) for operation in operations()}
    assert described == served | BENTOMLS


def test_fields_and_parameters_are_those_that_the_code_checks() -> None:
    paths = document()["paths"]
    listen = {one["name"] for one in paths["/v1/listen"]["get"]["parameters"]}
    assert {parameter.name for parameter in PARAMETERS} <= listen
    body = paths["/v1/audio/transcriptions"]["post"]["requestBody"]["content"]
    form = body["multipart/form-data"]["schema"]
    assert {"file", "model", *NEUTRAL} <= form["properties"].keys()


def test_real_answers_have_the_shapes_that_are_promised(client: TestClient) -> None:
    def ask(**fields: Any) -> Any:
        files = {"file": ("speech.wav", wav(babble(2.0)))}
        answer = client.post(
            "/v1/audio/transcriptions", data={"model": "tiny", **fields}, files=files
        )
        return answer.json()

    everything = {"timestamp_granularities[]": ["word", "segment"]}
    verbose = ask(response_format="verbose_json", **everything)
    assert verbose["words"] and not problems_of(verbose, "VerboseTranscription")
    assert not problems_of(ask(), "Transcription")
    assert not problems_of(client.get("/v1/models").json(), "ModelList")
    assert not problems_of(client.get("/v1/models/tiny").json(), "Model")
    for wrong in (
        ask(temperature="1"),
        client.get("/v1/jobs/none").json(),
        client.get("/no").json(),
    ):
        assert not problems_of(wrong, "Error")
    assert problems_of({"error": "text"}, "Error")  # the shape does refuse something
