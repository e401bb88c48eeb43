"""``/v1/listen``: a live stream over a WebSocket, in the messages that Deepgram's clients read.

Binary messages are audio in any cut. Text messages are ``KeepAlive``, ``Finalize`` and
``CloseStream``. Answers are ``Results`` and, at the end, one ``Metadata``. A stream ends at
CloseStream (or an empty binary message), after silence on the line, at the longest session, or
when the process stops; in every case what was heard is made final first.
"""

import asyncio
import json
import time
import uuid
from datetime import UTC, datetime
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from serving import logs
from serving.api.callers import require_language, require_model, speaker_of
from serving.api.listen_query import ListenQuery, parse_query
from serving.problems import ApiProblem
from serving.runtime import Runtime
from serving.streaming.sessions import StreamSession
from serving.streaming.streams import StreamEvent

ROUTE = "listen"
_CONTROL_CHARACTERS = 512  # a control message is one short object
_NORMAL, _POLICY, _TOO_BIG, _ABNORMAL, _RESTART = 1000, 1008, 1009, 1011, 1012


async def listen(websocket: WebSocket) -> None:
    """Check, admit, converse, and always give the place back."""
    runtime: Runtime = websocket.app.state.runtime
    began = time.monotonic()
    outcome = "failed"
    try:
        query = parse_query(websocket.query_params)
        if query.model:
            require_model(query.model, runtime)
        require_language(query.language, runtime)
        session = await runtime.open_stream(query.stream_request(speaker_of(websocket)))
        try:
            outcome = await Conversation(websocket, runtime, session, query).run()
        finally:
            session.close()
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
    elif websocket.application_state is WebSocketState.CONNECTED:
        await websocket.close(_ABNORMAL, problem.message[:120])


def _kind_of(text: str) -> object:
    """The ``type`` of a control message; None for whatever is none."""
    if len(text) > _CONTROL_CHARACTERS:  # also keeps nesting below what the parser survives
        return None
    try:
        return json.loads(text).get("type")
    except (ValueError, AttributeError):
        return None


class Conversation:
    """One accepted WebSocket."""

    def __init__(
        self, websocket: WebSocket, runtime: Runtime, session: StreamSession, query: ListenQuery
    ) -> None:
        self._socket = websocket
        self._runtime = runtime
        self._session = session
        self._query = query
        self._request_id = str(uuid.uuid4())
        self._created = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._ends = time.monotonic() + runtime.settings.stream_session_s

    async def run(self) -> str:
        """Converse until one side ends it; gives the outcome for the metrics."""
        await self._socket.accept(headers=[(b"dg-request-id", self._request_id.encode())])
        drain = asyncio.ensure_future(self._runtime.draining.wait())
        try:
            return await self._messages(drain)
        except WebSocketDisconnect:
            return "abandoned"
        finally:
            drain.cancel()

    async def _messages(self, drain: "asyncio.Future[Any]") -> str:
        while True:
            left_s = self._ends - time.monotonic()
            message = await self._next(drain, min(self._runtime.settings.stream_idle_s, left_s))
            if message is None:
                return await self._end_for_cause(drain.done(), left_s)
            if message["type"] == "websocket.disconnect":
                return "abandoned"
            content = message.get("bytes")
            if content is None:
                done = await self._control(message.get("text") or "")
            else:
                done = await self._audio(content)
            if done is not None:
                return done

    async def _next(self, drain: "asyncio.Future[Any]", timeout_s: float) -> dict[str, Any] | None:
        """The next message; None when the line is silent too long or the process stops."""
        receive = asyncio.ensure_future(self._socket.receive())
        await asyncio.wait(
            {receive, drain}, timeout=max(0.0, timeout_s), return_when=asyncio.FIRST_COMPLETED
        )
        if receive.done() and not drain.done():
            return dict(receive.result())
        receive.cancel()
        await asyncio.gather(receive, return_exceptions=True)
        return None

    async def _audio(self, content: bytes) -> str | None:
        if not content:
            return await self._end(_NORMAL, "", "ok")
        if len(content) > self._runtime.settings.max_frame_bytes:
            return await self._end(_TOO_BIG, "audio message too large", "refused")
        await self._send(await self._session.accept(content))
        return None

    async def _control(self, text: str) -> str | None:
        kind = _kind_of(text)
        if kind == "Finalize":
            await self._send(await self._session.conclude(last=False))
        elif kind == "CloseStream":
            return await self._end(_NORMAL, "", "ok")
        elif kind != "KeepAlive":
            reason = "text messages are KeepAlive, Finalize or CloseStream"
            return await self._end(_POLICY, reason, "refused")
        return None

    async def _end_for_cause(self, stopping: bool, left_s: float) -> str:
        if stopping:
            return await self._end(_RESTART, "the service is shutting down", "drained")
        if left_s <= self._runtime.settings.stream_idle_s:
            return await self._end(_NORMAL, "the longest session is over", "session_limit")
        reason = f"NET-0001: no message for {self._runtime.settings.stream_idle_s:g} s"
        return await self._end(_ABNORMAL, reason, "idle")

    async def _end(self, code: int, reason: str, outcome: str) -> str:
        """Final results, Metadata, close."""
        await self._send(await self._session.conclude(last=True))
        await self._socket.send_json(self._metadata())
        await self._socket.close(code, reason)
        return outcome

    async def _send(self, events: list[StreamEvent]) -> None:
        for event in events:
            if event.is_final or self._query.interim_results:
                await self._socket.send_json(self._results(event))

    def _results(self, event: StreamEvent) -> dict[str, Any]:
        words = [
            {
                "word": word.word,
                "start": word.start,
                "end": word.end,
                "confidence": word.confidence,
                "punctuated_word": word.word,
            }
            for word in event.words
        ]
        alternative = {"transcript": event.text, "confidence": event.confidence, "words": words}
        facts = self._runtime.recognizer.facts
        return {
            "type": "Results",
            "channel_index": [0, 1],
            "start": round(event.start_s, 3),
            "duration": round(event.end_s - event.start_s, 3),
            "is_final": event.is_final,
            "speech_final": event.speech_final,
            "from_finalize": event.from_finalize,
            "channel": {"alternatives": [alternative]},
            "metadata": {
                "request_id": self._request_id,
                "model_info": {
                    "name": facts.name,
                    "version": facts.version,
                    "arch": facts.variant,
                },
                "model_uuid": facts.bundle_digest,
            },
        }

    def _metadata(self) -> dict[str, Any]:
        live = self._session.live
        transcript = self._runtime.recognizer.stream_transcript(live)
        facts = transcript.model
        info = {"name": facts.name, "version": facts.version, "arch": facts.variant}
        return {
            "type": "Metadata",
            "transaction_key": "deprecated",
            "request_id": self._request_id,
            "sha256": live.audio_digest.removeprefix("sha256:"),
            "created": self._created,
            "duration": transcript.duration_s,
            "channels": 1,
            "models": [facts.bundle_digest],
            "model_info": {facts.bundle_digest: info},
            "auricle": {
                "normalisation": transcript.normalisation.model_dump(),
                "warnings": list(transcript.warnings),
            },
        }
