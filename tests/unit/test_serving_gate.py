"""Who is let in over HTTP and WebSocket, in the words that OpenAI's and Deepgram's clients read."""

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect

from features.priors import Prior, PriorKey, write_view
from features.spec import FeatureSpec
from serving.api.gate import Gate, GateRules, is_local, presented_by, route_of, scope_needed
from serving.settings import ProtectionSettings
from serving.tenants.access import access_ledger
from serving.tenants.desk import TenantDesk
from serving.tenants.policy import Limits, TenantPolicy
from serving.tenants.store import KeyStore
from tests.support_bundle import babble, make_bundle
from tests.support_service import pcm16, running, wav

ROUTE = "/v1/audio/transcriptions"
LISTEN = "/v1/listen?encoding=linear16&sample_rate=16000"
ORIGIN = "https://shop.example"


@dataclass(frozen=True, kw_only=True, repr=False)
class Keyed:
    client: TestClient
    store: KeyStore
    folder: Path

    def key(self, *scopes: str, tenant: str = "acme") -> str:
        return self.store.create(tenant, scopes or ("transcribe", "listen")).text


@pytest.fixture(scope="module")
def bundle_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def keyed(bundle_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    folder = tmp_path_factory.mktemp("tenants")
    store = KeyStore(folder / "keys.sqlite", create=True)
    protection = ProtectionSettings(keys_path=folder / "keys.sqlite", origins=(ORIGIN,))
    with running(bundle_dir, protection=protection, max_upload_bytes=1 << 20) as (client, _):
        yield Keyed(client=client, store=store, folder=folder)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def post(keyed: Keyed, headers: dict[str, str]) -> Any:
    files = {"file": ("a.wav", wav(babble(1.0)), "audio/wav")}
    return keyed.client.post(ROUTE, data={"model": "tiny"}, files=files, headers=headers)


def error_of(response: Any) -> dict[str, Any]:
    assert set(response.json()) == {"error"}
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    return dict(response.json()["error"])


def goodbye(socket: Any) -> list[str]:
    """End a stream in good order; kinds of what still came."""
    socket.send_text(json.dumps({"type": "CloseStream"}))
    kinds: list[str] = []
    with pytest.raises(WebSocketDisconnect):
        while True:
            kinds.append(socket.receive_json()["type"])
    return kinds


def denied(keyed: Keyed, **options: Any) -> Any:
    connecting = keyed.client.websocket_connect(LISTEN, **options)
    with pytest.raises(WebSocketDenialResponse) as refusal, connecting:
        raise AssertionError("it was let in")
    assert refusal.value.headers["dg-error"] == error_of(refusal.value)["message"]
    return refusal.value


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "Token {}", "token {}", "x-api-key"])
def test_each_way_of_showing_a_key(keyed: Keyed, form: str) -> None:
    key = keyed.key()
    headers = {"x-api-key": key} if form == "x-api-key" else {"Authorization": form.format(key)}
    assert post(keyed, headers).status_code == 200
    with keyed.client.websocket_connect(LISTEN, headers=headers) as socket:
        assert socket.accepted_subprotocol is None
        assert goodbye(socket)[-1] == "Metadata"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Basic dXNlcjpwYXNz"}, 401),
        ({"Authorization": f"Bearer auricle_{'0' * 12}_{'A' * 43}"}, 401),
        ({"x-api-key": "auricle_" + "é" * 5}, 401),
    ],
)
def test_nobody_without_a_key(keyed: Keyed, headers: dict[str, str], status: int) -> None:
    raw = {name: value.encode() for name, value in headers.items()}
    for path in (
        ROUTE,
        "/v1/models",
        "/v1/usage",
        "/v1/auth/grant",
        "/metrics",
        "/v1/jobs",
        "/nope",
    ):
        answer = keyed.client.request("GET" if path != ROUTE else "POST", path, headers=raw)
        assert answer.status_code == status
        assert error_of(answer)["code"] == "invalid_api_key"
        assert error_of(answer)["type"] == "invalid_request_error"
        assert answer.headers["www-authenticate"] == "Bearer"
    assert denied(keyed, headers=raw).status_code == status


