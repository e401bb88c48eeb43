"""Where a request's time is told from: hooks that cost one look-up while nobody traces.

Stages tell what they took to the recorder of the request that they run for. Recorders come from
`serving.observe.traces`, which the hooks do not import: without tracing, OpenTelemetry stays out.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Protocol, TypeVar

T = TypeVar("T")
# What worker threads do, by the name of the function that they are given.
_STAGES = {
    "prepare": "features",
    "next_pieces": "features",
    "open_live": "features",
    "hear": "features",
    "conclude": "features",
    "decode": "decoding",
    "absorb": "decoding",
}


class Recorder(Protocol):
    """Takes the stages of one piece of work; called from any thread. Times of `perf_counter`."""

    @property
    def traceparent(self) -> str:
        """The work's span, as others continue it (W3C Trace Context)."""

    def ended(self, outcome: str, *, status: int | None = None, failed: bool = False) -> None:
        """How it went: an outcome of a closed set, and the HTTP status where there was one."""

    def add(self, stage: str, began_s: float, ended_s: float) -> None:
        """Something took that long."""


Trace = Callable[[str, str, int], AbstractContextManager[Recorder | None]]
"""Around work that no request waits for: its name, the traceparent that it continues, its attempt."""
RECORDER: ContextVar[Recorder | None] = ContextVar("recorder", default=None)


def untraced(name: str, traceparent: str, attempt: int) -> AbstractContextManager[None]:
    """The `Trace` of a process that traces nothing."""
    return nullcontext()


def traceparent() -> str:
    """Of the present request; empty where nothing is traced."""
    recorder = RECORDER.get()
    return "" if recorder is None else recorder.traceparent


def took(stage: str, began_s: float) -> None:
    """A stage of the present work is over now."""
    if (recorder := RECORDER.get()) is not None:
        recorder.add(stage, began_s, time.perf_counter())


def around(call: Callable[[], T], name: str) -> Callable[[], T]:
    """``call`` for a worker thread, timed there: the wait for the thread is not its own."""
    recorder, stage = RECORDER.get(), _STAGES.get(name)
    if recorder is None or stage is None:
        return call

    def timed() -> T:
        began_s = time.perf_counter()
        try:
            return call()
        finally:
            recorder.add(stage, began_s, time.perf_counter())

    return timed


def modelled(began_s: float, queue_s: float) -> None:
    """A row came back now from the model, for which it had waited first."""
    if (recorder := RECORDER.get()) is not None:
        called_s = began_s + queue_s
        recorder.add("queue", began_s, called_s)
        recorder.add("model", called_s, time.perf_counter())
