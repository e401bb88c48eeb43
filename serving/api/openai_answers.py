"""A transcript in the shapes of OpenAI's answers."""

import zlib
from collections.abc import Callable, Sequence
from typing import Any

from starlette.responses import JSONResponse, Response

from features.tokens import TokenTable
from serving.api import subtitles
from serving.api.openai_form import TranscriptionForm
from serving.evidence import HeardWord
from serving.schema import ModelFacts, Segment, Transcript

TokensOf = Callable[[str], list[int]]  # the ids that spell a text
_LANGUAGE_NAMES = {"en": "english"}
_KINDS = {
    "text": "text/plain; charset=utf-8",
    "srt": "application/x-subrip; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
}


def answer(
    form: TranscriptionForm,
    transcript: Transcript,
    heard: Sequence[HeardWord],
    tokens_of: TokensOf,
    *,
    clear: Transcript | None = None,
) -> Response:
    """The transcript as the request wants it; warnings and the model's real name always go along.

    ``clear`` is what ``transcript`` was before its redaction, for who may see both.
    """
    headers = answer_headers(transcript.model)
    if transcript.warnings:
        headers["auricle-warnings"] = ", ".join(transcript.warnings)
    if transcript.degradation:
        headers["x-auricle-degradation"] = transcript.degradation
    if kind := _KINDS.get(form.response_format):
        text = plain(transcript, form.response_format)
        return Response(text, headers={**headers, "content-type": kind})
    if form.response_format == "json":
        body: dict[str, Any] = {
            "text": transcript.text,
            "usage": usage(transcript),
            "warnings": list(transcript.warnings),
            "model": model_name(transcript.model),
        }
        if transcript.degradation:
            body["degradation"] = transcript.degradation
        if form.logprobs:
            body["logprobs"] = logprobs(heard)
        return JSONResponse(body, headers=headers)
    body = verbose(transcript, form.granularities, tokens_of)
    if clear is not None:
        body["auricle_unredacted"] = clear.model_dump(mode="json")
    return JSONResponse(body, headers=headers)


def answer_headers(model: ModelFacts) -> dict[str, str]:
    """The model that answered, whatever alias the request called it by."""
    return {"openai-model": model_name(model)}


def model_name(model: ModelFacts) -> str:
    """The name and version; requests may call it so too."""
    return f"{model.name}@{model.version}"


def plain(transcript: Transcript, response_format: str) -> str:
    """The formats that are no JSON."""
    if response_format == "srt":
        return subtitles.srt(transcript)
    if response_format == "vtt":
        return subtitles.vtt(transcript)
    return transcript.text + "\n"


def usage(transcript: Transcript) -> dict[str, Any]:
    """What was taken in."""
    return {"type": "duration", "seconds": max(1, round(transcript.duration_s))}


def logprobs(heard: Sequence[HeardWord], *, goes_on: bool = False) -> list[dict[str, Any]]:
    """The letters of words; joined they are the text, or what ``goes_on`` from an earlier part."""
    letters = [letter for word in heard for letter in word.letters]
    return [
        {
            "token": letter.text,
            "bytes": list(letter.text.encode()),
            "logprob": round(letter.logp, 6),
        }
        for letter in (letters if goes_on else letters[1:])
    ]


def verbose(
    transcript: Transcript, granularities: Sequence[str], tokens_of: TokensOf | None
) -> dict[str, Any]:
    """OpenAI's verbose shape; the whole transcript stands beside it under ``auricle``.

    ``tokens_of`` is that of the model that answered; None where it is no longer known.
    """
    body: dict[str, Any] = {
        "task": "transcribe",
        "language": _LANGUAGE_NAMES.get(transcript.language, transcript.language),
        "duration": transcript.duration_s,
        "text": transcript.text,
        "usage": usage(transcript),
        "warnings": list(transcript.warnings),
        "model": model_name(transcript.model),
        "auricle": transcript.model_dump(mode="json"),
    }
    if "word" in granularities:
        body["words"] = [
            {"word": word.word, "start": word.start, "end": word.end} | _channel(word.channel)
            for word in transcript.words
        ]
    if "segment" in granularities:
        body["segments"] = [_segment(segment, tokens_of) for segment in transcript.segments]
    return body


def _segment(segment: Segment, tokens_of: TokensOf | None) -> dict[str, Any]:
    """OpenAI's segment; what an older transcript does not know is left out."""
    text = segment.text.encode()
    shape = {
        "id": segment.id,
        "seek": 0,
        "start": segment.start,
        "end": segment.end,
        "text": segment.text,
        "tokens": None if tokens_of is None else tokens_of(segment.text),
        "temperature": 0.0,
        "avg_logprob": segment.avg_logprob,
        "compression_ratio": round(len(text) / len(zlib.compress(text)), 4),
        "no_speech_prob": segment.no_speech_prob,
        "confidence": segment.confidence,
    }
    known = {name: value for name, value in shape.items() if value is not None}
    return known | _channel(segment.channel)


def letters_of(table: TokenTable) -> TokensOf:
    """The ids of a text's letters; what the model cannot say has none."""
    return lambda text: [table.ids[letter] for letter in text if letter in table.ids]


def _channel(channel: int | None) -> dict[str, int]:
    return {} if channel is None else {"channel": channel}
