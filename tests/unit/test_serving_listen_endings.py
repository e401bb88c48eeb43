"""Why a live stream is refused or ends, and that its end costs nothing that was heard."""

import gc
import socket as sockets
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from starlette.testclient import TestClient, WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from serving.api import listen_messages as wire
from serving.api.listen_api import Conversation
from serving.api.listen_outbox import Outbox
from serving.problems import deadline_passed
from serving.runtime import Runtime
from serving.streaming.sessions import StreamSession
from serving.streaming.streams import LiveStream
from tests.support_bundle import babble, hush, make_bundle
from tests.support_listen import LISTEN, PAGE, transcripts, until_closed
from tests.support_live import served
from tests.support_service import encoded, pcm16, running, wait_until, wav


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, Runtime]]:
    folder = make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")
    with running(folder, max_streams=3, max_frame_bytes=1 << 20) as pair:
        yield pair


@pytest.fixture
def client(service: tuple[TestClient, Runtime]) -> TestClient:
    return service[0]


def kinds(messages: list[dict[str, Any]]) -> list[str]:
    return [message["type"] for message in messages]


def test_every_reason_that_a_stream_ends_for_is_published() -> None:
    endings = [
        wire.SESSION_LIMIT, wire.BAD_TEXT, wire.TOO_BIG, wire.DRAINED, wire.SLOW, wire.SUPERSEDED
    ]  # fmt: skip
    assert all(f"| {ending.code} | {ending.reason} |" in PAGE for ending in endings)
    assert "NET-0001" in wire.idle(12).reason and "NET-0001" in PAGE
    assert "DATA-0000" in wire.undecodable("x").reason and "DATA-0000" in PAGE
    late = wire.failed(deadline_passed(1.0)).reason
    assert late.startswith("NET-0000: ") and "NET-0000" in PAGE


def test_streams_are_bounded_and_places_come_back(service: tuple[TestClient, Runtime]) -> None:
    client, runtime = service
    slab = runtime.recognizer.engine.slab
    with (
        client.websocket_connect(LISTEN) as one,
        client.websocket_connect(LISTEN) as two,
        client.websocket_connect(LISTEN) as three,
    ):
        with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect(LISTEN):
            pass
        assert denied.value.status_code == 429 and denied.value.headers["retry-after"]
        assert "auricle_streams_open 3.0" in client.get("/metrics").text
        two.send_bytes(pcm16(babble(1.0)).tobytes())
        for socket in (one, two, three):
            socket.close()
    wait_until(lambda: slab.in_use == 0)
    assert not slab.attn_LBTD.any()


