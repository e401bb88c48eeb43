"""Log-mel filter bank: Kaldi's arithmetic at the speed of NumPy's FFT, whole file or stream.

Every number of a frame is computed from that frame's own samples by operations whose result does
not depend on what else is in the batch, so a stream gives the same bits as the whole file:

- sums for the DC offset run over aligned pieces of a frame (`_frame_mean_N1`);
- ``norm="forward"`` keeps NumPy's FFT in float32 (with the default its factor is a Python int,
  which sends float32 through the float64 loop at a fifth of the speed); 1 / fft_size is a power
  of two, hence exact, and is undone in the filter weights;
- the filters are applied frame by frame (vector times matrix): in a matrix product BLAS rounds
  the rows of one tile differently. A few bands skip most of the zeros, which makes it faster
  than the one full matrix product, and too small for BLAS to start threads.
"""

import math
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.framing import num_frames as num_frames  # part of this module's interface too
from features.framing import samples_needed
from features.spec import FeatureSpec
from governance.errors import AuricleError

Floats = NDArray[np.float32]

_BLOCK_FRAMES = 256  # frames per FFT call: large enough to hide Python, small enough for L2
_BANDS_AT = (0.0, 0.5, 0.8, 1.0)  # share of the filters: low ones are narrow, high ones wide


def log_mel(samples_T: NDArray[Any], spec: FeatureSpec) -> Floats:
    """Log-mel features [frames, mel_bins] of mono samples in [-1, 1] at the spec's rate."""
    return _log_mel(_as_samples(samples_T), _plan(spec))


class StreamingFbank:
    """The same features from audio that arrives in pieces of any size, each frame at once."""

    def __init__(self, spec: FeatureSpec) -> None:
        self.spec = spec
        self._plan = _plan(spec)
        self._pending_T: Floats = np.empty(0, np.float32)
        self._finished = False

    def accept(self, samples_T: NDArray[Any]) -> Floats:
        """Take more samples; give the frames [n, mel_bins] that they complete."""
        if self._finished:
            raise AuricleError("audio after finish()", item="feature stream", mend="open another")
        pending_T = np.concatenate([self._pending_T, _as_samples(samples_T)])
        features = _log_mel(pending_T, self._plan)
        self._pending_T = pending_T[len(features) * self.spec.hop_samples :].copy()
        return features

    def finish(self) -> Floats:
        """End the stream. With ``snip_edges`` no frame was held back: the result is empty."""
        self._finished = True
        return np.empty((0, self.spec.mel_bins), np.float32)


class _Band(NamedTuple):
    """Neighbouring filters with the only FFT bins that they weigh."""

    bins: slice
    filters: slice
    weights: Floats


class _Plan(NamedTuple):
    """What follows from the spec alone."""

    spec: FeatureSpec
    window_K: Floats  # zeros to the right of the frame
    bands: tuple[_Band, ...]


def _as_samples(samples_T: NDArray[Any]) -> Floats:
    array = np.asarray(samples_T)
    if array.ndim != 1 or array.dtype.kind != "f":
        raise AuricleError(
            f"expected one channel of float samples, got shape {array.shape} of {array.dtype}",
            item="log-mel",
            mend="use data.audio.to_mono_16k first",
        )
    return array.astype(np.float32, copy=False)


@lru_cache(maxsize=8)
def _plan(spec: FeatureSpec) -> _Plan:
    size = spec.window_samples
    window_K = np.zeros(spec.fft_size)
    window_K[:size] = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / (size - 1))) ** 0.85
    # The FFT is scaled by 1/size, the power by its square: undo it here, exactly.
    weights = mel_weights(spec) * float(spec.fft_size) ** 2
    bands = []
    cuts = sorted({round(share * spec.mel_bins) for share in _BANDS_AT})
    for first, last in pairwise(cuts):
        filters = slice(first, last)
        used = np.flatnonzero(weights[:, filters].any(axis=1))
        bins = slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 1)
        band_weights = np.ascontiguousarray(weights[bins, filters], dtype=np.float32)
        bands.append(_Band(bins, filters, band_weights))
    return _Plan(spec, window_K.astype(np.float32), tuple(bands))


