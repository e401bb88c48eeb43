"""Where and over what a sentence is recorded: rooms, background noise, telephone lines.

Everything is computed from a seeded generator, at 16 kHz, on single-channel float32 waves.
"""

from collections.abc import Sequence

import numpy as np
import soxr

from data.units import SAMPLE_RATE_HZ, seconds_to_samples

TELEPHONE_RATE_HZ = 8_000
NOISES = ("white", "pink", "brown", "hum", "babble")

_SPEED_OF_SOUND_M_PER_S = 343.0
_REFLECTION_ORDER = 3
_TAIL_FROM_S = 0.03  # single reflections up to here, a diffuse tail after
_MU = 255.0
_SLOPES = {"white": 0.0, "pink": 0.5, "brown": 1.0, "hum": 1.0}  # amplitude ~ frequency ** -slope


def room_response(generator: np.random.Generator) -> np.ndarray:
    """Impulse response of a drawn shoebox room: early images one by one, then a decaying tail.

    The direct sound arrives at sample 0 with gain 1, so a transcript's times do not move.
    """
    size_3 = generator.uniform([2.5, 2.2, 2.3], [8.0, 6.0, 3.2])
    source_3, microphone_3 = (generator.uniform(0.15, 0.85, 3) * size_3 for _ in range(2))
    reverberation_s = float(generator.uniform(0.15, 0.6))
    absorption = float(generator.uniform(0.2, 0.5))
    distances_N, bounces_N = _images(size_3, source_3, microphone_3)
    direct_m = max(float(np.linalg.norm(source_3 - microphone_3)), 0.3)
    delays_N = (distances_N - direct_m) / _SPEED_OF_SOUND_M_PER_S
    gains_N = (1.0 - absorption) ** (bounces_N / 2) * direct_m / np.maximum(distances_N, direct_m)
    early_N = (delays_N >= 0) & (delays_N < 2 * _TAIL_FROM_S)
    response_T = np.zeros(seconds_to_samples(reverberation_s))
    places_N = np.minimum(
        np.rint(delays_N[early_N] * SAMPLE_RATE_HZ).astype(int), len(response_T) - 1
    )
    np.add.at(response_T, places_N, gains_N[early_N])
    times_T = np.arange(len(response_T)) / SAMPLE_RATE_HZ
    decay_T = 10.0 ** (-3.0 * times_T / reverberation_s)  # 60 dB over the reverberation time
    onset_T = np.clip(times_T / _TAIL_FROM_S, 0.0, 1.0)
    tail_gain = 0.02 * direct_m / np.sqrt(reverberation_s)
    response_T += tail_gain * generator.standard_normal(len(response_T)) * decay_T * onset_T
    return response_T


def reverberate(samples_T: np.ndarray, response_T: np.ndarray) -> np.ndarray:
    """The wave in the room, cut to its own length, at its own level."""
    length = 1 << (len(samples_T) + len(response_T) - 1).bit_length()
    spectrum = np.fft.rfft(samples_T, length) * np.fft.rfft(response_T, length)
    wet_T = np.fft.irfft(spectrum, length)[: len(samples_T)]
    return (wet_T * (_rms(samples_T) / max(_rms(wet_T), 1e-9))).astype(np.float32)


def without_rumble(samples_T: np.ndarray) -> np.ndarray:
    """The wave above 50 Hz: some voices drift far from zero."""
    spectrum = np.fft.rfft(samples_T)
    frequencies = np.fft.rfftfreq(len(samples_T), 1 / SAMPLE_RATE_HZ)
    kept = np.clip((frequencies - 30.0) / 30.0, 0.0, 1.0)
    return np.fft.irfft(spectrum * kept, len(samples_T)).astype(np.float32)


