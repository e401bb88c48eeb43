"""One channel of a live stream: samples become chunks for the model, its answers become events.

Every final result ends a segment. The next one begins a little earlier, so that the encoder's
caches are warm when the first new frame comes, and takes over nothing but its `SegmentStart`.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from features.doubt import LetterDoubt
from features.endpoint import Endpoint, EndpointConfig, Endpointer
from features.hypothesis import Hypothesis
from serving import assemble
from serving.engine.batcher import Chunk
from serving.engine.engine import MIN_FRAMES
from serving.schema import Word
from serving.streaming.events import Event, SpeechStarted, StreamEvent, UtteranceEnd
from serving.streaming.request import StreamParts, StreamRequest
from serving.streaming.segment import Segment, SegmentStart

Floats = NDArray[np.float32]
_NEVER_MS = 10**9
_DIGITS = 6  # of seconds: a millionth is less than a sample


class ChannelStream:
    """State of one channel. One caller at a time; never two chunks at the model."""

    def __init__(
        self,
        request: StreamRequest,
        parts: StreamParts,
        begin: SegmentStart,
        *,
        rate_hz: int,
        row: int,
        channel: int,
        audio_from: int = 0,
    ) -> None:
        """``audio_from`` is the first sample that will be heard, never behind the segment's."""
        self._request, self._parts, self._row, self._channel = request, parts, row, channel
        self._rate_hz = rate_hz
        config = parts.engine.bundle.config
        self._step = config.subsampling
        self._frame_s = config.frame_ms / 1000
        self._settled = parts.engine.advance_frames // config.subsampling
        self._audio_T: Floats = np.empty(0, np.float32)
        self._audio_from = audio_from
        self._decoder = parts.new_decoder()
        self._doubt = LetterDoubt(parts.table)  # of the utterance, as the decoder hears it
        self._events: list[Event] = []
        self._armed = True  # the next voice is worth a SpeechStarted
        self._started_s = -1.0  # the last one told
        self._done = 0  # encoder frames of this segment that the model answered
        self._last_word_end_s = begin.last_word_end_s  # of finals, until an UtteranceEnd is told
        self.words: list[Word] = []  # of final utterances
        self._begin(begin)

    def hear(self, samples_T: Floats) -> None:
        """Take samples in any cut."""
        self._audio_T = np.concatenate([self._audio_T, samples_T])

    def take(self) -> Chunk | None:
        """The next full model chunk, if the audio reaches that far."""
        segment, size = self._segment, self._parts.engine.chunk_frames
        while (missing := size - len(segment.pending_TF)) > 0:
            at = segment.heard - self._audio_from
            blocks = min(
                (len(self._audio_T) - at) // segment.block, max(1, missing // segment.block_frames)
            )
            if blocks < 1:
                return None
            self._voices(segment.feed(self._audio_T[at : at + blocks * segment.block]))
        x_TF = segment.pending_TF[:size]
        segment.pending_TF = segment.pending_TF[self._parts.engine.advance_frames :]
        return Chunk(row=self._row, x_TF=x_TF, valid=size)

    def flush(self) -> None:
        """Let go of what resampler and front end hold back; ``take`` and ``tail`` must follow."""
        segment = self._segment
        if not segment.finished:
            self._voices(segment.finish(self._audio_T[segment.heard - self._audio_from :]))

    def tail(self) -> Chunk | None:
        """The last, partial chunk, once ``take`` has no more after a ``flush``."""
        segment, engine = self._segment, self._parts.engine
        valid = len(segment.pending_TF)
        if valid < MIN_FRAMES:  # less than one encoder frame is left
            return None
        x_TF = np.zeros((engine.chunk_frames, engine.mel_bins), np.float32)
        x_TF[:valid] = segment.pending_TF
        segment.pending_TF = segment.pending_TF[:0]
        return Chunk(row=self._row, x_TF=x_TF, valid=valid)

    def absorb(self, logp_TV: Floats) -> list[Event]:
        """Take the model's answer to a chunk; an utterance ends at its endpoint's very frame."""
        first, last = self._done, self._done + len(logp_TV)
        new = min(max(self._segment.begin.lead_frames - first, 0), len(logp_TV))
        voiced_T = self._segment.voiced(first + new, last, step=self._step)
        ends = self._endpointer.accept(logp_TV[new:], voiced_T)
        self._done = last
        if ends:
            self._done = self._segment.begin.lead_frames + ends[0].frame
            self._decode(logp_TV[new : self._done - first])
            self._end(ends[0])
        else:
            self._decode(logp_TV[new:])
            self._go_on(heard_more=new < len(logp_TV))
        return self.pop()

    def conclude(self, *, from_finalize: bool) -> list[Event]:
        """Make the open utterance final. What follows is a new sentence."""
        finished = self._decoder.finish()
        self._decoder = self._parts.new_decoder()
        self._armed = self._armed or self._segment.quiet
        self._final(finished, speech_final=True, from_finalize=from_finalize)
        return self.pop()

    def pop(self) -> list[Event]:
        """The events since the last call."""
        events, self._events = self._events, []
        return events

    def _begin(self, begin: SegmentStart) -> None:
        self._parts.engine.slab.reset(self._row)
        config = self._parts.engine.bundle.config
        self._segment: Segment = Segment(
            begin, config.feature_spec, self._parts.start, rate_hz=self._rate_hz
        )
        self._done = 0
        self._origin_s: float = begin.base / self._rate_hz
        self._utterance_s: float = self._time_s(begin.lead_frames)
        self._endpointer: Endpointer = Endpointer(
            _endpoint_config(self._request), self._parts.table, frame_ms=config.frame_ms
        )

    def _decode(self, logp_TV: Floats) -> None:
        self._decoder.accept(logp_TV)
        if self._parts.doubt_limit is not None:
            self._doubt.accept(logp_TV)

    def _end(self, end: Endpoint) -> None:
        paused = self._decoder.pause()
        said = end.rule in ("trailing-silence", "word-gap")
        self._final(paused, speech_final=said and self._request.endpointing_ms is not None)
        self._armed = self._armed or end.rule != "max-utterance"
        self._tell_utterance_end()

    def _go_on(self, *, heard_more: bool) -> None:
        begin = self._segment.begin
        self._segment.forget((self._done - self._settled) * self._step)
        spare = self._cut_at(max(0, self._done - self._settled)) - self._audio_from
        if spare > 0:
            self._audio_T, self._audio_from = self._audio_T[spare:], self._audio_from + spare
        if not heard_more or self._done <= begin.lead_frames or not self._request.interim:
            return
        event = self._event(self._words(self._decoder.best()))
        self._events.append(event)
        if not event.words:
            self._tell_utterance_end()

    def _final(
        self, hypothesis: Hypothesis, *, speech_final: bool, from_finalize: bool = False
    ) -> None:
        words = self._words(hypothesis)
        self._doubt.reset()
        if words:
            self._last_word_end_s = words[-1].end
        event = replace(
            self._event(words),
            is_final=True,
            speech_final=speech_final,
            from_finalize=from_finalize,
            resume=replace(self._cut(), last_word_end_s=self._last_word_end_s),
        )
        self.words.extend(words)
        self._events.append(event)
        assert event.resume is not None
        self._begin(event.resume)
        self._utterance_s = event.end_s

    def _cut(self) -> SegmentStart:
        """End the segment at the last decided frame; the next one hears a little of it again."""
        done = max(self._done, self._segment.begin.lead_frames)
        lead = min(self._settled, self._done)
        return self._segment.cut(
            (self._done - lead) * self._step,
            base=self._cut_at(self._done - lead),
            lead_frames=lead + done - self._done,
        )

    def _cut_at(self, frame: int) -> int:
        samples = round(frame * self._frame_s * self._rate_hz)
        return self._segment.begin.base + samples

    def _voices(self, onsets: tuple[int, ...]) -> None:
        for onset in onsets:
            at_s = self._time_s(onset / self._step)
            if self._armed and at_s > self._started_s:
                self._armed, self._started_s = False, at_s
                if self._request.vad_events:
                    self._events.append(
                        SpeechStarted(at_s=round(max(0.0, at_s), 3), channel=self._channel)
                    )

    def _tell_utterance_end(self) -> None:
        wait_ms, end_s = self._request.utterance_end_ms, self._last_word_end_s
        now_s = self._time_s(max(self._done, self._segment.begin.lead_frames))
        if wait_ms is not None and end_s is not None and now_s - end_s >= wait_ms / 1000:
            self._events.append(UtteranceEnd(last_word_end_s=end_s, channel=self._channel))
            self._last_word_end_s = None

    def _time_s(self, frame: float) -> float:
        return round(self._origin_s + frame * self._frame_s, _DIGITS)

    def _words(self, hypothesis: Hypothesis) -> tuple[Word, ...]:
        limit = self._parts.doubt_limit
        if limit is not None and self._doubt.nats > limit:
            return ()
        words = assemble.timed_words(hypothesis, offset_s=self._utterance_s, frame_s=self._frame_s)
        return tuple(words)

    def _event(self, words: tuple[Word, ...]) -> StreamEvent:
        return StreamEvent(
            text=assemble.joined(words),
            words=words,
            confidence=assemble.mean_confidence(words),
            start_s=self._utterance_s,
            end_s=max(self._time_s(self._done), self._utterance_s),
            channel=self._channel,
        )


def _endpoint_config(request: StreamRequest) -> EndpointConfig:
    silence_ms, gap_ms = request.endpointing_ms, request.utterance_end_ms
    longest_ms = EndpointConfig().word_gap_ms
    if silence_ms is None:
        return EndpointConfig(trailing_silence_ms=_NEVER_MS, word_gap_ms=gap_ms or _NEVER_MS)
    return EndpointConfig(
        trailing_silence_ms=max(1, silence_ms),
        word_gap_ms=gap_ms or max(longest_ms, silence_ms),
    )
