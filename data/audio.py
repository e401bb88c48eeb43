"""Any recording in, samples out: by content, bounded, and with a sentence for everything wrong.

Only numpy, soundfile, soxr and (lazily) av are imported: serving decodes through this module too.
"""

import io
import os
import stat
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from data.audio_errors import AudioError as AudioError
from data.audio_errors import AudioTooLarge as AudioTooLarge
from data.audio_errors import AudioTooLong as AudioTooLong
from data.audio_errors import EmptyAudio as EmptyAudio
from data.audio_errors import TruncatedAudio as TruncatedAudio
from data.audio_errors import UndecodableAudio as UndecodableAudio
from data.audio_errors import UnreadableAudio as UnreadableAudio
from data.containers import HEAD_BYTES, is_cut_off, sniff
from data.formats import Container
from data.readers import Collector, Found, Limits, read_ffmpeg, read_sndfile
from data.units import SAMPLE_RATE_HZ, samples_to_seconds

MAX_DURATION_S = 4 * 3600.0
MAX_BYTES = 2 << 30
MAX_DECODED_BYTES = 6 << 30
_FLAC_MAX_CHANNELS = 8
_PCM16_SCALE = 32768.0


@dataclass(frozen=True, kw_only=True)
class Audio:
    """A decoded recording at its native rate."""

    samples_TC: NDArray[np.float32]
    """Samples, full scale 1.0, shape [frames, channels]."""
    rate_hz: int
    """Samples per second and channel."""
    container: str
    """Container as found in the bytes, such as ``wav``."""
    codec: str
    """Codec as found in the bytes, such as ``pcm_16``."""
    truncated: bool = False
    """Whether the end, or damaged parts, are missing from what the container promises."""
    repaired_samples: int = 0
    """Samples that were NaN or infinite and became silence."""

    @property
    def duration_s(self) -> float:
        """Seconds that were really decoded."""
        return samples_to_seconds(len(self.samples_TC), self.rate_hz)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.samples_TC.shape[1])


def decode(
    source: Path | bytes,
    *,
    name: str,
    max_duration_s: float = MAX_DURATION_S,
    max_bytes: int = MAX_BYTES,
    max_decoded_bytes: int = MAX_DECODED_BYTES,
) -> Audio:
    """Decode a file or its bytes; ``name`` is what messages call it.

    The three limits hold while reading, whatever the header claims. A recording whose end is
    missing gives what is there, with ``truncated`` set.
    """
    limits = Limits(max_duration_s=max_duration_s, max_decoded_bytes=max_decoded_bytes)
    with opened(source, name) as stream:
        read = read_through(stream, name, limits, max_bytes=max_bytes)
    return Audio(
        samples_TC=read.collector.finish(),
        rate_hz=read.collector.rate_hz,
        container=read.found.container,
        codec=read.found.codec,
        truncated=read.truncated,
        repaired_samples=read.collector.repaired,
    )


def load_mono_16k(
    source: Path | bytes, *, name: str, max_duration_s: float = MAX_DURATION_S
) -> NDArray[np.float32]:
    """Decode to one channel at 16 kHz, float32 [T]."""
    return to_mono_16k(decode(source, name=name, max_duration_s=max_duration_s))


def to_mono_16k(audio: Audio) -> NDArray[np.float32]:
    """The mean of the channels at 16 kHz (soxr, high quality), float32 [T]."""
    if audio.channels == 1:
        mono_T = audio.samples_TC[:, 0]
    else:
        mono_T = audio.samples_TC.mean(axis=1, dtype=np.float32)
    if audio.rate_hz == SAMPLE_RATE_HZ:
        return np.ascontiguousarray(mono_T)
    resampled_T = soxr.resample(mono_T, audio.rate_hz, SAMPLE_RATE_HZ, quality="HQ")
    return np.ascontiguousarray(resampled_T, np.float32)


def to_pcm16(samples_TC: NDArray[np.float32]) -> NDArray[np.int16]:
    """Nearest 16-bit integers; what lies beyond full scale is clipped. Exact for 16-bit sources."""
    scaled_TC = np.rint(samples_TC * np.float32(_PCM16_SCALE))
    return np.clip(scaled_TC, -_PCM16_SCALE, _PCM16_SCALE - 1).astype(np.int16)


