"""Transcript v1: the one shape of an answer for REST, stream, command line and records."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

TRANSCRIPT_SCHEMA_VERSION: Literal[1] = 1


def _is_absent(value: object) -> bool:
    return value is None


class _Frozen(BaseModel):
    """A value that crosses a trust border, never changed after it is made.

    What a later release adds is passed over, so that this release's clients read it.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")


class Word(_Frozen):
    """One spoken word."""

    word: str
    start: float  # seconds from the start of the recording
    end: float
    confidence: float = Field(ge=0.0, le=1.0)
    # Where channels are speakers of their own; absent where they were mixed.
    channel: int | None = Field(default=None, ge=0, exclude_if=_is_absent)


class Segment(_Frozen):
    """A stretch of speech between two pauses."""

    id: int
    start: float
    end: float
    text: str
    confidence: float = Field(ge=0.0, le=1.0)
    words: tuple[Word, ...]
    channel: int | None = Field(default=None, ge=0, exclude_if=_is_absent)
    # Mean natural-log probability of its letters, and the model's chance that nothing was said.
    avg_logprob: float | None = Field(default=None, le=0.0, exclude_if=_is_absent)
    no_speech_prob: float | None = Field(default=None, ge=0.0, le=1.0, exclude_if=_is_absent)


class ModelFacts(_Frozen):
    """Which model answered, down to its bytes."""

    name: str
    version: str
    variant: str  # fp32, int8, fp16
    bundle_digest: str
    licence: str | None = Field(default=None, exclude_if=_is_absent)  # as an adopted model says


class Timings(_Frozen):
    """Where the time went, in milliseconds; a model call's time is divided among its rows."""

    network: float = 0.0  # reading the request's body
    queue: float = 0.0  # waiting for a worker or for the model
    features: float = 0.0  # audio decoding, log-mel, normalisation
    model: float = 0.0
    decoding: float = 0.0
    total: float = 0.0


class Normalisation(_Frozen):
    """Whether a speaker's prior warmed the front end; with the digest a replay is exact."""

    state: Literal["warm", "cold"] = "cold"
    prior_digest: str | None = None


class Redaction(_Frozen):
    """A span that was masked, and the kind of content that stood there."""

    start: float
    end: float
    kind: str


class Transcript(_Frozen):
    """The answer to one recording."""

    schema_version: Literal[1] = TRANSCRIPT_SCHEMA_VERSION
    text: str
    language: str
    duration_s: float
    segments: tuple[Segment, ...] = ()
    words: tuple[Word, ...] = ()
    model: ModelFacts
    audio_digest: str
    timings_ms: Timings = Timings()
    warnings: tuple[str, ...] = ()  # no_speech, truncated_audio and the like
    normalisation: Normalisation = Normalisation()
    redactions: tuple[Redaction, ...] = ()
    degradation: str | None = None