def mel_weights(spec: FeatureSpec) -> NDArray[np.float64]:
    """Triangles [fft_size / 2 + 1, mel_bins], equally spaced and linear on the mel scale."""

    def mel(hertz: Any) -> NDArray[np.float64]:
        return 1127.0 * np.log1p(np.asarray(hertz, np.float64) / 700.0)

    edges = np.linspace(float(mel(spec.low_hz)), float(mel(spec.high_hz)), spec.mel_bins + 2)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    hertz = np.arange(spec.fft_size // 2 + 1) * (spec.sample_rate_hz / spec.fft_size)
    bins = mel(hertz)[:, None]
    weights = np.minimum((bins - left) / (centre - left), (right - bins) / (right - centre))
    weights[-1] = 0  # Kaldi leaves the Nyquist bin out
    return np.maximum(weights, 0.0)


def _log_mel(samples_T: Floats, plan: _Plan) -> Floats:
    spec = plan.spec
    frames = num_frames(len(samples_T), spec)
    mel_NM = np.empty((frames, spec.mel_bins), np.float32)
    scratch = _Scratch(spec, min(frames, _BLOCK_FRAMES))
    for first in range(0, frames, _BLOCK_FRAMES):
        block_NM = mel_NM[first : first + _BLOCK_FRAMES]
        start = first * spec.hop_samples
        _log_mel_block(
            samples_T[start : start + samples_needed(len(block_NM), spec)], plan, scratch, block_NM
        )
    return mel_NM


class _Scratch:
    """Memory for one block of frames, reused so that it stays in the cache."""

    def __init__(self, spec: FeatureSpec, rows: int) -> None:
        bins = spec.fft_size // 2 + 1
        self.padded_NK = np.empty((rows, spec.fft_size), np.float32)
        self.spectrum_NB = np.empty((rows, bins), np.complex64)
        self.squares_NB2 = np.empty((rows, 2 * bins), np.float32)
        self.power_NB = np.empty((rows, bins), np.float32)


def _log_mel_block(samples_T: Floats, plan: _Plan, scratch: _Scratch, out_NM: Floats) -> None:
    spec, count = plan.spec, len(out_NM)
    scaled_T = samples_T * np.float32(spec.sample_scale)
    preemphasis = np.float32(spec.preemphasis)
    # Of a constant offset, exactly this share is left after pre-emphasis by the float32 factor.
    dc_N1 = _frame_mean_N1(scaled_T, spec) * (np.float32(1) - preemphasis)
    # A frame's first sample is multiplied by the window's zero: what precedes it never matters.
    delayed_T = preemphasis * scaled_T[:-1]
    emphasised_T = scaled_T
    emphasised_T[1:] -= delayed_T
    step = emphasised_T.itemsize
    frames_NW: Floats = np.ndarray(  # overlapping views, without the helper's 20 microseconds
        (count, spec.window_samples),
        np.float32,
        buffer=emphasised_T,
        strides=(spec.hop_samples * step, step),
    )
    padded_NK = scratch.padded_NK[:count]
    padded_NK[:, : spec.window_samples] = frames_NW
    padded_NK[:, spec.window_samples :] = 0
    padded_NK -= dc_N1  # over full rows: contiguous memory is twice as fast as part of each row
    padded_NK *= plan.window_K
    spectrum_NB: Any = scratch.spectrum_NB[:count]  # NumPy's stubs know no complex64 `out`
    np.fft.rfft(padded_NK, norm="forward", out=spectrum_NB)
    parts_NB2 = spectrum_NB.view(np.float32)
    squares_NB2 = np.multiply(parts_NB2, parts_NB2, out=scratch.squares_NB2[:count])
    power_NB = scratch.power_NB[:count]
    np.add(squares_NB2[:, ::2], squares_NB2[:, 1::2], out=power_NB)
    for band in plan.bands:
        power_N1B = power_NB[:, None, band.bins]
        np.matmul(power_N1B, band.weights, out=out_NM[:, None, band.filters])
    np.maximum(out_NM, np.float32(spec.log_floor), out=out_NM)
    np.log(out_NM, out=out_NM)


def _frame_mean_N1(scaled_T: Floats, spec: FeatureSpec) -> Floats:
    """Mean of every frame, from the sums of pieces that frames share (80 samples by default)."""
    piece = math.gcd(spec.window_samples, spec.hop_samples)
    step, per_frame = spec.hop_samples // piece, spec.window_samples // piece
    sums = scaled_T.reshape(-1, piece).sum(axis=1)
    count = (len(sums) - per_frame) // step + 1
    total = np.zeros(count, np.float32)
    for offset in range(per_frame):
        total += sums[offset : offset + (count - 1) * step + 1 : step]
    return (total / np.float32(spec.window_samples))[:, None]