def encode_pcm16(samples_TC: NDArray[np.float32], rate_hz: int) -> bytes:
    """The stored form of a recording, without loss to 16 bits: FLAC, or WAV where FLAC has no room.

    FLAC holds eight channels; microphone arrays have more, and none of them is thrown away here.
    """
    if samples_TC.shape[1] <= _FLAC_MAX_CHANNELS:
        return encode_flac_pcm16(samples_TC, rate_hz)
    sink = io.BytesIO()
    soundfile.write(sink, to_pcm16(samples_TC), rate_hz, format="WAV", subtype="PCM_16")
    return sink.getvalue()


def encode_flac_pcm16(samples_TC: NDArray[np.float32], rate_hz: int) -> bytes:
    """FLAC of the 16-bit samples; equal samples give equal bytes (at one libFLAC version)."""
    if samples_TC.shape[1] > _FLAC_MAX_CHANNELS:
        raise UndecodableAudio(
            f"{samples_TC.shape[1]} channels do not fit into FLAC (at most {_FLAC_MAX_CHANNELS})",
            mend="pick or mix the channels that carry speech",
        )
    sink = io.BytesIO()
    soundfile.write(sink, to_pcm16(samples_TC), rate_hz, format="FLAC", subtype="PCM_16")
    return sink.getvalue()


class ReadThrough(NamedTuple):
    """A recording that was read to its end."""

    layout: Container
    collector: Collector
    found: Found
    truncated: bool


def opened(source: Path | bytes | BinaryIO, name: str) -> AbstractContextManager[BinaryIO]:
    """The bytes of a recording; a binary file that is handed in stays open."""
    if isinstance(source, bytes):
        return io.BytesIO(source)
    if not isinstance(source, Path):
        return nullcontext(source)
    try:
        mode = source.stat().st_mode
        # A pipe or device would block or never end.
        if stat.S_ISDIR(mode):
            raise UnreadableAudio("is a folder, not an audio file", item=name)
        if not stat.S_ISREG(mode):
            raise UnreadableAudio("is not a regular file", item=name)
        return source.open("rb")
    except FileNotFoundError as error:
        raise UnreadableAudio("does not exist", item=name) from error
    except OSError as error:
        raise UnreadableAudio(f"cannot be read ({error.strerror})", item=name) from error


def read_through(stream: BinaryIO, name: str, limits: Limits, *, max_bytes: int) -> ReadThrough:
    """Decode to the end within the limits; what is wrong with the recording is raised."""
    size = stream.seek(0, os.SEEK_END)
    if size > max_bytes:
        raise AudioTooLarge(f"has {size:,} bytes, more than the {max_bytes:,} allowed", item=name)
    stream.seek(0)
    head = stream.read(HEAD_BYTES)
    if not head:
        raise EmptyAudio("is empty", item=name)
    container = sniff(head, name=name, size=size)
    cut_off = is_cut_off(container, stream)
    collector, found = _read(stream, container, name, limits)
    if not collector.frames:
        if cut_off:
            raise TruncatedAudio("was cut off before its first sample", item=name)
        raise EmptyAudio("has a header but no samples", item=name)
    return ReadThrough(container, collector, found, cut_off or found.missing)


def _read(
    stream: BinaryIO, container: Container, name: str, limits: Limits
) -> tuple[Collector, Found]:
    """libsndfile where it knows the container; FFmpeg for the rest, and for what is damaged."""
    first = _read_sndfile(stream, container, name, limits) if container.sndfile else None
    if first is not None and first[0].frames and not first[1].missing:
        return first
    if first is not None and not container.demuxer:
        return first
    stream.seek(0)
    collector = Collector(name, limits)
    try:
        found = read_ffmpeg(stream, container, collector)
    except AudioError:
        if first is None or not first[0].frames:
            raise
        return first
    # FFmpeg finds its way again behind damage where libsndfile gives up.
    if first is not None and first[0].frames >= collector.frames:
        return first
    missing = found.missing or (first is not None and first[1].missing)
    return collector, found._replace(missing=missing)


def _read_sndfile(
    stream: BinaryIO, container: Container, name: str, limits: Limits
) -> tuple[Collector, Found] | None:
    """What libsndfile reads; None where it cannot open the file and FFmpeg may."""
    collector = Collector(name, limits)
    stream.seek(0)
    try:
        return collector, read_sndfile(stream, container, collector)
    except soundfile.LibsndfileError as error:
        if container.demuxer:
            return None
        raise UndecodableAudio(
            f"begins like {container.name} but cannot be decoded ({error.error_string})", item=name
        ) from error
