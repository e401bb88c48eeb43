"""One process's service: the model, worker threads, admission and the way out."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

from serving import logs
from serving.admission.entrance import Entrance
from serving.admission.policy import NoRoom, Outcome, Priority
from serving.admission.turnstile import Visit
from serving.adopted.models import AdoptedModels
from serving.engine.batcher import Answer, Batcher
from serving.engine.slab import SlabFull
from serving.evidence import HeardWord
from serving.file_options import NOTHING_SPECIAL, FileOptions
from serving.front.cutter import Piece
from serving.loaded import LARGER_CHUNKS, LoadedModel
from serving.metrics import ServiceMetrics
from serving.observe import spans
from serving.prepared import Prepared
from serving.problems import draining, engine_down, overloaded
from serving.recognizer import AudioRequest, AuricleRecognizer, Content
from serving.schema import Transcript
from serving.settings import ServeSettings
from serving.streaming.resume import StreamKeeper
from serving.streaming.segment import SegmentStart
from serving.streaming.sessions import StreamSession
from serving.streaming.streams import StreamRequest
from serving.tenants.caller import DEFAULT_TENANT

P = ParamSpec("P")
T = TypeVar("T")
_POLL_S = 0.05
_PIECES_AT_ONCE = 4  # of one recording, where nobody waits for the first words


class Runtime:
    """Everything that requests share. Created before the event loop, used on one loop."""

    def __init__(
        self,
        settings: ServeSettings,
        model: LoadedModel,
        metrics: ServiceMetrics,
        adopted: AdoptedModels | None = None,
    ) -> None:
        self.settings = settings
        self.model = model  # of requests and streams that begin now
        self.metrics = metrics
        self.adopted = adopted or AdoptedModels()  # beside it, under names of their own
        self._workers = ThreadPoolExecutor(settings.workers, thread_name_prefix="worker")
        self._draining: asyncio.Event | None = None
        self.entrance = Entrance(
            max_open=settings.max_waiting_requests,
            max_wait_s=settings.max_wait_s,
            workers=settings.workers,
            price=model.price,
            rungs=model.rungs if settings.degrade else (),
        )
        self._sessions: dict[StreamSession, LoadedModel] = {}  # open streams, and what each runs on
        self._leaving: dict[LoadedModel, asyncio.Task[None]] = {}  # until their last users end
        self._swapping = asyncio.Lock()
        self.keeper = StreamKeeper(settings.stream_keep_s)

    async def start(self) -> None:
        """Begin to serve, on the running loop."""
        self._draining = asyncio.Event()
        self._count_models()
        self.model.start()
        self.adopted.start()

    async def close(self) -> None:
        """Stop; what is still waiting is refused."""
        for model, farewell in list(self._leaving.items()):
            model.dismiss()
            await farewell
        await self.model.close()
        await self.adopted.close()
        await asyncio.to_thread(self._workers.shutdown)

    async def swap(self, load: Callable[[LoadedModel], LoadedModel]) -> LoadedModel:
        """Give everything that begins from now on another model; gives the new one.

        ``load`` makes it on a thread, from the model of now, which serves meanwhile and goes on
        serving when ``load`` raises. What is in flight ends on the model that it began with; that
        is closed after its last user.
        """
        async with self._swapping:
            before = self.model
            model = await asyncio.to_thread(load, before)
            if not self.ready:
                await model.close()
                raise draining()
            model.start()
            self.model = model
            rungs = model.rungs if self.settings.degrade else ()
            self.entrance.change(model.price, rungs)
            self._leaving[before] = asyncio.create_task(self._see_off(before))
            self._count_models()
            self._count_streams()
        return model

    async def _see_off(self, model: LoadedModel) -> None:
        await model.unused()
        await model.close()
        del self._leaving[model]
        self._count_models()
        logs.event("unloaded", model=model.facts.name, version=model.facts.version)

    def _count_models(self) -> None:
        self.metrics.models_loaded.set(1 + len(self._leaving))
        self.metrics.serves(self.model.facts.name, self.model.facts.version)

    @property
    def recognizer(self) -> AuricleRecognizer:
        """Of requests and streams that begin now."""
        return self.model.recognizer

    @property
    def batcher(self) -> Batcher:
        """The queue before the model of requests and streams that begin now."""
        return self.model.batcher

    @property
    def draining(self) -> asyncio.Event:
        """Set once this process is about to stop: streams end themselves, new work is refused."""
        assert self._draining is not None, "start() comes first"
        return self._draining

    @property
    def ready(self) -> bool:
        """Whether new work is taken."""
        return self._draining is not None and not self._draining.is_set()

    async def drain(self) -> None:
        """Refuse new work and wait until the old is done, at most ``drain_s``."""
        self.draining.set()
        self.keeper.forget_absent()
        began = time.monotonic()
        while (self._sessions or self.entrance.files) and (
            time.monotonic() - began < self.settings.drain_s
        ):
            await asyncio.sleep(_POLL_S)
        waited_s = round(time.monotonic() - began, 3)
        logs.event("drained", streams=len(self._sessions), waited_s=waited_s)

    async def work(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run CPU work of one request on a worker thread."""
        loop = asyncio.get_running_loop()
        timed = spans.around(lambda: call(*args, **kwargs), getattr(call, "__name__", ""))
        return await loop.run_in_executor(self._workers, timed)

    async def transcribe(
        self,
        read: Callable[[], Content],
        *,
        name: str,
        speaker: str | None,
        network_s: float,
        tenant: str = DEFAULT_TENANT,
        priority: Priority = Priority.INTERACTIVE,
        deadline_s: float | None = None,
        on_progress: Callable[[float], None] = lambda fraction: None,
        options: FileOptions = NOTHING_SPECIAL,
        on_heard: Callable[[Piece, list[HeardWord]], None] | None = None,
        model: LoadedModel | None = None,
    ) -> Transcript:
        """Answer one uploaded recording; ``read`` is called on a worker thread.

        The model takes the rows that are due first: work that may wait says so by a late deadline.
        ``on_heard`` is told each piece's words as soon as they are certain; somebody waits for it,
        so pieces then go to the model one by one. ``model``: what the caller holds.
        """
        began = time.perf_counter()
        with (model or self.model).held() as model, self.admitted(tenant, priority) as visit:
            await visit.turn()
            started = time.perf_counter()
            model, degradation = self._for_file(model)
            recognizer, most = model.recognizer, 1 if on_heard else _PIECES_AT_ONCE

            def prepare() -> tuple[Prepared, list[Piece]]:
                asked = AudioRequest(
                    content=read(), name=name, speaker=speaker, options=options,
                    degradation=degradation,
                )  # fmt: skip
                prepared = recognizer.prepare(asked)
                return prepared, recognizer.next_pieces(prepared, most)

            prepared, pieces = await self.work(prepare)
            visit.heard(prepared.duration_s)
            while pieces:
                heard = await self._pieces(
                    model, prepared, pieces, deadline_s or self.settings.request_deadline_s
                )
                if on_heard is not None:
                    on_heard(pieces[-1], heard)
                heard_frames = pieces[-1].start_frame + len(pieces[-1].x_TF)
                on_progress(recognizer.fraction(prepared, heard_frames))
                if len(pieces) < most:  # a step to a worker less: there is nothing more
                    break
                pieces = await self.work(recognizer.next_pieces, prepared, most)
            ended = time.perf_counter()
            prepared.book_waiting(ended - began)
            total_s = network_s + ended - began
            transcript = recognizer.transcript(prepared, network_s=network_s, total_s=total_s)
            _teach(visit, prepared, inside_s=ended - started)
        self.metrics.recorded(
            "file" if deadline_s is None else "job",
            network_s=network_s, total_s=total_s, audio_s=prepared.duration_s,
        )  # fmt: skip
        self._book(prepared)
        return transcript

    def _book(self, prepared: Prepared) -> None:
        """Count an answered file."""
        self.metrics.stages("file", prepared.seconds)
        self.metrics.heard("file", prepared.duration_s)
        self.metrics.normalisation.labels(prepared.normalisation.state).inc()

    async def open_stream(
        self,
        request: StreamRequest,
        begins: Sequence[SegmentStart] | None = None,
        *,
        model: LoadedModel | None = None,
    ) -> StreamSession:
        """Admit a live stream and fix its prior; ``begins`` as in `AuricleRecognizer.open_live`.

        A stream that is kept for an absent client makes room for one that is here. It stays on its
        ``model`` (None: the one of now) to its end.
        """
        if not self.ready:
            raise draining()
        if len(self._sessions) >= self.settings.max_streams and not self.keeper.forget_absent(1):
            raise overloaded("All live streams are taken.")
        with _told():
            self.entrance.require_stream(len(self._sessions))
        with (model or self.model).held() as model:
            given_up = self._given_up(model)
            runs = model.for_stream(given_up)
            try:
                live = await self.work(runs.recognizer.open_live, request, begins, given_up)
            except SlabFull:
                raise overloaded("All live streams are taken.") from None
            session = StreamSession(
                live, runs.batcher, self.metrics, self.work, self._closed,
                deadline_s=self.settings.request_deadline_s, spent=self.entrance.stream_spent,
            )  # fmt: skip
            model.hold()
            self._sessions[session] = model
        self._count_streams()
        state = "warm" if live.parts.start.warm else "cold"
        self.metrics.normalisation.labels(state).inc()
        return session

    def _closed(self, session: StreamSession) -> None:
        if (model := self._sessions.pop(session, None)) is not None:
            model.release()
        self._count_streams()

    def _count_streams(self) -> None:
        self.metrics.streams_open.set(len(self._sessions))
        for model in (self.model, *self._leaving):
            model.count_streams(len(self._sessions))

    async def _pieces(
        self, model: LoadedModel, prepared: Prepared, pieces: list[Piece], deadline_s: float
    ) -> list[HeardWord]:
        infer = model.batcher.infer
        answers = await together([infer(piece.x_TF, deadline_s=deadline_s) for piece in pieces])
        prepared.book(
            queue=max(answer.queue_s for answer in answers),
            model=sum(answer.model_s for answer in answers),
        )
        prepared.calls_s += max(answer.call_s for answer in answers)

        def decode() -> list[HeardWord]:
            return [
                word
                for piece, answer in zip(pieces, answers, strict=True)
                for word in model.recognizer.decode(prepared, piece, answer.logp_TV)
            ]

        return await self.work(decode)

    @contextmanager
    def door(self, tenant: str, content_length: int | None) -> Iterator[None]:
        """Let a file in or refuse it, before its body is read.

        `transcribe` inside takes the place that is held here. 429 says when to come again.
        """
        if not self.ready:
            raise draining()
        if not self.batcher.breaker.may_work:
            raise engine_down(self.batcher.breaker.wait_s)
        self._look()
        with _told(), self.entrance.turnstile.door(tenant, content_length=content_length):
            yield

    def _given_up(self, model: LoadedModel) -> tuple[str, ...]:
        """What the ladder gives up now of that which the model can."""
        self._look()
        return tuple(rung for rung in self.entrance.ladder.degradation if rung in model.rungs)

    def _for_file(self, model: LoadedModel) -> tuple[LoadedModel, tuple[str, ...]]:
        """What answers a recording in the model's place, and what is given up by that."""
        given_up = tuple(rung for rung in self._given_up(model) if rung != LARGER_CHUNKS)
        return model.for_file(given_up), given_up

    def _look(self) -> None:
        self.metrics.degradation.set(self.entrance.look())

    @contextmanager
    def admitted(self, tenant: str, priority: Priority) -> Iterator[Visit]:
        """A place for one file, which ends with it."""
        if not self.ready and not self.entrance.turnstile.let_in:
            raise draining()
        with _told(), self.entrance.turnstile.visit(tenant, priority) as visit:
            try:
                yield visit
            finally:
                self.metrics.admission_waiting.set(self.entrance.policy.waiting)
                self.metrics.admission_limit.set(self.entrance.policy.limit.seconds)
                self._look()


def _teach(visit: Visit, prepared: Prepared, *, inside_s: float) -> None:
    """What a request took since its turn came shows how much may be let in."""
    steps_s = prepared.steps_s
    outcome = Outcome(waited_s=max(0.0, inside_s - steps_s), worked_s=steps_s)
    visit.answered(outcome, audio_s=prepared.duration_s, work_s=prepared.work_s)


@contextmanager
def _told() -> Iterator[None]:
    """A refusal in HTTP's words."""
    try:
        yield
    except NoRoom as refused:
        raise overloaded(refused.message, wait_s=refused.retry_after_s) from None


async def together(calls: list[Coroutine[Any, Any, Answer]]) -> list[Answer]:
    """All answers in order; one failure takes the others out of the queue."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