def test_a_refusal_comes_before_the_body_is_read(keyed: Keyed) -> None:
    desk = TenantDesk(keyed.folder / "keys.sqlite")

    async def never() -> Any:
        raise AssertionError("the body was read")

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def inner(*_: Any) -> None:
        raise AssertionError("nobody may enter")

    scope = {
        "type": "http",
        "path": ROUTE,
        "method": "POST",
        "headers": [],
        "client": ("127.0.0.1", 1),
    }
    gate = Gate(inner, desk, GateRules(max_body_bytes=10), lambda code: None)
    asyncio.run(gate(scope, never, send))
    assert sent[0]["status"] == 401
    desk.close()


def test_a_key_opens_what_its_scopes_say(keyed: Keyed) -> None:
    listen_only = bearer(keyed.key("listen"))
    refused = post(keyed, listen_only)
    assert refused.status_code == 403 and error_of(refused)["code"] == "insufficient_scope"
    assert denied(keyed, headers=bearer(keyed.key("transcribe"))).status_code == 403
    assert keyed.client.get("/metrics", headers=listen_only).status_code == 403
    assert keyed.client.get("/v1/jobs", headers=listen_only).status_code == 403
    assert keyed.client.get("/v1/models", headers=listen_only).status_code == 200
    page = keyed.client.get("/metrics", headers=bearer(keyed.key("admin")))
    assert 'auricle_refused_total{code="insufficient_scope"}' in page.text


def test_the_scope_of_every_path() -> None:
    assert scope_needed("http", ROUTE) == scope_needed("http", "/v1/listen") == "transcribe"
    assert scope_needed("websocket", "/v1/listen") == "listen"
    assert (
        scope_needed("http", "/v1/jobs/job_1") == "jobs"
        and scope_needed("http", "/v1/models") is None
    )
    assert route_of("/v1/models/secret-name") == "models" and route_of("/secret") == "other"


def test_a_browser_shows_a_token_by_subprotocol(keyed: Keyed) -> None:
    answer = keyed.client.post("/v1/auth/grant", headers=bearer(keyed.key()), json={})
    assert answer.status_code == 200 and answer.json()["expires_in"] == 30
    assert answer.headers["cache-control"] == "no-store"
    token = answer.json()["access_token"]
    for offered in (["bearer", token], ["token", keyed.key()]):
        with keyed.client.websocket_connect(LISTEN, subprotocols=offered) as socket:
            assert socket.accepted_subprotocol == offered[0]
            socket.send_bytes(pcm16(babble(1.0)).tobytes())
            assert goodbye(socket)[-1] == "Metadata"
    assert denied(keyed, subprotocols=["token", "wrong"]).status_code == 401
    realtime = {"type": "websocket", "headers": [], "path": "/v1/realtime",
                "subprotocols": ["realtime", "openai-insecure-api-key.abc", "x"]}  # fmt: skip
    shown = presented_by(realtime)
    assert (shown.credential, shown.subprotocol) == ("abc", "realtime")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"ttl_seconds": 3600, "scopes": ["listen"]}, 200, None),
        ({"ttl_seconds": 3601}, 400, "invalid_value"),
        ({"ttl_seconds": 0}, 400, "invalid_value"),
        ({"ttl_seconds": True}, 400, "invalid_value"),
        ({"ttl_seconds": "30"}, 400, "invalid_value"),
        ({"scopes": "listen"}, 400, "invalid_value"),
        ({"scopes": ["admin"]}, 403, "insufficient_scope"),
        ({"forever": True}, 400, "invalid_value"),
        ([1], 400, "invalid_body"),
    ],
)
def test_grants(keyed: Keyed, body: Any, status: int, code: str | None) -> None:
    answer = keyed.client.post("/v1/auth/grant", headers=bearer(keyed.key()), json=body)
    assert answer.status_code == status
    if code is not None:
        assert error_of(answer)["code"] == code


def test_a_token_grants_no_token_and_falls_with_its_key(keyed: Keyed) -> None:
    key = keyed.key()
    token = keyed.client.post("/v1/auth/grant", headers=bearer(key)).json()["access_token"]
    again = keyed.client.post("/v1/auth/grant", headers=bearer(token))
    assert again.status_code == 403 and error_of(again)["code"] == "not_a_key"
    assert post(keyed, bearer(token)).status_code == 200
    keyed.store.revoke(key.split("_")[1])
    assert post(keyed, bearer(token)).status_code == post(keyed, bearer(key)).status_code == 401


