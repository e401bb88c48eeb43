"""Dynamic batching: one asyncio owner collects rows, one thread runs the model.

Nothing waits for company: an idle model takes a row at once, and rows that arrive while it runs
form the next batch. Live chunks go before files. Files are taken from the length bucket that holds
the row that is due first, and there in the order in which they are due; equals keep the order of
arrival. A late or abandoned row is dropped, never a thread. When a call fails its rows are run one
by one, so that one bad row fails alone; a model that fails on everything is left alone for a while.
"""

import asyncio
import bisect
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from serving import logs
from serving.engine.breaker import Breaker
from serving.metrics import ServiceMetrics
from serving.observe import spans
from serving.problems import ApiProblem, deadline_passed, engine_down, overloaded

Floats = NDArray[np.float32]
Work = TypeVar("Work")


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """One fixed model chunk of a live stream."""

    row: int  # of the state slab
    x_TF: Floats  # [4C+3, mel], zero padded behind ``valid``
    valid: int  # frames that are real


class Model(Protocol):
    """What the batcher drives; both calls are made from one thread only."""

    def offline(self, pieces: Sequence[Floats]) -> list[Floats]:
        """Log-probabilities of whole pieces."""

    def step(self, chunks: Sequence[Chunk]) -> list[Floats]:
        """Log-probabilities of one chunk each; the streams' caches move on."""


