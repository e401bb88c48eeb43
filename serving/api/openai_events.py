"""``stream=true``: words as server-sent events while the recording is being transcribed.

A delta carries the words of one piece of the recording, and nothing that was sent is ever changed:
joined, the deltas are the text of the last event. What is wrong before the first event is an HTTP
error as everywhere; what goes wrong later is an ``error`` event, which the client raises.
"""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from data.audio_errors import AudioError
from serving import assemble, logs
from serving.api.openai_answers import logprobs, model_name
from serving.api.openai_form import TranscriptionForm
from serving.evidence import HeardWord
from serving.front.cutter import Piece
from serving.loaded import LoadedModel
from serving.problems import ApiProblem, from_audio_error
from serving.redaction.streams import StreamRedactor
from serving.schema import Transcript, Word

T = TypeVar("T")
Hear = Callable[[Piece, list[HeardWord]], None]
_QUIET_S = 15.0  # then a comment keeps proxies from closing the connection
_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


class EventResponse(StreamingResponse):
    """Events of one transcription; whatever ends the answer ends the work too."""

    def __init__(self, work: "Work", held: AsyncExitStack, headers: dict[str, str]) -> None:
        super().__init__(
            work.events(), media_type="text/event-stream", headers={**_HEADERS, **headers}
        )
        self._work = work
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the work is done or the client is gone."""
        async with self._held:
            try:
                await super().__call__(scope, receive, send)
            finally:
                await self._work.stop()


class Work:
    """A transcription on its way to a client that listens."""

    def __init__(self, form: TranscriptionForm, model: LoadedModel) -> None:
        self._form = form
        self._model = model
        self._said = False
        policy = form.redaction.policy
        self._redactor = StreamRedactor(policy) if policy else None
        self._told: list[Word] = []  # what a redacted answer has said
        self._letters: list[HeardWord] = []  # kept only where they are wanted
        self._news: asyncio.Queue[list[HeardWord] | None] = asyncio.Queue()
        self._task: asyncio.Task[Transcript] | None = None
        self._first: list[HeardWord] | None = None
        self.outcome = "cancelled"

    async def begin(
        self, request: Request, transcribe: Callable[[Hear], Coroutine[Any, Any, Transcript]]
    ) -> None:
        """Start, and wait for the first words: until then errors are HTTP's."""
        self._task = asyncio.create_task(transcribe(self._hear))
        self._task.add_done_callback(lambda _: self._news.put_nowait(None))
        try:
            self._first = await while_connected(request, self._news.get())
            if self._first is None and self._task.exception() is not None:
                await self._task
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End the work if it is not done."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await self._task

    async def events(self) -> AsyncIterator[bytes]:
        """The events, to the last."""
        words = self._first
        while words is not None:
            if words and (delta := self._delta(words)) is not None:
                yield _event(delta)
            while (words := await self._next()) == []:
                yield b":\n\n"
        assert self._task is not None
        try:
            transcript = await self._task
        except Exception as error:
            yield _event(self._failure(error))
            return
        self.outcome = "ok"
        if (rest := self._delta([], last=True)) is not None:
            yield _event(rest)
        yield _event(self._done(transcript))

    def _hear(self, _: Piece, words: list[HeardWord]) -> None:
        if words:
            self._news.put_nowait(words)

    async def _next(self) -> list[HeardWord] | None:
        """The next words; none where it was quiet for long; None at the end."""
        try:
            async with asyncio.timeout(_QUIET_S):
                return await self._news.get()
        except TimeoutError:
            return []

    def _delta(self, words: list[HeardWord], *, last: bool = False) -> dict[str, Any] | None:
        """Words that are certain; of a redacted answer, those that nothing later hides."""
        shown: Sequence[Word] = [heard.word for heard in words]
        if self._redactor is not None:
            shown = self._redactor.final(shown, last=last).words
            self._told += shown
        if not shown:
            return None
        text = assemble.joined(shown)
        event: dict[str, Any] = {
            "type": "transcript.text.delta",
            "delta": f" {text}" if self._said else text,
        }
        if self._form.logprobs:
            event["logprobs"] = logprobs(words, goes_on=self._said)
            self._letters += words
        self._said = True
        return event

    def _done(self, transcript: Transcript) -> dict[str, Any]:
        event: dict[str, Any] = {
            "type": "transcript.text.done",
            "text": transcript.text if self._redactor is None else assemble.joined(self._told),
            "usage": self._usage(transcript),
            "warnings": list(transcript.warnings),
            "model": model_name(transcript.model),
        }
        if self._form.logprobs:
            event["logprobs"] = logprobs(self._letters)
        return event

    def _usage(self, transcript: Transcript) -> dict[str, Any]:
        """In the client's shape: a frame of the model is an audio token, a letter a text token."""
        frame_ms = self._model.recognizer.config.frame_ms
        heard, said = math.ceil(transcript.duration_s * 1000 / frame_ms), len(transcript.text)
        return {
            "type": "tokens",
            "input_tokens": heard,
            "input_token_details": {"audio_tokens": heard, "text_tokens": 0},
            "output_tokens": said,
            "total_tokens": heard + said,
        }

    def _failure(self, error: Exception) -> dict[str, Any]:
        self.outcome = "failed"
        if isinstance(error, AudioError):
            self.outcome, error = "bad_audio", from_audio_error(error)
        if not isinstance(error, ApiProblem):
            logs.crash("stream_failed", error)
            error = ApiProblem(500, "The service failed on this request.", code="internal")
        return {"type": "error", **error.body()}


async def while_connected(request: Request, call: Coroutine[Any, Any, T]) -> T:
    """The call's result; a client that goes away cancels it. The body must have been read."""
    work, gone = asyncio.ensure_future(call), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientDisconnect
        return work.result()
    finally:
        await _ended(work, gone)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _ended(*tasks: "asyncio.Future[Any]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _event(body: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(body, ensure_ascii=False, separators=(',', ':'))}\n\n".encode()
