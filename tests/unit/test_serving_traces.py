"""Traces: every stage of a request, joined to the caller's own trace, and never a word of content."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from starlette.testclient import TestClient

from serving.observe.spans import RECORDER, around
from serving.observe.traces import ATTRIBUTES, Tracing, tracing_of
from serving.settings import TraceSettings
from tests.support_bundle import babble, make_bundle
from tests.support_service import application_of, pcm16, wav

CANARY = "seven-purple-otters"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
STAGES = {"network", "queue", "features", "model", "decoding", "delivery"}


@contextmanager
def traced(bundle_dir: Path, tracing: Tracing | None, **choices: Any) -> Iterator[TestClient]:
    outer, _ = application_of(bundle_dir, tracing=tracing, **choices)
    with TestClient(outer, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def bundle_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture(scope="module")
def client(bundle_dir: Path, exporter: InMemorySpanExporter) -> Iterator[TestClient]:
    with traced(bundle_dir, Tracing(exporter, at_once=True)) as client:
        yield client


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> InMemorySpanExporter:
    exporter.clear()
    return exporter


def root_of(spans: InMemorySpanExporter) -> ReadableSpan:
    (root,) = [one for one in spans.get_finished_spans() if " " in one.name]
    return root


def post(client: TestClient, **headers: str) -> Any:
    files = {"file": (f"{CANARY}.wav", wav(babble(2.0)))}
    path = f"/v1/audio/transcriptions?note={CANARY}"
    return client.post(path, data={"model": "tiny"}, files=files, headers=headers)


def test_a_file_tells_every_stage_inside_the_callers_trace(
    client: TestClient, spans: InMemorySpanExporter
) -> None:
    assert post(client, traceparent=PARENT).status_code == 200
    root = root_of(spans)
    assert root.name == "POST transcriptions" and root.context is not None
    assert f"{root.context.trace_id:032x}" == PARENT.split("-")[1]
    assert root.parent is not None and f"{root.parent.span_id:016x}" == PARENT.split("-")[2]
    assert root.attributes is not None and root.attributes["http.response.status_code"] == 200
    children = [one for one in spans.get_finished_spans() if one is not root]
    assert {one.name for one in children} == STAGES
    for one in children:
        assert one.parent is not None and one.parent.span_id == root.context.span_id
        assert one.start_time and one.end_time and root.start_time and root.end_time
        slack_ns = 1_000_000
        assert root.start_time - slack_ns <= one.start_time <= one.end_time
        assert one.end_time <= root.end_time + slack_ns


def test_a_stream_tells_its_stages_and_how_it_was_closed(
    client: TestClient, spans: InMemorySpanExporter
) -> None:
    address = "/v1/listen?encoding=linear16&sample_rate=16000"
    with client.websocket_connect(address) as socket:
        socket.send_bytes(pcm16(babble(3.0)).tobytes())
        socket.send_text('{"type": "CloseStream"}')
        while socket.receive()["type"] != "websocket.close":
            pass
    root = root_of(spans)
    assert root.name == "WS listen" and root.attributes is not None
    assert root.attributes["auricle.close_code"] == 1000
    names = [one.name for one in spans.get_finished_spans()]
    assert {"features", "queue", "model", "decoding"} <= set(names)
    assert names.count("model") > 1  # one for each chunk


def test_no_content_leaves_in_a_span(
    client: TestClient, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = post(client, traceparent=PARENT, tracestate=f"vendor={CANARY}").json()["text"]
    client.get(f"/{CANARY}?key={CANARY}", headers={"Authorization": f"Bearer {CANARY}"})
    client.request("BREW", "/v1/models", headers={"X-Auricle-Speaker": CANARY})
    with pytest.raises(Exception, match=""), client.websocket_connect(f"/v1/listen?tag={CANARY}"):
        pass

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError(f"could not decode {CANARY}")

    monkeypatch.setattr("serving.recognizer.AuricleRecognizer.transcript", fail)
    assert post(client).status_code == 500
    told = [json.loads(one.to_json()) for one in spans.get_finished_spans()]
    text = json.dumps(told)
    assert len(told) > 10 and CANARY not in text and "BREW" not in text
    assert not any(word in text for word in said.split() if len(word) > 5)
    assert all(set(one["attributes"]) <= ATTRIBUTES and not one["events"] for one in told)
    failed = [
        one for one in spans.get_finished_spans() if one.status.status_code is StatusCode.ERROR
    ]
    assert [one.name for one in failed] == ["POST transcriptions"]
    assert not any(one.status.description for one in spans.get_finished_spans())


def test_a_caller_who_does_not_want_a_trace_gets_none(
    client: TestClient, spans: InMemorySpanExporter
) -> None:
    assert post(client, traceparent=PARENT[:-2] + "00").status_code == 200
    assert not spans.get_finished_spans()
    assert post(client, traceparent="nonsense").status_code == 200
    assert root_of(spans).parent is None


def test_a_long_stream_is_no_endless_trace(client: TestClient, spans: InMemorySpanExporter) -> None:
    address = "/v1/listen?encoding=linear16&sample_rate=16000"
    with client.websocket_connect(address) as socket:
        for _ in range(8):
            socket.send_bytes(pcm16(babble(4.0)).tobytes())
        socket.send_text('{"type": "CloseStream"}')
        while socket.receive()["type"] != "websocket.close":
            pass
    root = root_of(spans)
    assert len(spans.get_finished_spans()) == 201 and root.attributes is not None
    assert root.attributes["auricle.spans_left_out"] > 0  # type: ignore[operator]


def test_without_a_collector_nothing_is_traced(bundle_dir: Path) -> None:
    assert tracing_of(None) is None
    seen = []

    def call() -> int:
        seen.append(RECORDER.get())
        return 1

    assert around(call, "prepare") is call  # not even wrapped
    with traced(bundle_dir, None) as client:
        assert post(client, traceparent=PARENT).status_code == 200


def test_spans_reach_a_collector_over_http(bundle_dir: Path) -> None:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    got: list[tuple[str, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        tracing = tracing_of(TraceSettings(endpoint=f"http://127.0.0.1:{server.server_port}/"))
        assert tracing is not None
        with traced(bundle_dir, tracing) as client:
            post(client)
        tracing.close()
        server.shutdown()
    assert {path for path, _ in got} == {"/v1/traces"}
    sent = [
        span.name
        for _, body in got
        for resource in ExportTraceServiceRequest.FromString(_plain(body)).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert set(sent) == {"POST transcriptions", *STAGES}


def _plain(body: bytes) -> bytes:
    import gzip

    return gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body
