"""What a live stream is asked for and what it is made of."""

from collections.abc import Callable
from dataclasses import dataclass

from features.hypothesis import StreamingDecoder
from features.tokens import TokenTable
from serving.engine.engine import Engine
from serving.front.front_end import StartState
from serving.schema import ModelFacts

OGG_OPUS = "ogg-opus"


@dataclass(frozen=True, kw_only=True)
class StreamRequest:
    """What a client says when it opens a stream."""

    encoding: str | None = "linear16"  # None: a container that names its own
    rate_hz: int = 16_000
    channels: int = 1
    multichannel: bool = False  # every channel is a speaker of its own; otherwise they are mixed
    endpointing_ms: int | None = 800  # silence after words that ends an utterance; None: never
    utterance_end_ms: int | None = None  # without a word, then the client is told
    interim: bool = True  # whether partial events are wanted
    vad_events: bool = False  # whether the start of a voice is told
    speaker: str | None = None  # pseudonym, for a warm start
    hotwords: tuple[str, ...] = ()  # phrases to expect, in the model's alphabet
    unusable_hotwords: int = 0  # of the client's, left out before these

    @property
    def enterable(self) -> bool:
        """Whether the bytes can be taken up in the middle."""
        return self.encoding not in (None, OGG_OPUS)

    @property
    def rows(self) -> int:
        """Places of the model that the stream takes."""
        return self.channels if self.multichannel else 1


@dataclass(frozen=True, kw_only=True)
class StreamParts:
    """What a stream is made of; the recogniser puts it together."""

    facts: ModelFacts
    language: str
    engine: Engine
    start: StartState
    new_decoder: Callable[[], StreamingDecoder]
    table: TokenTable
    unusable_hotwords: int = 0  # of the request, told in a warning
    degradation: tuple[str, ...] = ()  # what is given up for this stream
    doubt_limit: float | None = None  # nats above which nobody spoke; None: all words are believed
