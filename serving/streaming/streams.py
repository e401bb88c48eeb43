"""One live stream: bytes in any cut become fixed model chunks, chunks become text.

`LiveStream` holds no thread and no clock: ``feed`` takes bytes, ``take`` gives the next chunk for
the model, ``absorb`` takes the model's answer and gives events. The service batches many streams'
chunks between ``take`` and ``absorb``; `SyncStream` runs them at once for the command line.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from features.endpoint import EndpointConfig, Endpointer
from features.hypothesis import Hypothesis, StreamingDecoder
from features.tokens import TokenTable
from serving import assemble
from serving.engine.batcher import Chunk
from serving.engine.engine import MIN_FRAMES, Engine
from serving.front.front_end import FrontEnd, StartState
from serving.schema import Word
from serving.streaming.pcm import PcmSource

Floats = NDArray[np.float32]
_NEVER_MS = 10**9


@dataclass(frozen=True, kw_only=True)
class StreamRequest:
    """What a client says when it opens a stream."""

    rate_hz: int = 16_000
    channels: int = 1
    endpointing_ms: int | None = 800  # silence after words that ends an utterance; None: never
    interim: bool = True  # whether partial events are wanted
    speaker: str | None = None  # pseudonym, for a warm start


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


@dataclass(frozen=True, kw_only=True)
class StreamParts:
    """What a stream is made of; the recogniser puts it together."""

    engine: Engine
    start: StartState
    new_decoder: Callable[[], StreamingDecoder]
    table: TokenTable


class LiveStream:
    """State of one stream. One caller at a time; never two chunks at the model."""

    def __init__(self, request: StreamRequest, parts: StreamParts) -> None:
        self.request = request
        self.parts = parts
        self.row = parts.engine.slab.acquire()
        config = parts.engine.bundle.config
        self._hop_s = config.feature_spec.hop_ms / 1000
        self._frame_s = config.frame_ms / 1000
        self._source = PcmSource(rate_hz=request.rate_hz, channels=request.channels)
        self._front_end = FrontEnd(config.feature_spec, parts.start)
        self._pending_TF: Floats = np.empty((0, parts.engine.mel_bins), np.float32)
        self._features_seen = 0  # frames the front end has given
        self._epoch_s = 0.0  # where the encoder's caches were last empty
        self._epoch_frames = 0  # encoder frames since then
        self._decoder = parts.new_decoder()
        self._endpointer = self._fresh_endpointer()
        self._utterance_s = 0.0
        self._ended = False
        self._sha = hashlib.sha256()
        self.words: list[Word] = []  # of final utterances

    @property
    def duration_s(self) -> float:
        """Seconds of audio received."""
        return self._source.duration_s

    @property
    def audio_digest(self) -> str:
        """Of the bytes received."""
        return "sha256:" + self._sha.hexdigest()

    def feed(self, content: bytes) -> None:
        """Take bytes as the network cut them."""
        self._sha.update(content)
        self._hear(self._source.feed(content))

    def take(self) -> Chunk | None:
        """The next full model chunk, if the audio reaches that far."""
        engine = self.parts.engine
        if len(self._pending_TF) < engine.chunk_frames:
            return None
        x_TF = self._pending_TF[: engine.chunk_frames]
        self._pending_TF = self._pending_TF[engine.advance_frames :]
        return Chunk(row=self.row, x_TF=x_TF, valid=engine.chunk_frames)

    def flush(self, *, last: bool) -> None:
        """Let go of what resampler and front end hold back; follow with ``take`` and ``tail``."""
        self._hear(self._source.finish() if last else self._source.drain())
        if last and not self._ended:
            self._ended = True
            self._append(self._front_end.finish())

    def tail(self) -> Chunk | None:
        """The last, partial chunk, once ``take`` has no more."""
        valid = len(self._pending_TF)
        if valid < MIN_FRAMES:  # less than one encoder frame is left
            return None
        x_TF = np.zeros((self.parts.engine.chunk_frames, self.parts.engine.mel_bins), np.float32)
        x_TF[:valid] = self._pending_TF
        self._pending_TF = self._pending_TF[:0]
        return Chunk(row=self.row, x_TF=x_TF, valid=valid)

    def absorb(self, logp_TV: Floats) -> list[StreamEvent]:
        """Take the model's answer to a chunk; an utterance ends at its endpoint's very frame."""
        events, done, before = [], 0, self._epoch_frames
        for endpoint in self._endpointer.accept(logp_TV):
            cut = endpoint.frame - before
            self._advance(logp_TV[done:cut])
            done = cut
            paused = self._decoder.pause()
            events.append(self._final(paused, speech_final=endpoint.rule == "trailing-silence"))
        self._advance(logp_TV[done:])
        if self.request.interim and done < len(logp_TV):
            events.append(self._event(self._words(self._decoder.best())))
        return events

    def conclude(self, *, from_finalize: bool) -> StreamEvent:
        """Make the open utterance final and forget the past: what follows decodes as if new.

        The caches restart empty, so the text after this point depends only on the audio after it.
        """
        finished = self._decoder.finish()
        self._decoder = self.parts.new_decoder()
        event = self._final(finished, speech_final=True, from_finalize=from_finalize)
        self._pending_TF = self._pending_TF[:0]
        self.parts.engine.slab.reset(self.row)
        self._epoch_s, self._epoch_frames = self._features_seen * self._hop_s, 0
        self._utterance_s = self._epoch_s
        self._endpointer = self._fresh_endpointer()
        return event

    def release(self) -> None:
        """Give the row of the slab back."""
        self.parts.engine.slab.release(self.row)

    @property
    def _now_s(self) -> float:
        return self._epoch_s + self._epoch_frames * self._frame_s

    def _fresh_endpointer(self) -> Endpointer:
        silence_ms = self.request.endpointing_ms
        config = EndpointConfig(
            trailing_silence_ms=_NEVER_MS if silence_ms is None else max(1, silence_ms)
        )
        frame_ms = self.parts.engine.bundle.config.frame_ms
        return Endpointer(config, self.parts.table, frame_ms=frame_ms)

    def _advance(self, logp_TV: Floats) -> None:
        self._decoder.accept(logp_TV)
        self._epoch_frames += len(logp_TV)

    def _hear(self, samples_T: Floats) -> None:
        if len(samples_T):
            self._append(self._front_end.accept(samples_T))

    def _append(self, x_TF: Floats) -> None:
        self._features_seen += len(x_TF)
        self._pending_TF = np.concatenate([self._pending_TF, x_TF])

    def _words(self, hypothesis: Hypothesis) -> tuple[Word, ...]:
        words = assemble.timed_words(hypothesis, offset_s=self._utterance_s, frame_s=self._frame_s)
        return tuple(words)

    def _event(self, words: tuple[Word, ...]) -> StreamEvent:
        return StreamEvent(
            text=assemble.joined(words),
            words=words,
            confidence=assemble.mean_confidence(words),
            start_s=self._utterance_s,
            end_s=max(self._now_s, self._utterance_s),
        )

    def _final(
        self, hypothesis: Hypothesis, *, speech_final: bool = False, from_finalize: bool = False
    ) -> StreamEvent:
        words = self._words(hypothesis)
        event = replace(
            self._event(words),
            is_final=True,
            speech_final=speech_final,
            from_finalize=from_finalize,
        )
        self.words.extend(words)
        self._utterance_s = self._now_s
        return event


class SyncStream:
    """A stream that runs its own chunks, one by one: for the command line and for tests."""

    def __init__(self, live: LiveStream) -> None:
        self.live = live

    def accept(self, content: bytes) -> list[StreamEvent]:
        """Take bytes; give the events of the chunks that they complete."""
        self.live.feed(content)
        return self._full_chunks()

    def finalize(self) -> list[StreamEvent]:
        """End the stream: the last events, the final one at the end."""
        self.live.flush(last=True)
        events = self._full_chunks()
        if (chunk := self.live.tail()) is not None:
            events += self._run(chunk)
        events.append(self.live.conclude(from_finalize=False))
        self.live.release()
        return events

    def _full_chunks(self) -> list[StreamEvent]:
        events: list[StreamEvent] = []
        while (chunk := self.live.take()) is not None:
            events += self._run(chunk)
        return events

    def _run(self, chunk: Chunk) -> list[StreamEvent]:
        (logp_TV,) = self.live.parts.engine.step([chunk])
        return self.live.absorb(logp_TV)
