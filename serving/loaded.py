"""One model in memory with everything that belongs to it alone, and how many still use it.

A request or a stream holds the model that it began with until it ends: recogniser, engine, slab,
queue and decoder go together, so that no answer is ever made of two models.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from serving.admission.cost import Price
from serving.engine.batcher import Batcher
from serving.engine.calibration import Calibration
from serving.metrics import ServiceMetrics
from serving.recognizer import AuricleRecognizer
from serving.schema import ModelFacts

INT8_MODEL, LARGER_CHUNKS = "int8_model", "larger_chunks"


class LoadedModel:
    """A warm recogniser and the queue before its engine. Used on one event loop."""

    def __init__(
        self,
        recognizer: AuricleRecognizer,
        calibration: Calibration,
        metrics: ServiceMetrics,
        lighter: "Mapping[str, LoadedModel] | None" = None,
    ) -> None:
        """``lighter``: by rung, what takes its place under pressure, the mildest first."""
        self.recognizer = recognizer
        self.calibration = calibration
        self.lighter = dict(lighter or {})
        self._metrics = metrics
        self._batcher: Batcher | None = None
        self._users = 0
        self._unused = asyncio.Event()
        self._unused.set()

    @property
    def facts(self) -> ModelFacts:
        """What every answer says of the model that made it."""
        return self.recognizer.facts

    @property
    def rungs(self) -> tuple[str, ...]:
        """What can be given up for speed, the mildest first."""
        return (*self.recognizer.rungs, *self.lighter)

    def for_file(self, given_up: tuple[str, ...]) -> "LoadedModel":
        """What answers a recording while so much is given up."""
        return self.lighter[INT8_MODEL] if INT8_MODEL in given_up else self

    def for_stream(self, given_up: tuple[str, ...]) -> "LoadedModel":
        """What a live stream runs on that opens while so much is given up."""
        return self.lighter[LARGER_CHUNKS] if LARGER_CHUNKS in given_up else self.for_file(given_up)

    def count_streams(self, count: int) -> None:
        """Tell the queues how many live streams are open: files then take smaller batches."""
        self.batcher.streams_open = count
        for model in self.lighter.values():
            model.count_streams(count)

    @property
    def price(self) -> Price:
        """What a recording costs with it."""
        measured = self.calibration
        return Price(per_request_s=measured.per_call_s, per_audio_s=measured.per_audio_s)

    @property
    def batcher(self) -> Batcher:
        """The queue before the model."""
        assert self._batcher is not None, "start() comes first"
        return self._batcher

    def start(self) -> None:
        """Begin to serve, on the running loop."""
        self._batcher = Batcher(self.recognizer.engine, self._metrics, self.calibration.limits())
        self._batcher.start()
        for model in self.lighter.values():
            model.start()

    def hold(self) -> None:
        """One more needs it; `release` ends that."""
        self._users += 1
        self._unused.clear()

    def release(self) -> None:
        """One less needs it."""
        self._users -= 1
        if not self._users:
            self._unused.set()

    @contextmanager
    def held(self) -> Iterator["LoadedModel"]:
        """Keep it for a while."""
        self.hold()
        try:
            yield self
        finally:
            self.release()

    async def unused(self) -> None:
        """Wait until nobody needs it."""
        await self._unused.wait()

    def dismiss(self) -> None:
        """The process ends: nobody is waited for any more."""
        self._unused.set()

    async def close(self) -> None:
        """Let go of threads, graphs and files; what still waits for the model is refused."""
        for model in self.lighter.values():
            await model.close()
        if self._batcher is not None:
            await self._batcher.close()
        await asyncio.to_thread(self.recognizer.close)
