"""Every field of OpenAI's transcription API, and what this service does with it.

A test compares both tables with the installed ``openai`` package, and `docs/openai-fields.md` is
what `markdown` makes of them: a new field of a new release can neither pass in silence nor be
forgotten in the documentation.
"""

from collections.abc import Mapping
from typing import Literal, NamedTuple

FORMATS = ("json", "text", "srt", "vtt", "verbose_json")
GRANULARITIES = ("word", "segment")
INCLUDES = ("logprobs",)
NEUTRAL: Mapping[str, tuple[str, ...]] = {
    "temperature": ("", "0", "0.0"),
}

Answer = Literal["honoured", "neutral value accepted", "refused"]


class Field(NamedTuple):
    """A field of the form."""

    name: str
    answer: Answer
    takes: str
    many: bool = False  # a list: the name may end with ``[]``
    own: bool = False  # not of OpenAI


_REFUSED = "400 with `param`, whatever the value"

FIELDS = (
    Field("file", "honoured", "any format that libsndfile or FFmpeg reads"),
    Field("model", "honoured", "the model's name, `NAME@VERSION` or an alias; others are 404"),
    Field("language", "honoured", "the model's language, with any region; others are 400"),
    Field("languages", "honoured", "must name the model's language; otherwise 400", many=True),
    Field("response_format", "honoured", ", ".join(f"`{name}`" for name in FORMATS)),
    Field(
        "timestamp_granularities", "honoured",
        "`word`, `segment` with `verbose_json`; with another format 400", many=True,
    ),
    Field("include", "honoured", "`logprobs` with `json`; with another format 400", many=True),
    Field(
        "chunking_strategy", "honoured",
        "`auto`, or a `server_vad` object: `silence_duration_ms` (100 to 10000) is the pause that "
        "begins a new segment; `prefix_padding_ms` may be anything, for nothing before speech is "
        "cut away; `threshold` 0.5 is accepted, others are 400",
    ),
    Field("temperature", "neutral value accepted", "0: decoding is deterministic; others are 400"),
    Field("stream", "honoured", "`true` with `json`: server-sent events; with another format 400"),
    Field(
        "prompt", "honoured",
        "phrases between commas, full stops and line breaks that the decoder expects; up to 4096 "
        "characters and 200 phrases, more are 400; what it cannot use is counted in a warning",
    ),
    Field(
        "keywords", "honoured",
        "phrases that the decoder expects; up to 200 of 100 characters, more are 400", many=True,
    ),
    Field(
        "redact", "honoured",
        "kinds of content to hide, with commas or repeated: [redaction.md](redaction.md)",
        many=True, own=True,
    ),
    Field(
        "redact_mode", "honoured",
        "`mask`, `remove`; `both` with `verbose_json` and the scope `unredacted`", own=True,
    ),
    Field(
        "multichannel", "honoured",
        "`true`: up to 8 channels are speakers of their own, named in words and segments; "
        "not with `stream` or `include[]`", own=True,
    ),
    Field("known_speaker_names", "refused", _REFUSED, many=True),
    Field("known_speaker_references", "refused", _REFUSED, many=True),
)  # fmt: skip

BY_NAME = {
    name: field
    for field in FIELDS
    for name in (field.name, *((f"{field.name}[]",) if field.many else ()))
}

_TEXT, _USAGE = "the text", "`{type: duration, seconds}`"
_LANGUAGES = "absent: the model knows one language and detects none"

ANSWERS: Mapping[str, Mapping[str, str]] = {
    "Transcription": {
        "text": _TEXT,
        "languages": _LANGUAGES,
        "logprobs": "with `include[]=logprobs`: the model's letters with `bytes` and the natural-"
        "log probability of the frame in which each came out; joined they are `text`; a space "
        "where the service joined two pieces has 0",
        "usage": _USAGE,
    },
    "TranscriptionVerbose": {
        "duration": "seconds of audio",
        "language": "its English name",
        "text": _TEXT,
        "segments": "unless only `word` is asked for",
        "usage": _USAGE,
        "words": "when `word` is asked for",
    },
    "TranscriptionSegment": {
        "id": "from 0",
        "avg_logprob": "mean natural-log probability of the segment's letters",
        "compression_ratio": "characters to bytes after zlib, as Whisper counts",
        "end": "seconds",
        "no_speech_prob": "the model's chance that no letter was said while the words were heard",
        "seek": "0: pieces have no seek position",
        "start": "seconds",
        "temperature": "0",
        "text": _TEXT,
        "tokens": "the model's token ids of the text",
    },
    "TranscriptionTextDeltaEvent": {
        "type": "`transcript.text.delta`",
        "delta": "words that nothing changes later; joined, the deltas are the text",
        "logprobs": "of the delta's letters, with `include[]=logprobs`",
        "segment_id": "absent: no speakers are told apart",
    },
    "TranscriptionTextDoneEvent": {
        "type": "`transcript.text.done`, the last event",
        "text": _TEXT,
        "languages": _LANGUAGES,
        "logprobs": "of the whole text, with `include[]=logprobs`",
        "usage": "`{type: tokens}`: frames of the model heard, letters said",
    },
    "TranscriptionWord": {"word": "the word", "start": "seconds", "end": "seconds"},
}


def markdown() -> str:
    """The tables of the documentation."""
    lines = ["| field | answer | what it takes |", "|---|---|---|"]
    for field in FIELDS:
        name = f"{field.name}[]" if field.many else field.name
        lines.append(f"| `{name}` | {field.answer} | {field.takes} |")
    lines.append("| anything else | refused | 400 with `param` |")
    for kind, fields in ANSWERS.items():
        lines += ["", f"### `{kind}`", "", "| field | what stands there |", "|---|---|"]
        lines += [f"| `{name}` | {what} |" for name, what in fields.items()]
    return "\n".join(lines) + "\n"
