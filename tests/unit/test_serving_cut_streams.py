"""Open streams fall with their key, whoever revokes it and wherever they are open."""

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from serving.runtime import Runtime
from serving.settings import JobSettings, ProtectionSettings
from serving.tenants.access import access_ledger
from serving.tenants.authenticator import Authenticator, Standing
from serving.tenants.store import KeyStore
from serving.tenants.watch import KeyWatch
from tests.support_bundle import babble, make_bundle
from tests.support_live import served
from tests.support_service import pcm16, wav

ROOT = Path(__file__).resolve().parents[2]
LISTEN = "/v1/listen?encoding=linear16&sample_rate=16000"
_LIMIT_S = 30.0


@dataclass(frozen=True, kw_only=True, repr=False)
class Keyed:
    url: str
    runtime: Runtime
    store: KeyStore
    folder: Path

    def key(self, *scopes: str, lifetime_s: float | None = None) -> str:
        return self.store.create("acme", scopes, lifetime_s=lifetime_s).text

    def stream(self, key: str, **options: Any) -> ClientConnection:
        headers = bearer(key)
        return connect(f"ws{self.url[4:]}{LISTEN}", additional_headers=headers, **options)


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    folder = tmp_path_factory.mktemp("tenants")
    store = KeyStore(folder / "keys.sqlite", create=True)
    with served(
        make_bundle(folder / "tiny"),
        protection=ProtectionSettings(keys_path=folder / "keys.sqlite", token_stream_s=0.5),
        jobs=JobSettings(folder=folder / "jobs", runners=0),  # a job stays where it is
    ) as (url, runtime):
        yield Keyed(url=url, runtime=runtime, store=store, folder=folder)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def ending_of(socket: ClientConnection) -> tuple[int | None, str | None]:
    """How the server closes it; messages before that are passed over."""
    with pytest.raises(ConnectionClosed):
        while True:
            socket.recv(timeout=_LIMIT_S)
    return socket.close_code, socket.close_reason


def until(holds: Any) -> None:
    end = time.monotonic() + _LIMIT_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_revoked_keys_stream_is_closed_by_name_and_its_neighbour_goes_on(keyed: Keyed) -> None:
    revoked, kept = keyed.key("listen"), keyed.key("listen")
    with keyed.stream(revoked) as falls, keyed.stream(kept) as stays:
        for socket in (falls, stays):
            socket.send(pcm16(babble(1.0)).tobytes())
        began = time.monotonic()
        subprocess.run(  # another process, as an operator does it
            [sys.executable, "-m", "pipelines.cli", "keys", "revoke", revoked.split("_")[1],
             "--store", str(keyed.folder / "keys.sqlite")],
            cwd=ROOT, check=True, capture_output=True,
        )  # fmt: skip
        code, reason = ending_of(falls)
        assert (code, reason) == (1008, "api_key_revoked: This API key was revoked.")
        assert time.monotonic() - began < _LIMIT_S
        stays.send(json.dumps({"type": "CloseStream"}))
        assert ending_of(stays)[0] == 1000
    until(lambda: keyed.runtime.metrics.streams_open._value.get() == 0)  # its place is free
    key_id = revoked.split("_")[1]
    until(
        lambda: "cut" in [e.kind for e in access_ledger(keyed.folder).events() if e.actor == key_id]
    )
    assert keyed.runtime.metrics.refused.labels("api_key_revoked")._value.get() == 1


def test_a_stream_ends_with_its_keys_time(keyed: Keyed) -> None:
    with keyed.stream(keyed.key("listen", lifetime_s=2.0)) as socket:
        assert ending_of(socket) == (1008, "api_key_expired: This API key has expired.")


def test_a_rotation_shortens_the_time_of_an_open_stream(keyed: Keyed) -> None:
    old = keyed.key("listen")
    with keyed.stream(old) as socket:
        new = keyed.store.rotate(old.split("_")[1], overlap_s=0.1, lifetime_s=None)
        assert ending_of(socket)[1] == "api_key_expired: This API key has expired."
    with keyed.stream(new.text) as socket:
        socket.send(json.dumps({"type": "CloseStream"}))
        assert ending_of(socket)[0] == 1000


