"""Two decoders, libsndfile and FFmpeg, that pour blocks into one bounded collector."""

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import soundfile
from numpy.typing import NDArray

from data.audio_errors import (
    AudioError,
    AudioTooLarge,
    AudioTooLong,
    EmptyAudio,
    TruncatedAudio,
    UndecodableAudio,
)
from data.containers import unknown
from data.formats import PROBED, Container

_BLOCK_FRAMES = 1 << 16
_MIN_RATE_HZ, _MAX_RATE_HZ = 4_000, 384_000
_MAX_CHANNELS = 64
_MAX_REPAIRED_RATIO = 0.01
# Float samples may pass full scale a little; 32,767 where 1.0 is meant is a broken converter.
_MAX_MAGNITUDE = 16.0
_CUT_TOLERANCE_S = 0.1


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one recording may cost."""

    max_duration_s: float
    """Longest recording, in decoded seconds."""
    max_decoded_bytes: int
    """Most memory that the decoded samples may take."""
    kept_bytes: int | None = None
    """Where they take more than this they are counted and let go; None: all are kept."""


class Found(NamedTuple):
    """What a decoder found out besides the samples."""

    container: str
    """Name of the container."""
    codec: str
    """Name of the codec."""
    missing: bool
    """Whether parts are missing or damaged."""


class Collector:
    """Grows one array block by block, so that memory follows the samples and never a header."""

    def __init__(self, name: str, limits: Limits) -> None:
        self.name = name
        self.limits = limits
        self.rate_hz = 0
        self.frames = 0
        self.repaired = 0
        self.channels = 1
        self.peak = 0.0
        self.by = ""  # the reader: sndfile or ffmpeg
        self.let_go = False
        self._samples_TC = np.zeros((0, 1), np.float32)

    def open(self, rate_hz: int, channels: int) -> None:
        """State the format; called once, before the first block."""
        if not _MIN_RATE_HZ <= rate_hz <= _MAX_RATE_HZ:
            raise UndecodableAudio(
                f"claims {rate_hz:,} samples a second; {_MIN_RATE_HZ:,} to {_MAX_RATE_HZ:,} are "
                "understood",
                item=self.name,
            )
        if not 1 <= channels <= _MAX_CHANNELS:
            raise UndecodableAudio(
                f"claims {channels} channels; at most {_MAX_CHANNELS} are understood",
                item=self.name,
            )
        self.rate_hz, self.channels = rate_hz, channels
        self._samples_TC = np.zeros((0, channels), np.float32)

    def add(self, block_TC: NDArray[np.float32]) -> None:
        """Append one block, within the limits; samples that are no numbers become silence."""
        block_TC = self._repair(block_TC)
        end = self.frames + len(block_TC)
        if end > self.limits.max_duration_s * self.rate_hz:
            raise AudioTooLong(
                f"lasts longer than the {self.limits.max_duration_s:,.0f} s allowed",
                item=self.name,
                mend="cut it into parts or raise the limit",
            )
        size = end * self.channels * 4
        if size > self.limits.max_decoded_bytes:
            raise AudioTooLarge(
                f"unpacks to more than the {self.limits.max_decoded_bytes:,} bytes allowed",
                item=self.name,
                mend="cut it into parts or lower its rate or channel count",
            )
        begin, self.frames = self.frames, end
        kept_bytes = self.limits.kept_bytes
        if self.let_go or (kept_bytes is not None and size > kept_bytes):
            self.let_go, self._samples_TC = True, np.zeros((0, self.channels), np.float32)
            return
        if end > len(self._samples_TC):
            room = max(end, len(self._samples_TC) * 3 // 2)
            self._samples_TC.resize((room, self.channels), refcheck=False)
        self._samples_TC[begin:end] = block_TC

    def finish(self) -> NDArray[np.float32]:
        """The samples, shape [frames, channels]; none where they were let go."""
        if self.repaired > _MAX_REPAIRED_RATIO * max(1, self.frames * self.channels):
            raise UndecodableAudio(
                f"{self.repaired:,} of its samples are not numbers (NaN or infinite)",
                item=self.name,
                mend="write it again from its source",
            )
        if not self.let_go:
            self._samples_TC.resize((self.frames, self.channels), refcheck=False)
        return self._samples_TC

    def _repair(self, block_TC: NDArray[np.float32]) -> NDArray[np.float32]:
        if not len(block_TC):
            return block_TC
        largest = float(np.abs(block_TC).max())
        if not math.isfinite(largest):
            bad = ~np.isfinite(block_TC)
            self.repaired += int(bad.sum())
            block_TC = np.where(bad, np.float32(0), block_TC)
            largest = float(np.abs(block_TC).max())
        if largest > _MAX_MAGNITUDE:
            raise UndecodableAudio(
                f"has samples of {largest:.3g} where 1.0 is full scale",
                item=self.name,
                mend="integer samples were probably stored as floats: divide by 32768",
            )
        self.peak = max(self.peak, largest)
        return block_TC


def read_sndfile(stream: BinaryIO, container: Container, collector: Collector) -> Found:
    """Decode through libsndfile."""
    collector.by = "sndfile"
    with soundfile.SoundFile(_Nameless(stream)) as file:
        codec = file.subtype.lower()
        collector.open(file.samplerate, file.channels)
        try:
            for block_TC in _file_blocks(file):
                collector.add(block_TC)
        except soundfile.LibsndfileError:
            return Found(container.name, codec, True)
        missing = file.format == "FLAC" and collector.frames < file.frames
        return Found(container.name, codec, missing)


def sndfile_blocks(stream: BinaryIO, container: Container) -> Iterator[NDArray[np.float32]]:
    """The blocks that `read_sndfile` collected, once more."""
    with soundfile.SoundFile(_Nameless(stream)) as file, suppress(soundfile.LibsndfileError):
        yield from _file_blocks(file)


def _file_blocks(file: soundfile.SoundFile) -> Iterator[NDArray[np.float32]]:
    while len(block_TC := file.read(_BLOCK_FRAMES, dtype="float32", always_2d=True)):
        yield block_TC


class _Nameless:
    """A stream without its name, from which libsndfile's binding would guess "raw" and the like."""

    def __init__(self, stream: BinaryIO) -> None:
        self.read, self.seek, self.tell = stream.read, stream.seek, stream.tell
        self.readinto = stream.readinto  # type: ignore[attr-defined]


