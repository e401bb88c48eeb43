"""The query of ``/v1/listen``: every parameter is honoured, neutral or refused by name.

============================================  ===================================================
parameter                                     what happens
============================================  ===================================================
encoding, sample_rate, channels               linear16; 8000 to 192000 Hz; 1 to 8, mixed to one
interim_results, endpointing, model,          honoured
language, speaker
`NEUTRAL` below                               that value is accepted, others are refused
everything else                               refused
============================================  ===================================================
"""

from dataclasses import dataclass

from starlette.datastructures import QueryParams

from serving.problems import ApiProblem
from serving.streaming.streams import StreamRequest

HONOURED = (
    "encoding",
    "sample_rate",
    "channels",
    "interim_results",
    "endpointing",
    "model",
    "language",
    "speaker",
)
NEUTRAL = {
    "punctuate": ("false",),
    "smart_format": ("false",),
    "numerals": ("false",),
    "diarize": ("false",),
    "multichannel": ("false",),
    "profanity_filter": ("false",),
    "filler_words": ("false",),
    "dictation": ("false",),
    "vad_events": ("false",),
    "detect_entities": ("false",),
    "alternatives": ("1",),
    "version": ("latest",),
    "no_delay": ("true", "false"),
    "mip_opt_out": ("true", "false"),
}
DEFAULT_ENDPOINTING_MS = 800
_RATES_HZ = (8_000, 192_000)
_CHANNELS = (1, 8)
_ENDPOINTING_MS = (40, 10_000)


@dataclass(frozen=True, kw_only=True)
class ListenQuery:
    """A checked query."""

    model: str
    language: str
    sample_rate: int
    channels: int
    interim_results: bool
    endpointing_ms: int | None  # None: utterances end only at pauses the server must make

    def stream_request(self, speaker: str | None) -> StreamRequest:
        """What the recogniser needs of it."""
        return StreamRequest(
            rate_hz=self.sample_rate,
            channels=self.channels,
            endpointing_ms=self.endpointing_ms,
            interim=self.interim_results,
            speaker=speaker,
        )


def parse_query(query: QueryParams) -> ListenQuery:
    """Check every parameter; `ApiProblem` names the first that cannot be honoured."""
    for name, value in query.multi_items():
        if name in HONOURED:
            if len(query.getlist(name)) > 1:
                raise refused(name, "is given more than once")
        elif value not in NEUTRAL.get(name, ()):
            raise refused(name, "with this value is not supported by this service")
    if query.get("encoding", "linear16") != "linear16":
        raise refused("encoding", "must be linear16")
    return ListenQuery(
        model=query.get("model", ""),
        language=query.get("language", ""),
        sample_rate=_integer(query, "sample_rate", 16_000, _RATES_HZ),
        channels=_integer(query, "channels", 1, _CHANNELS),
        interim_results=_flag(query, "interim_results"),
        endpointing_ms=_endpointing(query),
    )


def refused(name: str, why: str) -> ApiProblem:
    """400 that names the parameter."""
    shown = name[:80]
    return ApiProblem(400, f"`{shown}` {why}.", param=shown, code="invalid_query_parameter")


def _endpointing(query: QueryParams) -> int | None:
    value = query.get("endpointing", "true")
    if value in ("true", "false"):
        return DEFAULT_ENDPOINTING_MS if value == "true" else None
    return _integer(query, "endpointing", DEFAULT_ENDPOINTING_MS, _ENDPOINTING_MS)


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
