"""Whisper's log-mel of a recording in blocks: an hour is never held as samples or spectrum.

The arithmetic is faster-whisper's, in single precision: frames of 25 ms every 10 ms, centred, the
ends reflected, 10 ms of silence appended, whose own frame is left out; clamped to 80 dB below the
recording's loudest bin. Only the order of the work differs, so the features are the same to the
rounding of a matrix product.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
FRAMES_PER_S = 100
_FLOOR = 1e-10
_RANGE = 8.0  # decades below the loudest bin


@dataclass(frozen=True, kw_only=True)
class MelShape:
    """How the model wants its features."""

    filters_MF: Floats  # [mel, fft bins]
    fft: int = 400
    hop: int = 160


def log_mel(blocks_T: Iterable[Floats], shape: MelShape) -> Floats:
    """Features [mel, frames] of samples at 16 kHz, cut anywhere."""
    window = np.hanning(shape.fft + 1)[:-1].astype(np.float32)
    parts = [
        np.log10(np.maximum(shape.filters_MF @ power_FT, _FLOOR))
        for power_FT in _powers(_padded(blocks_T, shape), window, shape)
    ]
    if not parts:
        return np.empty((len(shape.filters_MF), 0), np.float32)
    logs_MT: Floats = np.concatenate(parts, axis=1)[:, :-1]
    if not logs_MT.size:
        return logs_MT
    np.maximum(logs_MT, logs_MT.max() - _RANGE, out=logs_MT)
    return (logs_MT[:, :-1] + np.float32(4.0)) / np.float32(4.0)


def levels_T(features_MT: Floats) -> NDArray[np.float64]:
    """Mean natural-log mel of each frame, as `serving.front.cutter.is_steady` takes it."""
    means = features_MT.mean(axis=0, dtype=np.float64)
    return (means * 4.0 - 4.0) * float(np.log(10.0))


def _padded(blocks_T: Iterable[Floats], shape: MelShape) -> Iterator[Floats]:
    """The samples with half a frame reflected at both ends, after a hop of silence."""
    half = shape.fft // 2
    head = np.empty(0, np.float32)
    tail = np.empty(0, np.float32)
    began = False
    for block in blocks_T:
        if began:
            yield block
        else:
            head = np.concatenate([head, block])
            if began := len(head) > half:
                yield head[half:0:-1]
                yield head
        tail = np.concatenate([tail, block])[-half - 1 :]
    silence = np.zeros(shape.hop, np.float32)
    if not began:  # shorter than half a frame: numpy's reflection takes any length
        yield np.pad(np.concatenate([head, silence]), (half, half), mode="reflect")
        return
    end = np.concatenate([tail, silence])
    yield silence
    yield end[-2 : -half - 2 : -1]


def _powers(
    samples: Iterator[Floats], window: Floats, shape: MelShape
) -> Iterator[NDArray[np.float32]]:
    """Power spectra [fft bins, frames], block by block."""
    kept = np.empty(0, np.float32)
    for block in samples:
        kept = np.concatenate([kept, block])
        count = 1 + (len(kept) - shape.fft) // shape.hop
        if count <= 0:
            continue
        frames_TN = np.lib.stride_tricks.sliding_window_view(kept, shape.fft)[:: shape.hop][:count]
        yield np.abs(np.fft.rfft(frames_TN * window, axis=1).T) ** 2
        kept = kept[count * shape.hop :]
