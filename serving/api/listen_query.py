"""The query of ``/v1/listen``: every parameter is honoured, neutral or refused by name.

`PARAMETERS` is the table that `docs/streams.md` publishes. A neutral parameter is accepted with the
values that ask for nothing this service does otherwise; with any other value it is refused, so that
no caller believes in a feature that is not there.
"""

from dataclasses import dataclass
from typing import Literal

from starlette.datastructures import QueryParams

from serving.api.openai_phrases import Phrases, expected
from serving.problems import ApiProblem
from serving.redaction.policy import MODES
from serving.streaming.request import OGG_OPUS, StreamRequest
from serving.streaming.sources import RAW_ENCODINGS


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One row of the table."""

    name: str
    kind: Literal["honoured", "neutral"]
    values: tuple[str, ...] | str  # the neutral values, or what is honoured in words


def _honoured(name: str, values: str) -> Parameter:
    return Parameter(name=name, kind="honoured", values=values)


def _neutral(name: str, *values: str) -> Parameter:
    return Parameter(name=name, kind="neutral", values=values)


_ENCODINGS = (*RAW_ENCODINGS, "opus", OGG_OPUS)  # the last two are both Opus in Ogg
PARAMETERS = (
    _honoured("model", "the model's own name, NAME@VERSION, or an alias of the service"),
    _honoured("language", "the model's language, with any region"),
    _honoured("encoding", f"{', '.join(_ENCODINGS)}; absent: Ogg or WebM with Opus, or WAV"),
    _honoured("sample_rate", "8000 to 192000"),
    _honoured("channels", "1 to 8"),
    _honoured("multichannel", "true, false"),
    _honoured("interim_results", "true, false"),
    _honoured("endpointing", "milliseconds from 10 to 10000; true, false"),
    _honoured("utterance_end_ms", "milliseconds from 1000 to 5000; needs interim_results"),
    _honoured("vad_events", "true, false"),
    _honoured("redact", "kinds of content as in redaction.md; with commas, or repeated"),
    _honoured("redact_mode", "mask, remove (our own extension)"),
    _honoured("keyterm", "phrases to expect, repeatable; at most 200, of at most 100 characters"),
    _honoured("keywords", "as keyterm, without intensifiers"),
    _honoured("speaker", "a pseudonym, for a warm start (our own extension)"),
    _honoured("resumable", "true, false (our own extension)"),
    _neutral("punctuate", "false"),
    _neutral("smart_format", "false"),
    _neutral("numerals", "false"),
    _neutral("measurements", "false"),
    _neutral("dictation", "false"),
    _neutral("profanity_filter", "false"),
    _neutral("filler_words", "false"),
    _neutral("diarize", "false"),
    _neutral("detect_entities", "false"),
    _neutral("alternatives", "1"),
    _neutral("version", "latest"),
    _neutral("no_delay", "true", "false"),
    _neutral("mip_opt_out", "true", "false"),
)
REFUSED = (
    "callback", "callback_method", "diarize_model", "diarize_version", "extra",
    "language_hint", "replace", "search", "tag", "tier", "vad_turnoff",
)  # fmt: skip
"""Parameters of Deepgram's that are refused with every value, as is any name that is not here."""

_PHRASES = ("keyterm", "keywords")
_REPEATED = ("redact", *_PHRASES)
DEFAULT_ENDPOINTING_MS = 800
_BY_NAME = {parameter.name: parameter for parameter in PARAMETERS}
_RATES_HZ = (8_000, 192_000)
_CHANNELS = (1, 8)
_ENDPOINTING_MS = (10, 10_000)
_UTTERANCE_END_MS = (1_000, 5_000)


