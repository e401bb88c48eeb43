"""Shapes of bodies and answers for the OpenAPI document, in JSON Schema 2020-12."""

from collections.abc import Mapping
from typing import Any

from serving.api import openai_chunking, openai_fields, openai_form
from serving.jobs.records import STATES
from serving.schema import Transcript

Schema = Mapping[str, Any]
_REF = "#/components/schemas/"


def ref(name: str) -> dict[str, str]:
    """A shape by its name."""
    return {"$ref": _REF + name}


def thing(fields: Mapping[str, Schema], *, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    """An object; every field is always there unless it is named as optional."""
    required = [name for name in fields if name not in optional]
    return {"type": "object", "properties": dict(fields), "required": required}


def text(description: str = "", **more: Any) -> dict[str, Any]:
    """A string."""
    return {"type": "string", **({"description": description} if description else {}), **more}


def number(description: str = "", kind: str = "number") -> dict[str, Any]:
    """A number, or a whole one."""
    return {"type": kind, **({"description": description} if description else {})}


def maybe(kind: str, description: str = "") -> dict[str, Any]:
    """A value, or null."""
    return {"type": [kind, "null"], "description": description}


def rows(items: Schema) -> dict[str, Any]:
    """A list."""
    return {"type": "array", "items": items}


def transcription_form() -> dict[str, Any]:
    """The form of ``/v1/audio/transcriptions``, from the tables that check it."""
    neutral = {
        name: text(f"accepted where it asks for nothing: {_quoted(values)}")
        for name, values in openai_form.NEUTRAL.items()
    }
    own = ("file", "model", "language", "response_format", *neutral)
    others = {
        **{
            f"{field.name}[]" if field.many else field.name: (
                rows(text(field.takes)) if field.many else text(field.takes)
            )
            for field in openai_fields.FIELDS
            if field.answer == "honoured" and field.name not in own
        },
        **{key: text("part of a `server_vad` object") for key in openai_chunking.KEYS},
    }
    fields = {
        "file": text("any audio or video format", format="binary"),
        "model": text("the model's name, `NAME@VERSION`, or an alias of the service"),
        "language": text("the model's own language, with any region"),
        "response_format": text(enum=list(openai_form.FORMATS), default="json"),
        **others,
        "timestamp_granularities[]": {
            "type": "array",
            "items": text(enum=list(openai_form.GRANULARITIES)),
            "description": "with `verbose_json` only",
        },
        **neutral,
    }
    optional = tuple(name for name in fields if name not in ("file", "model"))
    return thing(fields, optional=optional) | {"additionalProperties": False}


def components() -> dict[str, Any]:
    """Every named shape."""
    transcript = Transcript.model_json_schema(ref_template=_REF + "{model}", mode="serialization")
    own = transcript.pop("$defs")
    return {
        "Error": _error(),
        "Model": _model(),
        "ModelList": _listing("Model"),
        "Transcription": _transcription(),
        "VerboseTranscription": _verbose(),
        "Transcript": transcript,
        **own,
        "Job": _job(),
        "JobList": _listing("Job", paged=True),
        "Webhook": _webhook(),
        "WebhookList": _listing("Webhook"),
    }


def _error() -> dict[str, Any]:
    error = thing(
        {
            "message": text("what is wrong, in words"),
            "type": text(enum=["invalid_request_error", "rate_limit_error", "server_error"]),
            "param": maybe("string", "the field of the request that caused it"),
            "code": maybe("string", "for programs"),
        }
    )
    return thing({"error": error})


def _model() -> dict[str, Any]:
    fields = {
        "id": text("what requests call it"),
        "object": {"const": "model"},
        "created": number(kind="integer"),
        "owned_by": text(),
        "version": text("of the registry, or the head of the digest"),
        "variant": text("kind of weights: `fp32`, `fp16` or `int8`"),
        "bundle_digest": text("of every file of the model"),
        "language": text("the one it knows; `mul`: several"),
        "domain": text("what it was trained for; empty where an adopted model does not say"),
        "languages": rows(text("of an adopted model")),
        "licence": maybe("string", "of an adopted model, as its folder says"),
    }
    return thing(fields, optional=("languages", "licence"))


def _listing(of: str, *, paged: bool = False) -> dict[str, Any]:
    fields: dict[str, Any] = {"object": {"const": "list"}, "data": rows(ref(of))}
    if paged:
        fields |= {
            "first_id": maybe("string"),
            "last_id": maybe("string"),
            "has_more": {"type": "boolean"},
        }
    return thing(fields)


def _usage() -> dict[str, Any]:
    return thing({"type": {"const": "duration"}, "seconds": number(kind="integer")})


def _transcription() -> dict[str, Any]:
    warnings = rows(text())
    letter = thing({"token": text(), "bytes": rows(number(kind="integer")), "logprob": number()})
    fields = {
        "text": text(),
        "usage": _usage(),
        "warnings": warnings,
        "model": text("`NAME@VERSION`"),
        "logprobs": rows(letter),
    }
    return thing(fields, optional=("logprobs",))


def _verbose() -> dict[str, Any]:
    word = thing({"word": text(), "start": number("seconds"), "end": number("seconds")})
    segment = thing(
        {
            "id": number(kind="integer"),
            "seek": number(kind="integer"),
            "start": number("seconds"),
            "end": number("seconds"),
            "text": text(),
            "temperature": number(),
            "tokens": rows(number(kind="integer")),
            "avg_logprob": number("mean natural-log probability of the letters"),
            "compression_ratio": number(),
            "no_speech_prob": number("chance that no letter was said"),
            "confidence": number("0 to 1: evidence, not a probability"),
        }
    )
    fields = {
        "task": {"const": "transcribe"},
        "language": text("its English name"),
        "duration": number("seconds"),
        "text": text(),
        "usage": _usage(),
        "warnings": rows(text("such as `no_speech` or `truncated_audio`")),
        "model": text("`NAME@VERSION`"),
        "auricle": ref("Transcript"),
        "words": rows(word),
        "segments": rows(segment),
    }
    return thing(fields, optional=("words", "segments"))


def _job() -> dict[str, Any]:
    moment = "seconds since 1970"
    fields = {
        "id": text(),
        "object": {"const": "transcription.job"},
        "status": text(enum=list(STATES)),
        "model": text(),
        "source": text(enum=["upload", "url", "object"]),
        "progress": number("0 to 1"),
        "attempts": number("runs begun", "integer"),
        "created_at": number(moment, "integer"),
        "started_at": maybe("integer", moment),
        "finished_at": maybe("integer", moment),
        "expires_at": number("when it is forgotten", "integer"),
        "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
        "webhook": maybe("string", "id of the endpoint that hears of its end"),
        "error": maybe("object", "why it failed"),
    }
    return thing(fields)


def _webhook() -> dict[str, Any]:
    fields = {
        "id": text(),
        "object": {"const": "webhook_endpoint"},
        "url": text("where messages go"),
        "enabled": {"type": "boolean"},
        "disabled_reason": maybe("string"),
        "created_at": number("seconds since 1970", "integer"),
        "secret": text("in the answer to its creation only"),
    }
    return thing(fields, optional=("secret",))


def _quoted(values: tuple[str, ...]) -> str:
    return ", ".join(f"`{value}`" if value else "empty" for value in values)
