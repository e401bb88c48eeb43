"""OpenTelemetry traces of requests, jobs and webhooks: network, queue, features, model, decoding, delivery.

Off unless an operator names a collector. A provider of our own is used, never the process-wide one:
what BentoML's instrumentation says (whole query strings among it) goes nowhere. Spans are built anew
before they are exported, with the attributes of a short list only and neither events nor messages of
errors, so that no content can leave in one, whoever puts it there.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from governance.errors import ConfigError
from serving.observe.spans import RECORDER, Recorder
from serving.settings import TraceSettings

ATTRIBUTES = frozenset(
    {
        "http.request.method",
        "http.route",
        "http.response.status_code",
        "auricle.close_code",
        "auricle.spans_left_out",
        "auricle.attempt",
        "auricle.outcome",
    }
)
_PROPAGATOR = TraceContextTextMapPropagator()
_METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS"})
_MOST_SPANS = 200  # of one request: a live stream of hours must not become a trace of thousands
_FAILED = 500
_ABNORMAL = 1011


class Tracing:
    """Makes traces and hands them to an exporter."""

    def __init__(
        self, exporter: SpanExporter, *, share: float = 1.0, at_once: bool = False
    ) -> None:
        """``share`` of requests is traced, unless a caller's ``traceparent`` has decided."""
        sampler = ParentBased(TraceIdRatioBased(share))
        self._provider = TracerProvider(
            resource=Resource({"service.name": "auricle"}), sampler=sampler, shutdown_on_exit=False
        )
        processor = SimpleSpanProcessor if at_once else BatchSpanProcessor
        self._provider.add_span_processor(processor(_AllowListed(exporter)))
        self._tracer = self._provider.get_tracer("auricle")

    def around(self, app: ASGIApp, route_of: Callable[[str], str]) -> ASGIApp:
        """``app`` with every request traced."""
        return _Traced(app, self._tracer, route_of)

    @contextmanager
    def work(self, name: str, traceparent: str, attempt: int) -> "Iterator[Recorder]":
        """A `Trace`: a span inside the trace of whoever brought the work, hours before or not."""
        work = _Work(
            self._tracer, name, _parent(traceparent), {"auricle.attempt": attempt},
            SpanKind.CONSUMER,
        )  # fmt: skip
        before = RECORDER.set(work)
        try:
            yield work
        except Exception:
            work.span.set_status(StatusCode.ERROR)
            raise
        except BaseException:  # cancelled, erased, or the process stops
            work.ended("stopped")
            raise
        finally:
            RECORDER.reset(before)
            work.end()

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def tracing_of(settings: TraceSettings | None) -> Tracing | None:
    """Traces to the collector that the operator named; None where none was named."""
    if settings is None:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ModuleNotFoundError:
        raise ConfigError(
            "traces need the package opentelemetry-exporter-otlp-proto-http",
            item="AURICLE_TRACE_ENDPOINT",
            mend="bash deploy/setup.sh trace",
        ) from None
    exporter = OTLPSpanExporter(endpoint=f"{settings.endpoint.rstrip('/')}/v1/traces")
    return Tracing(exporter, share=settings.share)


def _parent(traceparent: str) -> Any:
    """The context that a W3C ``traceparent`` names; for anything else one without a parent."""
    return _PROPAGATOR.extract({"traceparent": traceparent} if traceparent else {})


class _AllowListed(SpanExporter):
    """Lets through names, times and the attributes of the list; nothing else."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Pass on what may leave."""
        return self._exporter.export([_bare(span) for span in spans])

    def shutdown(self) -> None:
        """Pass on."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Pass on."""
        return self._exporter.force_flush(timeout_millis)


def _bare(span: ReadableSpan) -> ReadableSpan:
    allowed = {name: value for name, value in (span.attributes or {}).items() if name in ATTRIBUTES}
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=allowed,
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