@dataclass(frozen=True, kw_only=True)
class ListenQuery:
    """A checked query."""

    model: str
    language: str
    encoding: str | None  # None: a container that names its own
    sample_rate: int
    channels: int
    multichannel: bool
    interim_results: bool
    endpointing_ms: int | None  # None: utterances end only where the server must end them
    utterance_end_ms: int | None
    vad_events: bool
    phrases: Phrases  # to expect
    resumable: bool  # whether the stream outlives its connection
    redact: tuple[str, ...] = ()  # kinds of content that are hidden
    redact_mode: str = ""

    def stream_request(self, speaker: str | None) -> StreamRequest:
        """What the recogniser needs of it."""
        return StreamRequest(
            encoding=self.encoding,
            rate_hz=self.sample_rate,
            channels=self.channels,
            multichannel=self.multichannel,
            endpointing_ms=self.endpointing_ms,
            utterance_end_ms=self.utterance_end_ms,
            interim=self.interim_results,
            vad_events=self.vad_events,
            speaker=speaker,
            hotwords=self.phrases.phrases,
            unusable_hotwords=self.phrases.left_out,
        )


def parse_query(query: QueryParams) -> ListenQuery:
    """Check every parameter; `ApiProblem` names the first that cannot be honoured."""
    for name, value in query.multi_items():
        known = _BY_NAME.get(name)
        if known is None or (known.kind == "neutral" and value not in known.values):
            raise refused(name, "with this value is not supported by this service")
        if len(query.getlist(name)) > 1 and name not in _REPEATED:
            raise refused(name, "is given more than once")
    return ListenQuery(
        model=query.get("model", ""),
        language=query.get("language", ""),
        encoding=_encoding(query),
        sample_rate=_integer(query, "sample_rate", 16_000, _RATES_HZ),
        channels=_integer(query, "channels", 1, _CHANNELS),
        multichannel=_flag(query, "multichannel"),
        interim_results=_flag(query, "interim_results"),
        endpointing_ms=_endpointing(query),
        utterance_end_ms=_utterance_end(query),
        vad_events=_flag(query, "vad_events"),
        resumable=_flag(query, "resumable"),
        redact=tuple(query.getlist("redact")),
        redact_mode=_redact_mode(query),
        phrases=_phrases(query),
    )


def _encoding(query: QueryParams) -> str | None:
    """A container says itself what it holds; a bare rate is taken for the commonest raw audio."""
    if "encoding" not in query:
        return "linear16" if "sample_rate" in query else None
    if query["encoding"] not in _ENCODINGS:
        raise refused("encoding", f"must be one of {', '.join(_ENCODINGS)}")
    return query["encoding"] if query["encoding"] in RAW_ENCODINGS else OGG_OPUS


def refused(name: str, why: str) -> ApiProblem:
    """400 that names the parameter."""
    shown = name[:80]
    return ApiProblem(400, f"`{shown}` {why}.", param=shown, code="invalid_query_parameter")


def _phrases(query: QueryParams) -> Phrases:
    """Deepgram's two names for the same thing; a weight of one's own is an empty promise here."""
    if any(":" in word for word in query.getlist("keywords")):
        raise refused("keywords", "with an intensifier is not supported by this service")
    return expected("", [phrase for name in _PHRASES for phrase in query.getlist(name)])


def _endpointing(query: QueryParams) -> int | None:
    value = query.get("endpointing", "true")
    if value in ("true", "false"):
        return DEFAULT_ENDPOINTING_MS if value == "true" else None
    return _integer(query, "endpointing", DEFAULT_ENDPOINTING_MS, _ENDPOINTING_MS)


def _utterance_end(query: QueryParams) -> int | None:
    if "utterance_end_ms" not in query:
        return None
    wait_ms = _integer(query, "utterance_end_ms", 0, _UTTERANCE_END_MS)
    if not _flag(query, "interim_results"):
        raise refused("utterance_end_ms", "needs interim_results=true")
    return wait_ms


def _redact_mode(query: QueryParams) -> str:
    """A live stream has one output: whoever wants both opens two."""
    mode = query.get("redact_mode", "")
    if mode not in ("", *MODES):
        raise refused("redact_mode", f"must be one of {', '.join(MODES)}")
    return mode


def _flag(query: QueryParams, name: str) -> bool:
    value = query.get(name, "false")
    if value not in ("true", "false"):
        raise refused(name, "must be true or false")
    return value == "true"


def _integer(query: QueryParams, name: str, default: int, bounds: tuple[int, int]) -> int:
    text = query.get(name, str(default))
    low, high = bounds
    if not (text.isascii() and text.isdigit() and len(text) < 9 and low <= int(text) <= high):
        raise refused(name, f"must be a whole number from {low} to {high}")
    return int(text)
