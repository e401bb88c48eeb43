"""What broke a request before is refused by name, and never the service's fault."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from serving.api.json_text import parsed
from serving.problems import ApiProblem
from serving.settings import JobSettings
from serving.streaming.resume import Place
from tests.support_bundle import babble, make_bundle
from tests.support_service import running, wav

ROUTE = "/v1/audio/transcriptions"
BINS = 80
NO_JSON = ('{"a": NaN}', '{"a": 1e999}', '{"a": ' + "9" * 400 + "}", '"\\ud800"', "[" * 100_000)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("bad")
    jobs = JobSettings(folder=folder / "jobs", runners=0)
    with running(make_bundle(folder / "tiny"), jobs=jobs) as (client, _):
        yield client


@pytest.mark.parametrize("text", NO_JSON, ids=("nan", "huge", "digits", "surrogate", "nested"))
def test_json_that_cannot_be_written_again_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parsed(text)
    with pytest.raises(ValueError):
        parsed(text.encode())


def test_json_is_read() -> None:
    assert parsed(b'{"a": [1, -2.5, "\\ud83d\\ude00", null]}') == {
        "a": [1, -2.5, "\U0001f600", None]
    }
    with pytest.raises(ValueError):
        parsed(b'"\xed\xa0\x80"')  # half of a pair as bytes


@pytest.mark.parametrize(
    "body",
    ['{"\\ud800": 1}', '{"model": "tiny", "metadata": {"a": "\\udfff"}}', '{"url": "\\ud800"}'],
)
@pytest.mark.parametrize("route", ["/v1/jobs", "/v1/webhooks"])
def test_half_a_surrogate_pair_is_no_json(client: TestClient, route: str, body: str) -> None:
    answer = client.post(route, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "invalid_body"


def test_a_nul_in_a_form_is_no_text(client: TestClient) -> None:
    fields = {"model": "tiny", "language": "en-\x00"}
    answer = client.post("/v1/jobs", data=fields, files={"file": ("a.wav", wav(babble(0.5)))})
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "language"


@pytest.mark.parametrize(
    "strategy",
    [
        '{"type": "server_vad", "threshold": ' + "9" * 400 + "}",
        '{"type": "\\ud800"}',
        '{"\\ud800": 1}',
    ],
)
def test_a_chunking_strategy_that_is_no_json_is_refused(client: TestClient, strategy: str) -> None:
    answer = client.post(
        ROUTE,
        data={"model": "tiny", "chunking_strategy": strategy},
        files={"file": ("a.wav", wav(babble(0.5)))},
    )
    assert answer.status_code == 400 and answer.json()["error"]["param"] == "chunking_strategy"


@pytest.mark.parametrize("charset", ["utf-7", "unicode_escape", "undefined", "utf-16", "none"])
def test_a_form_in_another_charset_is_refused(client: TestClient, charset: str) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="+2AA-\\ud800"\r\n\r\n+2AA-\\ud800\r\n--x--\r\n'
    kind = f"multipart/form-data; boundary=x; charset={charset}"
    answer = client.post(ROUTE, content=part, headers={"Content-Type": kind})
    assert answer.status_code == 400 and "UTF-8" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "changed", [{"voice": []}, {"voice": ""}, {"voice": [1.0, 1.0]}, {"mean": "x"}, {"base": None}]
)
def test_a_broken_place_is_refused(changed: dict[str, Any]) -> None:
    mean = base64.b64encode(np.zeros(BINS, "<f4").tobytes()).decode()
    good = {"base": 0, "lead": 0, "mean": mean, "frames": 0, "voice": None, "word_end": None}

    def place(begin: dict[str, Any]) -> Place:
        document = json.dumps({"seq": 1, "begins": [begin]}).encode()
        text = base64.urlsafe_b64encode(document).decode()
        return Place.from_text(text, channels=1, mel_bins=BINS)

    assert place(good).seq == 1
    with pytest.raises(ApiProblem) as refused:
        place(good | changed)
    assert refused.value.code == "bad_place"
