"""What a recording sounds like in eight numbers, from the samples alone.

Everything but level, peak, clipping and offset is relative to the recording's own loudest part, so
that playing it louder changes nothing.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PROFILE_VERSION = "ap-1"
SILENCE_DBFS = -120.0
_MAX_SNR_DB = 80.0
_CLIP_MAGNITUDE = 0.999
_FRAME_S = 0.020
_DIGITAL_SILENCE = 1e-10
_MIN_DYNAMIC_DB = 3.0
_SPEECH_POSITION = 0.35
_SPEECH_BELOW_LOUD_DB = 35.0
_BAND_HZ = 125.0
_MAX_SPECTRA = 3_000
_BANDWIDTH_BELOW_PEAK_DB = 60.0
_NOTHING_BELOW_PEAK_DB = 40.0
_ABOVE_FLOOR_DB = 10.0


@dataclass(frozen=True, kw_only=True)
class AudioProfile:
    """The measured condition of one recording."""

    duration_s: float
    """Seconds."""
    level_dbfs: float
    """Root-mean-square level; -120 for silence."""
    peak_dbfs: float
    """Level of the largest sample; -120 for silence."""
    clipping_ratio: float
    """Share of samples at full scale, 0 to 1."""
    dc_offset: float
    """Mean sample, -1 to 1."""
    snr_db: float
    """Loud frames against quiet frames, 0 to 80; see ``profile``."""
    bandwidth_hz: float
    """Upper edge of the highest band that carries signal; 0 for silence."""
    speech_ratio: float
    """Share of frames that stand out from the background, 0 to 1."""


def profile(samples_T: NDArray[np.float32], rate_hz: int) -> AudioProfile:
    """Measure mono samples (full scale 1.0).

    Frames of 20 ms. Noise is the 10th percentile of the frames' energy, digital silence left out;
    SNR is (mean of the frames above the median - noise) / noise, and 80 dB where no noise is left.
    A frame counts as speech where its level lies above 35 % of the way from noise to the 95th
    percentile, and within 35 dB of the latter; a steady signal (less than 3 dB between the two)
    counts as none. Values are rounded, so that the last bits of a platform's arithmetic do not
    show in manifests.
    """
    samples_T = np.nan_to_num(samples_T.astype(np.float32, copy=False), posinf=0.0, neginf=0.0)
    if not len(samples_T):
        return _silence(0.0)
    duration_s = len(samples_T) / rate_hz
    offset = float(samples_T.mean(dtype=np.float64))
    mean_square = float(np.einsum("i,i->", samples_T, samples_T, dtype=np.float64)) / len(samples_T)
    peak = float(np.abs(samples_T).max())
    if peak == 0.0:
        return _silence(duration_s)
    energy_N = _frame_energy(samples_T, max(1, round(rate_hz * _FRAME_S)))
    return AudioProfile(
        duration_s=duration_s,
        level_dbfs=round(max(SILENCE_DBFS, _db(mean_square)), 2),
        peak_dbfs=round(max(SILENCE_DBFS, 2 * _db(peak)), 2),
        clipping_ratio=round(float((np.abs(samples_T) >= _CLIP_MAGNITUDE).mean()), 6),
        dc_offset=round(offset, 6) + 0.0,  # never -0.0
        snr_db=round(_snr_db(energy_N), 1),
        bandwidth_hz=_bandwidth_hz(samples_T - np.float32(offset), rate_hz),
        speech_ratio=round(_speech_ratio(energy_N), 3),
    )


def _silence(duration_s: float) -> AudioProfile:
    return AudioProfile(
        duration_s=duration_s,
        level_dbfs=SILENCE_DBFS,
        peak_dbfs=SILENCE_DBFS,
        clipping_ratio=0.0,
        dc_offset=0.0,
        snr_db=0.0,
        bandwidth_hz=0.0,
        speech_ratio=0.0,
    )


def _db(power: float) -> float:
    return 10.0 * float(np.log10(max(power, 1e-30)))


def _frame_energy(samples_T: NDArray[np.float32], width: int) -> NDArray[np.float64]:
    """Variance of each frame, over the loudest frame's; the last, short frame is left out."""
    count = len(samples_T) // width
    frames_NT = samples_T[: count * width].reshape(count, width) if count else samples_T[None]
    square_N = np.einsum("nt,nt->n", frames_NT, frames_NT, dtype=np.float64) / frames_NT.shape[1]
    energy_N = np.maximum(square_N - frames_NT.mean(axis=1, dtype=np.float64) ** 2, 0.0)
    largest = energy_N.max()
    relative_N: NDArray[np.float64] = energy_N / largest if largest > 0 else energy_N
    # Below -100 dB of the loudest frame lies only rounding: digital silence.
    return np.where(relative_N > _DIGITAL_SILENCE, relative_N, 0.0)