def read_ffmpeg(stream: BinaryIO, container: Container, collector: Collector) -> Found:
    """Decode the first audio track through FFmpeg."""
    import av  # slow to load, and most corpora never need it

    av.logging.set_level(av.logging.PANIC)
    collector.by = "ffmpeg"
    try:
        with _opened(stream, container) as media:
            if not media.streams.audio:
                raise UndecodableAudio("has no audio track", item=collector.name)
            track = media.streams.audio[0]
            damaged = _collect_frames(_frames(media, track), collector)
            name = container.name or str(media.format.name).split(",")[0]
            codec = str(track.codec_context.codec.canonical_name)
            stated_s = _stated_seconds(media, track) if container.exact_duration else 0.0
    except av.error.FFmpegError as error:
        raise _undecodable(container, collector, str(error.strerror)) from error
    if damaged and not collector.frames:
        raise TruncatedAudio("was damaged or cut off before its first sample", item=collector.name)
    if not collector.frames:
        raise EmptyAudio("has a header but no samples", item=collector.name)
    short_s = stated_s - collector.frames / collector.rate_hz
    return Found(name, codec, damaged or short_s > max(_CUT_TOLERANCE_S, 0.01 * stated_s))


def ffmpeg_blocks(stream: BinaryIO, container: Container) -> Iterator[NDArray[np.float32]]:
    """The blocks that `read_ffmpeg` collected, once more."""
    with _opened(stream, container) as media:
        for frame in _frames(media, media.streams.audio[0]):
            if frame is not None:
                yield _frame_samples(frame)


def _opened(stream: BinaryIO, container: Container) -> Any:
    """FFmpeg's view of the stream: one demuxer, or one of a list, and no other file or address."""
    import av

    options = {"protocol_whitelist": "none"}
    if container.probed:
        options["format_whitelist"] = ",".join(PROBED)
    return av.open(
        stream, "r", format=container.demuxer or None, options=options, metadata_errors="ignore"
    )


def _undecodable(container: Container, collector: Collector, reason: str) -> AudioError:
    if container.probed and not collector.frames:
        return unknown(collector.name)
    if container.name == "mp4":
        return TruncatedAudio(
            f"its index cannot be read ({reason}); MP4 files that were cut off lose it",
            item=collector.name,
            mend="fetch the file again",
        )
    return UndecodableAudio(
        f"begins like {container.name} but cannot be decoded ({reason})", item=collector.name
    )


def _frames(media: Any, track: Any) -> Iterator[Any]:
    """Decoded frames; None stands for a packet that could not be decoded."""
    import av

    packets = media.demux(track)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            yield from packet.decode()
        except av.error.EOFError:
            return
        except av.error.InvalidDataError:
            yield None


def _collect_frames(frames: Iterator[Any], collector: Collector) -> bool:
    damaged, channels = False, 0
    for frame in frames:
        if frame is None:
            damaged = True
            continue
        block_TC = _frame_samples(frame)
        if not collector.rate_hz:
            channels = block_TC.shape[1]
            collector.open(frame.sample_rate, channels)
        if (frame.sample_rate, block_TC.shape[1]) != (collector.rate_hz, channels):
            raise UndecodableAudio(
                "changes its sample rate or channel count on the way", item=collector.name
            )
        collector.add(block_TC)
    return damaged


def _frame_samples(frame: Any) -> NDArray[np.float32]:
    """One frame as float32 [frames, channels], full scale 1.0."""
    samples = frame.to_ndarray()
    channels = int(frame.layout.nb_channels)
    block_TC = samples.T if frame.format.is_planar else samples.reshape(-1, channels)
    if block_TC.dtype.kind == "f":
        return np.ascontiguousarray(block_TC, np.float32)
    centre = 128.0 if block_TC.dtype == np.uint8 else 0.0
    scale = 2.0 ** (8 * block_TC.dtype.itemsize - 1)
    return np.ascontiguousarray((block_TC - centre) / scale, np.float32)


def _stated_seconds(media: Any, track: Any) -> float:
    if track.duration is not None and track.time_base is not None:
        return float(track.duration * track.time_base)
    return media.duration / 1e6 if media.duration else 0.0
