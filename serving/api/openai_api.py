"""``/v1/audio`` and ``/v1/models`` as OpenAI's clients speak them."""

import time
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from data.audio_errors import AudioError
from serving import logs
from serving.api.callers import require_model, speaker_of
from serving.api.openai_answers import answer, answer_headers
from serving.api.openai_form import TranscriptionForm, check_form, closing, read_form, shown_name
from serving.evidence import HeardWord
from serving.front.cutter import Piece
from serving.problems import ApiProblem, from_audio_error
from serving.runtime import Runtime
from serving.schema import Transcript

ROUTE = "transcriptions"


async def transcriptions(request: Request) -> Response:
    """``POST /v1/audio/transcriptions``."""
    runtime: Runtime = request.app.state.runtime
    began = time.perf_counter()
    outcome = "failed"
    try:
        form = await read_form(request, runtime.settings)
        async with closing(form):
            checked = check_form(form, runtime)
            response = await _transcribed(request, checked, time.perf_counter() - began)
        outcome = "ok"
        return response
    except AudioError as error:
        outcome = "bad_audio"
        return from_audio_error(error).response()
    except ApiProblem as problem:
        outcome = "refused"
        return problem.response()
    finally:
        runtime.metrics.finished(ROUTE, outcome, time.perf_counter() - began)


async def translations(_: Request) -> Response:
    """``POST /v1/audio/translations``: there is no model here that translates."""
    message = "This service transcribes and does not translate; see /v1/audio/transcriptions."
    return ApiProblem(400, message, code="unsupported_operation").response()


async def models(request: Request) -> Response:
    """``GET /v1/models``."""
    runtime: Runtime = request.app.state.runtime
    return JSONResponse({"object": "list", "data": [_model_entry(runtime)]})


async def model(request: Request) -> Response:
    """``GET /v1/models/{model}``."""
    runtime: Runtime = request.app.state.runtime
    require_model(request.path_params["model"], runtime)
    return JSONResponse(_model_entry(runtime), headers=answer_headers(runtime.recognizer.facts))


async def _transcribed(request: Request, form: TranscriptionForm, network_s: float) -> Response:
    runtime: Runtime = request.app.state.runtime
    heard: list[HeardWord] = []

    def collect(_: Piece, words: list[HeardWord]) -> None:
        heard.extend(words)

    transcript = await runtime.transcribe(
        form.upload.file.read,
        name=shown_name(form.upload.filename),
        speaker=speaker_of(request),
        network_s=network_s,
        options=form.options,
        on_heard=collect if form.logprobs else None,
    )
    log_answer(transcript)
    return answer(form, transcript, heard, runtime.recognizer.table)


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


def log_answer(transcript: Transcript) -> None:
    """Counts and times of a transcription, without its words."""
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