def _snr_db(energy_N: NDArray[np.float64]) -> float:
    heard_N = energy_N[energy_N > 0]
    if not len(heard_N):
        return 0.0
    noise = float(np.percentile(heard_N, 10))
    loud = float(heard_N[heard_N >= np.median(heard_N)].mean())
    return min(_MAX_SNR_DB, max(0.0, _db((loud - noise) / noise)))


def _speech_ratio(energy_N: NDArray[np.float64]) -> float:
    heard_N = energy_N[energy_N > 0]
    if not len(heard_N):
        return 0.0
    noise_db, loud_db = 10.0 * np.log10(np.percentile(heard_N, [10, 95]))
    if loud_db - noise_db < _MIN_DYNAMIC_DB:
        return 0.0
    threshold_db = max(
        noise_db + _SPEECH_POSITION * (loud_db - noise_db), loud_db - _SPEECH_BELOW_LOUD_DB
    )
    return float((energy_N > 10.0 ** (threshold_db / 10.0)).mean())


def _bandwidth_hz(samples_T: NDArray[np.float32], rate_hz: int) -> float:
    """Upper edge of the highest 125 Hz band that carries signal.

    Speech falls off steeply, so a share of the energy would say 3 kHz for every voice. A band
    counts where its loud moments (98th percentile over time) come within 60 dB of the loudest
    band; and where the quietest band lies more than 40 dB below that, what comes within 10 dB of it
    is the resampler's or quantiser's noise and not signal.
    """
    power_NF, bin_hz = _power_spectra(samples_T, rate_hz)
    total_N = power_NF.sum(axis=1)
    power_NF = power_NF[total_N > _DIGITAL_SILENCE * total_N.max()]
    if not len(power_NF):
        return 0.0
    step = max(1, round(_BAND_HZ / bin_hz))
    # The bin at half the rate joins the last band: alone it would be noisier than any.
    edges = np.arange(0, power_NF.shape[1] - 1, step)
    bands_NB = np.add.reduceat(power_NF, edges, axis=1) / np.diff(edges, append=power_NF.shape[1])
    loud_B = np.percentile(bands_NB, 98, axis=0)
    peak = float(loud_B.max())
    level_B = 10.0 * np.log10(np.maximum(loud_B / peak, 1e-12))
    usual_B = 10.0 * np.log10(np.maximum(np.median(bands_NB, axis=0) / peak, 1e-12))
    floor_db = float(usual_B.min())
    threshold_db = -_BANDWIDTH_BELOW_PEAK_DB
    if floor_db < -_NOTHING_BELOW_PEAK_DB:
        threshold_db = max(threshold_db, floor_db + _ABOVE_FLOOR_DB)
    highest = int(np.flatnonzero(level_B > threshold_db)[-1])
    upper = edges[highest + 1] if highest + 1 < len(edges) else power_NF.shape[1] - 1
    return float(round(min(upper * bin_hz, rate_hz / 2), 1))


def _power_spectra(
    samples_T: NDArray[np.float32], rate_hz: int
) -> tuple[NDArray[np.float32], float]:
    """Hann power spectra of about 32 ms, at most 3,000 of them spread evenly over the recording."""
    size = 1 << max(5, int(np.ceil(np.log2(rate_hz * 0.03))))
    if len(samples_T) < size:
        samples_T = np.pad(samples_T, (0, size - len(samples_T)))
    count = min(_MAX_SPECTRA, 2 * (len(samples_T) // size))
    starts_N = np.linspace(0, len(samples_T) - size, count).astype(np.int64)
    frames_NT = np.lib.stride_tricks.sliding_window_view(samples_T, size)[starts_N]
    spectra_NF = np.fft.rfft(frames_NT * np.hanning(size).astype(np.float32), axis=1)
    return (spectra_NF.real**2 + spectra_NF.imag**2).astype(np.float32), rate_hz / size
