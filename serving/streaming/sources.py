"""Bytes of a live client to samples at the client's own rate, whatever the cut of the bytes."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
_FULL_SCALE = 32768.0


class Source(Protocol):
    """Decodes one stream. What comes out depends on the bytes alone, never on their cut."""

    @property
    def rate_hz(self) -> int:
        """Samples per second; fixed once a sample has come out."""

    @property
    def frame_bytes(self) -> int | None:
        """Bytes of one sample of all channels; None where bytes have no fixed length in time."""

    def feed(self, content: bytes) -> Floats:
        """Take bytes; give the samples [T, C] that they complete, full scale 1.0."""

    def finish(self) -> Floats:
        """The samples still held back at the end."""


class RawSource:
    """Samples one after another, as ``linear16``, ``mulaw`` or ``alaw``."""

    def __init__(self, encoding: str, *, rate_hz: int, channels: int) -> None:
        self.rate_hz = rate_hz
        self._table_N = None if encoding == "linear16" else _TABLES[encoding]
        self._channels = channels
        self.frame_bytes: int | None = (2 if self._table_N is None else 1) * channels
        self._waiting = b""

    def feed(self, content: bytes) -> Floats:
        """Whole samples of all channels; half a sample waits for its other half."""
        assert self.frame_bytes is not None
        content = self._waiting + content
        whole = len(content) // self.frame_bytes * self.frame_bytes
        self._waiting = content[whole:]
        if self._table_N is None:
            samples_N = np.frombuffer(content[:whole], "<i2").astype(np.float32)
            samples_N /= np.float32(_FULL_SCALE)
        else:
            samples_N = self._table_N[np.frombuffer(content[:whole], np.uint8)]
        return samples_N.reshape(-1, self._channels)

    def finish(self) -> Floats:
        """Nothing: half a sample at the very end is dropped."""
        self._waiting = b""
        return np.empty((0, self._channels), np.float32)


def _mulaw_N() -> Floats:
    """ITU-T G.711 mu-law: sign, three bits of exponent, four of mantissa, all inverted."""
    code_N = ~np.arange(256, dtype=np.uint8)
    exponent_N = (code_N >> 4 & 7).astype(np.int32)
    size_N = (((code_N & 15).astype(np.int32) << 3) + 132 << exponent_N) - 132
    return _signed(size_N, negative_N=code_N >= 128)


def _alaw_N() -> Floats:
    """ITU-T G.711 A-law: as mu-law, but every other bit is inverted and small sizes are linear."""
    code_N = np.arange(256, dtype=np.uint8) ^ np.uint8(0x55)
    exponent_N = (code_N >> 4 & 7).astype(np.int32)
    mantissa_N = ((code_N & 15).astype(np.int32) << 4) + 8
    size_N = np.where(
        exponent_N == 0, mantissa_N, mantissa_N + 256 << np.maximum(exponent_N - 1, 0)
    )
    return _signed(size_N, negative_N=code_N < 128)


def _signed(size_N: NDArray[np.int32], *, negative_N: NDArray[np.bool_]) -> Floats:
    return np.where(negative_N, -size_N, size_N).astype(np.float32) / np.float32(_FULL_SCALE)


_TABLES = {"mulaw": _mulaw_N(), "alaw": _alaw_N()}
RAW_ENCODINGS = ("linear16", *_TABLES)
