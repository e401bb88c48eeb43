"""The recogniser of Auricle's own models: recordings in, transcripts out.

Every recogniser answers `recognize` and `open_stream`. This one also shows its steps (`prepare`,
`next_pieces`, `decode`, `transcript`), so that the service can batch many requests' pieces between
them; `recognize` runs the same steps in a row.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from data.audio_errors import AudioError, UndecodableAudio
from data.blocks import Recording, open_recording
from features.decode import HotwordGraph, StreamingDecoder, hotword_graph, make_decoder
from features.doubt import LetterDoubt
from governance.canonical import bytes_digest, file_digest, stream_digest
from governance.errors import AuricleError
from serving import assemble
from serving.engine.engine import Engine
from serving.evidence import HeardWord, heard_segments, heard_words
from serving.file_options import NOTHING_SPECIAL, FileOptions
from serving.front.cutter import CutRule, Piece
from serving.front.front_end import StartState
from serving.front.lane import Lane, pieces_of
from serving.front.warm_start import WarmStart
from serving.prepared import Prepared, normalisation, timings_of
from serving.problems import AudioTooShort
from serving.schema import ModelFacts, Transcript
from serving.streaming.segment import SegmentStart
from serving.streaming.streams import (
    LiveStream,
    StreamEvent,
    StreamParts,
    StreamRequest,
    SyncStream,
)

Floats = NDArray[np.float32]
Content = bytes | Path | BinaryIO
_MOST_CHANNELS = 8  # as speakers of their own
_SHORTEST_S = 0.1
# Nats for each letter of an expected phrase. Given the words that it missed, barista's dev split lost
# 4 of 21 errors; given five words that were not said, it gained none (0.8: 7 lost, 2 gained).
HOTWORD_BOOST = 0.5
NO_LANGUAGE_MODEL, GREEDY_DECODING = "no_language_model", "greedy_decoding"
_SILENCE_PEAK = 1e-3  # -60 dBFS: nothing was recorded


@dataclass(frozen=True, kw_only=True)
class AudioRequest:
    """One recording to transcribe."""

    content: Content  # a binary file stays open until the transcript is there
    name: str = "audio"  # what messages call it
    speaker: str | None = None  # pseudonym, for a warm start
    options: FileOptions = NOTHING_SPECIAL
    degradation: tuple[str, ...] = ()  # rungs of `AuricleRecognizer.rungs` that are in force


@dataclass(frozen=True, kw_only=True)
class Recognition:
    """The answer to one request of a batch: a transcript, or what was wrong with the recording."""

    transcript: Transcript | None = None
    error: AuricleError | None = None


class Stream(Protocol):
    """A stream of audio being transcribed."""

    def accept(self, content: bytes) -> list[StreamEvent]:
        """Take more bytes."""

    def finalize(self) -> list[StreamEvent]:
        """End the stream."""


class Recognizer(Protocol):
    """What router, batching, rollout and metrics see of an engine."""

    def recognize(self, batch: Sequence[AudioRequest]) -> list[Recognition]:
        """One answer per request, in order; a bad recording never spoils its neighbours."""

    def open_stream(self, request: StreamRequest) -> Stream:
        """Begin a live stream."""


class AuricleRecognizer:
    """A bundle, its engine and its decoder."""

    def __init__(
        self,
        engine: Engine,
        warm_start: WarmStart,
        *,
        version: str = "",
        cut_rule: CutRule | None = None,
        max_duration_s: float = 4 * 3600.0,
    ) -> None:
        self.engine = engine
        bundle = engine.bundle
        self.config = bundle.config
        digest = bundle.bundle_digest
        self.facts = ModelFacts(
            name=self.config.name,
            version=version or digest.removeprefix("sha256:")[:12],
            variant=self.config.variant,
            bundle_digest=digest,
        )
        self._warm_start = warm_start
        self.table = bundle.token_table()
        self._language_model = bundle.language_model()
        self._lexicon = bundle.lexicon()
        self._cut_rule = cut_rule or CutRule()
        self._max_duration_s = max_duration_s

    def prepare(self, request: AudioRequest) -> Prepared:
        """Decode the audio and choose the prior; the features follow piece by piece."""
        began = time.perf_counter()
        audio = open_request(request, max_duration_s=self._max_duration_s)
        multichannel = request.options.multichannel
        if multichannel and audio.channels > _MOST_CHANNELS:
            raise UndecodableAudio(
                f"has {audio.channels} channels; at most {_MOST_CHANNELS} can be transcribed apart",
                item=request.name,
                mend="send fewer channels, or all of them mixed",
            )
        start = self._warm_start.begin(request.speaker, native_rate_hz=audio.rate_hz)
        hotwords, unusable = self.hotword_graph(request.options.hotwords)
        unusable += request.options.unusable_hotwords
        prepared = Prepared(
            duration_s=audio.duration_s,
            audio_digest=content_digest(request.content),
            normalisation=normalisation(start),
            warnings=[
                *(["truncated_audio"] if audio.truncated else []),
                *([f"unusable_hotwords:{unusable}"] if unusable else []),
            ],
            pieces=iter(())
            if audio.peak < _SILENCE_PEAK
            else self._pieces(audio, start, multichannel=multichannel),
            options=request.options,
            hotwords=hotwords,
            degradation=request.degradation,
        )
        prepared.book(features=time.perf_counter() - began)
        return prepared

    def close(self) -> None:
        """Let go of the graphs and the prior view."""
        self.engine.close()
        self._warm_start.close()

    def next_pieces(self, prepared: Prepared, most: int = 4) -> list[Piece]:
        """The next few pieces' features; none when the recording is through."""
        began = time.perf_counter()
        pieces = list(islice(prepared.pieces, most))
        prepared.book(features=time.perf_counter() - began)
        return pieces

    def fraction(self, prepared: Prepared, heard_frames: int) -> float:
        """How much of the recording these frames are, 0 to 1."""
        heard_s = heard_frames * self.config.feature_spec.hop_ms / 1000
        return min(1.0, heard_s / prepared.duration_s)

    def decode(self, prepared: Prepared, piece: Piece, logp_TV: Floats) -> list[HeardWord]:
        """Turn one piece's log-probabilities into words, which nothing changes later."""
        began = time.perf_counter()
        if not self._anybody_spoke(logp_TV):
            prepared.book(decoding=time.perf_counter() - began)
            return []
        decoder = self._new_decoder(prepared.hotwords, prepared.degradation)
        decoder.accept(logp_TV)
        heard = heard_words(
            decoder.finish(),
            logp_TV,
            self.table,
            offset_s=piece.start_frame * self.config.feature_spec.hop_ms / 1000,
            frame_s=self.config.frame_ms / 1000,
            channel=piece.channel,
            spelling=prepared.options.spelling,
        )
        prepared.heard += heard
        prepared.book(decoding=time.perf_counter() - began)
        return heard

    def _anybody_spoke(self, logp_TV: Floats) -> bool:
        """Whether a piece's letters are clear enough for this model's limit."""
        if self.config.doubt_limit is None:
            return True
        doubt = LetterDoubt(self.table)
        doubt.accept(logp_TV)
        return doubt.nats <= self.config.doubt_limit

    def transcript(
        self, prepared: Prepared, *, network_s: float = 0.0, total_s: float = 0.0
    ) -> Transcript:
        """The answer, once every piece is decoded."""
        segments = heard_segments(prepared.heard, pause_s=prepared.options.pause_s)
        words = tuple(word for segment in segments for word in segment.words)
        return Transcript(
            text=assemble.joined(words),
            language=self.config.language,
            duration_s=round(prepared.duration_s, 3),
            segments=segments,
            words=words,
            model=self.facts,
            audio_digest=prepared.audio_digest,
            timings_ms=timings_of(prepared.seconds, network_s=network_s, total_s=total_s),
            warnings=(*prepared.warnings, *(() if words else ("no_speech",))),
            normalisation=prepared.normalisation,
            degradation=",".join(prepared.degradation) or None,
        )

    def recognize(self, batch: Sequence[AudioRequest]) -> list[Recognition]:
        """One answer per request, in order; a bad recording never spoils its neighbours."""
        return [self._recognition(request) for request in batch]

    def open_live(
        self,
        request: StreamRequest,
        begins: Sequence[SegmentStart] | None = None,
        degradation: tuple[str, ...] = (),
    ) -> LiveStream:
        """A stream whose chunks the caller runs; its prior is fixed here.

        ``begins``: where a stream goes on that another process began.
        """
        hotwords, unusable = self.hotword_graph(request.hotwords)
        parts = StreamParts(
            facts=self.facts,
            language=self.config.language,
            engine=self.engine,
            start=self._warm_start.begin(request.speaker, native_rate_hz=request.rate_hz),
            new_decoder=lambda: self._new_decoder(hotwords, degradation),
            table=self.table,
            unusable_hotwords=unusable + request.unusable_hotwords,
            degradation=degradation,
            doubt_limit=self.config.doubt_limit,
        )
        return LiveStream(request, parts, begins)

    def open_stream(self, request: StreamRequest) -> SyncStream:
        """A stream that runs its own chunks."""
        return SyncStream(self.open_live(request))

    def hotword_graph(self, phrases: Sequence[str]) -> tuple[HotwordGraph | None, int]:
        """What decoding needs to expect phrases, and how many of them it can never spell."""
        closed = self._lexicon if self.config.decoder.needs_lexicon else None
        return hotword_graph(phrases, self.table, closed, boost=HOTWORD_BOOST)

    @property
    def rungs(self) -> tuple[str, ...]:
        """What can be given up for speed, the mildest first."""
        decoder = self.config.decoder
        if decoder.kind == "greedy":
            return ()
        return (NO_LANGUAGE_MODEL if decoder.needs_language_model else GREEDY_DECODING,)

    def _new_decoder(
        self, hotwords: HotwordGraph | None = None, degradation: tuple[str, ...] = ()
    ) -> StreamingDecoder:
        config = self.config.decoder
        if NO_LANGUAGE_MODEL in degradation or GREEDY_DECODING in degradation:
            config = replace(config, kind="greedy", alpha=0.0, beta=0.0, lexicon=False)
        return make_decoder(config, self.table, self._language_model, self._lexicon, hotwords)

    def _recognition(self, request: AudioRequest) -> Recognition:
        began = time.perf_counter()
        try:
            prepared = self.prepare(request)
            while pieces := self.next_pieces(prepared):
                for piece in pieces:
                    started = time.perf_counter()
                    (logp_TV,) = self.engine.offline([piece.x_TF])
                    prepared.book(model=time.perf_counter() - started)
                    self.decode(prepared, piece, logp_TV)
        except AudioError as error:
            return Recognition(error=error)
        return Recognition(
            transcript=self.transcript(prepared, total_s=time.perf_counter() - began)
        )

    def _pieces(
        self, recording: Recording, start: StartState, *, multichannel: bool
    ) -> Iterator[Piece]:
        """Features block by block; a long recording is never held whole."""
        channels = range(recording.channels) if multichannel else (None,)
        lanes = [
            Lane(self.config.feature_spec, start, self._cut_rule, channel=channel)
            for channel in channels
        ]
        yield from pieces_of(recording.blocks_16k(mixed=not multichannel), lanes)


def open_request(request: AudioRequest, *, max_duration_s: float) -> Recording:
    """The recording of a request, neither too long nor too short."""
    audio = open_recording(request.content, name=request.name, max_duration_s=max_duration_s)
    if audio.duration_s < _SHORTEST_S:
        raise AudioTooShort(
            f"lasts {audio.duration_s * 1000:.0f} ms, the shortest audio that can be "
            f"transcribed is {_SHORTEST_S * 1000:.0f} ms",
            item=request.name,
            mend="send a longer recording",
        )
    return audio


def content_digest(content: Content) -> str:
    """What identifies a recording: over its bytes, however they were handed in."""
    if isinstance(content, bytes):
        return bytes_digest(content)
    return file_digest(content) if isinstance(content, Path) else stream_digest(content)
