"""One model in memory with everything that belongs to it alone, and how many still use it.

A request or a stream holds the model that it began with until it ends: recogniser, engine, slab,
queue and decoder go together, so that no answer is ever made of two models.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from serving.admission.cost import Price
from serving.engine.batcher import Batcher
from serving.engine.calibration import Calibration
from serving.metrics import ServiceMetrics
from serving.recognizer import AuricleRecognizer
from serving.schema import ModelFacts


class LoadedModel:
    """A warm recogniser and the queue before its engine. Used on one event loop."""

    def __init__(
        self, recognizer: AuricleRecognizer, calibration: Calibration, metrics: ServiceMetrics
    ) -> None:
        self.recognizer = recognizer
        self.calibration = calibration
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
        if self._batcher is not None:
            await self._batcher.close()
        await asyncio.to_thread(self.recognizer.close)