def test_no_room_behind_the_gate_sees_a_credential(keyed: Keyed) -> None:
    key = keyed.key()
    seen: list[Any] = []

    async def inner(scope: Any, *_: Any) -> None:
        seen.append(scope)

    desk = TenantDesk(keyed.folder / "keys.sqlite")
    gate = Gate(inner, desk, GateRules(max_body_bytes=10), lambda code: None)
    scope = {
        "type": "websocket", "path": "/v1/listen", "client": ("10.0.0.1", 5),
        "subprotocols": ["token", key],
        "headers": [(b"sec-websocket-protocol", f"token, {key}".encode()), (b"cookie", b"a=b"),
                    (b"host", b"h")],
    }  # fmt: skip
    asyncio.run(gate(scope, None, None))  # type: ignore[arg-type]
    desk.close()
    (inner_scope,) = seen
    assert inner_scope["auricle.caller"].tenant == "acme"
    assert key not in str(inner_scope)


def test_limits_are_told_and_kept(keyed: Keyed) -> None:
    keyed.store.set_tenant("small", TenantPolicy(limits=Limits(requests_per_minute=2)))
    headers = bearer(keyed.key(tenant="small"))
    first, second, third = (post(keyed, headers) for _ in range(3))
    assert (first.status_code, second.status_code, third.status_code) == (200, 200, 429)
    assert first.headers["x-ratelimit-limit-requests"] == "2"
    assert first.headers["x-ratelimit-remaining-requests"] == "1"
    assert error_of(third)["code"] == "rate_limit_exceeded"
    assert error_of(third)["type"] == "rate_limit_error"
    assert 1 <= int(third.headers["retry-after"]) <= 30
    assert third.headers["x-ratelimit-remaining-requests"] == "0"
    assert post(keyed, bearer(keyed.key())).status_code == 200  # another tenant's is untouched


def test_live_streams_have_places(keyed: Keyed) -> None:
    keyed.store.set_tenant("narrow", TenantPolicy(limits=Limits(streams=1)))
    headers = bearer(keyed.key(tenant="narrow"))
    with keyed.client.websocket_connect(LISTEN, headers=headers) as socket:
        refused = denied(keyed, headers=headers)
        assert refused.status_code == 429
        assert error_of(refused)["code"] == "concurrent_streams"
        goodbye(socket)
    with keyed.client.websocket_connect(LISTEN, headers=headers) as socket:
        goodbye(socket)


def test_a_stream_ends_where_the_quota_ends(keyed: Keyed) -> None:
    keyed.store.set_tenant("brief", TenantPolicy(limits=Limits(audio_s_per_day=5)))
    headers = bearer(keyed.key(tenant="brief"))
    pcm = pcm16(babble(1.0)).tobytes()
    connecting = keyed.client.websocket_connect(LISTEN, headers=headers)
    messages = []
    with connecting as socket, pytest.raises(WebSocketDisconnect) as end:
        for _ in range(40):
            socket.send_bytes(pcm)
        while True:
            messages.append(socket.receive_json())
    assert end.value.code == 1008 and "quota of 5 audio-seconds-day" in end.value.reason
    assert [message["type"] for message in messages[-2:]] == ["Results", "Metadata"]
    assert messages[-2]["is_final"]
    assert denied(keyed, headers=headers).status_code == 429
    total = keyed.client.get("/v1/usage", headers=headers).json()["total"]
    assert 5 <= total["audio_seconds"] <= 12


def test_usage_is_told_to_whom_it_belongs(keyed: Keyed) -> None:
    headers = bearer(keyed.key(tenant="counted"))
    assert post(keyed, headers).status_code == 200
    body = keyed.client.get("/v1/usage", headers=headers).json()
    assert body["tenant"] == "counted" and body["total"] == {"requests": 1, "audio_seconds": 1.0}
    assert [row["route"] for row in body["data"]] == ["transcriptions"]
    foreign = keyed.client.get("/v1/usage?tenant=counted", headers=bearer(keyed.key()))
    assert foreign.status_code == 403
    admin = keyed.client.get("/v1/usage?tenant=counted", headers=bearer(keyed.key("admin")))
    assert admin.json()["total"]["requests"] == 1
    for query in ("start=yesterday", "end=2026-02-30", "of=me"):
        assert keyed.client.get(f"/v1/usage?{query}", headers=headers).status_code == 400


