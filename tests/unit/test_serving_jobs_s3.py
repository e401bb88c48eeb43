"""Jobs whose audio lies in S3: a real server, TLS, signatures, and what goes wrong by name."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from data.audio_errors import AudioTooLarge
from serving.delivery.objects import StoreSilent, fetch_object
from serving.settings import JobSettings
from tests.support_bundle import babble, make_bundle
from tests.support_s3 import BUCKET, S3, s3_server
from tests.support_service import running, wav
from tests.unit.test_serving_jobs_api import ended, error_of

pytestmark = pytest.mark.slow  # the server takes most of it
SPEECH = wav(babble(1.5))
LIMIT_BYTES = 1 << 20
SECRET = "a-secret-that-is-wrong"
INSIDE = f"s3://{BUCKET}/in"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    objects = {
        "a call.wav": SPEECH, "large.wav": bytes(LIMIT_BYTES + 1), "text.wav": b"no sound" * 99,
    }  # fmt: skip
    with s3_server(tmp_path_factory.mktemp("s3"), objects) as server:
        yield server


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    folder = tmp_path_factory.mktemp("jobs")
    settings = JobSettings(
        folder=folder, max_attempts=1, object_prefixes=(INSIDE, "s3://elsewhere/in")
    )
    bundle_dir = make_bundle(folder / "tiny")
    with running(bundle_dir, jobs=settings, max_upload_bytes=LIMIT_BYTES) as (client, _):
        yield client


@pytest.fixture
def trusted(s3: S3, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def run(client: TestClient, reference: str) -> dict[str, Any]:
    answer = client.post("/v1/jobs", json={"model": "tiny", "object": reference})
    assert answer.status_code == 202, answer.text
    return ended(client, answer.json()["id"])


def failure(client: TestClient, reference: str) -> tuple[str, str]:
    job = run(client, reference)
    assert job["status"] == "failed"
    return job["error"]["code"], job["error"]["message"]


def test_a_recording_in_s3_is_transcribed(client: TestClient, trusted: Any) -> None:
    job = run(client, f"{INSIDE}/a call.wav")
    assert job["status"] == "done", job
    result = client.get(f"/v1/jobs/{job['id']}/result").json()
    assert result["duration_s"] == pytest.approx(1.5) and result["text"]


@pytest.mark.parametrize("reference", [f"{INSIDE}/none.wav", "s3://elsewhere/in/a.wav"])
def test_what_is_not_there_is_said_so(client: TestClient, trusted: Any, reference: str) -> None:
    code, message = failure(client, reference)
    assert code == "object_unreachable" and "there is no such object" in message


def test_what_is_too_large_is_not_read(client: TestClient, trusted: Any, tmp_path: Path) -> None:
    assert failure(client, f"{INSIDE}/large.wav")[0] == "audio_too_large"
    with pytest.raises(AudioTooLarge, match="larger than 100 bytes"):
        fetch_object(f"{INSIDE}/large.wav", tmp_path / "x", max_bytes=100, timeout_s=10)
    assert not (tmp_path / "x").exists()


def test_what_is_no_audio_is_a_bad_recording_and_no_bad_store(
    client: TestClient, trusted: Any
) -> None:
    assert failure(client, f"{INSIDE}/text.wav")[0] == "unreadable_audio"


@pytest.mark.parametrize("variable", ["AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"])
def test_wrong_credentials_are_named_and_not_shown(
    client: TestClient, trusted: pytest.MonkeyPatch, variable: str
) -> None:
    trusted.setenv(variable, SECRET)
    code, message = failure(client, f"{INSIDE}/a call.wav")
    assert code == "object_unreachable" and "refused this service's credentials" in message
    assert SECRET not in message


def test_a_server_that_nobody_vouches_for_gets_no_signature(
    trusted: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trusted.delenv("SSL_CERT_FILE")
    with pytest.raises(StoreSilent, match="did not answer"):
        fetch_object(f"{INSIDE}/a call.wav", tmp_path / "x", max_bytes=1 << 20, timeout_s=10)


def test_nothing_outside_the_operators_prefixes(client: TestClient, trusted: Any) -> None:
    for reference in (f"s3://{BUCKET}/out/a.wav", f"{INSIDE}/../out/a.wav", "s3://calls-2/in/a"):
        answer = client.post("/v1/jobs", json={"model": "tiny", "object": reference})
        assert answer.status_code == 400 and error_of(answer)["code"] == "object_not_allowed"
