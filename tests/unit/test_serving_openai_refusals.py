"""What the OpenAI routes refuse, each by its name, and what they never tell."""

import io
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from serving.runtime import Runtime
from tests.support_bundle import ALPHABET, babble, make_bundle
from tests.support_openai import ROUTE, error_of, post
from tests.support_service import running, wav


@pytest.fixture(scope="module")
def bundle_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def service(bundle_dir: Path) -> Iterator[tuple[TestClient, Runtime]]:
    with running(bundle_dir, max_upload_bytes=4 << 20, max_duration_s=60.0) as pair:
        yield pair


@pytest.fixture
def client(service: tuple[TestClient, Runtime]) -> TestClient:
    return service[0]


def test_translation_is_refused_in_words(client: TestClient) -> None:
    files = {"file": ("a.wav", wav(babble(0.5)))}
    answer = client.post("/v1/audio/translations", data={"model": "tiny"}, files=files)
    assert answer.status_code == 400 and error_of(answer)["code"] == "unsupported_operation"


def _zip() -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("a.txt", "no audio")
    return sink.getvalue()


def _claims_two_gigabytes() -> bytes:
    good = wav(babble(0.5))
    return good[:40] + struct.pack("<I", 2_000_000_000) + good[44:]


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", 400, "empty_audio"),
        (b"\x00\x01 certainly no audio " * 40, 400, "unreadable_audio"),
        (_zip(), 400, "unreadable_audio"),
        (wav(np.zeros(0, np.float32)), 400, "empty_audio"),
        (wav(babble(0.01)), 400, "audio_too_short"),
        (wav(np.zeros(61 * 16_000, np.float32)), 413, "audio_too_long"),
        (b"RIFF" + bytes(5 << 20), 413, "audio_too_large"),
    ],
)
def test_bad_audio_is_refused_by_name(
    client: TestClient, content: bytes, status: int, code: str
) -> None:
    answer = post(client, content)
    error = error_of(answer)
    assert (answer.status_code, error["code"], error["param"]) == (status, code, "file")
    assert error["type"] == "invalid_request_error"