class _Work:
    """The recorder of a request, a job's run or a delivery: stages become children of its span."""

    def __init__(
        self,
        tracer: Tracer,
        name: str,
        parent: Any,
        attributes: dict[str, Any],
        kind: SpanKind = SpanKind.SERVER,
    ) -> None:
        self._tracer = tracer
        self._epoch_ns = time.time_ns() - round(time.perf_counter() * 1e9)
        self.span = tracer.start_span(
            name, parent, kind=kind, attributes=attributes, record_exception=False
        )
        self._inside = set_span_in_context(self.span)
        self._added = 0

    def add(self, stage: str, began_s: float, ended_s: float) -> None:
        """A stage that is over."""
        self._added += 1
        if self._added > _MOST_SPANS:
            return
        child = self._tracer.start_span(stage, self._inside, start_time=self._ns(began_s))
        child.end(self._ns(max(began_s, ended_s)))

    @property
    def traceparent(self) -> str:
        """The span, as others continue it; what it says of sampling goes along."""
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, self._inside)
        return carrier.get("traceparent", "")

    def ended(self, outcome: str, *, status: int | None = None, failed: bool = False) -> None:
        """How it went."""
        self.span.set_attribute("auricle.outcome", outcome)
        if status is not None:
            self.span.set_attribute("http.response.status_code", status)
        if failed:
            self.span.set_status(StatusCode.ERROR)

    def end(self) -> None:
        """It is over."""
        if self._added > _MOST_SPANS:
            self.span.set_attribute("auricle.spans_left_out", self._added - _MOST_SPANS)
        self.span.end()

    def _ns(self, moment_s: float) -> int:
        return self._epoch_ns + round(moment_s * 1e9)


class _Traced:
    def __init__(self, app: ASGIApp, tracer: Tracer, route_of: Callable[[str], str]) -> None:
        self._app = app
        self._tracer = tracer
        self._route_of = route_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        route = self._route_of(scope["path"])
        method = scope["method"] if scope.get("method") in _METHODS else "_OTHER"
        verb = "WS" if scope["type"] == "websocket" else method
        given = Headers(scope=scope).get("traceparent")
        parent = _parent(given or "")
        attributes = {"http.request.method": "GET" if verb == "WS" else method, "http.route": route}
        request = _Work(self._tracer, f"{verb} {route}", parent, attributes)
        before = RECORDER.set(request)
        watch = _Edges(request, receive, send)
        try:
            await self._app(scope, watch.receive, watch.send)
        except BaseException:
            request.span.set_status(StatusCode.ERROR)
            raise
        finally:
            RECORDER.reset(before)
            watch.end()
            request.end()


class _Edges:
    """What happens at the edges of a request: its body coming in, its answer going out."""

    def __init__(self, request: _Work, receive: Receive, send: Send) -> None:
        self._request = request
        self._receive = receive
        self._send = send
        self._began_s = time.perf_counter()
        self._answer_s: float | None = None

    async def receive(self) -> Message:
        """The next message; the end of a body ends its span."""
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            self._request.add("network", self._began_s, time.perf_counter())
        return message

    async def send(self, message: Message) -> None:
        """Pass on; the beginning of an answer begins its delivery."""
        kind = message["type"]
        if kind in ("http.response.start", "websocket.http.response.start"):
            self._answer_s = time.perf_counter()
            self._request.span.set_attribute("http.response.status_code", message["status"])
            if message["status"] >= _FAILED:
                self._request.span.set_status(StatusCode.ERROR)
        elif kind == "websocket.close":
            code = message.get("code", 1000)
            self._request.span.set_attribute("auricle.close_code", code)
            if code == _ABNORMAL:
                self._request.span.set_status(StatusCode.ERROR)
        await self._send(message)

    def end(self) -> None:
        """The answer is out."""
        if self._answer_s is not None:
            self._request.add("delivery", self._answer_s, time.perf_counter())
