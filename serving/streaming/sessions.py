"""A live stream inside the service: bytes in, events out, the model shared with everybody."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from serving.engine.batcher import Answer, Batcher, Chunk
from serving.metrics import ServiceMetrics, StageSeconds
from serving.streaming.streams import Event, LiveStream, Progress

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
        spent: Callable[[StageSeconds], None] = lambda seconds: None,
    ) -> None:
        self.live = live
        self._batcher = batcher
        self._metrics = metrics
        self._work = work
        self._closed = closed
        self._deadline_s = deadline_s
        self._heard_s = 0.0  # when the newest audio came in
        self._spent = spent  # told what every chunk took

    async def accept(self, content: bytes) -> AsyncIterator[Event]:
        """Take bytes; give the events of the chunks that they complete, as they come."""
        self._heard_s = time.perf_counter()
        before_s = self.live.duration_s
        progress = await self._work(self.live.hear, content)
        self._metrics.heard("stream", self.live.duration_s - before_s)
        async for event in self._run(progress):
            yield event

    async def conclude(self, *, last: bool) -> AsyncIterator[Event]:
        """Make everything heard so far final: at the client's ``Finalize`` or at the end."""
        self._heard_s = time.perf_counter()
        progress = await self._work(self.live.conclude, "close" if last else "finalize")
        async for event in self._run(progress):
            yield event

    def close(self) -> None:
        """Give the stream's place back. Safe whatever happened before."""
        self.live.release()
        self._closed(self)

    async def _run(self, progress: Progress) -> AsyncIterator[Event]:
        while True:
            for event in progress.events:
                yield event
            if not progress.chunks:
                return
            answers = await self._answers(progress.chunks)
            began, features_s = time.perf_counter(), self.live.feature_s
            self.live.feature_s = 0.0
            progress = await self._work(self.live.absorb, [one.logp_TV for one in answers])
            seconds = StageSeconds(
                queue=max(one.queue_s for one in answers),
                features=features_s,
                model=sum(one.model_s for one in answers),
                decoding=max(0.0, time.perf_counter() - began - self.live.feature_s),
            )
            self._metrics.stages("stream", seconds)
            self._spent(seconds)
            self._metrics.stream_lag.observe(time.perf_counter() - self._heard_s)

    async def _answers(self, chunks: list[Chunk]) -> list[Answer]:
        """Of all channels' chunks; none is left at the model when one of them fails."""
        steps = [self._batcher.step(chunk, deadline_s=self._deadline_s) for chunk in chunks]
        answers = await asyncio.gather(*steps, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return [answer for answer in answers if isinstance(answer, Answer)]
