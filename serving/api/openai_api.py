"""``/v1/audio`` and ``/v1/models`` as OpenAI's clients speak them."""

import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from data.audio_errors import AudioError
from serving import logs
from serving.adopted.files import transcribe
from serving.adopted.models import AdoptedModel
from serving.api.callers import require_model, speaker_of
from serving.api.openai_answers import answer, answer_headers, letters_of
from serving.api.openai_events import EventResponse, Hear, Work, while_connected
from serving.api.openai_form import (
    TranscriptionForm,
    check_form,
    closing,
    read_form,
    redacted_for,
    shown_name,
)
from serving.evidence import HeardWord
from serving.front.cutter import Piece
from serving.loaded import LoadedModel
from serving.metrics import ServiceMetrics
from serving.problems import ApiProblem, from_audio_error
from serving.redaction.transcripts import redact_transcript
from serving.runtime import Runtime
from serving.schema import Transcript

ROUTE = "transcriptions"
Call = Callable[[Hear | None], Coroutine[Any, Any, Transcript]]


async def transcriptions(request: Request) -> Response:
    """``POST /v1/audio/transcriptions``."""
    runtime: Runtime = request.app.state.runtime
    async with AsyncExitStack() as held:
        books = held.enter_context(_booked(runtime.metrics))
        try:
            form = await read_form(request, runtime.settings)
            await held.enter_async_context(closing(form))
            checked = redacted_for(request, check_form(form, runtime))
            model = held.enter_context(runtime.model.held())
            call = _call(request, checked, model, time.perf_counter() - books.began)
            if checked.stream:
                return await _streamed(request, checked, model, call, books, held)
            response = await while_connected(request, _transcribed(runtime, checked, model, call))
            books.outcome = "ok"
            return response
        except AudioError as error:
            books.outcome = "bad_audio"
            return from_audio_error(error).response()
        except ApiProblem as problem:
            books.outcome = "refused"
            return problem.response()
        except ClientDisconnect:
            books.outcome = "cancelled"
            raise


async def translations(_: Request) -> Response:
    """``POST /v1/audio/translations``: there is no model here that translates."""
    message = "This service transcribes and does not translate; see /v1/audio/transcriptions."
    return ApiProblem(400, message, code="unsupported_operation").response()


async def models(request: Request) -> Response:
    """``GET /v1/models``."""
    runtime: Runtime = request.app.state.runtime
    adopted = [_adopted_entry(model) for model in runtime.adopted]
    return JSONResponse({"object": "list", "data": [_model_entry(runtime), *adopted]})


async def model(request: Request) -> Response:
    """``GET /v1/models/{model}``."""
    runtime: Runtime = request.app.state.runtime
    name = request.path_params["model"]
    if (adopted := runtime.adopted.find(name)) is not None:
        headers = answer_headers(adopted.recognizer.facts)
        return JSONResponse(_adopted_entry(adopted), headers=headers)
    require_model(name, runtime)
    return JSONResponse(_model_entry(runtime), headers=answer_headers(runtime.recognizer.facts))


@dataclass(kw_only=True)
class _Books:
    """How one request went."""

    began: float
    outcome: str = "failed"


@contextmanager
def _booked(metrics: ServiceMetrics) -> Iterator[_Books]:
    books = _Books(began=time.perf_counter())
    try:
        yield books
    finally:
        metrics.finished(ROUTE, books.outcome, time.perf_counter() - books.began)


def _call(request: Request, form: TranscriptionForm, model: LoadedModel, network_s: float) -> Call:
    """The transcription of a checked request, still to be run."""
    runtime: Runtime = request.app.state.runtime
    speaker = speaker_of(request)

    async def adopted(_: Hear | None) -> Transcript:
        assert form.adopted is not None
        transcript = await transcribe(
            runtime,
            form.adopted,
            lambda: form.upload.file,
            name=shown_name(form.upload.filename),
            network_s=network_s,
            wish=replace(form.wish, words=form.words),
        )
        _log(transcript)
        return transcript

    async def call(on_heard: Hear | None) -> Transcript:
        transcript = await runtime.transcribe(
            lambda: form.upload.file,
            name=shown_name(form.upload.filename),
            speaker=speaker,
            network_s=network_s,
            options=form.options,
            on_heard=on_heard,
            model=model,
        )
        _log(transcript)
        return transcript

    return call if form.adopted is None else adopted


async def _transcribed(
    runtime: Runtime, form: TranscriptionForm, model: LoadedModel, call: Call
) -> Response:
    heard: list[HeardWord] = []

    def collect(_: Piece, words: list[HeardWord]) -> None:
        heard.extend(words)

    transcript = await call(collect if form.logprobs else None)
    redaction, shown = form.redaction, transcript
    if redaction.policy:
        shown = await runtime.work(redact_transcript, transcript, redaction.policy)
    clear = transcript if redaction.both else None
    adopted = form.adopted
    tokens_of = (
        letters_of(model.recognizer.table) if adopted is None else adopted.recognizer.engine.tokens
    )
    return answer(form, shown, heard, tokens_of, clear=clear)


async def _streamed(
    request: Request,
    form: TranscriptionForm,
    model: LoadedModel,
    call: Call,
    books: _Books,
    held: AsyncExitStack,
) -> Response:
    """The first words are there; what is ``held`` goes along with the answer."""
    work = Work(form, model)
    await work.begin(request, call)

    def book() -> None:
        books.outcome = work.outcome

    held.callback(book)
    return EventResponse(work, held.pop_all(), answer_headers(model.facts))


def _model_entry(runtime: Runtime) -> dict[str, Any]:
    facts = runtime.recognizer.facts
    return {
        "id": facts.name,
        "object": "model",
        "created": 0,
        "owned_by": "auricle",
        "version": facts.version,
        "variant": facts.variant,
        "bundle_digest": facts.bundle_digest,
        "language": runtime.recognizer.config.language,
        "domain": runtime.recognizer.config.domain,
    }


def _adopted_entry(model: AdoptedModel) -> dict[str, Any]:
    facts, languages = model.recognizer.facts, model.recognizer.engine.languages
    return {
        "id": facts.name,
        "object": "model",
        "created": 0,
        "owned_by": "adopted",
        "version": facts.version,
        "variant": facts.variant,
        "bundle_digest": facts.bundle_digest,
        "language": languages[0] if len(languages) == 1 else "mul",
        "domain": "",
        "languages": list(languages),
        "licence": facts.licence,
    }


def _log(transcript: Transcript) -> None:
    timings = transcript.timings_ms
    logs.event(
        "transcribed",
        route=ROUTE,
        audio_s=transcript.duration_s,
        network_ms=timings.network,
        queue_ms=timings.queue,
        features_ms=timings.features,
        model_ms=timings.model,
        decoding_ms=timings.decoding,
        total_ms=timings.total,
        prior_state=transcript.normalisation.state,
    )
