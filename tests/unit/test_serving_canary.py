"""A real server with keys and TLS: the SDK talks to it, and nothing that anybody sent is left behind.

One phrase goes in by every way that content can take: query, path, form, file name, header, key,
JSON, frame. It is then looked for in every byte that the service wrote, and in its metrics.
"""

import json
import os
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from serving.packaging.launch import serve_command, serve_environment
from serving.tenants.access import access_ledger
from serving.tenants.store import KeyStore
from tests.support_bundle import babble, make_bundle
from tests.support_service import pcm16, wav
from tests.support_tls import self_made

pytestmark = pytest.mark.slow
CANARY = "kumquat7391xylophone"
LISTEN = "/v1/listen?encoding=linear16&sample_rate=16000"
START_LIMIT_S = 120.0


@dataclass(frozen=True, kw_only=True, repr=False)
class Secured:
    """A server behind TLS, and a key of each kind."""

    process: "subprocess.Popen[bytes]"
    port: int
    folder: Path  # everything that it may write
    trust: ssl.SSLContext
    key: str
    admin: str

    def http(self) -> httpx.Client:
        return httpx.Client(
            base_url=f"https://127.0.0.1:{self.port}", verify=self.trust, timeout=60
        )

    def frames(self, path: str, headers: dict[str, str], *frames: str | bytes) -> None:
        """Send frames to a stream, and read until it ends or refuses."""
        address = f"wss://127.0.0.1:{self.port}{path}"
        with (
            suppress(InvalidStatus, ConnectionClosed),
            connect(address, ssl=self.trust, additional_headers=headers, open_timeout=60) as stream,
        ):
            for frame in frames:
                stream.send(frame)
            for _ in stream:
                pass


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    bundle_dir = make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")
    tls = self_made(tmp_path_factory.mktemp("tls"))
    folder = tmp_path_factory.mktemp("written")
    store = KeyStore(folder / "tenants" / "keys.sqlite", create=True)
    key = store.create("acme", ["transcribe", "listen", "jobs"]).text
    admin = store.create("acme", ["admin"]).text
    store.close()
    (folder / "tmp").mkdir()
    environment = serve_environment(
        os.environ | {"TMPDIR": str(folder / "tmp")},
        bundle_dir=bundle_dir,
        bentoml_home=folder / "home",
        keys_path=folder / "tenants" / "keys.sqlite",
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with (folder / "log").open("wb") as sink:
        process = subprocess.Popen(
            serve_command(port=port, tls=tls), env=environment, stdout=sink, stderr=sink,
            start_new_session=True,
        )  # fmt: skip
    trust = ssl.create_default_context(cafile=str(tls.certificate))
    made = Secured(process=process, port=port, folder=folder, trust=trust, key=key, admin=admin)
    try:
        _wait(made)
        yield made
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(20)


def _wait(made: Secured) -> None:
    end = time.monotonic() + START_LIMIT_S
    with made.http() as client:
        while made.process.poll() is None and time.monotonic() < end:
            with suppress(httpx.TransportError):
                if client.get("/readyz").status_code == 200:
                    return
            time.sleep(0.2)
    raise AssertionError((made.folder / "log").read_text())


def test_the_openai_client_over_tls_with_a_key(secured: Secured) -> None:
    url = f"https://127.0.0.1:{secured.port}/v1"
    with httpx.Client(verify=secured.trust) as transport:
        sdk = openai.OpenAI(base_url=url, api_key=secured.key, http_client=transport, max_retries=0)
        answer = sdk.audio.transcriptions.create(file=("a.wav", wav(babble(2.0))), model="tiny")
        assert answer.text
        wrong = openai.OpenAI(base_url=url, api_key="sk-no", http_client=transport, max_retries=0)
        with pytest.raises(openai.AuthenticationError) as refused:
            wrong.models.list()
        assert refused.value.code == "invalid_api_key"
        admin = openai.OpenAI(
            base_url=url, api_key=secured.admin, http_client=transport, max_retries=0
        )
        with pytest.raises(openai.PermissionDeniedError):
            admin.audio.transcriptions.create(file=("a.wav", wav(babble(1.0))), model="tiny")
    with pytest.raises(httpx.ConnectError), httpx.Client() as distrusting:
        distrusting.get(f"{url}/models")
    with pytest.raises(httpx.TransportError), httpx.Client() as plain:
        plain.get(f"http://127.0.0.1:{secured.port}/v1/models").raise_for_status()


def test_without_keys_no_other_machine_is_served(tmp_path: Path) -> None:
    unkeyed = {name: value for name, value in os.environ.items() if not name.startswith("AURICLE_")}
    environment = serve_environment(unkeyed, bundle_dir=tmp_path, bentoml_home=tmp_path / "home")
    for told in ({}, {"BENTOML_HOST": "0.0.0.0"}):
        command = serve_command(host="0.0.0.0")
        if told:  # as in a container, where no argument says it
            at = command.index("--host")
            del command[at : at + 2]
        ended = subprocess.run(
            command,
            env=environment | told,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert ended.returncode == 1
        assert "no key store" in ended.stderr and "AURICLE_OPEN=1" in ended.stderr
        assert "Traceback" not in ended.stderr


def test_nothing_that_was_sent_is_left_behind(secured: Secured) -> None:
    key = {"Authorization": f"Bearer {secured.key}"}
    sound = wav(babble(1.0))
    with secured.http() as client:
        _send_everywhere(client, key, sound)
        _stream_everywhere(secured, key)
        page = client.get("/metrics", headers={"Authorization": f"Bearer {secured.admin}"}).text
        usage = client.get("/v1/usage", headers=key).text
    assert "auricle_requests_total" in page and '"requests"' in usage
    assert CANARY not in page and CANARY not in usage
    secured.process.send_signal(signal.SIGTERM)
    secured.process.wait(60)
    assert access_ledger(secured.folder / "tenants").verify().ok
    written = [path for path in secured.folder.rglob("*") if path.is_file()]
    assert any(path.name.startswith("access-") for path in written)
    secret = secured.key.split("_", 2)[2].encode()
    for path in written:
        content = path.read_bytes()
        assert CANARY.encode() not in content and CANARY not in str(path), path
        assert secret not in content, path
    log = (secured.folder / "log").read_text()
    assert '"message":"transcribed"' in log and "Traceback" not in log


def _send_everywhere(client: httpx.Client, key: dict[str, str], sound: bytes) -> None:
    route = "/v1/audio/transcriptions"
    calls: list[dict[str, Any]] = [
        {"files": {"file": (f"{CANARY}.wav", sound)}, "data": {"model": "tiny"}},
        {"files": {"file": (f"{CANARY}.wav", CANARY.encode() * 99)}, "data": {"model": "tiny"}},
        {"files": {"file": ("a.wav", sound)}, "data": {"model": CANARY}},
        {"files": {"file": ("a.wav", sound)}, "data": {"model": "tiny", "prompt": CANARY}},
        {"files": {"file": ("a.wav", sound)}, "data": {"model": "tiny", CANARY: CANARY}},
        {"content": CANARY.encode(), "headers": {"content-type": f"multipart/{CANARY}"}},
    ]
    for call in calls:
        headers = {**key, **call.pop("headers", {}), "X-Auricle-Speaker": CANARY,
                   "Idempotency-Key": CANARY, "User-Agent": CANARY, "Cookie": CANARY}  # fmt: skip
        assert client.post(f"{route}?q={CANARY}", headers=headers, **call).status_code < 500
    for headers in ({"Authorization": f"Bearer {CANARY}"}, {"x-api-key": CANARY}, key):
        for path in (
            f"/v1/models/{CANARY}",
            f"/{CANARY}?{CANARY}={CANARY}",
            f"/v1/usage?start={CANARY}",
        ):
            assert client.get(path, headers=headers).status_code in (400, 401, 404)
    asked = {"ttl_seconds": 30, "scopes": [CANARY]}
    assert client.post("/v1/auth/grant", headers=key, json=asked).status_code == 403


def _stream_everywhere(secured: Secured, key: dict[str, str]) -> None:
    heard = pcm16(babble(1.0)).tobytes()
    named = {**key, "X-Auricle-Speaker": CANARY}
    secured.frames(LISTEN, named, heard, json.dumps({"type": "CloseStream"}))
    secured.frames(LISTEN, key, heard, json.dumps({"type": CANARY, "text": CANARY}))
    secured.frames(LISTEN, key, CANARY.encode() * 100, "")
    secured.frames(f"{LISTEN}&{CANARY}={CANARY}", key)
    secured.frames(f"{LISTEN}&model={CANARY}", key)
    secured.frames(LISTEN, {"Authorization": f"Token {CANARY}"})
    secured.frames(f"/{CANARY}", key)
