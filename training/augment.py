"""Augmentation on log-mel features: channel, room and noise as power, SpecAugment at the end.

Everything takes the draw's generator and returns a new array; equal generators give equal results.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from training.config import AugmentConfig

Floats = NDArray[np.float32]

_NEPER_PER_DB = math.log(10.0) / 10.0  # features are natural logarithms of power
_FRAMES_PER_S = 100
_ROOM_TAPS = 24  # frames of late energy that are followed


def corrupt(
    x_TF: Floats,
    config: AugmentConfig,
    rng: np.random.Generator,
    other: Callable[[np.random.Generator], Floats],
) -> Floats:
    """Another mouth, room, microphone and noise; ``other`` draws a recording for babble."""
    if config.warp > 0:
        x_TF = x_TF @ warp_matrix(x_TF.shape[1], rng.uniform(-config.warp, config.warp))
    if rng.random() < config.room_chance:
        x_TF = reverberate(x_TF, rng.uniform(*config.room_t60_s), rng.uniform(0.1, 0.8))
    speech = speech_level(x_TF)
    if rng.random() < config.noise_chance:
        noise_TF = stationary_noise(x_TF.shape, rng)
        x_TF = mix(x_TF, noise_TF, speech - rng.uniform(*config.noise_snr_db) * _NEPER_PER_DB)
    if rng.random() < config.babble_chance:
        babble_TF = np.resize(other(rng), x_TF.shape)
        level = speech - rng.uniform(*config.babble_snr_db) * _NEPER_PER_DB
        x_TF = mix(x_TF, babble_TF, level - speech_level(babble_TF))
    gain_db = rng.uniform(-config.gain_db, config.gain_db)
    tilt_F = smooth_curve(x_TF.shape[1], config.tilt_db, rng)
    return x_TF + (gain_db + tilt_F).astype(np.float32) * np.float32(_NEPER_PER_DB)


def spec_augment(x_TF: Floats, config: AugmentConfig, rng: np.random.Generator) -> Floats:
    """Zero (the mean, after normalisation) random stretches of time and bands of frequency."""
    x_TF = x_TF.copy()
    frames, bins = x_TF.shape
    for _ in range(rng.poisson(config.time_masks_per_s * frames / _FRAMES_PER_S)):
        width = int(rng.integers(1, config.time_mask_frames + 1))
        start = int(rng.integers(0, max(1, frames - width)))
        x_TF[start : start + width] = 0.0
    for _ in range(config.mel_masks):
        width = int(rng.integers(0, min(bins, config.mel_mask_bins) + 1))
        start = int(rng.integers(0, bins - width + 1))
        x_TF[:, start : start + width] = 0.0
    return x_TF


def warp_matrix(bins: int, stretch: float) -> Floats:
    """``[F, F]``: right factor that reads each bin at ``(1 + stretch)`` times its place."""
    place_F = np.clip(np.arange(bins) * (1.0 + stretch), 0, bins - 1)
    low_F = np.minimum(place_F.astype(np.int64), bins - 2)
    share_F = (place_F - low_F).astype(np.float32)
    weights = np.zeros((bins, bins), np.float32)
    column_F = np.arange(bins)
    weights[low_F, column_F] = 1.0 - share_F
    weights[low_F + 1, column_F] += share_F
    return weights


def reverberate(x_TF: Floats, t60_s: float, late_share: float) -> Floats:
    """Add exponentially decaying late power with ``late_share`` of the direct energy."""
    decay = 10.0 ** (-6.0 / (t60_s * _FRAMES_PER_S))
    weights = decay ** np.arange(1, _ROOM_TAPS + 1)
    weights *= late_share / weights.sum()
    power_TF = np.exp(x_TF)
    total_TF = power_TF.copy()
    for lag, weight in enumerate(weights[: len(x_TF) - 1], start=1):
        if weight < 1e-4:
            break
        total_TF[lag:] += np.float32(weight) * power_TF[:-lag]
    return np.log(total_TF)


def speech_level(x_TF: Floats) -> float:
    """Log power per frame and bin of the louder tenth of a recording, mean over the bins."""
    power_T = np.exp(x_TF).mean(axis=1)
    return float(np.log(np.quantile(power_T, 0.9) + 1e-10))


def stationary_noise(shape: tuple[int, ...], rng: np.random.Generator) -> Floats:
    """Log power of noise with a random smooth spectrum, mean power 1 (a few spectral lines avg)."""
    frames, bins = shape
    curve_F = smooth_curve(bins, 8.0, rng) * _NEPER_PER_DB
    curve_F -= np.log(np.exp(curve_F).mean())
    # A mel bin sums a few spectral lines, each exponential: a gamma variable of unit mean.
    flicker_TF = rng.standard_gamma(3.0, size=(frames, bins), dtype=np.float32) / 3.0
    return np.log(flicker_TF + np.float32(1e-3)) + curve_F.astype(np.float32)


def mix(x_TF: Floats, noise_TF: Floats, offset: float) -> Floats:
    """Powers added, the noise's log power shifted by ``offset``."""
    return np.logaddexp(x_TF, noise_TF + np.float32(offset))


def smooth_curve(bins: int, deviation_db: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Random equaliser in dB: a line through a handful of control points."""
    points = rng.normal(0.0, deviation_db, size=6)
    return np.interp(np.linspace(0, 5, bins), np.arange(6), points)


def speech_bounds(x_TF: Floats) -> tuple[int, int]:
    """First and last + 1 frame that stand out from the recording's own quiet; all if none do."""
    loud_T = x_TF.mean(axis=1)
    window = min(9, len(loud_T))
    loud_T = np.convolve(loud_T, np.full(window, 1.0 / window), mode="same")
    quiet, peak = np.quantile(loud_T, 0.1), np.quantile(loud_T, 0.95)
    above = np.flatnonzero(loud_T > quiet + 0.3 * (peak - quiet))
    if peak - quiet < 1.0 or len(above) == 0:
        return 0, len(x_TF)
    return int(above[0]), int(above[-1]) + 1


def cut_silence(
    bounds: tuple[int, int], frames: int, margins: tuple[int, int], rng: np.random.Generator
) -> slice:
    """The stretch of a recording that is trained on: the speech and a margin on each side.

    ``margins`` in frames; which of them comes first is drawn.
    """
    before, after = margins if rng.random() < 0.5 else margins[::-1]
    return slice(max(0, bounds[0] - before), min(frames, bounds[1] + after))
