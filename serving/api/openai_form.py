"""The form of ``/v1/audio/transcriptions``: read within limits, every field answered for.

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

from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from serving.api.callers import require_language, require_model
from serving.problems import ApiProblem
from serving.runtime import Runtime
from serving.settings import ServeSettings

FORMATS = ("json", "text", "verbose_json")
GRANULARITIES = ("word", "segment")
_KNOWN = ("file", "model", "language", "response_format", "timestamp_granularities[]")
NEUTRAL = {
    "temperature": ("", "0", "0.0"),
    "stream": ("", "false", "False"),
    "prompt": ("",),
    "chunking_strategy": ("", "auto"),
}
_MAX_FIELDS = 64
_NAME_CHARACTERS = 80


@dataclass(frozen=True, kw_only=True)
class TranscriptionForm:
    """A checked request."""

    upload: UploadFile
    response_format: str
    granularities: tuple[str, ...]


def check_form(form: FormData, runtime: Runtime) -> TranscriptionForm:
    """Every field is honoured, neutral or refused by name."""
    for name, value in form.multi_items():
        if name in _KNOWN:
            continue
        if name in NEUTRAL and value in NEUTRAL[name]:
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
    if response_format not in FORMATS:
        raise _refused("response_format", f"must be one of {', '.join(FORMATS)}")
    return TranscriptionForm(
        upload=upload,
        response_format=response_format,
        granularities=_granularities(form, response_format),
    )


def _granularities(form: FormData, response_format: str) -> tuple[str, ...]:
    field = "timestamp_granularities[]"
    asked = tuple(str(value) for value in form.getlist(field))
    if any(value not in GRANULARITIES for value in asked):
        raise _refused(field, f"must be of {', '.join(GRANULARITIES)}")
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


async def read_form(request: Request, settings: ServeSettings) -> FormData:
    """The multipart body, with the size limit held while it is read."""
    kind = request.headers.get("content-type", "").lower()
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
        message = f"The form cannot be read: {error.message}"
        raise ApiProblem(400, message, code="invalid_body") from None
    except KeyError:
        message = "The form's Content-Type lacks its boundary."
        raise ApiProblem(400, message, code="invalid_body") from None


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


class closing:
    """Give back what a form's uploads hold, whatever happens."""

    def __init__(self, form: FormData) -> None:
        self._form = form

    async def __aenter__(self) -> None:
        return None

    async def __aexit__(self, *_: object) -> None:
        await self._form.close()


def shown_name(name: str | None) -> str:
    """What messages may call the upload: printable and short, without folders."""
    last = (name or "file").replace("\\", "/").rsplit("/", 1)[-1]
    printable = "".join(character for character in last if character.isprintable())
    return printable[:_NAME_CHARACTERS] or "file"
