"""Prometheus metrics: network, queue, features, model, decoding and delivery apart; no content.

Where several processes serve, counters and histograms are summed over them. Gauges that tell of one
worker keep its ``pid``: a sum would hide the one that is full.
"""

from dataclasses import dataclass
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from serving.tenants import meter

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32)
_PACE = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)  # seconds of work for one of sound
_Workers = Literal["livesum", "liveall", "livemax"]  # how their gauges make one
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, kw_only=True)
class StageSeconds:
    """What one request or one stream chunk cost, by stage."""

    queue: float = 0.0
    features: float = 0.0
    model: float = 0.0
    decoding: float = 0.0


class ServiceMetrics:
    """Every metric of the service; labels are route, outcome and mode, all from closed sets."""

    def __init__(self, registry: CollectorRegistry, *, several_processes: bool = False) -> None:
        self._registry = registry
        self._several_processes = several_processes
        self.requests = self._counter("requests", "Requests by outcome", "route", "outcome")
        self.answers = self._counter(
            "answers", "Answers by HTTP status, or by the code that ended a WebSocket",
            "route", "status",
        )  # fmt: skip
        self.request_seconds = self._histogram("request", "Whole request", ["route"])
        self._network = self._histogram("network", "Reading a request's body", ["mode"])
        self._queue = self._histogram("queue", "Waiting for a worker or the model", ["mode"])
        self._features = self._histogram("features", "Audio decoding and log-mel", ["mode"])
        self._model = self._histogram("model", "Running the model", ["mode"])
        self._decoding = self._histogram("decoding", "From log-probabilities to words", ["mode"])
        self.delivery = self._histogram("delivery", "Handing answers to the network", ["mode"])
        self.stream_lag = self._histogram(
            "stream_lag", "From a chunk's last sample to its results", []
        )
        self._pace = Histogram(
            "auricle_seconds_per_audio_second",
            "Whole time of a recording for each second of its sound",
            ["mode"],
            buckets=_PACE,
            registry=registry,
        )
        self.batch_rows = Histogram(
            "auricle_batch_rows", "Rows per model call", ["mode"], buckets=_ROWS, registry=registry
        )
        self.audio_seconds = self._counter("audio_seconds", "Seconds of audio taken in", "mode")
        self.streams_open = self._gauge("streams_open", "Live streams", of="liveall")
        self.queue_depth = self._gauge("queue_depth", "Rows waiting", of="liveall")
        self.tasks = self._gauge("tasks", "Tasks of the event loop")
        self.admission_waiting = self._gauge("admission_waiting", "Files waiting for their turn")
        self.degradation = self._gauge("degradation_level", "Rungs of the ladder in force")
        self.admission_limit = self._gauge("admission_limit_seconds", "Work let in at once")
        self.swaps = self._counter("swaps", "Changes of the served model", "outcome")
        self.models_loaded = self._gauge("models_loaded", "In memory: serving, or ending its work")
        self._model_info = self._gauge(
            "model_info", "Workers that serve this version", "name", "version"
        )
        self._served: tuple[str, str] | None = None
        self.normalisation = self._counter("normalisation", "Warm and cold starts", "state")
        self.jobs = self._counter("jobs", "Jobs accepted, and how they ended", "outcome")
        self.jobs_waiting = self._gauge("jobs_waiting", "Queued jobs", of="livemax")
        self.refused = self._counter("refused", "Refused at the gate", "code")
        self.webhooks = self._counter("webhook_attempts", "Webhook attempts", "outcome")

    def serves(self, name: str, version: str) -> None:
        """This worker gives new work to that version."""
        if self._served not in (None, (name, version)):
            self._model_info.labels(*self._served).set(0)
        self._served = (name, version)
        self._model_info.labels(name, version).set(1)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"auricle_{name}", text, labels, registry=self._registry)

    def _gauge(self, name: str, text: str, *labels: str, of: _Workers = "livesum") -> Gauge:
        return Gauge(f"auricle_{name}", text, labels, registry=self._registry, multiprocess_mode=of)

    def _histogram(self, stage: str, text: str, labels: list[str]) -> Histogram:
        return Histogram(
            f"auricle_{stage}_seconds", text, labels, buckets=_SECONDS, registry=self._registry
        )

    def stages(self, mode: str, seconds: StageSeconds) -> None:
        """Book one request's (``file``) or chunk's (``stream``) seconds."""
        self._queue.labels(mode).observe(seconds.queue)
        self._features.labels(mode).observe(seconds.features)
        self._model.labels(mode).observe(seconds.model)
        self._decoding.labels(mode).observe(seconds.decoding)

    def recorded(self, mode: str, *, network_s: float, total_s: float, audio_s: float) -> None:
        """Book a whole recording: of a caller who waits (``file``), or a ``job``."""
        self._network.labels(mode).observe(network_s)
        self._pace.labels(mode).observe(total_s / audio_s)

    def heard(self, mode: str, seconds: float) -> None:
        """Book audio that was taken in, here and on whoever sent it."""
        self.audio_seconds.labels(mode).inc(seconds)
        meter.heard(seconds, live=mode == "stream")

    def finished(self, route: str, outcome: str, seconds: float) -> None:
        """Book the end of one request."""
        self.requests.labels(route, outcome).inc()
        self.request_seconds.labels(route).observe(seconds)

    def exposition(self) -> bytes:
        """The text that a scraper reads, summed over worker processes where there are several."""
        if not self._several_processes:
            return bytes(generate_latest(self._registry))
        merged = CollectorRegistry()
        MultiProcessCollector(merged)  # type: ignore[no-untyped-call]
        return bytes(generate_latest(merged))
