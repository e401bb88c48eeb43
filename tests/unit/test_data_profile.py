from dataclasses import asdict

import numpy as np
import pytest
import soxr

from data.profile import profile

RATE_HZ = 16_000


def speechlike(seconds: float = 4.0, snr_db: float = 30.0, seed: int = 0) -> np.ndarray:
    """Bursts of wide noise, half of the time, on a quieter background."""
    generator = np.random.default_rng(seed)
    count = round(seconds * RATE_HZ)
    bursts_T = (np.arange(count) // 4_000) % 2
    burst_T = 0.1 * generator.normal(size=count) * bursts_T
    background_T = 0.1 * 10 ** (-snr_db / 20) * generator.normal(size=count)
    return (burst_T + background_T).astype(np.float32)


def test_a_full_scale_sine() -> None:
    wave_T = np.sin(2 * np.pi * 1_000 * np.arange(RATE_HZ) / RATE_HZ).astype(np.float32)
    measured = profile(wave_T, RATE_HZ)
    assert measured.duration_s == 1.0
    assert measured.level_dbfs == pytest.approx(-3.01, abs=0.01)
    assert measured.peak_dbfs == pytest.approx(0.0, abs=0.01)
    assert measured.bandwidth_hz == pytest.approx(1_000, abs=250)
    assert measured.speech_ratio == 0.0


@pytest.mark.parametrize("seconds", [0.0, 0.01, 1.0])
def test_silence(seconds: float) -> None:
    measured = profile(np.zeros(round(seconds * RATE_HZ), np.float32), RATE_HZ)
    assert (measured.level_dbfs, measured.peak_dbfs) == (-120.0, -120.0)
    assert (measured.snr_db, measured.bandwidth_hz, measured.speech_ratio) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("snr_db", [10, 20, 40])
def test_the_signal_to_noise_ratio_is_found(snr_db: float) -> None:
    assert profile(speechlike(snr_db=snr_db), RATE_HZ).snr_db == pytest.approx(snr_db, abs=1.5)


def test_steady_noise_has_neither_speech_nor_ratio() -> None:
    noise_T = np.random.default_rng(0).normal(0, 0.1, 48_000).astype(np.float32)
    measured = profile(noise_T, RATE_HZ)
    assert measured.snr_db < 1.0 and measured.speech_ratio == 0.0
    assert measured.bandwidth_hz == 8_000


def test_half_of_the_time_is_speech() -> None:
    assert profile(speechlike(), RATE_HZ).speech_ratio == pytest.approx(0.5, abs=0.03)


def test_digital_silence_is_not_taken_for_a_quiet_room() -> None:
    padded_T = np.concatenate([np.zeros(32_000, np.float32), speechlike(snr_db=20)])
    assert profile(padded_T, RATE_HZ).snr_db == pytest.approx(20, abs=2)


@pytest.mark.parametrize("level", [1.0, 0.05])
def test_telephone_bandwidth_shows_inside_a_wide_file(level: float) -> None:
    narrow_T = soxr.resample(speechlike(), RATE_HZ, 8_000)
    wide_T = soxr.resample(narrow_T, 8_000, RATE_HZ) * level
    stored_T = (np.rint(wide_T * 32_768) / 32_768).astype(np.float32)
    assert profile(stored_T, RATE_HZ).bandwidth_hz == pytest.approx(4_000, abs=250)
    assert profile(speechlike(), RATE_HZ).bandwidth_hz == 8_000


def test_clipping_and_offset() -> None:
    wave_T = 2 * np.sin(2 * np.pi * 100 * np.arange(RATE_HZ) / RATE_HZ)
    clipped = profile(np.clip(wave_T, -1, 1).astype(np.float32), RATE_HZ)
    assert clipped.clipping_ratio == pytest.approx(2 / 3, abs=0.01)
    shifted = profile(speechlike() + np.float32(0.25), RATE_HZ)
    assert shifted.dc_offset == pytest.approx(0.25, abs=0.01)
    assert shifted.snr_db == pytest.approx(profile(speechlike(), RATE_HZ).snr_db, abs=0.2)


def test_no_value_is_ever_nan() -> None:
    odd_T = np.array([np.nan, np.inf, -np.inf, 1e-30, 0.5], np.float32)
    for samples_T in (odd_T, odd_T[:1], np.full(400, 1e-20, np.float32)):
        assert all(np.isfinite(value) for value in asdict(profile(samples_T, RATE_HZ)).values())
