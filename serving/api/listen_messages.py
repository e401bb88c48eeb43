"""What goes over ``/v1/listen``: Deepgram's message shapes, and why a stream is closed.

What is our own stands under ``auricle`` inside Deepgram's messages: its SDKs keep unknown fields
and give their users nothing for unknown types.
"""

import json
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from serving.problems import ApiProblem
from serving.schema import ModelFacts, Transcript
from serving.streaming.events import Event, SpeechStarted, StreamEvent, UtteranceEnd
from serving.tenants.desk import LIMIT_CODES

Control = Literal["KeepAlive", "Finalize", "CloseStream", "Configure"]
_CONTROLS: tuple[Control, ...] = ("KeepAlive", "Finalize", "CloseStream", "Configure")
_CONTROL_CHARACTERS = 16_384  # a control message is one short object
_REASON_BYTES = 123  # of a close frame, RFC 6455


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a stream is closed: the WebSocket's code, the reason, and the outcome in the metrics."""

    code: int
    reason: str
    outcome: str

    @property
    def shown(self) -> str:
        """The reason as a close frame can carry it."""
        return self.reason.encode()[:_REASON_BYTES].decode(errors="ignore")


DONE = Ending(code=1000, reason="", outcome="ok")
SESSION_LIMIT = Ending(code=1000, reason="the longest session is over", outcome="session_limit")
BAD_TEXT = Ending(
    code=1008, reason="text messages are KeepAlive, Finalize or CloseStream", outcome="refused"
)
TOO_BIG = Ending(code=1009, reason="audio message too large", outcome="refused")
DRAINED = Ending(code=1012, reason="the service is shutting down", outcome="drained")
SUPERSEDED = Ending(
    code=1008, reason="the session goes on over another connection", outcome="superseded"
)
SLOW = Ending(code=1008, reason="results are read too slowly", outcome="slow")


def idle(limit_s: float) -> Ending:
    """No message came for too long."""
    reason = f"NET-0001: neither audio nor text received for {limit_s:g} s"
    return Ending(code=1011, reason=reason, outcome="idle")


def undecodable(why: str) -> Ending:
    """The bytes are no audio of the kind that was promised."""
    return Ending(code=1008, reason=f"DATA-0000: {why}", outcome="refused")


def failed(problem: ApiProblem) -> Ending:
    """The service could not go on; where a tenant's limit ends a stream, its final still comes."""
    if problem.code in LIMIT_CODES:
        return Ending(code=1008, reason=problem.message, outcome="refused")
    late = "NET-0000: " if problem.code == "deadline_exceeded" else ""
    return Ending(code=1011, reason=late + problem.message, outcome="failed")


def control_of(text: str) -> Control | None:
    """Which control message a text is; None for whatever is none."""
    if len(text) > _CONTROL_CHARACTERS:  # also keeps nesting below what the parser survives
        return None
    try:
        kind = json.loads(text).get("type")
    except (ValueError, AttributeError, RecursionError):
        return None
    return kind if kind in _CONTROLS else None


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """The messages of one stream."""

    facts: ModelFacts
    channels: int
    degradation: str = ""  # what was given up for this stream, comma-separated
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    created: str = field(
        default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds")
    )

    def of(self, event: Event) -> dict[str, Any]:
        """An event as its message."""
        channel = [event.channel, self.channels]
        if isinstance(event, SpeechStarted):
            return {"type": "SpeechStarted", "channel": channel, "timestamp": event.at_s}
        if isinstance(event, UtteranceEnd):
            return {
                "type": "UtteranceEnd", "channel": channel, "last_word_end": event.last_word_end_s
            }  # fmt: skip
        return self._results(event, channel)

    def metadata(self, transcript: Transcript, *, sha256: str) -> dict[str, Any]:
        """The last message of a stream."""
        return {
            "type": "Metadata",
            "transaction_key": "deprecated",
            "request_id": self.request_id,
            "sha256": sha256.removeprefix("sha256:"),
            "created": self.created,
            "duration": transcript.duration_s,
            "channels": self.channels,
            "models": [self.facts.bundle_digest],
            "model_info": {self.facts.bundle_digest: self._model_info()},
            "auricle": {
                "normalisation": transcript.normalisation.model_dump(),
                "warnings": list(transcript.warnings),
                **({"degradation": self.degradation} if self.degradation else {}),
            },
        }

    def not_configurable(self) -> dict[str, Any]:
        """The answer to ``Configure``: a running stream cannot be changed."""
        return {
            "type": "ConfigureFailure",
            "request_id": self.request_id,
            "code": "CONFIGURE_KEYTERMS_NOT_SUPPORTED",
            "description": "This service cannot change a running stream; open another.",
        }

    def _model_info(self) -> dict[str, str]:
        facts = self.facts
        return {"name": facts.name, "version": facts.version, "arch": facts.variant}

    def _results(self, event: StreamEvent, channel: list[int]) -> dict[str, Any]:
        words = [
            {
                "word": word.word,
                "start": word.start,
                "end": word.end,
                "confidence": word.confidence,
                "punctuated_word": word.word,
            }
            for word in event.words
        ]
        alternative = {"transcript": event.text, "confidence": event.confidence, "words": words}
        hidden = [span.model_dump() for span in event.redactions]
        ours = {
            **({"redactions": hidden} if hidden else {}),
            **({"degradation": self.degradation} if self.degradation else {}),
        }
        return {
            "type": "Results",
            "channel_index": channel,
            "start": round(event.start_s, 3),
            "duration": round(event.end_s - event.start_s, 3),
            "is_final": event.is_final,
            "speech_final": event.speech_final,
            "from_finalize": event.from_finalize,
            "channel": {"alternatives": [alternative]},
            "metadata": {
                "request_id": self.request_id,
                "model_info": self._model_info(),
                "model_uuid": self.facts.bundle_digest,
            },
            **({"auricle": ours} if ours else {}),
        }
