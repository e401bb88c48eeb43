"""How the tests of OpenAI's routes ask, and what an error must look like."""

from typing import Any

from starlette.testclient import TestClient

ROUTE = "/v1/audio/transcriptions"


def post(client: TestClient, content: bytes, **fields: Any) -> Any:
    data = {"model": "tiny", **fields}
    return client.post(ROUTE, data=data, files={"file": ("a.wav", content, "audio/wav")})


def error_of(response: Any) -> dict[str, Any]:
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert "Traceback" not in response.text
    return dict(body["error"])
