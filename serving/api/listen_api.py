"""``/v1/listen``: a live stream over a WebSocket, in the messages that Deepgram's clients read.

Binary messages are audio in any cut. Text messages are ``KeepAlive``, ``Finalize`` and
``CloseStream``. Answers are ``Results``, ``SpeechStarted`` and ``UtteranceEnd``, and one
``Metadata`` at the end. A stream ends at CloseStream (or an empty binary message), after silence on
the line, at the longest session, or when the process stops; in every case what was heard is made
final first.
"""

import asyncio
import time
from contextlib import suppress
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from data.audio_errors import AudioError
from serving import logs
from serving.api import listen_messages as messages
from serving.api.listen_messages import Ending, Shapes
from serving.api.listen_outbox import Outbox
from serving.api.listen_query import ListenQuery, parse_query
from serving.api.listen_resume import AWAY, Opened, open_for
from serving.problems import ApiProblem
from serving.runtime import Runtime
from serving.streaming.events import Event, StreamEvent
from serving.streaming.transcripts import stream_transcript

ROUTE = "listen"
_CLOSE_S = 5.0  # how long a close frame may take to leave


async def listen(websocket: WebSocket) -> None:
    """Check, admit, converse, and always give the place back."""
    runtime: Runtime = websocket.app.state.runtime
    began = time.monotonic()
    outcome = "failed"
    try:
        query = parse_query(websocket.query_params)
        ends = began + runtime.settings.stream_session_s
        opened = await open_for(websocket, runtime, query, ends=ends)
        try:
            outcome = await Conversation(websocket, opened, query).run()
        finally:
            opened.close(outcome)
    except ApiProblem as problem:
        outcome = "refused"
        await _refuse(websocket, problem)
    finally:
        runtime.metrics.finished(ROUTE, outcome, time.monotonic() - began)
        logs.event("stream_ended", route=ROUTE, outcome=outcome)


async def _refuse(websocket: WebSocket, problem: ApiProblem) -> None:
    if websocket.application_state is WebSocketState.CONNECTING:
        headers = {"dg-error": problem.message.encode("ascii", "replace").decode()}
        await websocket.send_denial_response(problem.response(headers))


class Conversation:
    """One accepted WebSocket."""

    def __init__(self, websocket: WebSocket, opened: Opened, query: ListenQuery) -> None:
        self._socket = websocket
        self._opened = opened
        self._runtime = runtime = opened.runtime
        self._session = opened.session
        self._kept = opened.kept
        self._query = query
        live = self._session.live
        self._shapes = Shapes(
            facts=live.parts.facts,
            channels=live.request.rows,
            degradation=",".join(live.parts.degradation),
        )
        settings = runtime.settings
        self._ends = (
            time.monotonic() + settings.stream_session_s if self._kept is None else self._kept.ends
        )
        self._fenced = asyncio.Event() if self._kept is None else self._kept.fenced
        self._outbox = Outbox(
            websocket, max_bytes=settings.stream_unsent_bytes, max_wait_s=settings.stream_unsent_s
        )

    async def run(self) -> str:
        """Converse until one side ends it; gives the outcome for the metrics."""
        watched: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(event.wait())
            for event in (self._runtime.draining, self._outbox.stuck, self._fenced)
        ]
        try:
            request_id = self._shapes.request_id.encode()
            headers = [(b"dg-request-id", request_id), *self._opened.headers()]
            await self._socket.accept(headers=headers)
            for message in self._opened.missed:
                self._outbox.put(message)
            over = self._kept is not None and self._kept.over
            ending = messages.DONE if over else await self._until_ended(watched)
            return await self._end(ending)
        except WebSocketDisconnect:
            return "abandoned"
        finally:
            for future in watched:
                future.cancel()
            await self._outbox.close()

    async def _until_ended(self, watched: "list[asyncio.Future[Any]]") -> Ending:
        try:
            while True:
                ending = await self._message(await self._next(watched))
                if ending is not None:
                    return ending
        except AudioError as error:
            return messages.undecodable(error.message)
        except ApiProblem as problem:
            return messages.failed(problem)

    async def _next(self, watched: "list[asyncio.Future[Any]]") -> dict[str, Any] | Ending:
        """The next message, or why there will be none."""
        settings = self._runtime.settings
        left_s = self._ends - time.monotonic()
        receive = asyncio.ensure_future(self._socket.receive())
        await asyncio.wait(
            {receive, *watched},
            timeout=max(0.0, min(settings.stream_idle_s, left_s)),
            return_when=asyncio.FIRST_COMPLETED,
        )
        stopped = self._stopped()
        if receive.done() and stopped is None:
            return dict(receive.result())
        receive.cancel()
        await asyncio.gather(receive, return_exceptions=True)
        if stopped is not None:
            return stopped
        if left_s <= settings.stream_idle_s:
            return messages.SESSION_LIMIT
        return messages.idle(settings.stream_idle_s)

    def _stopped(self) -> Ending | None:
        if self._outbox.gone:
            raise WebSocketDisconnect
        if self._fenced.is_set():
            return messages.SUPERSEDED
        if self._outbox.stuck.is_set():
            return messages.SLOW
        return messages.DRAINED if self._runtime.draining.is_set() else None

    async def _message(self, message: dict[str, Any] | Ending) -> Ending | None:
        if isinstance(message, Ending):
            return message
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1006))
        content = message.get("bytes")
        if content is None:
            return await self._control(message.get("text") or "")
        if not content:
            return messages.DONE
        if len(content) > self._runtime.settings.max_frame_bytes:
            return messages.TOO_BIG
        async for event in self._session.accept(content):
            self._tell(event)
        return None

    async def _control(self, text: str) -> Ending | None:
        kind = messages.control_of(text)
        if kind is None:
            return messages.BAD_TEXT
        if kind == "CloseStream":
            return messages.DONE
        if kind == "Configure":
            self._outbox.put(self._shapes.not_configurable())
        elif kind == "Finalize":
            async for event in self._session.conclude(last=False):
                self._tell(event)
            if self._kept is not None:
                self._kept.finalizes += 1
        return None

    async def _end(self, ending: Ending) -> str:
        """Final results, Metadata, close; a client that does not read only gets the last.

        A stream whose client may come back goes on where it is, and is not made final.
        """
        unread = ("failed", "slow") if self._kept is None else ("failed", *AWAY)
        if ending.outcome not in unread:
            await self._conclude(provisional=ending.outcome == "drained")
            await self._outbox.delivered()
        if self._outbox.gone:
            return "abandoned"
        await self._outbox.close()
        with suppress(TimeoutError, RuntimeError):
            async with asyncio.timeout(_CLOSE_S):
                await self._socket.close(ending.code, ending.shown)
        return ending.outcome

    async def _conclude(self, *, provisional: bool) -> None:
        if self._kept is not None and self._kept.over:
            return
        async for event in self._session.conclude(last=True):
            self._tell(event, provisional=provisional)
        live = self._session.live
        transcript = stream_transcript(live)
        metadata = self._shapes.metadata(transcript, sha256=live.audio_digest)
        if self._kept is not None:
            self._kept.number(metadata, None, provisional=provisional)
            if not provisional:
                self._runtime.keeper.settle(self._kept)
        self._outbox.put(metadata)

    def _tell(self, event: Event, *, provisional: bool = False) -> None:
        message = self._shapes.of(event)
        if isinstance(event, StreamEvent) and not event.is_final:
            self._outbox.put(message, partial_of=event.channel)
            return
        if self._kept is not None:
            self._kept.number(message, event, provisional=provisional)
        self._outbox.put(message)
