"""A job's run and its webhook stand in the trace of the request that brought the job."""

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from starlette.testclient import TestClient

from serving.observe.traces import ATTRIBUTES, Tracing
from serving.settings import JobSettings
from tests.support_bundle import babble, make_bundle
from tests.support_receiver import Receiver, receiving
from tests.support_service import application_of, wav

CANARY = "nine-violet-herons"
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@dataclass(frozen=True, kw_only=True)
class Watched:
    client: TestClient
    spans: InMemorySpanExporter
    receiver: Receiver
    folder: Path
    webhook: str

    def submit(self, content: bytes, **headers: str) -> str:
        answer = self.client.post(
            "/v1/jobs",
            data={"model": "tiny", "webhook": self.webhook, "metadata": json.dumps({"a": CANARY})},
            files={"file": (f"{CANARY}.wav", content)},
            headers=headers,
        )
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def told(self, name: str) -> list[ReadableSpan]:
        return [one for one in self.spans.get_finished_spans() if one.name == name]


@pytest.fixture
def watched(bundle_dir: Path, tmp_path: Path) -> Iterator[Watched]:
    spans = InMemorySpanExporter()
    with receiving() as receiver:
        jobs = JobSettings(
            folder=tmp_path, outbound_openings=receiver.opening, webhook_backoff_s=0.01,
            webhook_traceparent=True,
        )  # fmt: skip
        tracing = Tracing(spans, at_once=True)
        outer, _ = application_of(bundle_dir, tracing=tracing, jobs=jobs)
        with TestClient(outer) as client:
            endpoint = client.post("/v1/webhooks", json={"url": receiver.url}).json()["id"]
            spans.clear()
            yield Watched(
                client=client, spans=spans, receiver=receiver, folder=tmp_path, webhook=endpoint
            )


@pytest.fixture(scope="module")
def bundle_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


def until(holds: Callable[[], Any]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def attribute(span: ReadableSpan, name: str) -> Any:
    return (span.attributes or {}).get(f"auricle.{name}")


def test_run_and_delivery_are_inside_the_callers_trace(watched: Watched) -> None:
    watched.receiver.answer = lambda count: (500 if count == 1 else 200, {})
    job = watched.submit(wav(babble(2.0)), traceparent=PARENT)
    until(lambda: len(watched.told("webhook")) == 2)
    (request,), (run,) = watched.told("POST jobs"), watched.told("job")
    failed, delivered = watched.told("webhook")
    for span in (request, run, failed, delivered):
        assert span.context is not None and f"{span.context.trace_id:032x}" == TRACE
    assert request.context is not None and run.context is not None
    for span in (run, failed, delivered):
        assert span.parent is not None and span.parent.span_id == request.context.span_id
    assert (attribute(run, "outcome"), attribute(run, "attempt")) == ("done", 1)
    assert [attribute(one, "outcome") for one in (failed, delivered)] == ["pending", "delivered"]
    assert [attribute(one, "attempt") for one in (failed, delivered)] == [1, 2]
    assert failed.status.status_code is StatusCode.ERROR
    stages = {
        one.name
        for one in watched.spans.get_finished_spans()
        if one.parent is not None and one.parent.span_id == run.context.span_id
    }
    assert {"network", "features", "queue", "model", "decoding"} <= stages
    told = [one.headers["traceparent"] for one in watched.receiver.got]
    assert [text.split("-")[1] for text in told] == [TRACE, TRACE] and told[0] != told[1]
    assert watched.client.delete(f"/v1/jobs/{job}").status_code == 200
    with sqlite3.connect(watched.folder / "jobs.db") as connection:
        assert connection.execute("SELECT count(*) FROM job_traces").fetchone() == (0,)
    connection.close()


def test_a_job_whose_audio_is_none_says_so_and_no_content_leaves(watched: Watched) -> None:
    watched.submit(CANARY.encode() * 20, traceparent=PARENT)
    until(lambda: watched.told("webhook"))
    (run,) = watched.told("job")
    assert attribute(run, "outcome") == "failed" and run.status.status_code is StatusCode.ERROR
    told = [json.loads(one.to_json()) for one in watched.spans.get_finished_spans()]
    assert CANARY not in json.dumps(told)
    assert all(set(one["attributes"]) <= ATTRIBUTES and not one["events"] for one in told)


def test_what_the_caller_does_not_want_traced_is_not_traced_later_either(watched: Watched) -> None:
    watched.submit(wav(babble(1.0)), traceparent=f"{PARENT[:-2]}00")
    until(lambda: watched.receiver.got)
    watched.submit(wav(babble(1.0)))
    until(lambda: len(watched.told("webhook")) == 1)
    assert len(watched.told("job")) == len(watched.told("POST jobs")) == 1
    assert watched.receiver.got[0].headers["traceparent"].endswith("-00")
