"""``/v1/audio/transcriptions`` and ``/v1/models`` as OpenAI's clients speak them."""

import math
import time
import zlib
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from data.audio_errors import AudioError
from serving import logs
from serving.api.callers import require_model, speaker_of
from serving.api.openai_form import TranscriptionForm, check_form, closing, read_form, shown_name
from serving.problems import ApiProblem, from_audio_error
from serving.runtime import Runtime
from serving.schema import Segment, Transcript

_LANGUAGE_NAMES = {"en": "english"}
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
            network_s = time.perf_counter() - began
            transcript = await runtime.transcribe(
                checked.upload.file.read,
                name=shown_name(checked.upload.filename),
                speaker=speaker_of(request),
                network_s=network_s,
            )
        outcome = "ok"
        _log(transcript)
        return _answer(checked, transcript)
    except AudioError as error:
        outcome = "bad_audio"
        return from_audio_error(error).response()
    except ApiProblem as problem:
        outcome = "refused"
        return problem.response()
    finally:
        runtime.metrics.finished(ROUTE, outcome, time.perf_counter() - began)


async def models(request: Request) -> Response:
    """``GET /v1/models``."""
    runtime: Runtime = request.app.state.runtime
    return JSONResponse({"object": "list", "data": [_model_entry(runtime)]})


async def model(request: Request) -> Response:
    """``GET /v1/models/{model}``."""
    runtime: Runtime = request.app.state.runtime
    require_model(request.path_params["model"], runtime)
    return JSONResponse(_model_entry(runtime))


def _answer(form: TranscriptionForm, transcript: Transcript) -> Response:
    if form.response_format == "text":
        return PlainTextResponse(transcript.text + "\n")
    if form.response_format == "json":
        usage = {"type": "duration", "seconds": max(1, round(transcript.duration_s))}
        warnings = list(transcript.warnings)
        return JSONResponse({"text": transcript.text, "usage": usage, "warnings": warnings})
    return JSONResponse(verbose(transcript, form.granularities))


def verbose(transcript: Transcript, granularities: tuple[str, ...]) -> dict[str, Any]:
    """OpenAI's verbose shape; the whole transcript stands beside it under ``auricle``."""
    body: dict[str, Any] = {
        "task": "transcribe",
        "language": _LANGUAGE_NAMES.get(transcript.language, transcript.language),
        "duration": transcript.duration_s,
        "text": transcript.text,
        "usage": {"type": "duration", "seconds": max(1, round(transcript.duration_s))},
        "warnings": list(transcript.warnings),
        "auricle": transcript.model_dump(mode="json"),
    }
    if "word" in granularities:
        body["words"] = [
            {"word": word.word, "start": word.start, "end": word.end} for word in transcript.words
        ]
    if "segment" in granularities:
        body["segments"] = [_segment(segment) for segment in transcript.segments]
    return body


def _segment(segment: Segment) -> dict[str, Any]:
    """OpenAI's segment, as far as a CTC model can say it: no tokens, no ``no_speech_prob``."""
    text = segment.text.encode()
    logs_of_words = [math.log(max(word.confidence, 1e-6)) for word in segment.words]
    return {
        "id": segment.id,
        "seek": 0,
        "start": segment.start,
        "end": segment.end,
        "text": segment.text,
        "temperature": 0.0,
        "avg_logprob": round(sum(logs_of_words) / len(logs_of_words), 4),
        "compression_ratio": round(len(text) / len(zlib.compress(text)), 4),
        "confidence": segment.confidence,
    }


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