def test_a_header_that_claims_two_gigabytes_costs_nothing(client: TestClient) -> None:
    answer = post(client, _claims_two_gigabytes(), response_format="verbose_json")
    assert answer.status_code == 200
    assert "truncated_audio" in answer.json()["warnings"]
    assert answer.json()["duration"] <= 0.5


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": "diarized_json"}, "response_format"),
        ({"response_format": "docx"}, "response_format"),
        ({"temperature": "0.7"}, "temperature"),
        ({"prompt": "a" * 5000}, "prompt"),
        ({"prompt": ",".join(f"{a}{b}" for a in ALPHABET[:20] for b in ALPHABET[:20])}, "prompt"),
        ({"stream": "true", "response_format": "text"}, "stream"),
        ({"stream": "maybe"}, "stream"),
        ({"include[]": "logprobs", "response_format": "verbose_json"}, "include[]"),
        ({"include[]": "everything"}, "include[]"),
        ({"languages[]": ["de", "fr"]}, "languages"),
        ({"known_speaker_names[]": "agent"}, "known_speaker_names[]"),
        ({"known_speaker_references[]": "data:audio/wav;base64,AA"}, "known_speaker_references[]"),
        ({"chunking_strategy": "always"}, "chunking_strategy"),
        ({"chunking_strategy[type]": "semantic"}, "chunking_strategy[type]"),
        (
            {"chunking_strategy": '{"type": "server_vad", "threshold": 0.9}'},
            "chunking_strategy[threshold]",
        ),
        (
            {
                "chunking_strategy[type]": "server_vad",
                "chunking_strategy[silence_duration_ms]": "9",
            },
            "chunking_strategy[silence_duration_ms]",
        ),
        ({"chunking_strategy": '{"type": "server_vad", "depth": 3}'}, "chunking_strategy[depth]"),
        ({"language": "de"}, "language"),
        ({"keywords[]": ["x"] * 201}, "keywords"),
        ({"keywords[]": "x" * 101}, "keywords"),
        ({"timestamp_granularities[]": "word"}, "timestamp_granularities[]"),
        (
            {"timestamp_granularities[]": "phone", "response_format": "verbose_json"},
            "timestamp_granularities[]",
        ),
        ({"model": ["tiny", "tiny"]}, "model"),
        ({"model": ""}, "model"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(
    client: TestClient, fields: dict[str, Any], param: str
) -> None:
    answer = post(client, wav(babble(0.5)), **fields)
    assert answer.status_code == 400
    assert error_of(answer)["param"] == param


def test_neutral_values_are_accepted(client: TestClient) -> None:
    neutral = {"temperature": "0", "prompt": "", "stream": "false", "language": "en-GB"}
    more = {"languages[]": ["fr", "en-US"], "timestamp_granularities": "segment"}
    more |= {"response_format": "verbose_json", "chunking_strategy": "auto"}
    answer = post(client, wav(babble(1.0)), **neutral, **more)
    assert answer.status_code == 200


def test_errors_outside_the_routes_have_the_same_shape(client: TestClient) -> None:
    missing = client.get("/v2/nothing")
    assert missing.status_code == 404 and error_of(missing)["code"] == "not_found"
    wrong = client.get(ROUTE)
    assert wrong.status_code == 405 and error_of(wrong)["code"] == "method_not_allowed"
    assert "POST" in wrong.headers["allow"]
    plain = client.post(ROUTE, json={"model": "tiny"})
    assert plain.status_code == 400 and error_of(plain)["code"] == "invalid_body"
    broken = client.post(ROUTE, content=b"x", headers={"content-type": "multipart/form-data"})
    assert broken.status_code == 400 and error_of(broken)["code"] == "invalid_body"
    kind = {"content-type": "Multipart/Form-Data; boundary=b"}
    garbage = client.post(ROUTE, content=b"garbage" * 100, headers=kind)
    assert garbage.status_code == 400 and error_of(garbage)["code"] == "invalid_body"
    assert "cannot be read" in error_of(garbage)["message"]
    no_file = client.post(ROUTE, data={"model": "tiny"}, files={"other": ("a", b"x")})
    assert no_file.status_code == 400
    bare = client.post(ROUTE, files={"model": (None, "tiny")})
    assert bare.status_code == 400 and error_of(bare)["param"] == "file"


def test_a_chunked_upload_cannot_pass_the_limit(client: TestClient) -> None:
    def blocks() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(6):
            yield bytes(1 << 20)

    kind = {"content-type": "multipart/form-data; boundary=b"}
    answer = client.post(ROUTE, content=blocks(), headers=kind)
    assert answer.status_code == 413 and error_of(answer)["code"] == "audio_too_large"


def test_a_speaker_must_be_a_pseudonym(client: TestClient) -> None:
    files = {"file": ("a.wav", wav(babble(0.5)))}
    headers = {"X-Auricle-Speaker": "Jane Doe <jane@x>"}
    answer = client.post(ROUTE, data={"model": "tiny"}, files=files, headers=headers)
    assert answer.status_code == 400 and error_of(answer)["param"] == "speaker"


def test_a_failing_model_is_a_500_without_a_traceback(
    bundle_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(bundle_dir) as (client, runtime):

        def fail(pieces: object) -> Any:
            raise RuntimeError("secret words")

        monkeypatch.setattr(runtime.recognizer.engine, "offline", fail)
        answer = post(client, wav(babble(0.5)))
        assert answer.status_code == 500
        assert error_of(answer)["type"] == "server_error"
        assert "secret" not in answer.text


def test_too_much_waiting_work_is_429_with_retry_after(bundle_dir: Path) -> None:
    with running(bundle_dir, max_waiting_requests=0) as (client, _):
        answer = post(client, wav(babble(0.5)))
        assert answer.status_code == 429 and answer.headers["retry-after"] == "1"
        assert error_of(answer)["type"] == "rate_limit_error"
