"""Sounds in which nobody speaks: made here, or cut from recordings where no voice is heard."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data.audio import load_mono_16k

Samples = NDArray[np.float32]
RATE_HZ = 16_000
_GAP_S = 0.4  # of a recording's margin that is worth cutting
_FADE = 160  # samples
_SPEECH_OF = "lj_reread"  # gives spectra: read prose, which nothing was chosen on


def made(seconds: float, seed: int, speech_T: Samples) -> dict[str, Samples]:
    """Every made kind by name; ``speech_T`` lends its spectrum and its syllables' rhythm only."""
    rng = np.random.default_rng(seed)
    count = int(seconds * RATE_HZ)
    time_T = np.arange(count) / RATE_HZ
    pink_T = _coloured(rng, count, 0.5)
    shaped_T = _without_phase(np.resize(speech_T, count), rng)
    rhythm_T = 1 + 0.95 * np.sin(2 * np.pi * 4 * time_T)
    hum_T = np.sin(2 * np.pi * 50 * time_T) + 0.5 * np.sin(2 * np.pi * 150 * time_T)
    glide_T = np.sin(2 * np.pi * np.cumsum(900 + 500 * np.sin(2 * np.pi * 0.9 * time_T)) / RATE_HZ)
    sounds = {
        "digital silence": np.zeros(count),
        "room at -60 dBFS": 1e-3 * rng.normal(size=count),
        "white noise": 0.05 * rng.normal(size=count),
        "pink noise": pink_T,
        "brown noise": _coloured(rng, count, 1.0),
        "mains hum": 0.1 * hum_T + 1e-3 * rng.normal(size=count),
        "pink noise, 4 Hz": pink_T * rhythm_T,
        "pink noise, bursts": pink_T * np.repeat(np.abs(rng.normal(size=count // 1600 + 1)), 1600)[:count],
        "speech-shaped noise": shaped_T,
        "speech-shaped noise, 4 Hz": shaped_T * rhythm_T,
        "clatter": _clicks(rng, count, per_s=4, decay_ms=(3, 40)),
        "keyboard": _clicks(rng, count, per_s=7, decay_ms=(1, 4)),
        "melody": _melody(rng, count),
        "siren": 0.1 * glide_T,
    }  # fmt: skip
    return {name: _bounded(sound_T) for name, sound_T in sounds.items()}


def recorded(folder: Path) -> dict[str, Samples]:
    """Real noises of a corpus folder, by the name of the recording."""
    return {
        row["id"]: load_mono_16k(folder / row["path"], name=row["id"])
        for row in _rows(folder)
        if row.get("kind") == "noise"
    }


def gaps(folder: Path, splits: Sequence[str], seconds: float) -> Samples:
    """Margins of recordings, before the first and behind the last loud frame, one after another."""
    parts: list[Samples] = []
    held = 0
    for row in _rows(folder):
        if row["split"] in splits and held < seconds * RATE_HZ:
            for part_T in _margins(load_mono_16k(folder / row["path"], name=row["id"])):
                parts.append(part_T)
                held += len(part_T)
    return np.concatenate(parts)[: int(seconds * RATE_HZ)]


def speech_of(corpora: Path, seconds: float) -> Samples:
    """Speech whose spectrum is lent."""
    folder = corpora / _SPEECH_OF
    parts: list[Samples] = []
    for row in _rows(folder):
        parts.append(load_mono_16k(folder / row["path"], name=row["id"]))
        if sum(map(len, parts)) >= seconds * RATE_HZ:
            break
    return np.concatenate(parts)


def _rows(folder: Path) -> Iterator[dict[str, str]]:
    with (folder / "manifest.jsonl").open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def _margins(samples_T: Samples) -> Iterator[Samples]:
    """A frame is loud that stands 10 dB above the quietest tenth; 0.1 s next to one is left out."""
    hop = RATE_HZ // 100
    power_T = (samples_T[: len(samples_T) // hop * hop].reshape(-1, hop) ** 2).mean(axis=1)
    level_T = 10 * np.log10(np.convolve(power_T, np.full(5, 0.2), mode="same") + 1e-10)
    loud = np.flatnonzero(level_T > np.percentile(level_T, 10) + 10)
    if not len(loud):
        return
    for part_T in (samples_T[: (loud[0] - 10) * hop], samples_T[(loud[-1] + 10) * hop :]):
        if loud[0] > 10 and len(part_T) >= _GAP_S * RATE_HZ:
            faded_T = part_T.copy()
            ramp_T = np.linspace(0, 1, _FADE, dtype=np.float32)
            faded_T[:_FADE] *= ramp_T
            faded_T[-_FADE:] *= ramp_T[::-1]
            yield faded_T


def _coloured(rng: np.random.Generator, count: int, slope: float) -> NDArray[np.float64]:
    spectrum_K = np.fft.rfft(rng.normal(size=count))
    spectrum_K /= np.maximum(np.arange(len(spectrum_K)), 20 * count / RATE_HZ) ** slope
    noise_T = np.fft.irfft(spectrum_K, count)
    return np.asarray(0.05 * noise_T / noise_T.std())


def _without_phase(samples_T: Samples, rng: np.random.Generator) -> NDArray[np.float64]:
    spectrum_K = np.abs(np.fft.rfft(samples_T))
    turned_K = spectrum_K * np.exp(1j * rng.uniform(0, 2 * np.pi, len(spectrum_K)))
    return np.asarray(np.fft.irfft(turned_K, len(samples_T)))


def _clicks(
    rng: np.random.Generator, count: int, *, per_s: float, decay_ms: tuple[float, float]
) -> NDArray[np.float64]:
    sound_T = 1e-3 * rng.normal(size=count)
    for at in rng.integers(0, count - RATE_HZ // 4, int(per_s * count / RATE_HZ)):
        decay = rng.uniform(*decay_ms) * RATE_HZ / 1000
        length = int(6 * decay)
        strike_T = rng.normal(size=length) * np.exp(-np.arange(length) / decay)
        sound_T[at : at + length] += rng.uniform(0.05, 0.4) * strike_T[: count - at]
    return sound_T


def _melody(rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    sound_T, at = 1e-4 * rng.normal(size=count), 0
    while at < count - RATE_HZ:
        length = int(rng.integers(RATE_HZ // 6, RATE_HZ))
        time_T = np.arange(length) / RATE_HZ
        pitch_hz = 196 * 2 ** (rng.integers(0, 24) / 12)
        harmonics = sum(np.sin(2 * np.pi * pitch_hz * n * time_T) / n for n in range(1, 7))
        sound_T[at : at + length] += 0.08 * harmonics * np.exp(-3 * time_T)
        at += length
    return sound_T


def _bounded(sound_T: NDArray[np.float64]) -> Samples:
    return np.clip(sound_T, -0.99, 0.99).astype(np.float32)