@pytest.mark.parametrize(
    "text",
    [
        "not json", "[]", '{"type": "Dance"}', "", "null", "17", '"CloseStream"', '{"type": ["Finalize"]}',
        "[" * 100_000, '{"type": ' + "9" * 5_000 + "}",
    ],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_an_unknown_message_ends_the_stream_after_its_final(client: TestClient, text: str) -> None:
    with client.websocket_connect(LISTEN) as socket:
        socket.send_bytes(pcm16(babble(1.0)).tobytes())
        socket.send_text(text)
        messages, code = until_closed(socket)
    assert code == 1008
    assert transcripts(messages)[-1] and messages[-1]["type"] == "Metadata"


def test_a_failing_model_closes_the_stream_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(make_bundle(tmp_path / "tiny")) as (client, runtime):

        def fail(chunks: object) -> Any:
            raise RuntimeError("secret words")

        monkeypatch.setattr(runtime.recognizer.engine, "step", fail)
        with client.websocket_connect(LISTEN) as socket:
            socket.send_bytes(pcm16(babble(2.0)).tobytes())
            with pytest.raises(WebSocketDisconnect) as end:
                while True:
                    socket.receive_json()
        assert end.value.code == 1011 and "failed" in end.value.reason
        assert "secret" not in end.value.reason


def test_a_giant_message_ends_the_stream(client: TestClient) -> None:
    with client.websocket_connect(LISTEN) as socket:
        socket.send_bytes(bytes((1 << 20) + 2))
        assert until_closed(socket)[1] == 1009


def test_a_silent_line_and_a_long_session_end_with_a_final(tmp_path: Path) -> None:
    folder = make_bundle(tmp_path / "tiny")
    with running(folder, stream_idle_s=0.2) as (client, _):
        with client.websocket_connect(LISTEN) as socket:
            socket.send_bytes(pcm16(babble(1.0)).tobytes())
            messages, code = until_closed(socket)
        assert code == 1011 and transcripts(messages)[-1]
    with running(folder, stream_session_s=0.2) as (client, _):
        with client.websocket_connect(LISTEN) as socket:
            socket.send_bytes(pcm16(babble(1.0)).tobytes())
            messages, code = until_closed(socket)
        assert code == 1000 and messages[-1]["type"] == "Metadata"


def test_draining_makes_live_streams_final_and_refuses_new_ones(tmp_path: Path) -> None:
    with running(make_bundle(tmp_path / "tiny"), drain_s=5.0) as (client, runtime):
        with client.websocket_connect(LISTEN + "&interim_results=true") as socket:
            socket.send_bytes(pcm16(babble(2.0)).tobytes())
            assert socket.receive_json()["type"] == "Results"
            client.portal.call(runtime.drain)  # type: ignore[union-attr]
            messages, code = until_closed(socket)
        assert code == 1012
        assert transcripts(messages)[-1] and messages[-1]["duration"] == 2.0
        assert not runtime.ready
        with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect(LISTEN):
            pass
        assert denied.value.status_code == 503
        files = {"file": ("a.wav", wav(babble(0.5)))}
        refused = client.post("/v1/audio/transcriptions", data={"model": "tiny"}, files=files)
        assert refused.status_code == 503


def test_bytes_that_are_no_audio_end_the_stream_with_deepgrams_code(client: TestClient) -> None:
    with client.websocket_connect("/v1/listen") as socket:
        socket.send_bytes(b"%PDF-1.7 and more")
        messages, code = until_closed(socket)
    assert code == 1008 and kinds(messages) == ["Results", "Metadata"]


@pytest.mark.parametrize(
    "limits", [{"stream_unsent_bytes": 2_000}, {"stream_unsent_s": 0.1}], ids=["bytes", "time"]
)
def test_a_client_that_does_not_read_is_told_and_closed(
    tmp_path: Path, limits: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Outbox] = []
    create = Outbox.__init__

    def watched(self: Outbox, *args: Any, **kwargs: Any) -> None:
        create(self, *args, **kwargs)
        made.append(self)

    monkeypatch.setattr(Outbox, "__init__", watched)
    spoken = np.concatenate([babble(2.0, rate_hz=8_000), hush(0.6, rate_hz=8_000)])
    sound = encoded(np.tile(spoken, 16), "mulaw")
    with served(make_bundle(tmp_path / "tiny"), send_buffer_bytes=4_096, **limits) as (
        url,
        runtime,
    ):
        lazy = sockets.create_connection(("127.0.0.1", urlsplit(url).port or 0))
        lazy.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4_096)
        place = f"ws{url.removeprefix('http')}/v1/listen?encoding=mulaw&sample_rate=8000"
        query = "&interim_results=true&endpointing=300"
        with connect(place + query, sock=lazy, max_queue=1, compression=None) as live:
            live.send(sound)
            wait_until(lambda: bool(made) and made[0].stuck.is_set())
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    live.recv(timeout=20)
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (
            wire.SLOW.code,
            wire.SLOW.reason,
        )
        wait_until(lambda: runtime.recognizer.engine.slab.in_use == 0)
        page = runtime.metrics.exposition().decode()
    assert 'auricle_requests_total{outcome="slow",route="listen"} 1.0' in page


def test_streams_that_vanish_leave_nothing_behind(tmp_path: Path) -> None:
    with served(make_bundle(tmp_path / "tiny"), max_streams=4) as (url, runtime):
        place = "ws" + url.removeprefix("http") + LISTEN
        for _ in range(12):
            with connect(place, compression=None) as live:
                live.send(pcm16(babble(0.7)).tobytes())
                live.socket.close()
        wait_until(lambda: runtime.recognizer.engine.slab.in_use == 0)
        kinds_left = (Conversation, StreamSession, LiveStream, Outbox)

        def left() -> list[object]:
            gc.collect()
            return [one for one in gc.get_objects() if isinstance(one, kinds_left)]

        wait_until(lambda: not left())
