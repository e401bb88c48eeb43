"""The queue before an adopted model: windows of several recordings go through it together.

An idle model takes a window at once; windows that arrive while it runs form the next batch, shared
evenly among the threads that come free. The window that is due first goes first. A call that fails
is repeated row by row, so that a bad window fails alone; a model that fails on everything is left
alone for a while.
"""

import asyncio
import bisect
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from serving import logs
from serving.adopted.windows import Reading, Window
from serving.engine.breaker import Breaker
from serving.metrics import ServiceMetrics
from serving.problems import ApiProblem, deadline_passed, engine_down, overloaded

_MODE = "adopted"
_MOST_WAITING = 512


class WindowReader(Protocol):
    """What the queue drives, from as many threads as it was told."""

    def read(self, windows: Sequence[Window]) -> list[Reading]:
        """One reading for each window, in order."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A reading and what it cost its window."""

    reading: Reading
    queue_s: float
    model_s: float  # the call's time divided among its rows
    call_s: float  # the call's whole time


@dataclass(kw_only=True, eq=False)
class _Waiting:
    window: Window
    since: float
    due: float
    answer: "asyncio.Future[Answer]" = field(repr=False)


class WindowQueue:
    """Created, used and closed on one event loop."""

    def __init__(
        self,
        model: WindowReader,
        metrics: ServiceMetrics,
        *,
        threads: int,
        max_rows: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = model
        self._metrics = metrics
        self._max_rows = max_rows
        self._clock = clock
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="adopted")
        self._free = threads
        self._waiting: list[_Waiting] = []
        self._calls: set[asyncio.Task[None]] = set()
        self._stopping = False
        self.breaker = Breaker(clock=clock)

    async def close(self) -> None:
        """Finish what runs, refuse the rest, stop the threads."""
        self._stopping = True
        for row in self._waiting:
            if not row.answer.done():
                row.answer.set_exception(_stopped())
        self._waiting.clear()
        await asyncio.gather(*self._calls, return_exceptions=True)
        await asyncio.to_thread(self._threads.shutdown)

    async def read(self, window: Window, *, deadline_s: float) -> Answer:
        """What the model makes of a window; a caller that goes away takes it out of the queue."""
        if self._stopping:
            raise _stopped()
        if len(self._waiting) >= _MOST_WAITING:
            raise overloaded()
        if not self.breaker.allows():
            raise engine_down(self.breaker.wait_s)
        now = self._clock()
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        row = _Waiting(window=window, since=now, due=now + deadline_s, answer=answer)
        bisect.insort_right(self._waiting, row, key=lambda one: one.due)
        self._begin()
        return await answer

    def _begin(self) -> None:
        """Give each free thread its share of what waits."""
        while self._free and (rows := self._next_rows()):
            self._free -= 1
            call = asyncio.get_running_loop().create_task(self._run(rows))
            self._calls.add(call)
            call.add_done_callback(self._ended)

    def _ended(self, call: "asyncio.Task[None]") -> None:
        self._calls.discard(call)
        self._free += 1
        if not self._stopping:
            self._begin()

    def _next_rows(self) -> list[_Waiting]:
        self._waiting = [row for row in self._waiting if self._alive(row)]
        share = -(-len(self._waiting) // self._free)
        count = min(share, self._max_rows)
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return taken

    def _alive(self, row: _Waiting) -> bool:
        if row.answer.done():  # its caller went away
            return False
        if row.due < self._clock():
            row.answer.set_exception(deadline_passed(row.due - row.since))
            return False
        return True

    async def _run(self, rows: list[_Waiting]) -> None:
        self._metrics.batch_rows.labels(_MODE).observe(len(rows))
        began = self._clock()
        windows = [row.window for row in rows]
        try:
            loop = asyncio.get_running_loop()
            readings = await loop.run_in_executor(self._threads, self._model.read, windows)
        except Exception as error:
            logs.crash("adopted_model_failed", error)
            await self._after_failure(rows)
            return
        self.breaker.succeeded()
        call_s = self._clock() - began
        for row, reading in zip(rows, readings, strict=True):
            if not row.answer.done():
                row.answer.set_result(
                    Answer(
                        reading=reading,
                        queue_s=began - row.since,
                        model_s=call_s / len(rows),
                        call_s=call_s,
                    )
                )

    async def _after_failure(self, rows: list[_Waiting]) -> None:
        if len(rows) > 1:
            for row in rows:
                await self._run([row])
            return
        self.breaker.failed()
        if not rows[0].answer.done():
            rows[0].answer.set_exception(ApiProblem(500, "The model failed.", code="model"))


def _stopped() -> ApiProblem:
    return ApiProblem(503, "The service has stopped.", code="stopped")
