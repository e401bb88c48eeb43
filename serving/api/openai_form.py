"""The form of ``/v1/audio/transcriptions``: read within limits, every field answered for.

What is honoured, accepted where it asks for nothing, or refused by name is the table of
`openai_fields`; `docs/openai-fields.md` publishes it.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import HTTPConnection, Request

from serving.adopted.models import AdoptedModel
from serving.adopted.recognizer import PLAIN, Wish
from serving.api import openai_chunking
from serving.api.callers import require_language, require_model
from serving.api.openai_adopted import wish_of
from serving.api.openai_fields import BY_NAME, INCLUDES
from serving.api.openai_fields import FORMATS as FORMATS
from serving.api.openai_fields import GRANULARITIES as GRANULARITIES
from serving.api.openai_fields import NEUTRAL as NEUTRAL
from serving.api.openai_phrases import expected
from serving.api.redaction_choice import UNREDACTED, RedactionChoice, choose_redaction
from serving.file_options import NOTHING_SPECIAL, FileOptions
from serving.problems import ApiProblem, too_large
from serving.runtime import Runtime
from serving.settings import ServeSettings

_MAX_FIELDS = 512
_NAME_CHARACTERS = 80


@dataclass(frozen=True, kw_only=True)
class TranscriptionForm:
    """A checked request."""

    upload: UploadFile
    response_format: str
    granularities: tuple[str, ...]
    logprobs: bool
    stream: bool
    options: FileOptions
    redact: tuple[str, ...] = ()  # kinds of content that the request hides
    redact_mode: str = ""
    redaction: RedactionChoice = UNREDACTED  # what comes of it for this caller
    adopted: AdoptedModel | None = None  # None: Auricle's own model
    wish: Wish = PLAIN  # of an adopted model

    @property
    def words(self) -> bool:
        """Whether the answer cannot be given without each word's time."""
        shown = self.response_format in ("srt", "vtt") or "word" in self.granularities
        return shown or bool(self.redaction.policy)


def check_form(form: FormData, runtime: Runtime) -> TranscriptionForm:
    """Every field is honoured, neutral or refused by name."""
    _check_names(form)
    upload = form.get("file")
    if not isinstance(upload, UploadFile):
        raise ApiProblem(
            400, "You must provide a file.", param="file", code="missing_required_parameter"
        )
    adopted = runtime.adopted.find(_text(form, "model"))
    if adopted is not None:
        return _check_adopted(form, upload, adopted)
    require_model(_text(form, "model"), runtime)
    _check_languages(form, runtime)
    response_format, granularities = _shape(form)
    logprobs = bool(_chosen(form, "include", INCLUDES))
    if logprobs and response_format != "json":
        raise _refused("include[]", "logprobs need response_format=json")
    stream = _stream(form, response_format)
    _check_channels(form, stream=stream, logprobs=logprobs)
    phrases = expected(_text(form, "prompt"), _many(form, "keywords"))
    return TranscriptionForm(
        upload=upload,
        response_format=response_format,
        granularities=granularities or ("segment",),
        logprobs=logprobs,
        stream=stream,
        options=FileOptions(
            pause_s=openai_chunking.pause_of(form),
            spelling=logprobs,
            multichannel=_yes(form, "multichannel"),
            hotwords=phrases.phrases,
            unusable_hotwords=phrases.left_out,
        ),
        redact=_many(form, "redact"),
        redact_mode=_text(form, "redact_mode"),
    )


def _check_adopted(form: FormData, upload: UploadFile, adopted: AdoptedModel) -> TranscriptionForm:
    """The fields of a request to an adopted model."""
    wish = wish_of(form, adopted)
    response_format, granularities = _shape(form)
    return TranscriptionForm(
        upload=upload,
        response_format=response_format,
        granularities=granularities or ("segment",),
        logprobs=False,
        stream=False,
        options=NOTHING_SPECIAL,
        redact=_many(form, "redact"),
        redact_mode=_text(form, "redact_mode"),
        adopted=adopted,
        wish=wish,
    )


def _shape(form: FormData) -> tuple[str, tuple[str, ...]]:
    """The answer's format, and the granularities that are asked for."""
    response_format = _text(form, "response_format") or "json"
    if response_format not in FORMATS:
        raise _refused("response_format", f"must be one of {', '.join(FORMATS)}")
    granularities = _chosen(form, "timestamp_granularities", GRANULARITIES)
    if granularities and response_format != "verbose_json":
        raise _refused("timestamp_granularities[]", "needs response_format=verbose_json")
    return response_format, granularities


def _stream(form: FormData, response_format: str) -> bool:
    asked = _yes(form, "stream")
    if asked and response_format != "json":
        raise _refused("stream", "needs response_format=json: events are JSON")
    return asked


def _yes(form: FormData, name: str) -> bool:
    asked = _text(form, name).lower()
    if asked not in ("", "true", "false"):
        raise _refused(name, "must be true or false")
    return asked == "true"


def _check_channels(form: FormData, *, stream: bool, logprobs: bool) -> None:
    """Channels are put in order of time at the end, so that nothing can be told before."""
    if _yes(form, "multichannel") and (stream or logprobs):
        field = "stream" if stream else "include[]"
        raise _refused(field, "cannot be combined with multichannel")


def redacted_for(connection: HTTPConnection, form: TranscriptionForm) -> TranscriptionForm:
    """The form with what its caller may see; what would show hidden letters is refused."""
    choice = choose_redaction(connection, form.redact, form.redact_mode, route="transcriptions")
    if choice.policy and form.logprobs:
        raise _refused("include[]", "logprobs would show what is redacted")
    if choice.both and form.response_format != "verbose_json":
        raise _refused("redact_mode", "both needs response_format=verbose_json")
    return replace(form, redaction=choice)


def _check_names(form: FormData) -> None:
    for name, value in form.multi_items():
        if name in openai_chunking.KEYS:
            continue
        field = BY_NAME.get(name)
        if field is not None and field.answer == "honoured":
            continue
        if field is not None and value in NEUTRAL.get(field.name, ()):
            continue
        raise _unsupported(name)


def _check_languages(form: FormData, runtime: Runtime) -> None:
    require_language(_text(form, "language"), runtime)
    own = runtime.recognizer.config.language
    possible = _many(form, "languages")
    if possible and not any(
        name.lower().replace("_", "-").split("-")[0] == own for name in possible
    ):
        raise ApiProblem(
            400,
            f"This model knows the language `{own}` only.",
            param="languages",
            code="unsupported_language",
        )


def _chosen(form: FormData, name: str, allowed: tuple[str, ...]) -> tuple[str, ...]:
    asked = _many(form, name)
    if any(value not in allowed for value in asked):
        raise _refused(f"{name}[]", f"must be of {', '.join(allowed)}")
    return asked


def _many(form: FormData, name: str) -> tuple[str, ...]:
    """A list's values, under its name with or without ``[]``."""
    values = [*form.getlist(name), *form.getlist(f"{name}[]")]
    if not all(isinstance(value, str) for value in values):
        raise _refused(name, "must be text, not a file")
    return tuple(str(value) for value in values)


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
    _, options = parse_options_header(kind)
    if options.get(b"charset", b"utf-8") not in (b"utf-8", b"utf8"):  # Python knows odder ones
        raise ApiProblem(400, "Send the form's text as UTF-8.", code="invalid_body")
    limit = settings.max_upload_bytes
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared) > limit:
        raise too_large(limit)
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
            raise too_large(limit)
        yield block


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