def noise(
    kind: str, length: int, generator: np.random.Generator, voices: Sequence[np.ndarray]
) -> np.ndarray:
    """Background noise of unit level; ``babble`` is five of ``voices`` at once."""
    if kind == "babble" and voices:
        chosen = generator.integers(len(voices), size=5)
        layers = [np.resize(np.roll(voices[c], int(generator.integers(1 << 16))), length)
                  for c in chosen]  # fmt: skip
        wave_T = np.sum(layers, axis=0)
    else:
        wave_T = _coloured(length, generator, _SLOPES.get(kind, 0.5))
    if kind == "hum":
        mains_hz = float(generator.choice([50.0, 60.0]))
        times_T = np.arange(length) / SAMPLE_RATE_HZ
        wave_T *= 0.3 / _rms(wave_T)
        for harmonic in range(1, 7):
            phase = generator.uniform(0, 2 * np.pi)
            wave_T += np.sin(2 * np.pi * mains_hz * harmonic * times_T + phase) / harmonic
    return (wave_T / max(_rms(wave_T), 1e-9)).astype(np.float32)


def add_noise(samples_T: np.ndarray, noise_T: np.ndarray, snr_db: float) -> np.ndarray:
    """Mix so that the speech stands ``snr_db`` above the noise; pauses do not count as speech."""
    loud_T = np.abs(samples_T) > 0.02 * float(np.max(np.abs(samples_T), initial=0.0))
    speech_rms = _rms(samples_T[loud_T]) if loud_T.any() else _rms(samples_T)
    return samples_T + noise_T * np.float32(speech_rms * 10 ** (-snr_db / 20))


def telephone(samples_T: np.ndarray) -> np.ndarray:
    """The wave after a telephone line, at 8 kHz: 300 to 3,400 Hz, eight-bit mu-law."""
    narrow_T = soxr.resample(samples_T, SAMPLE_RATE_HZ, TELEPHONE_RATE_HZ, quality="HQ")
    spectrum = np.fft.rfft(narrow_T)
    frequencies = np.fft.rfftfreq(len(narrow_T), 1 / TELEPHONE_RATE_HZ)
    low = np.clip((frequencies - 200.0) / 100.0, 0.0, 1.0)
    high = np.clip((3_600.0 - frequencies) / 200.0, 0.0, 1.0)
    band_T = np.clip(np.fft.irfft(spectrum * low * high, len(narrow_T)), -1.0, 1.0)
    coded_T = np.sign(band_T) * np.log1p(_MU * np.abs(band_T)) / np.log1p(_MU)
    steps_T = np.rint(coded_T * 127) / 127
    return (np.sign(steps_T) * np.expm1(np.abs(steps_T) * np.log1p(_MU)) / _MU).astype(np.float32)


def _images(
    size_3: np.ndarray, source_3: np.ndarray, microphone_3: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Distances of the mirror images of the source, and how many walls each has met."""
    orders = np.arange(-_REFLECTION_ORDER, _REFLECTION_ORDER + 1)
    grid_N3 = np.stack(np.meshgrid(orders, orders, orders, indexing="ij"), axis=-1).reshape(-1, 3)
    even_N3 = grid_N3 % 2 == 0
    places_N3 = grid_N3 * size_3 + np.where(even_N3, source_3, size_3 - source_3)
    return np.linalg.norm(places_N3 - microphone_3, axis=1), np.abs(grid_N3).sum(axis=1)


def _coloured(length: int, generator: np.random.Generator, slope: float) -> np.ndarray:
    size = 1 << max(length - 1, 1).bit_length()
    spectrum = np.fft.rfft(generator.standard_normal(size))
    frequencies = np.fft.rfftfreq(size, 1 / SAMPLE_RATE_HZ)
    wave: np.ndarray = np.fft.irfft(spectrum * np.maximum(frequencies, 40.0) ** -slope, size)
    return wave[:length]


def _rms(samples_T: np.ndarray) -> float:
    return (
        float(np.sqrt(np.mean(np.square(samples_T, dtype=np.float64)))) if samples_T.size else 0.0
    )
