"""``/v1/audio/transcriptions`` and ``/v1/models`` as OpenAI's clients speak them.

======================================  =========================================================
field                                   what happens
======================================  =========================================================
file, model                             honoured, required
language                                honoured: the model's language, others are refused
response_format                         json, text, verbose_json; others are refused
timestamp_granularities[]               honoured with verbose_json: word, segment
temperature, stream, prompt,            the neutral value is accepted (0, false, "", auto);
chunking_strategy                       others are refused: this model cannot honour them
everything else                         refused, named in ``param``
======================================  =========================================================
"""

import math
import time
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from data.audio_errors import AudioError
from serving import logs
from serving.callers import require_language, require_model, speaker_of
from serving.problems import ApiProblem, from_audio_error
from serving.runtime import Runtime
from serving.schema import Segment, Transcript
from serving.settings import ServeSettings

_FORMATS = ("json", "text", "verbose_json")
_GRANULARITIES = ("word", "segment")
_KNOWN = ("file", "model", "language", "response_format", "timestamp_granularities[]")
_NEUTRAL = {
    "temperature": ("", "0", "0.0"),
    "stream": ("", "false", "False"),
    "prompt": ("",),
    "chunking_strategy": ("", "auto"),
}
_LANGUAGE_NAMES = {"en": "english"}
_MAX_FIELDS = 64
_NAME_CHARACTERS = 80
ROUTE = "transcriptions"


@dataclass(frozen=True, kw_only=True)
class TranscriptionForm:
    """A checked request."""

    upload: UploadFile
    response_format: str
    granularities: tuple[str, ...]


async def transcriptions(request: Request) -> Response:
    """``POST /v1/audio/transcriptions``."""
    runtime: Runtime = request.app.state.runtime
    began = time.perf_counter()
    outcome = "failed"
    try:
        form = await _body(request, runtime.settings)
        async with _closing(form):
            checked = check_form(form, runtime)
            network_s = time.perf_counter() - began
            transcript = await runtime.transcribe(
                checked.upload.file.read,
                name=_shown_name(checked.upload.filename),
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


def check_form(form: FormData, runtime: Runtime) -> TranscriptionForm:
    """Every field is honoured, neutral or refused by name."""
    for name, value in form.multi_items():
        if name in _KNOWN:
            continue
        if name in _NEUTRAL and value in _NEUTRAL[name]:
            continue
        raise _unsupported(name)
    upload = form.get("file")
    if not isinstance(upload, UploadFile):
        raise ApiProblem(
            400, "You must provide a file.", param="file", code="missing_required_parameter"
        )
    require_model(_text(form, "model"), runtime)
    require_language(_text(form, "language"), runtime)
    response_format = _text(form, "response_format") or "json"
    if response_format not in _FORMATS:
        raise _refused("response_format", f"must be one of {', '.join(_FORMATS)}")
    return TranscriptionForm(
        upload=upload,
        response_format=response_format,
        granularities=_granularities(form, response_format),
    )


def _granularities(form: FormData, response_format: str) -> tuple[str, ...]:
    field = "timestamp_granularities[]"
    asked = tuple(str(value) for value in form.getlist(field))
    if any(value not in _GRANULARITIES for value in asked):
        raise _refused(field, f"must be of {', '.join(_GRANULARITIES)}")
    if asked and response_format != "verbose_json":
        raise _refused(field, "needs response_format=verbose_json")
    return asked or ("segment",)


def _text(form: FormData, name: str) -> str:
    values = form.getlist(name)
    if len(values) > 1:
        raise _refused(name, "is given more than once")
    if values and not isinstance(values[0], str):
        raise _refused(name, "must be text, not a file")
    return str(values[0]) if values else ""


def _refused(name: str, why: str) -> ApiProblem:
    return ApiProblem(400, f"`{name}` {why}.", param=name, code="invalid_value")


def _unsupported(name: str) -> ApiProblem:
    shown = name[:_NAME_CHARACTERS]
    message = f"`{shown}` with this value is not supported by this service."
    return ApiProblem(400, message, param=shown, code="unsupported_parameter")


async def _body(request: Request, settings: ServeSettings) -> FormData:
    """The multipart body, with the size limit held while it is read."""
    kind = request.headers.get("content-type", "")
    if not kind.startswith("multipart/form-data"):
        raise ApiProblem(400, "Send multipart/form-data with a `file`.", code="invalid_body")
    limit = settings.max_upload_bytes
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    stream = _limited(request.stream(), limit)
    parser = MultiPartParser(request.headers, stream, max_files=1, max_fields=_MAX_FIELDS)
    try:
        return await parser.parse()
    except MultiPartException as error:
        raise ApiProblem(400, f"The form cannot be read: {error.message}") from None
    except KeyError:
        raise ApiProblem(400, "The form's Content-Type lacks its boundary.") from None


async def _limited(stream: AsyncIterator[bytes], limit: int) -> AsyncIterator[bytes]:
    seen = 0
    async for block in stream:
        seen += len(block)
        if seen > limit:
            raise _too_large(limit)
        yield block


def _too_large(limit: int) -> ApiProblem:
    message = f"The upload is larger than the {limit / (1 << 20):.4g} MiB allowed."
    return ApiProblem(413, message, param="file", code="audio_too_large")


class _closing:
    def __init__(self, form: FormData) -> None:
        self._form = form

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *_: object) -> None:
        await self._form.close()


def _shown_name(name: str | None) -> str:
    """What messages may call the upload: printable and short, without folders."""
    last = (name or "file").replace("\\", "/").rsplit("/", 1)[-1]
    printable = "".join(character for character in last if character.isprintable())
    return printable[:_NAME_CHARACTERS] or "file"


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