def test_a_stream_outlives_its_client_token_by_the_allowance_and_falls_with_the_key(
    keyed: Keyed,
) -> None:
    key = keyed.key("listen")

    def token(ttl_s: int) -> str:
        body = {"ttl_seconds": ttl_s}
        answer = httpx.post(f"{keyed.url}/v1/auth/grant", json=body, headers=bearer(key))
        return str(answer.json()["access_token"])

    with keyed.stream(token(1)) as short, keyed.stream(token(600)) as long:
        assert ending_of(short) == (1008, "token_expired: The time of this client token is over.")
        keyed.store.revoke(key.split("_")[1])
        assert ending_of(long)[1] == "api_key_revoked: This API key was revoked."


def test_the_events_of_a_job_end_with_the_key(keyed: Keyed) -> None:
    key = keyed.key("jobs")
    with httpx.Client(base_url=keyed.url, headers=bearer(key), timeout=_LIMIT_S) as client:
        files = {"file": ("a.wav", wav(babble(1.0)))}
        job = client.post("/v1/jobs", data={"model": "tiny"}, files=files).json()
        with client.stream("GET", f"/v1/jobs/{job['id']}/events") as events:
            lines = events.iter_lines()
            assert next(line for line in lines if line.startswith("event:")) == "event: progress"
            keyed.store.revoke(key.split("_")[1])
            rest = [line for line in lines if line]  # to the end of the answer
        assert rest[-2] == "event: error"
        error = json.loads(rest[-1].removeprefix("data: "))["error"]
        assert (error["code"], error["message"]) == (
            "api_key_revoked", "This API key was revoked.",
        )  # fmt: skip
        assert client.get("/v1/models").status_code == 401


def test_the_words_of_a_file_end_with_the_key(keyed: Keyed, monkeypatch: Any) -> None:
    engine, calls, go_on = keyed.runtime.recognizer.engine, [], threading.Event()
    inner = engine.offline

    def held(pieces: Any) -> Any:
        calls.append(len(pieces))
        assert len(calls) == 1 or go_on.wait(_LIMIT_S)
        return inner(pieces)

    monkeypatch.setattr(engine, "offline", held)
    key = keyed.key("transcribe")
    client = openai.OpenAI(base_url=f"{keyed.url}/v1", api_key=key, max_retries=0)
    sound = ("a.wav", wav(babble(75.0)))
    events = client.audio.transcriptions.create(file=sound, model="tiny", stream=True)
    assert next(iter(events)).type == "transcript.text.delta"
    keyed.store.revoke(key.split("_")[1])
    try:
        with pytest.raises(openai.APIError) as failed:
            list(events)
    finally:
        go_on.set()
    assert failed.value.code == "api_key_revoked"


def test_a_look_is_one_question_until_the_store_changes(tmp_path: Path) -> None:
    store = KeyStore(tmp_path / "keys.sqlite", create=True)
    asked: list[str] = []

    class Counted(KeyStore):
        def find(self, key_id: str) -> Any:
            asked.append(key_id)
            return super().find(key_id)

    authenticator = Authenticator(Counted(tmp_path / "keys.sqlite"))
    texts = [store.create("acme", ["listen"]).text for _ in range(3)]
    identities = [authenticator.identify(text) for text in texts]
    cut: list[Standing] = []

    async def scene() -> None:
        watch = KeyWatch(authenticator)
        with (
            watch.holding(identities[0], cut.append), watch.holding(identities[1], cut.append),
            watch.holding(identities[2], cut.append),
        ):  # fmt: skip
            asked.clear()
            for _ in range(100):
                watch._look()
            assert not asked and not cut
            store.revoke(texts[1].split("_")[1])
            for _ in range(100):
                watch._look()
            assert len(asked) == 3 and [one.code for one in cut] == ["api_key_revoked"]
        assert watch._task is None  # nothing is open: nobody looks

    asyncio.run(scene())
