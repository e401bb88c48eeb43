"""A live stream inside the service: bytes in, events out, the model shared with everybody."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

from serving.engine.batcher import Batcher, Chunk
from serving.metrics import ServiceMetrics, StageSeconds
from serving.streaming.streams import LiveStream, StreamEvent

Work = Callable[..., Awaitable[Any]]


class StreamSession:
    """Runs a `LiveStream` on worker threads and the batcher. One caller at a time."""

    def __init__(
        self,
        live: LiveStream,
        batcher: Batcher,
        metrics: ServiceMetrics,
        work: Work,
        closed: "Callable[[StreamSession], None]",
        *,
        deadline_s: float,
    ) -> None:
        self.live = live
        self._batcher = batcher
        self._metrics = metrics
        self._work = work
        self._closed = closed
        self._deadline_s = deadline_s
        self._feature_s = 0.0

    async def accept(self, content: bytes) -> list[StreamEvent]:
        """Take bytes; give the events of the chunks that they complete."""
        began = time.perf_counter()
        before_s = self.live.duration_s
        await self._work(self.live.feed, content)
        self._feature_s += time.perf_counter() - began
        self._metrics.audio_seconds.labels("stream").inc(self.live.duration_s - before_s)
        return await self._full_chunks()

    async def conclude(self, *, last: bool) -> list[StreamEvent]:
        """Make everything heard so far final: at the client's ``Finalize`` or at the end."""
        await self._work(self.live.flush, last=last)
        events = await self._full_chunks()
        if (chunk := self.live.tail()) is not None:
            events += await self._run(chunk)
        events.append(await self._work(self.live.conclude, from_finalize=not last))
        return events

    def close(self) -> None:
        """Give the stream's place back. Safe whatever happened before."""
        self.live.release()
        self._closed(self)

    async def _full_chunks(self) -> list[StreamEvent]:
        events: list[StreamEvent] = []
        while (chunk := self.live.take()) is not None:
            events += await self._run(chunk)
        return events

    async def _run(self, chunk: Chunk) -> list[StreamEvent]:
        answer = await self._batcher.step(chunk, deadline_s=self._deadline_s)
        began = time.perf_counter()
        events: list[StreamEvent] = await self._work(self.live.absorb, answer.logp_TV)
        seconds = StageSeconds(
            queue=answer.queue_s,
            features=self._feature_s,
            model=answer.model_s,
            decoding=time.perf_counter() - began,
        )
        self._feature_s = 0.0
        self._metrics.stages("stream", seconds)
        return events
