"""A recording of any length as blocks: the samples of `data.audio.decode`, with bounded memory.

A recording is read through once before its first block is given: what is wrong is found then, with
the errors of `decode`, and its length, peak and the reader that gets most out of it are known. A
short one stays in memory; a longer one is let go and read a second time, block by block.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soxr
from numpy.typing import NDArray

from data.audio import MAX_BYTES, MAX_DECODED_BYTES, MAX_DURATION_S, opened, read_through
from data.formats import Container
from data.readers import Limits, ffmpeg_blocks, sndfile_blocks
from data.units import SAMPLE_RATE_HZ, samples_to_seconds

Floats = NDArray[np.float32]
_KEPT_BYTES = 64 << 20  # 17 minutes of one channel at 16 kHz
_BLOCK_S = 10


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What was found in a recording, and the way to its samples."""

    rate_hz: int
    channels: int
    frames: int
    """Samples of each channel that were really decoded."""
    container: str
    codec: str
    truncated: bool
    """Whether the end, or damaged parts, are missing from what the container promises."""
    repaired_samples: int
    """Samples that were NaN or infinite and become silence."""
    peak: float
    """Largest magnitude of a sample, full scale 1.0."""
    _source: "Path | bytes | BinaryIO"
    _name: str
    _layout: Container
    _by: str
    _kept_TC: Floats | None

    @property
    def duration_s(self) -> float:
        """Seconds that were really decoded."""
        return samples_to_seconds(self.frames, self.rate_hz)

    def blocks(self) -> Iterator[Floats]:
        """The samples, full scale 1.0, in blocks of shape [frames, channels]."""
        if self._kept_TC is not None:
            step = _BLOCK_S * self.rate_hz
            yield from (self._kept_TC[at : at + step] for at in range(0, self.frames, step))
            return
        left = self.frames
        with opened(self._source, self._name) as stream:
            stream.seek(0)
            read = sndfile_blocks if self._by == "sndfile" else ffmpeg_blocks
            for block_TC in _gathered(read(stream, self._layout), _BLOCK_S * self.rate_hz):
                if self.repaired_samples:
                    block_TC = np.where(np.isfinite(block_TC), block_TC, np.float32(0))
                yield block_TC[:left]
                left -= len(block_TC)
                if left <= 0:
                    return

    def blocks_16k(self, *, mixed: bool = True) -> Iterator[Floats]:
        """Blocks at 16 kHz, [frames, 1] where channels are mixed, otherwise [frames, channels].

        Joined they are, to the bit, what `data.audio.to_mono_16k` makes of the whole.
        """
        width = 1 if mixed else self.channels
        if self.rate_hz == SAMPLE_RATE_HZ:
            yield from (_mixed(block_TC) if mixed else block_TC for block_TC in self.blocks())
            return
        streams = [
            soxr.ResampleStream(self.rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality="HQ")
            for _ in range(width)
        ]
        left = self.frames
        for block_TC in self.blocks():
            left -= len(block_TC)
            at_rate_TC = _mixed(block_TC) if mixed else block_TC
            yield np.stack(
                [
                    stream.resample_chunk(np.ascontiguousarray(at_rate_TC[:, at]), last=left <= 0)
                    for at, stream in enumerate(streams)
                ],
                axis=1,
            )


def open_recording(
    source: Path | bytes | BinaryIO,
    *,
    name: str,
    max_duration_s: float = MAX_DURATION_S,
    max_bytes: int = MAX_BYTES,
    max_decoded_bytes: int = MAX_DECODED_BYTES,
    kept_bytes: int = _KEPT_BYTES,
) -> Recording:
    """Read a recording through, within the limits of `decode` and with its errors.

    A binary file that is handed in must stay open while blocks are read; its place is moved.
    """
    limits = Limits(
        max_duration_s=max_duration_s,
        max_decoded_bytes=max_decoded_bytes,
        kept_bytes=kept_bytes,
    )
    with opened(source, name) as stream:
        read = read_through(stream, name, limits, max_bytes=max_bytes)
    collector = read.collector
    samples_TC = collector.finish()
    return Recording(
        rate_hz=collector.rate_hz,
        channels=collector.channels,
        frames=collector.frames,
        container=read.found.container,
        codec=read.found.codec,
        truncated=read.truncated,
        repaired_samples=collector.repaired,
        peak=collector.peak,
        _source=source,
        _name=name,
        _layout=read.layout,
        _by=collector.by,
        _kept_TC=None if collector.let_go else samples_TC,
    )


def _mixed(block_TC: Floats) -> Floats:
    """The mean of the channels, as one."""
    if block_TC.shape[1] == 1:
        return block_TC
    return block_TC.mean(axis=1, dtype=np.float32, keepdims=True)


def _gathered(blocks: Iterator[Floats], least_frames: int) -> Iterator[Floats]:
    """Small blocks joined until they are worth a step."""
    parts: list[Floats] = []
    held = 0
    for block_TC in blocks:
        parts.append(block_TC)
        held += len(block_TC)
        if held >= least_frames:
            yield np.concatenate(parts)
            parts, held = [], 0
    if held:
        yield np.concatenate(parts)