def test_every_access_is_on_record(keyed: Keyed) -> None:
    key = keyed.key(tenant="watched")
    post(keyed, bearer(key))
    keyed.client.get("/metrics", headers=bearer(key))
    key_id = key.split("_")[1]
    ledger, mine = access_ledger(keyed.folder), []
    end = time.monotonic() + 20
    while len(mine) < 2 and time.monotonic() < end:  # a thread commits what came in together
        mine = [event for event in ledger.events() if event.actor == key_id]
    assert [(e.kind, e.body["route"], e.body["scope"]) for e in mine] == [
        ("access", "transcriptions", "transcribe"), ("refused", "metrics", "admin"),
    ]  # fmt: skip


def test_pages_of_other_sites_must_be_listed(keyed: Keyed) -> None:
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST",
             "Access-Control-Request-Headers": "authorization"}  # fmt: skip
    allowed = keyed.client.options(ROUTE, headers=asked)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == ORIGIN
    assert "access-control-allow-credentials" not in allowed.headers
    other = keyed.client.options(ROUTE, headers=asked | {"Origin": "https://evil.example"})
    assert other.status_code == 400 and "access-control-allow-origin" not in other.headers
    answer = post(keyed, bearer(keyed.key()) | {"Origin": ORIGIN})
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    refused = post(keyed, {"Origin": ORIGIN})
    assert refused.status_code == 401  # and the page may read why
    assert refused.headers["access-control-allow-origin"] == ORIGIN


def test_a_body_is_cut_off_while_it_is_read(keyed: Keyed) -> None:
    def blocks() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        for _ in range(3):
            yield bytes(1 << 19)

    kind = {"content-type": "multipart/form-data; boundary=b"} | bearer(keyed.key())
    answer = keyed.client.post(ROUTE, content=blocks(), headers=kind)
    assert answer.status_code == 413 and error_of(answer)["code"] == "audio_too_large"


def test_without_keys_only_this_machine_and_its_own_pages(bundle_dir: Path) -> None:
    with running(bundle_dir) as (client, _):
        assert client.get("/v1/models").status_code == 200
        assert client.get("/v1/usage").status_code == 404
        assert client.post("/v1/auth/grant").status_code == 404
        foreign = client.websocket_connect(LISTEN, headers={"Origin": "https://evil.example"})
        with pytest.raises(WebSocketDenialResponse) as refusal, foreign:
            raise AssertionError("it was let in")
        assert refusal.value.status_code == 403
        with client.websocket_connect(LISTEN, headers={"Origin": "http://testserver"}) as socket:
            goodbye(socket)
        far = TestClient(client.app, client=("192.0.2.7", 4000))
        answer = far.get("/v1/models")
        assert answer.status_code == 403 and error_of(answer)["code"] == "local_only"
    with running(bundle_dir, protection=ProtectionSettings(open_to_network=True)) as (client, _):
        far = TestClient(client.app, client=("192.0.2.7", 4000))
        assert far.get("/v1/models").status_code == 200


def test_nobody_starts_warm_from_another_tenants_speaker(bundle_dir: Path, tmp_path: Path) -> None:
    view = tmp_path / "priors.sqlite"
    prior = Prior(mean_F=np.full(80, 12.0, np.float32), frames=4000)
    fingerprint = FeatureSpec().fingerprint()
    key = PriorKey(tenant="default", speaker="p-1", channel="wide", fingerprint=fingerprint)
    write_view(view, [(key, prior.to_bytes())])
    store = KeyStore(tmp_path / "keys.sqlite", create=True)
    protection = ProtectionSettings(keys_path=tmp_path / "keys.sqlite")
    states = {}
    with running(
        bundle_dir, priors_path=view, prior_deadline_ms=5_000.0, protection=protection
    ) as (client, _):
        for tenant in ("default", "acme"):
            headers = bearer(store.create(tenant, ["transcribe"]).text) | {
                "X-Auricle-Speaker": "p-1"
            }
            answer = client.post(
                ROUTE, data={"model": "tiny", "response_format": "verbose_json"},
                files={"file": ("a.wav", wav(babble(1.0)))}, headers=headers,
            )  # fmt: skip
            states[tenant] = answer.json()["auricle"]["normalisation"]["state"]
    assert states == {"default": "warm", "acme": "cold"}


@pytest.mark.parametrize(
    ("client", "local"),
    [
        (("127.0.0.1", 1), True), (("::1", 1), True), (("::ffff:127.0.0.1", 1), True), (None, True),
        (("10.0.0.1", 1), False), (("::ffff:10.0.0.1", 1), False), (("2001:db8::1", 1), False),
    ],
)  # fmt: skip
def test_what_is_this_machine(client: Any, local: bool) -> None:
    assert is_local(client) is local
