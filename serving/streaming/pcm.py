"""Bytes of a live client to 16 kHz mono samples, whatever the cut of the bytes.

Input is re-blocked into 20 ms blocks before the resampler, so the samples that come out are the
same bits for every chunking of the same bytes.
"""

import numpy as np
import soxr
from numpy.typing import NDArray

from data.units import SAMPLE_RATE_HZ

_BLOCK_MS = 20
_BYTES_PER_SAMPLE = 2  # linear16
_FULL_SCALE = 32768.0


class PcmSource:
    """Little-endian 16-bit PCM of any rate and channel count, heard as 16 kHz mono float32."""

    def __init__(self, *, rate_hz: int, channels: int) -> None:
        self.rate_hz = rate_hz
        self.channels = channels
        self.frames_in = 0
        self._frame_bytes = _BYTES_PER_SAMPLE * channels
        self._block_bytes = max(1, rate_hz * _BLOCK_MS // 1000) * self._frame_bytes
        self._waiting = bytearray()
        self._resampler = (
            None
            if rate_hz == SAMPLE_RATE_HZ
            else soxr.ResampleStream(rate_hz, SAMPLE_RATE_HZ, 1, dtype="float32", quality="HQ")
        )

    @property
    def duration_s(self) -> float:
        """Seconds of whole frames received."""
        return self.frames_in / self.rate_hz

    def feed(self, content: bytes) -> NDArray[np.float32]:
        """Take bytes in any cut; give the samples that are ready."""
        before = len(self._waiting) // self._frame_bytes
        self._waiting += content
        self.frames_in += len(self._waiting) // self._frame_bytes - before
        whole = len(self._waiting) // self._block_bytes * self._block_bytes
        if not whole:
            return np.empty(0, np.float32)
        ready = bytes(self._waiting[:whole])
        del self._waiting[:whole]
        if self._resampler is None:
            return self._mono(ready)
        size = self._block_bytes
        blocks = (ready[at : at + size] for at in range(0, whole, size))
        return np.concatenate([self._resampled(block, last=False) for block in blocks])

    def finish(self) -> NDArray[np.float32]:
        """The samples still held back; half a frame at the very end is dropped."""
        whole = len(self._waiting) // self._frame_bytes * self._frame_bytes
        ready = bytes(self._waiting[:whole])
        self._waiting.clear()
        return self._mono(ready) if self._resampler is None else self._resampled(ready, last=True)

    def drain(self) -> NDArray[np.float32]:
        """Whole frames held back, without ending the stream: for a client's ``Finalize``."""
        whole = len(self._waiting) // self._frame_bytes * self._frame_bytes
        ready = bytes(self._waiting[:whole])
        del self._waiting[:whole]
        return self._mono(ready) if self._resampler is None else self._resampled(ready, last=False)

    def _mono(self, block: bytes) -> NDArray[np.float32]:
        samples_TC = np.frombuffer(block, "<i2").reshape(-1, self.channels)
        mono_T = samples_TC.astype(np.float32).mean(axis=1, dtype=np.float32) / _FULL_SCALE
        return np.asarray(mono_T, np.float32)

    def _resampled(self, block: bytes, *, last: bool) -> NDArray[np.float32]:
        assert self._resampler is not None
        out_T = self._resampler.resample_chunk(self._mono(block), last=last)
        return np.asarray(out_T, np.float32)
