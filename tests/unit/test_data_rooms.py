import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import rooms
from data.units import SAMPLE_RATE_HZ


def _rms(samples_T: np.ndarray) -> float:
    return float(np.sqrt(np.mean(samples_T.astype(np.float64) ** 2)))


def _tone(hz: float, seconds: float = 1.0) -> np.ndarray:
    times_T = np.arange(int(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    return (0.5 * np.sin(2 * np.pi * hz * times_T)).astype(np.float32)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10**6))
def test_a_room_begins_with_the_direct_sound_and_dies_away(seed: int) -> None:
    response_T = rooms.room_response(np.random.default_rng(seed))
    assert np.isfinite(response_T).all()
    assert response_T[0] > 0.9
    quarter = len(response_T) // 4
    assert _rms(response_T[-quarter:]) < 0.1 * _rms(response_T[:quarter])


def test_a_room_keeps_length_and_level_and_smears_in_time() -> None:
    click_T = np.zeros(8000, np.float32)
    click_T[1000] = 0.5
    wet_T = rooms.reverberate(click_T, rooms.room_response(np.random.default_rng(3)))
    assert wet_T.shape == click_T.shape and wet_T.dtype == np.float32
    assert _rms(wet_T) == pytest.approx(_rms(click_T), rel=1e-3)
    assert np.abs(wet_T[:1000]).max() < 1e-6  # nothing is heard before it is said
    assert np.abs(wet_T[1010:]).max() > 1e-3


@pytest.mark.parametrize("kind", rooms.NOISES)
def test_noise_has_unit_level_and_its_own_colour(kind: str) -> None:
    voices = [_tone(300.0), _tone(900.0, 0.7)]
    wave_T = rooms.noise(kind, 16_001, np.random.default_rng(1), voices)
    assert wave_T.shape == (16_001,) and wave_T.dtype == np.float32
    assert _rms(wave_T) == pytest.approx(1.0, rel=1e-3)
    power = np.abs(np.fft.rfft(wave_T)) ** 2
    low_share = power[:1000].sum() / power.sum()
    assert low_share > 0.9 if kind in ("hum", "brown", "babble") else low_share < 0.9


@pytest.mark.parametrize("snr_db", [0.0, 10.0, 30.0])
def test_noise_is_mixed_at_the_asked_ratio_to_the_speech_not_to_the_pauses(snr_db: float) -> None:
    speech_T = np.pad(_tone(440.0), 16_000)
    noise_T = rooms.noise("white", len(speech_T), np.random.default_rng(0), [])
    added_T = rooms.add_noise(speech_T, noise_T, snr_db) - speech_T
    measured_db = 20 * np.log10(_rms(speech_T[16_000:-16_000]) / _rms(added_T))
    assert measured_db == pytest.approx(snr_db, abs=0.3)


def test_a_telephone_carries_its_band_only() -> None:
    heard = {hz: _rms(rooms.telephone(_tone(hz))) for hz in (60.0, 1000.0, 3000.0, 5500.0)}
    assert heard[1000.0] == pytest.approx(_rms(_tone(1000.0)), rel=0.05)
    assert heard[3000.0] == pytest.approx(heard[1000.0], rel=0.1)
    assert heard[60.0] < 0.02 and heard[5500.0] < 0.02
    assert len(rooms.telephone(_tone(1000.0))) == rooms.TELEPHONE_RATE_HZ


def test_rumble_goes_and_speech_stays() -> None:
    clean_T = rooms.without_rumble(_tone(150.0) + np.float32(0.25))
    assert abs(clean_T.mean()) < 1e-4
    assert _rms(clean_T) == pytest.approx(_rms(_tone(150.0)), rel=1e-2)
