"""What a live stream tells its client."""

from dataclasses import dataclass

from serving.schema import Redaction, Word
from serving.streaming.segment import SegmentStart


@dataclass(frozen=True, kw_only=True)
class StreamEvent:
    """What is known of one utterance: partial until ``is_final``."""

    text: str
    words: tuple[Word, ...]
    confidence: float
    start_s: float
    end_s: float
    is_final: bool = False
    speech_final: bool = False  # the speaker paused
    from_finalize: bool = False  # the client asked
    channel: int = 0
    redactions: tuple[Redaction, ...] = ()  # where something was hidden, and of which kind
    resume: SegmentStart | None = None  # of a final: where decoding goes on, here or elsewhere


@dataclass(frozen=True, kw_only=True)
class SpeechStarted:
    """A voice is heard after a pause; no word of it need be known yet."""

    at_s: float
    channel: int = 0


@dataclass(frozen=True, kw_only=True)
class UtteranceEnd:
    """No further word followed the last final one for as long as the client asked."""

    last_word_end_s: float
    channel: int = 0


Event = StreamEvent | SpeechStarted | UtteranceEnd