@dataclass(frozen=True, kw_only=True)
class BatchLimits:
    """How much one model call may hold."""

    max_rows: int = 8  # of a file batch
    max_stream_rows: int = 16
    max_padded_frames: int = 12_000  # rows times longest row, of a file batch
    max_padded_frames_live: int = 3_000  # the same while streams are open: they wait no longer
    bucket_frames: tuple[int, ...] = (100, 200, 400, 800, 1600)  # upper edges of length buckets
    max_waiting_rows: int = 512


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Log-probabilities of a row and what they cost it."""

    logp_TV: Floats
    queue_s: float
    model_s: float  # the call's time divided among its rows
    call_s: float  # the call's whole time


@dataclass(kw_only=True, eq=False)
class _Waiting(Generic[Work]):
    work: Work
    since: float
    due: float
    answer: "asyncio.Future[Answer]" = field(repr=False)


class Batcher:
    """The queue before the model. Created, used and closed on one event loop."""

    def __init__(
        self,
        model: Model,
        metrics: ServiceMetrics,
        limits: BatchLimits | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = model
        self._metrics = metrics
        self._limits = limits or BatchLimits()
        self._clock = clock
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        buckets = len(self._limits.bucket_frames) + 1
        self._files: list[deque[_Waiting[Floats]]] = [deque() for _ in range(buckets)]
        self._chunks: deque[_Waiting[Chunk]] = deque()
        self.breaker = Breaker(clock=clock)
        self._wake = asyncio.Event()
        self._stopping = False
        self._owner: asyncio.Task[None] | None = None
        self.streams_open = 0  # kept by the streams' owner; narrows file batches

    def start(self) -> None:
        """Begin to serve the queue."""
        self._owner = asyncio.get_running_loop().create_task(self._own())

    async def close(self) -> None:
        """Finish the running batch, refuse the rest, stop the thread."""
        if self._owner is not None:
            self._stopping = True
            self._wake.set()
            await self._owner
        answers = [row.answer for bucket in self._files for row in bucket]
        for answer in [*answers, *(row.answer for row in self._chunks)]:
            if not answer.done():
                answer.set_exception(_stopped())
        await asyncio.to_thread(self._thread.shutdown)

    async def infer(self, x_TF: Floats, *, deadline_s: float) -> Answer:
        """Log-probabilities of one piece of a file."""
        if self._depth() >= self._limits.max_waiting_rows:
            raise overloaded()
        bucket = bisect.bisect_left(self._limits.bucket_frames, len(x_TF))
        waiting = self._waiting(x_TF, deadline_s)
        bisect.insort_right(self._files[bucket], waiting, key=_due)
        self._wake.set()
        return _traced(waiting, await waiting.answer)

    async def step(self, chunk: Chunk, *, deadline_s: float) -> Answer:
        """Log-probabilities of a stream's next chunk.

        A caller that goes away meanwhile still waits for a chunk that the model already holds:
        the row's caches are written at the end of the call and must not be given on before.
        """
        waiting = self._waiting(chunk, deadline_s)
        self._chunks.append(waiting)
        self._wake.set()
        try:
            return _traced(waiting, await asyncio.shield(waiting.answer))
        except asyncio.CancelledError:
            if waiting in self._chunks:
                self._chunks.remove(waiting)
            else:
                await asyncio.wait([waiting.answer])
            raise

    def _waiting(self, work: Work, deadline_s: float) -> _Waiting[Work]:
        if self._stopping:
            raise _stopped()
        if not self.breaker.allows():
            raise engine_down(self.breaker.wait_s)
        now = self._clock()
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        return _Waiting(work=work, since=now, due=now + deadline_s, answer=answer)

    def _depth(self) -> int:
        return len(self._chunks) + sum(len(bucket) for bucket in self._files)

    async def _own(self) -> None:
        while True:
            await self._wake.wait()
            if self._stopping:
                return
            self._metrics.queue_depth.set(self._depth())
            if chunks := self._next_chunks():
                await self._run(chunks, self._model.step, "stream")
            elif pieces := self._next_pieces():
                await self._run(pieces, self._model.offline, "file")
            elif not self._depth():
                self._wake.clear()

    def _next_chunks(self) -> list[_Waiting[Chunk]]:
        taken: list[_Waiting[Chunk]] = []
        while self._chunks and len(taken) < self._limits.max_stream_rows:
            waiting = self._chunks.popleft()
            if self._alive(waiting):
                taken.append(waiting)
        return taken

    def _next_pieces(self) -> list[_Waiting[Floats]]:
        for bucket in self._files:
            while bucket and not self._alive(bucket[0]):
                bucket.popleft()
        filled = [bucket for bucket in self._files if bucket]
        if not filled:
            return []
        bucket = min(filled, key=lambda rows: rows[0].due)
        limits = self._limits
        frames = limits.max_padded_frames_live if self.streams_open else limits.max_padded_frames
        taken: list[_Waiting[Floats]] = []
        longest = 0
        while bucket and len(taken) < limits.max_rows:
            longest = max(longest, len(bucket[0].work))
            if taken and longest * (len(taken) + 1) > frames:
                break
            waiting = bucket.popleft()
            if self._alive(waiting):
                taken.append(waiting)
        return taken

    def _alive(self, waiting: _Waiting[Work]) -> bool:
        if waiting.answer.done():  # its caller went away
            return False
        if waiting.due < self._clock():
            waiting.answer.set_exception(deadline_passed(waiting.due - waiting.since))
            return False
        return True

    async def _run(
        self,
        rows: list[_Waiting[Work]],
        call: Callable[[Sequence[Work]], list[Floats]],
        mode: str,
    ) -> None:
        self._metrics.batch_rows.labels(mode).observe(len(rows))
        began = self._clock()
        try:
            loop = asyncio.get_running_loop()
            works = [row.work for row in rows]
            outcomes = await loop.run_in_executor(self._thread, call, works)
        except Exception as error:
            logs.crash("model_failed", error)
            await self._after_failure(rows, call, mode)
            return
        self.breaker.succeeded()
        call_s = self._clock() - began
        share_s = call_s / len(rows)
        for row, logp_TV in zip(rows, outcomes, strict=True):
            if not row.answer.done():
                queue_s = began - row.since
                row.answer.set_result(
                    Answer(logp_TV=logp_TV, queue_s=queue_s, model_s=share_s, call_s=call_s)
                )

    async def _after_failure(
        self,
        rows: list[_Waiting[Work]],
        call: Callable[[Sequence[Work]], list[Floats]],
        mode: str,
    ) -> None:
        if len(rows) > 1:
            for row in rows:
                await self._run([row], call, mode)
            return
        self.breaker.failed()
        if not rows[0].answer.done():
            rows[0].answer.set_exception(ApiProblem(500, "The model failed.", code="model"))


def _due(waiting: "_Waiting[Any]") -> float:
    return waiting.due


def _traced(waiting: _Waiting[Any], answer: Answer) -> Answer:
    spans.modelled(time.perf_counter() - (time.monotonic() - waiting.since), answer.queue_s)
    return answer


def _stopped() -> ApiProblem:
    return ApiProblem(503, "The service has stopped.", code="stopped")
