"""One live stream: bytes in any cut become fixed model chunks, chunks become text.

`LiveStream` holds no thread and no clock. ``hear`` takes bytes and ``absorb`` the model's answers;
both give the events so far and the chunks that the model must answer next. The service batches many
streams' chunks in between; `SyncStream` runs them at once for the command line.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data.audio_errors import UndecodableAudio
from serving.engine.batcher import Chunk
from serving.schema import Word
from serving.streaming.channel import ChannelStream
from serving.streaming.containers import ContainerSource
from serving.streaming.events import Event as Event
from serving.streaming.events import StreamEvent as StreamEvent
from serving.streaming.ogg import OggOpusSource
from serving.streaming.request import OGG_OPUS
from serving.streaming.request import StreamParts as StreamParts
from serving.streaming.request import StreamRequest as StreamRequest
from serving.streaming.segment import SegmentStart, first_start
from serving.streaming.sources import RawSource, Source

Floats = NDArray[np.float32]
Ending = Literal["finalize", "close"]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a stream has to say, and the chunks whose answers it waits for."""

    events: list[Event]
    chunks: list[Chunk]


class LiveStream:
    """State of one stream. One caller at a time."""

    def __init__(
        self,
        request: StreamRequest,
        parts: StreamParts,
        begins: Sequence[SegmentStart] | None = None,
    ) -> None:
        """``begins``: where a stream goes on that another process began, one per channel."""
        self.request = request
        self.parts = parts
        self.begins = tuple(begins or [first_start(parts.start)] * request.rows)
        self._source = source_of(request)
        self._audio_from = min(begin.base for begin in self.begins)
        self._samples = self._audio_from  # received, of each channel
        self._channels: list[ChannelStream] = []  # made when the rate is known
        self._asked: list[ChannelStream] = []  # whose chunks are at the model
        self._ending: Ending | None = None
        self._ended = False
        self._sha = hashlib.sha256()
        self.bytes_heard = self._audio_from * (self._source.frame_bytes or 0)
        self.feature_s = 0.0  # spent on samples and features, until the caller takes it
        self.rows = _rows(parts, request.rows)

    @property
    def frame_bytes(self) -> int | None:
        """Bytes of one sample of all channels; None where the audio has no such thing."""
        return self._source.frame_bytes

    @property
    def duration_s(self) -> float:
        """Seconds of audio received."""
        return self._samples / self._source.rate_hz

    @property
    def audio_digest(self) -> str:
        """Of the bytes received."""
        return "sha256:" + self._sha.hexdigest()

    @property
    def words(self) -> list[Word]:
        """Of final utterances, in order of time."""
        words = [word for channel in self._channels for word in channel.words]
        return sorted(words, key=lambda word: word.start) if len(self._channels) > 1 else words

    def hear(self, content: bytes) -> Progress:
        """Take bytes as the network cut them."""
        began = time.perf_counter()
        self._sha.update(content)
        self.bytes_heard += len(content)
        self._spread(self._source.feed(content))
        self.feature_s += time.perf_counter() - began
        return self._advance()

    def conclude(self, ending: Ending) -> Progress:
        """Make everything heard so far final: at the client's ``Finalize`` or at the end."""
        if ending == "close" and not self._ended:
            self._ended = True
            self._spread(self._source.finish())
        self._ending = ending
        return self._advance()

    def absorb(self, answers: Sequence[Floats]) -> Progress:
        """Take the model's answers to the chunks of the last progress."""
        events: list[Event] = []
        for channel, logp_TV in zip(self._asked, answers, strict=True):
            events += channel.absorb(logp_TV)
        progress = self._advance()
        return Progress(events=events + progress.events, chunks=progress.chunks)

    def release(self) -> None:
        """Give the rows of the slab back."""
        rows, self.rows = self.rows, []
        for row in rows:
            self.parts.engine.slab.release(row)

    def _spread(self, samples_TC: Floats) -> None:
        if not len(samples_TC):
            return
        self._samples += len(samples_TC)
        if not self._channels:
            self._channels = [self._channel(at) for at in range(len(self.rows))]
        if not self.request.multichannel:
            self._channels[0].hear(samples_TC.mean(axis=1, dtype=np.float32))
            return
        if samples_TC.shape[1] != len(self._channels):
            raise UndecodableAudio(
                f"the audio has {samples_TC.shape[1]} channels, the request {len(self._channels)}"
            )
        for at, channel in enumerate(self._channels):
            channel.hear(samples_TC[:, at])

    def _channel(self, at: int) -> ChannelStream:
        return ChannelStream(
            self.request, self.parts, self.begins[at], rate_hz=self._source.rate_hz,
            row=self.rows[at], channel=at, audio_from=self._audio_from,
        )  # fmt: skip

    def _advance(self) -> Progress:
        began = time.perf_counter()
        chunks = self._ask(ChannelStream.take)
        if not chunks and self._ending is not None:
            for channel in self._channels:
                channel.flush()
            chunks = self._ask(ChannelStream.take) or self._ask(ChannelStream.tail)
        self.feature_s += time.perf_counter() - began
        events = [event for channel in self._channels for event in channel.pop()]
        if not chunks and self._ending is not None:
            events += self._conclusion(self._ending)
            self._ending = None
        return Progress(events=events, chunks=chunks)

    def _ask(self, chunk_of: Callable[[ChannelStream], Chunk | None]) -> list[Chunk]:
        chunks = [(channel, chunk_of(channel)) for channel in self._channels]
        self._asked = [channel for channel, chunk in chunks if chunk is not None]
        return [chunk for _, chunk in chunks if chunk is not None]

    def _conclusion(self, ending: Ending) -> list[Event]:
        if not self._channels:  # nothing was heard yet
            self._channels = [self._channel(at) for at in range(len(self.rows))]
        return [
            event
            for channel in self._channels
            for event in channel.conclude(from_finalize=ending == "finalize")
        ]


def source_of(request: StreamRequest) -> Source:
    """The decoder of the stream's bytes."""
    if request.encoding is None:
        return ContainerSource()
    if request.encoding == OGG_OPUS:
        return OggOpusSource()
    return RawSource(request.encoding, rate_hz=request.rate_hz, channels=request.channels)


def _rows(parts: StreamParts, count: int) -> list[int]:
    """So many rows of the slab, or none."""
    slab, rows = parts.engine.slab, list[int]()
    try:
        for _ in range(count):
            rows.append(slab.acquire())
    except BaseException:
        for row in rows:
            slab.release(row)
        raise
    return rows


class SyncStream:
    """A stream that runs its own chunks, one by one: for the command line and for tests."""

    def __init__(self, live: LiveStream) -> None:
        self.live = live

    def accept(self, content: bytes) -> list[StreamEvent]:
        """Take bytes; give the results of the chunks that they complete."""
        return self._run(self.live.hear(content))

    def finalize(self) -> list[StreamEvent]:
        """End the stream: the last results, the final one at the end."""
        events = self._run(self.live.conclude("close"))
        self.live.release()
        return events

    def _run(self, progress: Progress) -> list[StreamEvent]:
        events = list(progress.events)
        while progress.chunks:
            progress = self.live.absorb(self.live.parts.engine.step(progress.chunks))
            events += progress.events
        return [event for event in events if isinstance(event, StreamEvent)]
