"""Batching: what arrives while the model runs shares its next call; order, deadlines, priority."""

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from serving.engine.batcher import Batcher, BatchLimits, Chunk
from serving.metrics import ServiceMetrics
from serving.problems import ApiProblem

Floats = NDArray[np.float32]
LONG_S = 30.0


class Gate:
    """A model that waits to be let go, and notes who called it from where."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.kinds: list[str] = []
        self.threads: set[str] = set()
        self.open = threading.Event()
        self.open.set()

    def offline(self, pieces: Sequence[Floats]) -> list[Floats]:
        self._note("file", [len(piece) for piece in pieces])
        return [piece * 2 for piece in pieces]

    def step(self, chunks: Sequence[Chunk]) -> list[Floats]:
        self._note("stream", [chunk.row for chunk in chunks])
        return [np.full((1, 1), chunk.row, np.float32) for chunk in chunks]

    def _note(self, kind: str, sizes: list[int]) -> None:
        self.kinds.append(kind)
        self.calls.append(sizes)
        self.threads.add(threading.current_thread().name)
        assert self.open.wait(10)


def batcher_of(model: Gate, **limits: int) -> Batcher:
    batcher = Batcher(model, ServiceMetrics(CollectorRegistry()), BatchLimits(**limits))
    batcher.start()
    return batcher


def piece(frames: int) -> Floats:
    return np.full((frames, 2), frames, np.float32)


async def busy(batcher: Batcher, model: Gate) -> "asyncio.Task[object]":
    """Occupy the model with one piece until ``model.open`` is set."""
    model.open.clear()
    first = asyncio.ensure_future(batcher.infer(piece(10), deadline_s=LONG_S))
    while not model.calls:
        await asyncio.sleep(0.001)
    return first


def test_rows_that_wait_share_a_call_by_length_and_keep_their_answers() -> None:
    async def scene() -> None:
        model = Gate()
        batcher = batcher_of(model)
        first = await busy(batcher, model)
        lengths = [90, 1500, 80, 70, 1400]
        waiting = [
            asyncio.ensure_future(batcher.infer(piece(n), deadline_s=LONG_S)) for n in lengths
        ]
        await asyncio.sleep(0.01)
        model.open.set()
        answers = await asyncio.gather(*waiting)
        assert [float(answer.logp_TV[0, 0]) for answer in answers] == [2.0 * n for n in lengths]
        assert [len(answer.logp_TV) for answer in answers] == lengths
        assert model.calls[1:] == [[90, 80, 70], [1500, 1400]]
        assert len(model.threads) == 1
        assert all(answer.queue_s > 0 for answer in answers)
        await first
        await batcher.close()

    asyncio.run(scene())


def test_live_chunks_go_before_files_and_share_a_tick() -> None:
    async def scene() -> None:
        model = Gate()
        batcher = batcher_of(model)
        first = await busy(batcher, model)
        file = asyncio.ensure_future(batcher.infer(piece(20), deadline_s=LONG_S))
        await asyncio.sleep(0)
        ticks = [
            asyncio.ensure_future(
                batcher.step(Chunk(row=row, x_TF=piece(4), valid=4), deadline_s=LONG_S)
            )
            for row in (3, 1, 2)
        ]
        await asyncio.sleep(0.01)
        model.open.set()
        answers = await asyncio.gather(*ticks)
        assert [float(answer.logp_TV[0, 0]) for answer in answers] == [3.0, 1.0, 2.0]
        await asyncio.gather(first, file)
        assert model.kinds == ["file", "stream", "file"]
        assert model.calls[1] == [3, 1, 2]
        await batcher.close()

    asyncio.run(scene())


def test_a_late_row_is_dropped_and_an_abandoned_one_never_runs() -> None:
    async def scene() -> None:
        model = Gate()
        batcher = batcher_of(model)
        first = await busy(batcher, model)
        late = asyncio.ensure_future(batcher.infer(piece(20), deadline_s=0.01))
        gone = asyncio.ensure_future(batcher.infer(piece(21), deadline_s=LONG_S))
        kept = asyncio.ensure_future(batcher.infer(piece(22), deadline_s=LONG_S))
        await asyncio.sleep(0.05)
        gone.cancel()
        await asyncio.sleep(0)
        model.open.set()
        await kept
        with pytest.raises(ApiProblem) as problem:
            await late
        assert problem.value.status == 503
        assert model.calls == [[10], [22]]
        await first
        await batcher.close()

    asyncio.run(scene())


def test_the_queue_is_bounded_and_a_batch_too() -> None:
    async def scene() -> None:
        model = Gate()
        batcher = batcher_of(model, max_waiting_rows=3, max_padded_frames=100)
        first = await busy(batcher, model)
        waiting = [
            asyncio.ensure_future(batcher.infer(piece(50), deadline_s=LONG_S)) for _ in range(3)
        ]
        await asyncio.sleep(0)
        with pytest.raises(ApiProblem) as problem:
            await batcher.infer(piece(50), deadline_s=LONG_S)
        assert problem.value.status == 429
        model.open.set()
        await asyncio.gather(first, *waiting)
        assert model.calls[1:] == [[50, 50], [50]]
        await batcher.close()

    asyncio.run(scene())


def test_a_stream_that_leaves_waits_for_a_chunk_that_the_model_holds() -> None:
    async def scene() -> None:
        model = Gate()
        batcher = batcher_of(model)
        model.open.clear()
        chunk = Chunk(row=5, x_TF=piece(4), valid=4)
        held = asyncio.ensure_future(batcher.step(chunk, deadline_s=LONG_S))
        while not model.calls:
            await asyncio.sleep(0.001)
        held.cancel()
        await asyncio.sleep(0.02)
        assert not held.done()
        threading.Timer(0.05, model.open.set).start()
        with pytest.raises(asyncio.CancelledError):
            await held
        assert model.open.is_set()
        await batcher.close()

    asyncio.run(scene())


def test_an_idle_model_runs_a_row_at_once_and_close_refuses_the_rest() -> None:
    async def scene() -> None:
        model = Gate()
        batcher = batcher_of(model)
        answer = await batcher.infer(piece(10), deadline_s=LONG_S)
        assert model.calls == [[10]] and answer.model_s >= 0
        first = await busy_again(batcher, model)
        rest = asyncio.ensure_future(batcher.infer(piece(30), deadline_s=LONG_S))
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(batcher.close())
        await asyncio.sleep(0.01)
        model.open.set()
        await closing
        await first
        outcome = (await asyncio.gather(rest, return_exceptions=True))[0]
        assert isinstance(outcome, ApiProblem) and outcome.status == 503
        with pytest.raises(ApiProblem):
            await batcher.infer(piece(10), deadline_s=LONG_S)

    asyncio.run(scene())


async def busy_again(batcher: Batcher, model: Gate) -> "asyncio.Task[object]":
    seen = len(model.calls)
    model.open.clear()
    task = asyncio.ensure_future(batcher.infer(piece(10), deadline_s=LONG_S))
    while len(model.calls) == seen:
        await asyncio.sleep(0.001)
    return task


def test_a_crash_of_the_model_fails_its_rows_only() -> None:
    class Fragile(Gate):
        def offline(self, pieces: Sequence[Floats]) -> list[Floats]:
            if len(pieces[0]) == 13:
                raise ValueError("thirteen")
            return super().offline(pieces)

    async def scene() -> None:
        batcher = batcher_of(Fragile())
        with pytest.raises(ApiProblem) as problem:
            await batcher.infer(piece(13), deadline_s=LONG_S)
        assert problem.value.status == 500
        assert len((await batcher.infer(piece(14), deadline_s=LONG_S)).logp_TV) == 14
        await batcher.close()

    asyncio.run(scene())
