"""One uploaded recording through an adopted model: admitted, prepared, read, booked as any other."""

import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Protocol

from serving.admission.policy import Outcome, Priority
from serving.admission.turnstile import Visit
from serving.adopted.models import AdoptedModel
from serving.adopted.queue import Answer
from serving.adopted.recognizer import PLAIN, PreparedPassage, Wish
from serving.metrics import ServiceMetrics
from serving.recognizer import AudioRequest, Content
from serving.schema import Transcript
from serving.settings import ServeSettings
from serving.tenants.caller import DEFAULT_TENANT


class Room(Protocol):
    """What all models of a process share."""

    settings: ServeSettings
    metrics: ServiceMetrics

    def admitted(self, tenant: str, priority: Priority) -> AbstractContextManager[Visit]:
        """A place for one file."""

    def work(self, call: Callable[[], PreparedPassage]) -> Awaitable[PreparedPassage]:
        """Run on a worker thread."""


async def transcribe(
    room: Room,
    model: AdoptedModel,
    read: Callable[[], Content],
    *,
    name: str,
    network_s: float,
    wish: Wish = PLAIN,
    tenant: str = DEFAULT_TENANT,
    priority: Priority = Priority.INTERACTIVE,
) -> Transcript:
    """The transcript of what ``read`` gives on a worker thread."""
    began = time.perf_counter()
    recognizer = model.recognizer
    with room.admitted(tenant, priority) as visit:
        visit.priced(model.costs)
        await visit.turn()
        started = time.perf_counter()
        prepared = await room.work(
            lambda: recognizer.prepare(AudioRequest(content=read(), name=name), wish)
        )
        visit.heard(prepared.duration_s)
        passage = prepared.passage
        while (window := passage.next_window()) is not None:
            answer = await model.queue.read(window, deadline_s=room.settings.request_deadline_s)
            _book(prepared, answer)
            passage.accept(answer.reading)
        ended = time.perf_counter()
        prepared.waited_s = max(0.0, ended - began - prepared.work_s)
        total_s = network_s + ended - began
        transcript = recognizer.transcript(prepared, network_s=network_s, total_s=total_s)
        steps_s = prepared.steps_s
        outcome = Outcome(waited_s=max(0.0, ended - started - steps_s), worked_s=steps_s)
        visit.answered(outcome, audio_s=prepared.duration_s, work_s=prepared.work_s)
    room.metrics.recorded("file", network_s=network_s, total_s=total_s, audio_s=prepared.duration_s)
    room.metrics.stages("file", prepared.seconds)
    room.metrics.heard("file", prepared.duration_s)
    return transcript


def _book(prepared: PreparedPassage, answer: Answer) -> None:
    prepared.model_s += answer.model_s
    prepared.calls_s += answer.call_s
